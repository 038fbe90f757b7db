"""Every card: what it says must parse, and name what exists."""

import importlib.util
from typing import Any

import pytest

from client_app.synthesis.chosen import Chosen
from common import methods
from common.methods import FROZEN, Card, MethodSettings, Named, Variant
from common.methods.search import Number, OneOf, Range, Together
from common.roles import roles_of
from common.settings import RunSettings

CARDS = methods.cards()
TRAINED = [name for name, own in CARDS.items() if own.kind == "trained"]
SYNTHESIZERS = methods.synthesizers()
EVERY_FORM = {
    ":".join(filter(None, [name, variant, form])): own.kind
    for name, own in CARDS.items()
    for variant in ("", *own.all_variants)
    for form in ("tuned", "paper")
}
RANKING_FORMS = [text for text, kind in EVERY_FORM.items() if kind != "synthesizer"]
SYNTHESIZER_FORMS = [text for text, kind in EVERY_FORM.items() if kind == "synthesizer"]
SEARCHED = [(name, dimension) for name, own in CARDS.items() for dimension in own.search]


def known_settings(own: Card) -> set[str]:
    shared = set(RunSettings.model_fields) - {"groups"}
    groups = [own, *(CARDS[name] for name in TRAINED if own.parts)]  # it may set those of its parts
    return shared | {f"{one.name}.{name}" for one in groups for name in one.settings.model_fields}


def test_the_methods_of_this_project_are_all_there() -> None:
    """In the order of tables: federations first, then rules, the random order last."""
    assert list(CARDS) == [
        "one-round", "softmax-table", "mixture", "mdifffr", "ipfedrec", "ifedncf", "cs-fcf",
        "cs-fedncf",
        "similar-items", "ridge", "own-features", "group-fusion", "fcf", "fedncf", "pfedrec",
        "fedrap", "gfmfr", "kernel-ridge", "kernel-profile", "tfidf-profile",
        "content-profile", "random", *SYNTHESIZERS,
    ]  # fmt: skip
    kinds = [own.kind for own in CARDS.values()]
    synthesizers = ["synthesizer"] * len(SYNTHESIZERS)
    assert kinds == ["trained"] * 17 + ["rule"] * 4 + ["floor", *synthesizers]
    assert methods.names() == list(CARDS)[:22]
    assert SYNTHESIZERS == [
        "sdrm", "multivae-prior", "multivae", "ctgan", "tvae", "codigem", "diffrec",
    ]  # fmt: skip


@pytest.mark.parametrize("text", SYNTHESIZER_FORMS)
def test_every_form_of_every_synthesizer_parses(text: str) -> None:
    named = Named.parse(text)
    chosen = Chosen.of(text)
    values = {f"{named.card.name}.{k}": v for k, v in chosen.settings.model_dump().items()}
    brought = {**named.base(named.form), **named.fixed}
    assert {name: values[name] for name in brought} == brought


@pytest.mark.parametrize("text", RANKING_FORMS)
def test_every_form_of_every_method_parses(text: str) -> None:
    named = Named.parse(text)
    run = RunSettings.parse({"method": text})
    values = run.flat()
    assert run.method == Named(named.card, named.variant).name
    assert run.preset == ("paper" if named.form == "paper" else "default")
    assert {name: values[name] for name in named.fixed} == named.fixed
    brought = {**named.base(named.form), **named.fixed}
    assert {name: values[name] for name in brought} == brought
    assert RunSettings.read(values) == run
    assert run.training().card is named.card


@pytest.mark.parametrize("name", CARDS)
def test_what_a_card_sets_exists(name: str) -> None:
    own = CARDS[name]
    known = known_settings(own)
    told: list[Any] = [own.fixed, own.tuned, own.published]
    for variant in own.variants.values():
        told += [variant.fixed, variant.tuned, variant.published]
    assert all(set(values) <= known for values in told)
    assert issubclass(own.settings, MethodSettings)
    assert set(own.parts) <= set(own.settings.model_fields)
    assert own.tuned_like in ("", *CARDS)
    assert set(own.tasks) <= {"cold-items", "last-warm-item"}
    assert own.title
    for field in own.settings.model_fields:
        assert isinstance(roles_of(own.settings, field), list)


@pytest.mark.parametrize("name", CARDS)
def test_halves_are_modules_of_the_methods_name(name: str) -> None:
    """Found without being imported: `common` knows neither side."""
    own, module = CARDS[name], name.replace("-", "_")
    server = "" if own.kind == "synthesizer" else f"server_app.methods.{module}"
    assert own.server.split(":")[0] == server
    assert own.node.split(":")[0] in ("", f"client_app.methods.{module}")
    for half in filter(None, (own.server, own.node)):
        assert importlib.util.find_spec(half.split(":")[0]) is not None


@pytest.mark.parametrize("name", CARDS)
def test_methods_of_papers_name_them(name: str) -> None:
    paper = CARDS[name].paper
    assert (paper is not None) == (
        name
        in {
            "mdifffr",
            "ipfedrec",
            "ifedncf",
            "cs-fcf",
            "cs-fedncf",
            "fcf",
            "fedncf",
            "pfedrec",
            "fedrap",
            "group-fusion",
            "gfmfr",
            *SYNTHESIZERS,
        }
    )
    if paper is not None:
        assert paper.title
        assert paper.authors
        assert paper.arxiv or paper.venue


