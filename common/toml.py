"""Writing settings as TOML: the standard library only reads it."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

_PART = re.compile(r"[A-Za-z0-9_-]+")
_BARE = re.compile(rf"{_PART.pattern}(\.{_PART.pattern})*")


def toml_lines(values: Mapping[str, Any]) -> str:
    """One line ``key = value`` for each entry, each with its line break.

    Parameters
    ----------
    values : Mapping[str, Any]
        Strings, bools, ints, floats, and lists of these. A key of bare parts with dots between
        them (``mdifffr.steps``) is written as a dotted key; any other key is quoted as a whole.

    Returns
    -------
    str

    Raises
    ------
    TypeError
        If a value is of another type: TOML has no null, for example.
    """
    return "".join(f"{_key(key)} = {toml_value(value)}\n" for key, value in values.items())


def toml_value(value: Any) -> str:
    """One value as TOML.

    Raises
    ------
    TypeError
        If it is of a type that `toml_lines` does not take.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(float(value)) if math.isfinite(value) else str(float(value))
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(each) for each in value)}]"
    raise TypeError(f"TOML has no {type(value).__name__}: {value!r}")


def toml_key(part: str) -> str:
    """One part of a key, quoted where it must be."""
    return part if _PART.fullmatch(part) else toml_value(part)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else toml_value(key)
