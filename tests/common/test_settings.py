import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common import methods, settings
from common.errors import SnowdropError
from common.methods import Card, MethodSettings, Named
from common.roles import Role, fields_with, roles_of, setting
from common.settings import (
    DEFAULT_METHODS,
    NodeSettings,
    RunSettings,
    TrainingSettings,
    active_groups,
    base_values,
    cache_home,
    declared,
    described,
    flattened,
    given_by_command,
    names_with,
    snowdrop_home,
    weighted_modalities,
)
from tests.synthesizers import drawn

__all__ = ["drawn"]

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
RUNS = [
    {},
    {"method": "mixture", "preset": "paper"},
    {"method": "mdifffr:light", "mdifffr.steps": 7, "dim": 8},
    {"method": "ipfedrec", "ipfedrec.pull": 2.5},
    {"method": "mixture", "mixture.first": "ifedncf", "ifedncf.pull": 3, "mixture.share": 0.2},
    {"method": "cs-fedncf:frozen", "cs-fedncf.neighbours": 4},
    {"method": "kernel-ridge", "kernel-ridge.words": 0},
    {"method": "random", "task": "last-warm-item"},
]


def app_config() -> dict[str, Any]:
    config: dict[str, Any] = tomllib.loads(PYPROJECT.read_text())["tool"]["flwr"]["app"]["config"]
    return config


def test_flowers_run_configuration_lists_every_setting_unset() -> None:
    config = flattened(app_config())
    assert config == declared()
    assert set(config.values()) == {""}


def test_what_is_declared_is_every_setting_and_former_name() -> None:
    known = set(declared())
    assert {name for name, *_ in described()} <= known
    assert {"generator", "diffusion_steps", "method_settings"} <= known
    assert "groups" not in known


def test_empty_strings_mean_unset() -> None:
    assert RunSettings.parse(app_config()) == RunSettings.parse({})
    assert RunSettings.parse({}).changed() == {"rounds": 1}


def test_every_setting_has_a_description_and_roles_that_exist() -> None:
    for name, _, roles, meaning in described():
        assert meaning, name
        assert set(roles) <= set(Role), name


def test_a_nested_and_a_flat_form_are_the_same() -> None:
    flat = {"method": "mdifffr", "mdifffr.steps": 5, "mdifffr.width": 64}
    nested = {"method": "mdifffr", "mdifffr": {"steps": 5, "width": 64}}
    assert flattened(nested) == flat
    assert RunSettings.parse(nested) == RunSettings.parse(flat)


@pytest.mark.parametrize("values", RUNS, ids=str)
def test_what_is_written_down_is_read_back(values: dict[str, Any]) -> None:
    parsed = RunSettings.parse(values)
    stored = json.loads(json.dumps({**parsed.flat(), "format": 2}))
    assert RunSettings.read(stored) == parsed
    assert RunSettings.of_complete(parsed.flat()).flat() == parsed.flat()
    assert all(name in declared() for name in parsed.flat())


@pytest.mark.parametrize("values", RUNS, ids=str)
def test_what_differs_from_the_defaults_makes_the_same_run(values: dict[str, Any]) -> None:
    parsed = RunSettings.parse(values)
    again = RunSettings.of_complete(parsed.changed())
    neutral = {name for name, _, roles, _ in described() if Role.NEUTRAL in roles}
    assert {k: v for k, v in again.flat().items() if k not in neutral} == {
        k: v for k, v in parsed.flat().items() if k not in neutral
    }


@pytest.mark.parametrize("values", RUNS, ids=str)
def test_nodes_get_what_travels_and_nothing_else(values: dict[str, Any]) -> None:
    run = RunSettings.parse({**values, "data": "/secret/place", "run_dir": "/secret/run"})
    sent = json.loads(run.pack())
    shared = set(fields_with(TrainingSettings, Role.TRAVELS))
    groups = {
        f"{group}.{name}"
        for group, model in active_groups(run.flat()).items()
        for name in fields_with(model, Role.TRAVELS)
    }
    assert set(sent) == shared | groups
    assert sent == {name: run.flat()[name] for name in sent}
    assert "secret" not in run.pack()
    part = TrainingSettings.unpack(run.pack())
    assert type(part) is type(run.training()) is TrainingSettings
    assert part == run.training()
    assert {name: part.flat()[name] for name in sent} == sent
    assert part.pack() == run.pack()


