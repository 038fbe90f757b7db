"""What a federation gains with its number of users."""

import re
from statistics import fmean

from cli.comparison import FEWER
from cli.report.charts import COLOURS, PER_CENT, Figure, Series, line_chart
from cli.report.parts.part import Part, notes
from cli.report.subject import Subject

USERS = "users in the federation"


def curve_part(subject: Subject) -> Part:
    """Recall and NDCG against the number of users; no figure where no method ran with fewer.

    Lines are methods with several numbers of users; dashed ones are their frozen twins and the best
    local rule, which need no federation.
    """
    part = Part()
    for metric in ("recall@20", "ndcg@20"):
        lines = _lines(subject, metric)
        if not lines:
            continue
        title = f"{subject.words(metric)} against the number of users"
        sizes = sorted({x for line in lines for x, _ in line.points})
        values = [dict(line.points) for line in lines]
        part.figures.append(
            Figure(
                title,
                line_chart(title, lines, USERS, subject.words(metric), PER_CENT,
                           x_form=_count, x_log=True),
                f"{subject.ranked[0].upper()}{subject.ranked[1:]} of {subject.where}. Test users "
                "and items are the same for each number of users in the federation. Dashed lines "
                f"need no federation.{notes(lines)}",
                [USERS[0].upper() + USERS[1:], *(line.label for line in lines)],
                [
                    [_count(x), *(PER_CENT.value(v[x]) if x in v else "–" for v in values)]
                    for x in sizes
                ],
            )
        )  # fmt: skip
    return part


def _lines(subject: Subject, metric: str) -> list[Series]:
    points: dict[str, list[tuple[float, float]]] = {}
    for method, group in subject.by_method.items():
        users = [r.federation_users for r in group if r.federation_users]
        if users and metric in group[0].test and not group[0].twin_of:
            point = fmean(users), subject.mean(method, metric)
            points.setdefault(re.sub(FEWER, "", method), []).append(point)
    curves = {method: sorted(told) for method, told in points.items() if len(told) > 1}
    if not curves:
        return []
    ends = [x for told in curves.values() for x in (told[0][0], told[-1][0])]
    twins = [twin for method in curves if (twin := subject.comparison.twin(method))]
    level = [method for method in (*twins, subject.bar) if method]
    lines = [Series(method, told) for method, told in curves.items()]
    lines += [
        Series(method, [(x, subject.mean(method, metric)) for x in (min(ends), max(ends))],
               dashed=True)
        for method in level
    ]  # fmt: skip
    return [
        Series(line.label, line.points, place % COLOURS, dashed=line.dashed)
        for place, line in enumerate(lines)
    ]


def _count(users: float) -> str:
    return f"{users:,.0f}"
