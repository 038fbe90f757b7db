"""`snowdrop bench`: every method of a comparison on the same data, split and seeds."""

from cli.bench.command import bench

__all__ = ["bench"]