def test_only_these_settings_travel_to_nodes() -> None:
    """Written out, so that a further one is a decision: nodes' owners read this list."""
    assert {name for name, _, roles, _ in described() if Role.TRAVELS in roles} == {
        "method", "task", "dim", "head", "head_start", "local_epochs", "batch_size", "negatives",
        "head_lr", "item_lr", "item_lr_per_item", "average", "fraction", "federated", "history",
        "clip_norm",
        "laplace_scale", "gaussian_scale", "noise_by", "noise_without_epsilon", "release_metrics",
        "wire_dtype",
        "keep_rounds", "seed", "mixture.first", "ipfedrec.pull",
        "ifedncf.pull", "fcf.solver", "fcf.confidence", "fcf.ridge", "fedncf.scorer_lr",
        "pfedrec.personal", "fedrap.difference", "fedrap.sparsity", "fedrap.schedule",
        "fedrap.own_scale", "fedrap.own_start", "fedrap.own_rate", "fedrap.keep",
        *(f"{name}.{own}" for name in ("fcf", "fedncf", "pfedrec", "fedrap")
          for own in ("item_lr_per_sample", "lr_decay")),
        *(f"gfmfr.{own}" for own in ("backbone", "fusion", "groups", "grouping", "distance",
                                     "weight", "balance", "fade_rounds", "temperature",
                                     "sharpness", "member_share")),
        "softmax-table.negatives", "group-fusion.groups", "group-fusion.distance",
        "group-fusion.grouping",
        "group-fusion.member_share",
    }  # fmt: skip


def test_what_belongs_to_a_run_or_a_server_does_not_travel() -> None:
    own = set(RunSettings.model_fields) - set(TrainingSettings.model_fields)
    assert {"data", "run_dir", "encoder", "server_lr", "max_update_norm"} <= own
    assert not own & set(names_with(Role.TRAVELS))
    assert not set(names_with(Role.OPERATION)) & set(names_with(Role.TRAVELS))
    assert set(names_with(Role.TRAVELS)) == set(TrainingSettings.model_fields) - {"groups"}


def test_a_mixture_sends_its_first_methods_pull() -> None:
    run = RunSettings.parse(
        {"method": "mixture", "mixture.first": "ipfedrec", "ipfedrec.pull": 2.5}
    )
    assert run.training().group("mixture").first == "ipfedrec"
    assert run.training().group("ipfedrec").pull == 2.5


@pytest.mark.parametrize("text", ['{"method": "mdifffr", "other": 1}', '{"method": "no-method"}'])
def test_settings_that_this_release_does_not_know_are_refused(text: str) -> None:
    with pytest.raises(SnowdropError, match="unknown"):
        TrainingSettings.unpack(text)


def test_the_preset_takes_what_the_method_brings() -> None:
    paper = RunSettings.parse({"method": "mdifffr", "preset": "paper"})
    published = methods.card("mdifffr").published
    assert {name: paper.flat()[name] for name in published} == published
    assert paper == RunSettings.parse({"method": "mdifffr:paper"})
    assert paper.method == "mdifffr"
    tuned = methods.card("cs-fcf").tuned
    run = RunSettings.parse({"method": "cs-fcf"})
    assert {name: run.flat()[name] for name in tuned} == tuned
    other = RunSettings.parse({"method": "cs-fcf"}, tuned={"cs-fcf": {"head_lr": 7.0}})
    assert (other.head_lr, other.group("cs-fcf").neighbours) == (7.0, 10)


def test_the_preset_of_a_mixture_is_the_published_method_alone() -> None:
    run = RunSettings.parse({"method": "mixture", "preset": "paper"})
    alone = RunSettings.parse({"method": "mdifffr", "preset": "paper"})
    assert run.group("mixture").share == 0
    assert run.group("mdifffr") == alone.group("mdifffr")
    assert run.head_lr == alone.head_lr == 0.1


