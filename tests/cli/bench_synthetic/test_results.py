"""Means, spreads and marks of a table's rows."""

import math

import pytest

from cli.bench_synthetic.results import Group, Line


def line(values: list[float], method: str = "drawn") -> Line:
    return Line("SVD", method, {"recall@10": values} if values else {})


def test_a_row_shows_its_mean_and_deviation() -> None:
    assert line([0.3, 0.4]).text("recall@10") == f"0.3500 ± {math.sqrt(0.005):.4f}"
    assert line([0.3]).text("recall@10") == "0.3000"
    assert line([]).text("recall@10") == "–"


@pytest.mark.parametrize(
    ("values", "mark"),
    [
        ([0.50, 0.52], "▲"),
        ([0.30, 0.32], "▼"),
        ([0.40, 0.43], ""),  # the deviations together are larger than the gap
        ([0.50], ""),
        ([], ""),
    ],
)
def test_a_mark_means_more_than_the_deviation_of_the_difference(
    values: list[float], mark: str
) -> None:
    assert line(values).mark(line([0.40, 0.42]), "recall@10") == mark


def test_the_edge_of_a_mark() -> None:
    base = line([0.40, 0.42])
    noise = math.hypot(base.deviation("recall@10"), base.deviation("recall@10"))
    for shift, mark in ((1.01, "▲"), (0.99, "")):
        above = line([0.40 + shift * noise, 0.42 + shift * noise])
        assert above.mark(base, "recall@10") == mark
    assert base.mark(base, "recall@10") == ""


def test_places_are_by_what_is_shown() -> None:
    lines = [line([0.30001]), line([0.30002]), line([0.2]), line([])]
    group = Group("SVD", lines)
    assert [group.place(each, "recall@10") for each in lines] == [0, 0, 2, 4]
