"""The exceptions whose text is meant for the person at the keyboard."""

from collections.abc import Iterable
from difflib import get_close_matches


class SnowdropError(Exception):
    """Something the user can mend; its text says what is wrong, where, and what would be right."""


class OverflowedError(SnowdropError):
    """Numbers that a training made are NaN, Inf or too large to be kept or sent."""


class FormatError(SnowdropError):
    """A file that a later release wrote, so that nothing in it can be trusted."""


class PolicyError(SnowdropError):
    """A request outside what a node's owner agreed to; the server is sent its text, a fixed one."""


def near(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'NAME'?)`` with the most similar name; empty where none is similar."""
    found = get_close_matches(name, list(known), n=1)
    return f" (did you mean '{found[0]}'?)" if found else ""