def test_a_mixture_takes_its_first_methods_values() -> None:
    run = RunSettings.parse({"method": "mixture", "mixture.first": "cs-fcf"})
    assert (run.head, run.head_lr, run.group("cs-fcf").neighbours) == ("dot", 2.59, 5)
    base = base_values(Named.parse("mixture"), "tuned", {"mixture.first": "cs-fcf"}, {})
    assert base["item_lr"] == 17.1


def test_given_values_override_what_the_method_brings() -> None:
    parsed = RunSettings.parse(
        {"method": "mdifffr:paper", "dim": "32", "item_lr_per_item": "false", "mdifffr.lr": "0.5"}
    )
    assert (parsed.dim, parsed.item_lr_per_item, parsed.group("mdifffr").lr) == (32, False, 0.5)
    assert parsed.head_lr == 0.1


@pytest.mark.parametrize(
    ("written", "today"),
    [("snowdrop", "mixture"), ("light-mdifffr", "mdifffr:light"), (" ridge ", "ridge"),
     ("mdifffr:light:tuned", "mdifffr:light")],
)  # fmt: skip
def test_one_method_has_one_name_in_the_settings(written: str, today: str) -> None:
    parsed = RunSettings.parse({"method": written})
    assert parsed.method == today
    assert parsed == RunSettings.parse({"method": today})


