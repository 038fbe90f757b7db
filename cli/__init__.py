"""The `snowdrop` command; the only code that may import both sides."""
