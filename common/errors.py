"""The one exception whose text is meant for the person at the keyboard."""


class SnowdropError(Exception):
    """Something the user can mend; its text says what is wrong, where, and what would be right."""
