"""What the page on privacy says of nodes' answers."""

import re
from pathlib import Path

_PAGE = Path(__file__).parents[1] / "docs" / "privacy.md"


def documented(kind: str) -> set[str]:
    """Fields of a node's answer to a message, as the page on privacy lists them."""
    rows = [row.split("|")[1:-1] for row in _PAGE.read_text().splitlines() if row[:1] == "|"]
    fields, here = set(), False
    for asked, told, *_ in rows:
        if asked.strip():
            here = kind in re.findall(r"`([^`]+)`", asked.partition(":")[0])
        if here:
            named = [part.partition(":")[0] for part in told.split(";") if ":" in part]
            fields |= set(re.findall(r"`([^`]+)`", " ".join(named)))
    return fields