@pytest.mark.parametrize(
    ("values", "title"),
    [
        ({}, "one round"),
        ({"method": "mixture"}, "MDiffFR + similar items"),
        ({"method": "mixture", "mixture.first": "ridge"}, "ridge map + similar items"),
        ({"method": "mixture:frozen"}, "MDiffFR + similar items, frozen"),
        ({"method": "mdifffr:light"}, "Light-MDiffFR"),
        ({"method": "ridge:frozen"}, "ridge map, frozen"),
    ],
)
def test_a_run_has_a_title(values: dict[str, Any], title: str) -> None:
    assert RunSettings.parse(values).title() == title


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"dimm": 3}, "unknown setting 'dimm' .did you mean 'dim'... `snowdrop settings` lists"),
        ({"mdiffr.steps": 3}, "unknown setting 'mdiffr.steps' .did you mean 'mdifffr'..."),
        (
            {"method": "mdifffr", "mdifffr.step": 3},
            "unknown setting 'mdifffr.step' .did you mean 'mdifffr.steps'...",
        ),
        ({"method": "mdifr"}, "method 'mdifr' is unknown .did you mean 'mdifffr'... choose from"),
        ({"secure_sums": "maybe"}, "setting 'secure_sums' is 'maybe': it must be true or false"),
        ({"groups": 3}, "unknown setting 'groups'; `snowdrop settings` lists them all"),
        ({"dim": 0}, "setting 'dim' is 0: it must be 1 or more"),
        ({"dim": "many"}, "setting 'dim' is 'many': it must be a whole number"),
        ({"fraction": 1.5}, "setting 'fraction' is 1.5: it must be 1 or less"),
        ({"head_lr": "nan"}, "setting 'head_lr' is 'nan'"),
        ({"head": "cubic"}, "setting 'head' is 'cubic': .*'linear', 'dot' or 'mlp'"),
        ({"preset": "best"}, "setting 'preset' is 'best': .*'default' or 'paper'"),
        ({"method": "best"}, "method 'best' is unknown; choose from .*mdifffr"),
        (
            {"method": "mdifffr", "mdifffr.steps": 1},
            "setting 'mdifffr.steps' is 1: it must be 2 or more",
        ),
        ({"method": "mdifffr", "mdifffr.stepps": 1}, "unknown setting 'mdifffr.stepps'"),
        ({"nobody.steps": 1}, "unknown setting 'nobody.steps'; `snowdrop settings` lists"),
        (
            {"method": "ridge", "mdifffr.steps": 5},
            "setting 'mdifffr.steps' belongs to the method mdifffr; the method of this run is",
        ),
        ({"laplace_scale": 0.1, "average": "touches"}, "laplace_scale needs average = users"),
        ({"laplace_scale": 0.1, "average": "users"}, "laplace_scale needs clip_norm"),
        (
            {"method": "one-round", "gaussian_scale": 4.0, "noise_by": "sum", "rounds": 2},
            "gaussian_scale with noise_by = sum needs average = users .*, clip_norm = 1 .*, "
            "secure_sums = true .*, nodes = 3 or more, rounds = 1 .* and release_metrics = true",
        ),
        (
            {"method": "mdifffr", "mdifffr.noise_scale": 50},
            "mdifffr.noise_scale · noise_max must be below 1",
        ),
        (
            {"method": "mdifffr", "mdifffr.noise_min": 0.5},
            "mdifffr.noise_min must not exceed noise_max",
        ),
        (
            {"method": "mdifffr", "mdifffr.guidance_scale": 2},
            "other than 1 needs mdifffr.condition_dropout above 0",
        ),
        (
            {"method": "mdifffr", "mdifffr.sampling_steps": 21},
            "mdifffr.sampling_steps must divide mdifffr.steps",
        ),
        (
            {"method": "mdifffr", "mdifffr.attention_heads": 3},
            "mdifffr.attention_heads = 3 must divide the denoiser's width 256",
        ),
        (
            {"method": "mdifffr", "mdifffr.denoiser": "paper", "dim": 6},
            "mdifffr.attention_heads = 4 must divide the denoiser's width 6",
        ),
        (
            {"method": "mdifffr", "table_start": "random", "mdifffr.target": "change"},
            "mdifffr.target = change needs table_start = features",
        ),
        (
            {"method": "own-features", "table_start": "random"},
            "own-features needs table_start = features",
        ),
        (
            {"task": "last-warm-item", "method": "kernel-ridge"},
            "kernel-ridge cannot rank for task = last-warm-item; choose with method one of mixture",
        ),
        ({"resume": True, "fresh": True}, "resume goes on and fresh begins anew"),
        (
            {"method": "mixture", "mixture.first": "content-profile"},
            "mixture.first = content-profile makes no embedd",
        ),
        (
            {"method": "mixture", "mixture.second": "fcf"},
            "mixture.second = fcf makes no embeddings of its own; choose",
        ),
        (
            {"method": "mixture", "mixture.second": "mixture"},
            "mixture.second = mixture makes no embeddings",
        ),
        ({"method": "mixture", "mixture.first": "similar-items"}, "must be two methods"),
        ({"method_settings": "a ="}, "method_settings cannot be read as TOML"),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SnowdropError, match=sentence) as caught:
        RunSettings.parse(values)
    assert "\n" not in str(caught.value)


def test_settings_of_other_packages_travel_in_one_key() -> None:
    toml = "dim = 16\n[mdifffr]\nsteps = 5\n"
    parsed = RunSettings.parse({"method": "mdifffr", "dim": 8, "method_settings": toml})
    assert (parsed.dim, parsed.group("mdifffr").steps) == (16, 5)
    dotted = RunSettings.parse({"method": "mdifffr", "method_settings": "mdifffr.steps = 5"})
    assert dotted.group("mdifffr").steps == 5


IDENTITY_OF_A_RUN = {
    "method": "ridge", "task": "last-warm-item", "dim": 8, "head": "dot", "modalities": "image",
    "modality": "text,image",
    "text_columns": "title", "encoder": "other", "image_encoder": "other", "pooling": "cls",
    "max_tokens": 99, "table_start": "random", "whitening": 0.25, "condition_dim": 3,
    "mixture.first": "ridge", "mixture.second": "cs-fcf", "mdifffr.target": "change",
    "mdifffr.optimizer": "sgd", "mdifffr.standardise": "none", "mdifffr.steps": 7,
    "mdifffr.schedule": "linear-variance", "mdifffr.noise_scale": 0.2, "mdifffr.noise_min": 2e-4,
    "mdifffr.noise_max": 0.03, "mdifffr.loss": "snr", "mdifffr.denoiser": "paper",
    "mdifffr.width": 64, "mdifffr.attention_heads": 2, "mdifffr.guidance": "none",
    "mdifffr.attention": False, "similar-items.target": "change", "seed": 4,
    "answer": "synthetic", "synthetic_nodes": 1, "synthesizer": "drawn", "synthetic_users": 5,
}  # fmt: skip
"""Another value of every setting that a training of a mixture keeps for life."""
MIXTURE = {"method": "mixture"}


