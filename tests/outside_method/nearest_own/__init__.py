"""A rule that needs no federation: how near a new item is to the nearest of a user's own items."""
