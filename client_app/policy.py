"""What this node's owner agrees to: a file on the node, checked before an interaction is read.

The server can neither read nor change it. It binds the app as it is: whoever may submit runs can
send another app to the nodes, which need not look at it.
"""

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common import messages
from common.durable import check_format
from common.errors import PolicyError, SnowdropError
from common.privacy import Cost
from common.roles import explain
from common.settings import LEAST, TrainingSettings
from common.toml import toml_value

FILE = "policy.toml"

PARTNERS = "partners.pub"
"""The file of partners that `snowdrop deploy init` writes."""

FORMAT = 1

Kind = Literal[
    "query.describe",
    "query.count",
    "query.synthetic",
    "query.recommend",
    "train",
    "train.heads",
    "evaluate",
]
"""Messages that an owner may refuse; that of the catalogue brings item ids, and asks nothing."""

KINDS: tuple[Kind, ...] = get_args(Kind)

SUMS = (messages.TRAIN, messages.EVALUATE, messages.QUERY_COUNT, messages.QUERY_DESCRIBE)
"""Messages whose answers are sums over this node's users."""

NOISELESS = (messages.EVALUATE, messages.QUERY_COUNT)
"""Messages whose answers never carry noise."""

REFUSALS = {
    "withdrawn": "it has withdrawn and takes part no more: shut its key out with `snowdrop deploy "
    "remove`",
    "answers": "this kind of message is not among those that it answers: do without it, or ask the "
    "owner to add it there",
    "methods": "this method is not among those that it takes part in: choose another one, or ask "
    "the owner to add it there",
    "largest_dim": "the item embeddings have more dimensions than it allows: lower dim, or ask the "
    "owner to raise it",
    "fewest_users": "the answer would be about fewer of its users than it allows: raise fraction, "
    "or do without this node",
    "secure_sums": "it answers under secure sums alone: set secure_sums = true, or do without this "
    "node",
    "fewest_participants": "the sum would be over fewer nodes than it allows: set secure_sums = "
    "true with more nodes, or do without this node",
    "partners": "the sum would hold a node that it does not know: give its owner the public key of "
    "that node, or do without this one",
    "without_noise": "it limits ε, and this answer would carry no noise of its own: set "
    "gaussian_scale or laplace_scale, or ask the owner to list this message there",
    "epsilon_round": "one round would cost more ε than it allows: raise the noise or lower "
    "clip_norm",
    "epsilon_total": "its ε is spent, or this round would exceed it: end the training at the last "
    "round, raise the noise, or do without this node",
}
"""What the server is told, by the entry of the policy that says no: fixed sentences, no ids."""