def test_the_identity_is_every_setting_that_gives_numbers_their_meaning() -> None:
    began = RunSettings.parse(MIXTURE)
    assert set(began.identity()) == set(IDENTITY_OF_A_RUN)
    assert all(began.flat()[name] == value for name, value in began.identity().items())
    with_role = {
        name
        for name, _, roles, _ in described()
        if Role.IDENTITY in roles and name.partition(".")[0] in {*began.groups, name}
    }
    assert with_role == set(IDENTITY_OF_A_RUN)


@pytest.mark.parametrize("name", IDENTITY_OF_A_RUN)
def test_another_value_is_another_identity(name: str) -> None:
    began = RunSettings.parse(MIXTURE)
    if name in ("task", "answer"):  # which need another method, or one more setting
        other = began.model_copy(update={name: IDENTITY_OF_A_RUN[name]})
    else:
        other = RunSettings.of_complete({**began.changed(), name: IDENTITY_OF_A_RUN[name]})
    differing = {k for k, v in began.identity().items() if other.identity().get(k, v) != v}
    assert differing == {name}


@pytest.mark.parametrize(
    "values",
    [{"rounds": 99}, {"data": "/elsewhere"}, {"mdifffr.sampler": "ddim"}, {"head_lr": 1.0},
     {"mixture.share": 0.1}, {"mdifffr.fit_steps": 5}],
    ids=str,
)  # fmt: skip
def test_what_may_change_on_resume_is_no_identity(values: dict[str, Any]) -> None:
    assert RunSettings.parse(MIXTURE | values).identity() == RunSettings.parse(MIXTURE).identity()


def test_what_changes_no_result_is_not_among_the_changes() -> None:
    values = {
        "data": "/elsewhere", "run_dir": "/x", "resume": True, "server_device": "cpu", "nodes": 9,
        "nodes_timeout": 1, "round_timeout": 1, "baselines": False, "twin": False, "top": 3,
        "tensorboard": True, "encode_batch": 2, "encode_cache": "/c", "secure_sums": True,
        "log_format": "json", "metrics_address": "127.0.0.1:1",
    }  # fmt: skip
    assert RunSettings.parse(values).changed() == RunSettings.parse({}).changed()
    assert set(values) | {"preset", "fresh"} == set(names_with(Role.NEUTRAL))
    changes = {"rounds": 3, "one-round.ridge": 0.5, "seed": 4}
    assert RunSettings.parse({**values, **changes}).changed() == changes


def test_a_setting_that_a_later_release_adds_changes_no_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Later(RunSettings):
        new_shared: int = setting(3, "a setting of a later release")

    values = {"method": "ridge", "dim": 8}
    known = RunSettings.parse(values).changed()
    monkeypatch.setattr(settings, "RunSettings", Later)
    later = Later.parse(values)
    assert later.flat()["new_shared"] == 3
    assert later.changed() == known
    assert Later.parse({**values, "new_shared": 4}).changed() == {**known, "new_shared": 4}
    assert Later.read(RunSettings.parse(values).flat()) == later


def test_a_comparison_gives_these_settings_itself() -> None:
    given = given_by_command()
    assert {"data", "run_dir", "seed", "resume", "fresh", "mode"} <= set(given)
    assert all(given.values())
    assert roles_of(RunSettings, "dim") == [Role.IDENTITY, Role.TRAVELS]


