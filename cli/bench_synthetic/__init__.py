"""`snowdrop bench-synthetic`: what synthetic users are worth to recommenders."""

from cli.bench_synthetic.command import bench_synthetic

__all__ = ["bench_synthetic"]
