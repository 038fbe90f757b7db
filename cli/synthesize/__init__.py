"""`snowdrop synthesize`: synthetic users in place of real ones, and what they give away."""

from cli.synthesize.command import synthesize

__all__ = ["synthesize"]