@pytest.mark.parametrize(("task", "preset"), DEFAULT_METHODS)
def test_a_run_that_names_no_method_gets_that_of_its_task_and_preset(
    task: str, preset: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="snowdrop")
    method = DEFAULT_METHODS[task, preset]
    run = RunSettings.parse({"task": task, "preset": preset})
    assert run == RunSettings.parse({"task": task, "preset": preset, "method": method})
    assert preset == "default" or methods.card(method).published
    usual = method == RunSettings.model_fields["method"].default
    assert len(caplog.messages) == (not usual)


def test_the_log_tells_which_method_was_taken(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="snowdrop")
    RunSettings.parse({"preset": "paper"})
    RunSettings.of_run({"preset": "paper"}, 1, warn=False)  # as a node does
    RunSettings.parse({"task": "last-warm-item"})
    assert caplog.messages == [
        "no method is named: preset = paper takes mdifffr",
        "no method is named: task = last-warm-item takes pfedrec",
    ]
    named = {"task": "last-warm-item", "preset": "paper", "method": "fcf"}
    assert RunSettings.parse(named).method == "fcf"


def test_a_method_without_its_group_has_its_defaults() -> None:
    assert RunSettings().group("mdifffr").steps == 20
    with pytest.raises(SnowdropError, match="method 'nobody' is unknown"):
        RunSettings().group("nobody")


class OutsideSettings(MethodSettings):
    strength: int = setting(3, "how strong", Role.IDENTITY, Role.TRAVELS)


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> Card:
    own = Card("outside", "Outside", "trained", "outside.server:Half", settings=OutsideSettings)
    every = {**methods.cards(), "outside": own}
    monkeypatch.setattr(methods, "cards", lambda: every)
    return own


def test_settings_of_a_method_from_outside(outside: Card) -> None:
    toml = "[outside]\nstrength = 7\n"
    run = RunSettings.parse({"method": "outside", "method_settings": toml})
    assert run.group("outside").strength == 7
    assert run.training().group("outside").strength == 7
    assert run.identity()["outside.strength"] == 7
    assert "outside.strength" not in declared()
    assert "outside.strength" in {name for name, *_ in described()}


# Synthetic users: who makes them, and who answers with them.

SYNTHETIC = {"method": "ridge", "answer": "synthetic", "synthesizer": "drawn"}


@pytest.mark.parametrize(
    ("written", "epochs", "copies"),
    [("drawn", 2, 0.0), ("drawn:paper", 5, 0.0), ("drawn:copying", 2, 0.5)],
)
def test_a_synthesizer_brings_its_own_values(
    drawn: Card, written: str, epochs: int, copies: float
) -> None:
    run = RunSettings.parse({**SYNTHETIC, "synthesizer": written})
    assert (run.group("drawn").epochs, run.group("drawn").copies) == (epochs, copies)
    assert run.synthesizer == written
    again = RunSettings.parse({**SYNTHETIC, "synthesizer": written, "drawn.epochs": 9})
    assert again.group("drawn").epochs == 9
    assert RunSettings.read(json.loads(json.dumps(again.flat()))) == again
    assert RunSettings.of_complete(again.changed()).group("drawn") == again.group("drawn")
    assert "drawn" not in again.pack()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"synthesizer": ""}, "answer = synthetic needs synthesizer, one of .*drawn"),
        ({"synthesizer": "ridge"}, "the method ridge makes no synthetic users"),
        ({"nodes": 2, "synthetic_nodes": 3}, "synthetic_nodes = 3 is more than nodes = 2"),
        ({"answer": "updates", "drawn.epochs": 1}, "'drawn.epochs' belongs to the synthesizer"),
        ({"method": "drawn"}, "the method drawn makes synthetic users and ranks nothing"),
        ({"answer": "silence"}, "'answer' is 'silence'"),
    ],
)
def test_wrong_choices_of_synthetic_users_are_one_sentence(
    drawn: Card, values: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SnowdropError, match=sentence):
        RunSettings.parse({**SYNTHETIC, **values})


