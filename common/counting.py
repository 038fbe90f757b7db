"""Counted things in sentences."""


def counted(number: int, noun: str) -> str:
    """A number and a noun whose plural ends in s: '1 round', '2 rounds'."""
    return f"{number} {noun}{'s' * (number != 1)}"
