"""A trained method: a new item takes the embedding of the warm item that is most like it."""