def test_what_makes_synthetic_users_counts_where_some_are_made(drawn: Card) -> None:
    here = RunSettings.parse({**SYNTHETIC, "nodes": 8}).changed()
    assert here.items() >= {"nodes": 8, "answer": "synthetic", "synthesizer": "drawn"}.items()
    others = {"synthesizer": "drawn", "synthetic_users": 3, "synthetic_nodes": 1, "nodes": 8}
    without = RunSettings.parse({"method": "ridge", **others})
    assert without.changed() == RunSettings.parse({"method": "ridge"}).changed()


def test_settings_of_a_synthesizer_of_this_repository_are_declared(
    drawn: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "drawn.epochs" not in declared()
    own = replace(drawn, node="client_app.synthesis.drawn:Drawn")
    with monkeypatch.context() as patched:
        patched.setattr(methods, "cards", lambda: {"drawn": own})
        assert "drawn.epochs" in declared()


@pytest.mark.parametrize(
    ("chosen", "answers"),
    [(0, ["both"] * 3), (1, ["both", "updates", "updates"]), (3, ["both"] * 3)],
)
def test_the_first_nodes_of_a_simulation_answer_with_synthetic_users(
    drawn: Card, chosen: int, answers: list[str]
) -> None:
    run = RunSettings.parse(
        {**SYNTHETIC, "answer": "both", "nodes": 3, "synthetic_nodes": chosen, "run_dir": "/x"}
    )
    shares = [{"partition-id": k, "num-partitions": 3} for k in range(3)]
    assert [NodeSettings.parse(share, run).answer for share in shares] == answers


OWN_FILES = {"interactions": "/data/mine.csv", "state-dir": "/state"}


def test_the_owner_of_a_deployed_node_says_how_it_answers(drawn: Card) -> None:
    told = RunSettings.parse(SYNTHETIC)  # which a server cannot make a node do
    assert NodeSettings.parse(OWN_FILES, told).answer == "updates"
    config = {**OWN_FILES, "answer": "both", "synthetic": "/data/made"}
    node = NodeSettings.parse(config, RunSettings())
    assert (node.answer, node.synthetic) == ("both", Path("/data/made"))


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"answer": "maybe"}, "has answer = 'maybe'; choose from updates, synthetic, both"),
        ({"answer": "synthetic"}, "answer = synthetic, which needs synthetic, the absolute path"),
        ({"answer": "both", "synthetic": "made"}, "answer = both, which needs synthetic"),
    ],
)
def test_an_owners_wrong_answer_is_one_sentence(config: dict[str, str], sentence: str) -> None:
    with pytest.raises(SnowdropError, match=sentence):
        NodeSettings.parse({**OWN_FILES, **config}, RunSettings())


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        RunSettings().dim = 3  # type: ignore[misc]


def test_a_simulated_node_is_a_partition() -> None:
    run = RunSettings.parse({"run_dir": "/runs/x", "seed": 9})
    node = NodeSettings.parse({"partition-id": 3, "num-partitions": 7}, run)
    assert (node.partition, node.partitions, node.secret_seed) == (3, 7, 9)
    assert node.state_dir == Path("/runs/x/nodes/00003")
    assert node.interactions is None


def test_a_deployed_node_has_its_own_files_and_secret() -> None:
    config = {"interactions": "/data/mine.csv", "state-dir": "/state", "partition-id": 1}
    node = NodeSettings.parse(config, RunSettings())
    assert (node.interactions, node.state_dir) == (Path("/data/mine.csv"), Path("/state"))
    assert (node.partition, node.partitions, node.secret_seed) == (0, 1, None)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"interactions": "/data/mine.csv"}, "interactions but no state-dir"),
        ({"interactions": "mine.csv", "state-dir": "/state"}, "must be absolute paths"),
        ({}, "needs interactions and state-dir"),
        ({"state-dir": "/state"}, "needs interactions and state-dir"),
    ],
)
def test_an_incomplete_node_configuration_is_refused(config: dict[str, str], sentence: str) -> None:
    with pytest.raises(SnowdropError, match=sentence):
        NodeSettings.parse(config, RunSettings())


