"""The generated demo catalogue: readable items from a small grammar over several domains.

Every item is about one theme of a domain; a theme is a handful of words that share a meaning.
Users (`client_app.demo`) like themes, so their taste shows only through what texts mean.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.catalogue import Catalogue, random_split
from common.settings import DEMO

MARK = "generated.json"
"""File of a data folder that tells how its items and interactions were generated."""

ITEMS = 1200
USERS = 1000
INTERACTIONS_PER_USER = 20


@dataclass(frozen=True)
class Domain:
    """A kind of thing, the forms its titles take, and themes with the words that tell them."""

    name: str
    forms: tuple[str, ...]
    blurbs: tuple[str, ...]
    themes: dict[str, tuple[str, ...]]


def is_generated(data: str) -> bool:
    """Whether nobody real is behind the data that the setting of that name says."""
    return data == DEMO or (Path(data) / MARK).is_file()


DOMAINS = (
    Domain(
        "book",
        ("The {a} and the {b}", "A History of {a}", "{a}, {b} and Other Stories", "Beyond the {a}"),
        (
            "A novel about {a} and {b}.",
            "Told by someone who lived with {a}.",
            "For all who love {a}.",
        ),
        {
            "sea": ("Ocean", "Lighthouse", "Harbour", "Whale", "Sailor", "Storm", "Island", "Tide"),
            "space": (
                "Galaxy",
                "Starship",
                "Moon",
                "Astronaut",
                "Comet",
                "Orbit",
                "Planet",
                "Nebula",
            ),
            "crime": (
                "Detective",
                "Murder",
                "Alibi",
                "Witness",
                "Evidence",
                "Thief",
                "Poison",
                "Trial",
            ),
            "court": ("King", "Castle", "Throne", "Knight", "Queen", "Duke", "Crown", "Banquet"),
            "maths": (
                "Theorem",
                "Prime Number",
                "Geometry",
                "Algebra",
                "Infinity",
                "Proof",
                "Circle",
            ),
            "war": ("Soldier", "Trench", "Battle", "Regiment", "Siege", "Front Line", "Armistice"),
        },
    ),
    Domain(
        "recipe",
        ("{a} with {b}", "Grandmother's {a}", "Quick {a} and {b}", "Baked {a} with {b}"),
        ("A dish of {a} and {b}, ready in half an hour.", "Serve the {a} warm.", "Rich in {b}."),
        {
            "dessert": (
                "Chocolate Cake",
                "Vanilla Cream",
                "Caramel",
                "Cookies",
                "Ice Cream",
                "Meringue",
            ),
            "fish": ("Salmon", "Tuna", "Shrimp", "Cod", "Seaweed", "Oysters", "Mackerel", "Squid"),
            "vegetables": ("Spinach", "Lentils", "Chickpeas", "Tofu", "Aubergine", "Kale", "Beans"),
            "grill": ("Beef Steak", "Pork Ribs", "Sausages", "Lamb Chops", "Bacon", "Burgers"),
            "bread": (
                "Sourdough",
                "Rye Bread",
                "Bagels",
                "Flatbread",
                "Brioche",
                "Pretzels",
                "Yeast",
            ),
            "curry": (
                "Curry",
                "Coconut Milk",
                "Chili",
                "Ginger",
                "Turmeric",
                "Basmati Rice",
                "Cumin",
            ),
        },
    ),
    Domain(
        "tool",
        ("{a} Set with {b}", "Compact {a}", "Professional {a} and {b}", "{a}, Heavy Duty"),
        ("Built for work with {a} and {b}.", "Comes with a spare {b}.", "The {a} that lasts."),
        {
            "garden": (
                "Spade",
                "Rake",
                "Watering Can",
                "Hedge Trimmer",
                "Wheelbarrow",
                "Seed Tray",
            ),
            "wood": (
                "Hand Saw",
                "Chisel",
                "Wood Plane",
                "Clamp",
                "Sandpaper",
                "Carpenter's Square",
            ),
            "electric": (
                "Soldering Iron",
                "Multimeter",
                "Cable Cutter",
                "Wire Stripper",
                "Fuse Box",
            ),
            "paint": ("Paint Roller", "Brush", "Easel", "Varnish", "Canvas", "Palette", "Primer"),
            "car": (
                "Torque Wrench",
                "Car Jack",
                "Engine Oil",
                "Spark Plug",
                "Tyre Gauge",
                "Brake Pads",
            ),
            "office": (
                "Stapler",
                "Paper Shredder",
                "Ring Binder",
                "Ink Cartridge",
                "Label Printer",
            ),
        },
    ),
    Domain(
        "film",
        ("{a} at Midnight", "Return of the {a}", "My {a}, Your {b}", "The Last {a}"),
        (
            "A film in which {one_a} meets {one_b}.",
            "You will never see {one_a} the same way.",
            "With {b}.",
        ),
        {
            "horror": (
                "Vampire",
                "Haunted House",
                "Zombie",
                "Curse",
                "Demon",
                "Graveyard",
                "Ghost",
            ),
            "romance": (
                "Wedding",
                "Love Letter",
                "First Kiss",
                "Sweetheart",
                "Honeymoon",
                "Bouquet",
            ),
            "sport": (
                "Football Team",
                "Boxer",
                "Marathon",
                "Coach",
                "Championship",
                "Racing Driver",
            ),
            "animals": ("Puppy", "Kitten", "Elephant", "Penguin", "Lion Cub", "Horse", "Dolphin"),
            "western": (
                "Cowboy",
                "Sheriff",
                "Saloon",
                "Gunslinger",
                "Gold Rush",
                "Outlaw",
                "Ranch",
            ),
            "music": ("Jazz Band", "Opera Singer", "Guitar", "Orchestra", "Pianist", "Drummer"),
        },
    ),
)

THEMES = tuple((domain, theme) for domain in DOMAINS for theme in domain.themes)


def item_themes(items: int, seed: int) -> np.ndarray:
    """Theme of each demo item, int64 (items,); known to both sides of a demo federation."""
    return np.random.default_rng([seed, 1]).integers(0, len(THEMES), items)


def item_ids(items: int) -> list[str]:
    """Ids of the demo items, sorted."""
    width = max(5, len(str(items)))
    return [f"item-{k:0{width}d}" for k in range(items)]


def demo_texts(items: int, seed: int) -> list[tuple[str, str]]:
    """Title and description of each demo item."""
    rng = np.random.default_rng([seed, 2])
    texts = []
    for theme in item_themes(items, seed):
        domain, name = THEMES[theme]
        words = [str(w) for w in rng.choice(domain.themes[name], 4, replace=False)]
        title = str(rng.choice(domain.forms)).format(a=words[0], b=words[1])
        a, b = words[2].lower(), words[3].lower()
        blurb = str(rng.choice(domain.blurbs)).format(a=a, b=b, one_a=_one(a), one_b=_one(b))
        texts.append((title, f"{domain.name.capitalize()}. {blurb}"))
    return texts


def _one(noun: str) -> str:
    """A noun in lower case with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def demo_catalogue(items: int, seed: int, all_warm: bool = False) -> Catalogue:
    """The demo items as the server sees them, split 6:1:3 or ``all_warm``."""
    texts = tuple(f"{title}. {description}" for title, description in demo_texts(items, seed))
    splits = ["warm"] * items if all_warm else random_split(items, seed)
    return Catalogue(tuple(item_ids(items)), tuple(splits), texts)
