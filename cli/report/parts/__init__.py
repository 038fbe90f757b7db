"""The parts of the report: charts, and what a part lacks."""

from cli.report.parts.cost import cost_part
from cli.report.parts.curve import curve_part
from cli.report.parts.embeddings import MapPart, distance_part, map_part
from cli.report.parts.groups import Group, groups_of, groups_part
from cli.report.parts.learning import learning_part
from cli.report.parts.part import Part, maker
from cli.report.parts.people import people_part
from cli.report.parts.results import results_part

__all__ = [
    "Group",
    "MapPart",
    "Part",
    "cost_part",
    "curve_part",
    "distance_part",
    "groups_of",
    "groups_part",
    "learning_part",
    "maker",
    "map_part",
    "people_part",
    "results_part",
]