@pytest.mark.parametrize("name", CARDS)
def test_the_rows_of_comparisons_parse(name: str) -> None:
    for rows in CARDS[name].comparisons.values():
        for row in rows:
            written, *changes = row.split("@")
            values = dict(change.split("=") for change in changes)
            RunSettings.parse({"method": written, **values})
            assert Named.parse(written).card.name == name


@pytest.mark.parametrize("name", TRAINED)
def test_the_frozen_twin_is_the_method_without_its_federation(name: str) -> None:
    twin = RunSettings.parse({"method": f"{name}:{FROZEN}"})
    plain = RunSettings.parse({"method": name})
    assert twin.server_lr == 0
    assert plain.server_lr > 0
    differing = {k for k, v in twin.flat().items() if plain.flat()[k] != v}
    assert differing == {"method", "server_lr"}
    assert twin.title() == f"{plain.title()}, frozen"


@pytest.mark.parametrize("name", [name for name in CARDS if name not in TRAINED])
def test_what_is_not_trained_has_no_twin(name: str) -> None:
    assert FROZEN not in CARDS[name].all_variants


def test_variants_of_a_frozen_name_keep_their_own_settings() -> None:
    own = Card("a", "A", "trained", "m:C", variants={"b": Variant("B", {"dim": 3})})
    assert set(own.all_variants) == {"b", FROZEN}
    assert own.fixed_of("b") == {"dim": 3}
    assert own.fixed_of(FROZEN) == {"server_lr": 0.0}
    assert (own.title_of("b"), own.title_of(FROZEN), own.title_of("")) == ("B", "A, frozen", "A")


def test_the_ablations_change_what_they_say() -> None:
    changes = {
        variant: RunSettings.parse({"method": f"mdifffr:{variant}"}).changed()
        for variant in CARDS["mdifffr"].variants
    }
    for variant, changed in changes.items():
        assert changed.pop("method") == f"mdifffr:{variant}"
    assert changes == {
        "light": {"mdifffr.fit_steps": 1000},
        "no-guidance": {"mdifffr.guidance": "none"},
        "no-attention": {"mdifffr.attention": False},
        "zero-guidance": {"mdifffr.guidance": "zero"},
        "random-guidance": {"mdifffr.guidance": "random"},
        "random-start": {"table_start": "random"},
        "feature-start": {},  # the default
    }
    start = RunSettings.parse({"method": "mdifffr:feature-start:paper"})
    assert (start.table_start, start.dim) == ("features", 64)


@pytest.mark.parametrize("name", [n for n, own in CARDS.items() if own.tuned_like])
def test_a_method_takes_the_tuned_values_of_the_one_that_it_is_like(name: str) -> None:
    like = CARDS[name].tuned_like
    given = {like: {"head_lr": 0.625, "whitening": 0.75}}
    run = RunSettings.parse({"method": name}, tuned=given)
    assert (run.head_lr, run.whitening) == (0.625, 0.75)
    own = RunSettings.parse({"method": name}, tuned={**given, name: {"head_lr": 0.5}})
    assert (own.head_lr, own.whitening) == (0.5, 0.5)


class FixedTrial:
    """A trial that gives one choice of one dimension."""

    def __init__(self, choice: Any) -> None:
        self._choice = choice

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        assert low <= self._choice <= high
        assert not log or low > 0
        return float(self._choice)

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        assert self._choice in choices
        return self._choice


def choices_of(range_: Range) -> list[Any]:
    if isinstance(range_, Number):
        return [range_.low, range_.high, (range_.low + range_.high) / 2]
    if isinstance(range_, OneOf):
        return list(range_.values)
    assert isinstance(range_, Together)
    return list(range_.sets)


def parsed_with(own: Card, values: dict[str, Any]) -> dict[str, Any]:
    """All settings of a method with some changed, by their whole names."""
    if own.kind != "synthesizer":
        return RunSettings.parse({"method": own.name, **values}).flat()
    group = Chosen.of(own.name, values).settings.model_dump()
    return {f"{own.name}.{key}": value for key, value in group.items()}


@pytest.mark.parametrize(("name", "dimension"), SEARCHED, ids=str)
def test_every_choice_of_a_search_parses(name: str, dimension: str) -> None:
    own = CARDS[name]
    range_ = own.search[dimension]
    for choice in choices_of(range_):
        values = range_.suggest(FixedTrial(choice), dimension)
        assert set(values) <= known_settings(own)
        assert isinstance(range_, Together) or set(values) == {dimension}
        if any(key in own.fixed and own.fixed[key] != value for key, value in values.items()):
            continue  # `tune` leaves out what makes the method what it is
        parsed = parsed_with(own, values)
        assert {key: parsed[key] for key in values} == values
        if not isinstance(range_, Number):
            assert range_.choice_of(parsed, dimension) == choice
        else:
            assert range_.choice_of(parsed, dimension) == pytest.approx(choice, rel=1e-2)


def test_what_no_choice_makes_is_none() -> None:
    assert Number(1, 2).choice_of({"a": 3}, "a") is None
    assert OneOf([1, 2]).choice_of({"a": 3}, "a") is None
    assert Together({"x": {"a": 1, "b": 2}}).choice_of({"a": 1, "b": 3}, "any") is None


def test_numbers_have_three_digits() -> None:
    assert Number(0.1, 10).suggest(FixedTrial(1.23456), "a") == {"a": 1.23}
