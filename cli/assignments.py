"""``key=value`` pairs of a command line."""

import tomllib
from typing import Any

from common.errors import SnowdropError


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """``key=value`` pairs; a value is read as TOML where it is TOML, else as a string.

    Raises
    ------
    SnowdropError
        If a pair has no '='.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise SnowdropError(f"--set {assignment!r} has no '='; write --set key=value")
        try:
            values[key] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            values[key] = text
    return values