def test_homes_follow_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNOWDROP_HOME", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert (snowdrop_home(), cache_home()) == (Path("/a"), Path("/b/snowdrop"))
    assert RunSettings.of_run({"data": "/d/mine"}, 7).run_dir == "/a/runs/7-mine"
    assert RunSettings.of_run({"run_dir": "/r"}, 7).run_dir == "/r"


def test_a_deployments_file_stands_between_preset_and_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "settings.toml"
    told = 'method = "mdifffr"\npreset = "paper"\nrounds = 7\ndim = 32\n[mdifffr]\nsteps = 12\n'
    path.write_text(told)
    monkeypatch.setenv("SNOWDROP_SETTINGS", str(path))
    run = RunSettings.of_run({"rounds": 9, "dim": ""}, 1)
    assert (run.rounds, run.dim, run.encoder) == (9, 32, "bert-base-uncased")
    assert run.group("mdifffr").steps == 12
    path.write_text("rounds = ")
    with pytest.raises(SnowdropError, match=r"settings\.toml cannot be read"):
        RunSettings.of_run({}, 1)
    path.unlink()
    with pytest.raises(SnowdropError, match=r"settings\.toml cannot be read"):
        RunSettings.of_run({}, 1)


def test_a_deployments_file_is_for_its_runs_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It once leaked into `bench` and `tune`, which parse settings of their own."""
    usual = RunSettings.parse({"method": "ridge"})
    path = tmp_path / "settings.toml"
    path.write_text("rounds = 7\ndim = 32\n")
    monkeypatch.setenv("SNOWDROP_SETTINGS", str(path))
    assert RunSettings.parse({"method": "ridge"}) == usual
    assert RunSettings.read(usual.flat()) == usual
    assert RunSettings.of_complete(usual.flat()) == usual
    assert TrainingSettings.unpack(usual.pack()) == usual.training()


def test_counts_of_users_are_not_asked_for_where_noise_hides_users() -> None:
    noise = {"laplace_scale": 0.1, "clip_norm": 1.0, "average": "users"}
    private = {"method": "ridge", **noise}
    with pytest.raises(SnowdropError, match="warm_after needs laplace_scale = 0"):
        RunSettings.parse({**private, "warm_after": 3})
    assert RunSettings.parse(private).warm_after == 0


def test_a_node_with_a_file_of_its_own_is_no_simulation(tmp_path: Path) -> None:
    run = RunSettings.parse({"run_dir": str(tmp_path)})
    files = {"interactions": str(tmp_path / "i.csv"), "state-dir": str(tmp_path / "s")}
    deployed = NodeSettings.parse(files, run)
    assert not deployed.simulated
    assert deployed.secret_seed is None
    assert NodeSettings.parse({"partition-id": 0, "num-partitions": 2}, run).simulated


@pytest.mark.parametrize(
    ("written", "kept", "weights"),
    [
        ("text", "text", {"text": 1}),
        (" image:0.50 + text", "image:0.5,text", {"image": 0.5, "text": 1}),
        ("text:1,audio:2e-3", "text,audio:0.002", {"text": 1, "audio": 0.002}),
    ],
)
def test_modalities_are_written_in_one_way(
    written: str, kept: str, weights: dict[str, float]
) -> None:
    settings = RunSettings.parse({"modality": written})
    assert settings.modality == kept
    assert weighted_modalities(kept) == weights


@pytest.mark.parametrize(
    "written", ["text,", "text+text:2", "text:0", "text:-1", "text:much", "text:inf", "text:nan"]
)
def test_modalities_that_are_none_are_refused(written: str) -> None:
    with pytest.raises(SnowdropError, match=r"setting 'modality' is .*: name each modality once"):
        RunSettings.parse({"modality": written})


@pytest.mark.parametrize("noise", ["laplace_scale", "gaussian_scale"])
def test_a_bound_too_small_to_compute_with_is_refused(noise: str) -> None:
    """Its square would be lost, and what it bounds would leave as it is, though ε would be 0."""
    values = {"average": "users", "clip_norm": 1e-170, noise: 1.0}
    settings = TrainingSettings.model_validate(values)
    with pytest.raises(ValueError, match=r"clip_norm must be at least 9.5"):
        settings.check_noise()
