"""The card of a method: all that the rest of the project may know of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from common.methods.search import Range
from common.roles import SettingsModel

if TYPE_CHECKING:
    from common.settings import RunSettings

Values = Mapping[str, Any]
"""Settings by name; those of a method's own group are written ``mdifffr.steps``."""

FROZEN = "frozen"


class MethodSettings(SettingsModel):
    """The settings of one method's own group; a method without any has this one."""

    FORMER: ClassVar[Mapping[str, Any]] = {}
    """What the method did in releases before a setting existed, by the setting's name."""

    def check(self, run: "RunSettings", name: str) -> None:
        """Raise a ValueError where the group does not fit the shared settings of a run.

        Parameters
        ----------
        run : RunSettings
        name : str
            Name of the group, for the sentence.
        """

    def lacking_for_noise(self, run: "RunSettings") -> dict[str, str]:
        """What noise needs with this method that a run does not have.

        Parameters
        ----------
        run : RunSettings

        Returns
        -------
        dict
            By the name of a setting: what it must be, with why in brackets.
        """
        return {}


@dataclass(frozen=True)
class Paper:
    """Where a method comes from."""

    title: str
    authors: str
    arxiv: str = ""
    """The arXiv id, where there is one."""
    venue: str = ""


@dataclass(frozen=True)
class Variant:
    """A form of a method with a name of its own, such as an ablation.

    Parameters
    ----------
    title : str
    fixed : Mapping[str, Any]
        Settings that make it.
    tuned, published : Mapping[str, Any]
        Further settings of its tuned and of its published form.
    formerly : str
        A name of its own that it had, accepted for one release.
    """

    title: str
    fixed: Values = field(default_factory=dict)
    tuned: Values = field(default_factory=dict)
    published: Values = field(default_factory=dict)
    formerly: str = ""


@dataclass(frozen=True)
class Card:
    """A method, as settings, tables, searches and both sides of the federation know it.

    Parameters
    ----------
    name : str
        As it is written on a command line; also the name of its group of settings.
    title : str
        As tables and pages show it.
    kind : str
        'trained' in a federation; 'rule' where nothing but a user's own history and the items'
        features is needed; 'floor' for a random order; 'synthesizer' where it makes synthetic
        users, and ranks nothing.
    server : str
        Its server's half, as ``package.module:Class``: a `server_app.methods.base.Generator`
        or `server_app.methods.base.Method`; empty for a synthesizer.
    node : str
        Its node's half, as ``package.module:Class``: a `client_app.methods.base.NodeMethod`, or
        a `client_app.synthesis.base.Synthesizer`; empty where nodes train heads and score as for
        every other method.
    paper : Paper, optional
    settings : type[MethodSettings]
        Its own group of settings.
    fixed : Mapping[str, Any]
        Settings that make it this method.
    tuned : Mapping[str, Any]
        Tuned settings, over the defaults.
    tuned_like : str
        A method whose tuned settings it takes.
    published : Mapping[str, Any]
        Published settings, over the defaults.
    variants : Mapping[str, Variant]
    parts : tuple[str, ...]
        Settings of its own group that name other methods which it combines.
    search : Mapping[str, Range]
        What `snowdrop tune` may choose; empty where nothing is searched.
    item_table : bool
        Whether a trained method has an item table, of ``dim`` numbers for each item.
    tasks : tuple[str, ...]
        Tasks that it can be measured on, by name (`common.task`).
    control : bool
        Whether a run of another method shows it as a control, fitted to the same item table.
    scored_by_search : bool
        Whether the published evaluation of a synthesizer scored it in the script of its search,
        which lets its users stand alone where those of others stand beside real histories.
    comparisons : Mapping[str, tuple[str, ...]]
        Its rows in named groups of methods, such as a paper's table.
    order : int
        Its place in such groups.
    formerly : str
        A name that it had, accepted for one release.
    """

    name: str
    title: str
    kind: Literal["trained", "rule", "floor", "synthesizer"]
    server: str = ""
    node: str = ""
    paper: Paper | None = None
    settings: type[MethodSettings] = MethodSettings
    fixed: Values = field(default_factory=dict)
    tuned: Values = field(default_factory=dict)
    tuned_like: str = ""
    published: Values = field(default_factory=dict)
    variants: Mapping[str, Variant] = field(default_factory=dict)
    parts: tuple[str, ...] = ()
    search: Mapping[str, Range] = field(default_factory=dict)
    item_table: bool = True
    tasks: tuple[str, ...] = ("cold-items", "last-warm-item")
    control: bool = False
    scored_by_search: bool = False
    comparisons: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    order: int = 100
    formerly: str = ""

    @property
    def ranks_new_items(self) -> bool:
        """Whether it can rank items that nobody has touched."""
        return "cold-items" in self.tasks

    @property
    def has_dimensions(self) -> bool:
        """Whether the setting ``dim`` means anything to it."""
        return self.kind == "trained" and self.item_table

    @property
    def all_variants(self) -> dict[str, Variant]:
        """Its variants, with the frozen twin of a method that is trained in a federation."""
        if self.kind != "trained":
            return dict(self.variants)
        twin = Variant(f"{self.title}, frozen", {"server_lr": 0.0})
        return {**self.variants, FROZEN: twin}

    def fixed_of(self, variant: str) -> dict[str, Any]:
        """Settings that make a variant; '' is the method itself."""
        return {**self.fixed, **(self.all_variants[variant].fixed if variant else {})}

    def title_of(self, variant: str) -> str:
        """Title of a variant."""
        return self.all_variants[variant].title if variant else self.title
