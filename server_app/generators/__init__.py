"""Generators: what makes a cold item's embedding. One method a file, chosen by name."""

from server_app.generators.base import Generator
from server_app.generators.diffusion import DiffusionGenerator
from server_app.generators.features import FeaturesGenerator
from server_app.generators.mapping import MappingGenerator
from server_app.generators.neighbours import NeighboursGenerator
from server_app.generators.ridge import RidgeGenerator

GENERATORS: dict[str, type[Generator]] = {
    "diffusion": DiffusionGenerator,
    "mapping": MappingGenerator,
    "neighbours": NeighboursGenerator,
    "ridge": RidgeGenerator,
    "features": FeaturesGenerator,
}

__all__ = ["GENERATORS", "Generator"]