class Policy(BaseModel):
    """The entries of ``policy.toml``; without a file all have these defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = Field(FORMAT, ge=1, le=FORMAT)
    answers: tuple[Kind, ...] = Field(
        KINDS,
        description="messages that this node answers. query.count is not among them at first: two "
        "such questions with crafted catalogues tell interactions; warm_after needs it",
    )
    methods: tuple[str, ...] = Field((), description="methods that it takes part in; []: any")
    largest_dim: int = Field(
        1024, ge=1, description="most dimensions of an item embedding that it takes"
    )
    fewest_users: int = Field(
        1,
        ge=1,
        description="fewest of its users that an answer may be about. A plain sum over many users "
        "protects them no better than one over few: see docs/privacy.md",
    )
    secure_sums: bool = Field(
        False,
        description="answer under secure sums alone (setting secure_sums of the run), so that the "
        "server learns sums over several nodes and nothing of this one's part",
    )
    fewest_participants: int = Field(
        1,
        ge=1,
        description="fewest nodes in a sum; secure sums have at least three. A plain answer is a "
        "sum over one node",
    )
    partners: str = Field(
        "",
        description="file beside this one with the public keys of the nodes that may be in a "
        "secure sum with this one, one a line, its own among them; empty: any node, so that a "
        "server can invent the others",
    )
    epsilon_round: Annotated[float, Field(gt=0)] = Field(
        math.inf, description="largest ε of its users in one round; inf: no limit"
    )
    epsilon_total: Annotated[float, Field(gt=0)] = Field(
        math.inf,
        description="largest ε of its users in all, over all trainings; inf: no limit. The node "
        "counts in ledger.json in its state folder, and stops when it is spent",
    )
    delta: Annotated[float, Field(gt=0, lt=1)] = Field(1e-6, description="δ at which ε is counted")
    server_noise: bool = Field(
        False,
        description="count the noise that the server says it adds (noise_by = server) as noise. "
        "The node cannot check it: with true, its owner trusts the server",
    )
    without_noise: tuple[Kind, ...] = Field(
        (),
        description="messages that it answers without noise though it limits ε, such as evaluate, "
        "whose sums of metrics are then outside ε",
    )

    @classmethod
    def read(cls, path: Path | None) -> Self:
        """The policy of a file; that of the defaults without one.

        Raises
        ------
        SnowdropError
            If the file is missing, or is none: a node must not answer then.
        """
        if path is None:
            return cls()
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SnowdropError(
                f"the policy {path} cannot be read: {error.strerror}; `snowdrop deploy init` "
                "writes one"
            ) from error
        except ValueError as error:
            raise SnowdropError(f"the policy {path} is no TOML: {error}") from error
        if isinstance(number := values.get("format"), int):
            check_format(f"the policy {path}", number, FORMAT)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            told = explain(error, known=cls.model_fields).replace(
                "; `snowdrop settings` lists them all", ""
            )
            raise SnowdropError(f"the policy {path}: {told}") from error

    @property
    def limits_epsilon(self) -> bool:
        """Whether ε has a limit, so that what leaves must carry noise."""
        return math.isfinite(self.epsilon_total) or math.isfinite(self.epsilon_round)

    @property
    def allows_plain_sums(self) -> bool:
        """Whether it answers where the server sees the sum of this node alone."""
        return not self.secure_sums and self.fewest_participants == 1

    def may_be_bare(self, kind: str) -> bool:
        """Whether an answer of this kind may leave without noise."""
        return not self.limits_epsilon or kind in self.without_noise

    def check(self, kind: str, sums: "Sums | None" = None) -> None:
        """Refuse a message that this node does not answer.

        Parameters
        ----------
        kind : str
            The message's type.
        sums : Sums, optional
            How what is answered is added up; by default each node's answer is seen by itself.

        Raises
        ------
        PolicyError
        """
        self.check_kind(kind)
        if kind in SUMS:
            self.check_sums(sums or Sums())
        if kind in NOISELESS and not self.may_be_bare(kind):
            raise refusal("without_noise")

    def check_kind(self, kind: str) -> None:
        """Refuse a message of a kind that this node does not answer, whatever it holds.

        Raises
        ------
        PolicyError
        """
        if kind in KINDS and kind not in self.answers:
            raise refusal("answers")

    def summed(self) -> list[str]:
        """Messages that this node answers, and whose answers can be added up."""
        return [kind for kind in SUMS if kind not in KINDS or kind in self.answers]

    def check_sums(self, sums: "Sums") -> None:
        """Refuse to answer where too few answers are added up before anybody sees them.

        Raises
        ------
        PolicyError
        """
        if self.secure_sums and not sums.secure:
            raise refusal("secure_sums")
        if sums.participants < self.fewest_participants:
            raise refusal("fewest_participants")

    def check_training(self, settings: TrainingSettings) -> None:
        """Refuse a method or a size that this node does not take part in.

        Raises
        ------
        PolicyError
        """
        if self.methods and settings.card.name not in self.methods:
            raise refusal("methods")
        if settings.dim > self.largest_dim:
            raise refusal("largest_dim")

    def check_round(self, cost: Cost | None) -> None:
        """Refuse a round that costs more ε than is allowed.

        Parameters
        ----------
        cost : Cost or None
            None where the answer carries no noise that has an ε.

        Raises
        ------
        PolicyError
        """
        if cost is None:
            if not self.may_be_bare(messages.TRAIN):
                raise refusal("without_noise")
        elif cost.epsilon(self.delta) > self.epsilon_round:
            raise refusal("epsilon_round")

    def check_users(self, users: int) -> None:
        """Refuse an answer that would be about too few users; one about nobody may leave.

        Raises
        ------
        PolicyError
        """
        if 0 < users < self.fewest_users:
            raise refusal("fewest_users")


@dataclass(frozen=True)
class Sums:
    """How answers are added up before anybody sees them."""

    secure: bool = False
    participants: int = 1
    """Nodes in a sum: one where each node's answer is seen by itself."""


def refusal(entry: str) -> PolicyError:
    """The refusal by an entry of the policy."""
    return PolicyError(f"{entry}: {REFUSALS[entry]}")


def template(nodes: int) -> str:
    """The file that a new node gets.

    It has the defaults, but for `query.count` and the partners. Where there are enough nodes for
    secure sums, it wants them.

    Parameters
    ----------
    nodes : int
        Nodes of the federation, this one among them.
    """
    answers = [kind for kind in KINDS if kind != messages.QUERY_COUNT]
    secure = {"secure_sums": True, "fewest_participants": LEAST} if nodes >= LEAST else {}
    values = Policy(answers=tuple(answers), partners=PARTNERS, **secure).model_dump()
    lines = [
        "# What this node agrees to. Its owner may change everything here; the node reads it anew",
        "# for every message, and refuses what is outside it. The server cannot read or change it.",
        "# Whose runs are answered cannot be said here: Flower tells a node the number of a run,",
        "# and not who submitted it.",
    ]
    if secure:
        lines += [
            "#",
            *_comment(
                "With secure_sums and fewest_participants as below, the server sees this node's "
                f"sums only as parts of sums over {LEAST} nodes or more, and runs with "
                "secure_sums = false are refused."
            ),
        ]
    lines.append(f"format = {values.pop('format')}")
    for name, value in values.items():
        told = Policy.model_fields[name].description or ""
        written = list(value) if isinstance(value, tuple) else value
        lines += ["", *_comment(told), f"{name} = {toml_value(written)}"]
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    from textwrap import wrap

    return wrap(text, 96, initial_indent="# ", subsequent_indent="# ")
