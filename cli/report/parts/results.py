"""Test results, by method."""

from cli.report.charts import Figure, Row, value_chart
from cli.report.parts.part import Lack, Part, maker
from cli.report.subject import Subject
from server_app.run_folder import SUMMARY

_UNTOLD = (
    "they stay on the nodes, since metrics carry no noise (release_metrics=true asks for them, "
    "outside ε)"
)


def results_part(subject: Subject) -> Part:
    """Recall and NDCG on test items, by method."""
    part = Part()
    if not subject.by_method:
        what, command = "Test results", maker(subject)
        if all(run.settings and not run.settings.tells_metrics for run in subject.runs):
            part.missing.append(Lack(what, command, reason=_UNTOLD))
        else:
            part.lack(f"{what}, which a run has at its end", command, SUMMARY)
        return part
    for name in ("recall@20", "ndcg@20"):
        rows = [
            Row(
                method,
                subject.mean(method, name),
                [r.test[name] for r in subject.by_method[method] if name in r.test],
                subject.colours.get(method),
                method == subject.main,
            )
            for method in sorted(subject.by_method, key=lambda m: -subject.mean(m, name))
            if any(name in r.test for r in subject.by_method[method])
        ]
        if not rows:
            continue
        title = f"{subject.words(name)} on {subject.ranked}"
        several = " Small strokes are single seeds." if len(subject.seeds) > 1 else ""
        bar = f" The hollow dot is the best local rule, {subject.bar}." if subject.bar else ""
        part.figures.append(
            Figure(
                title,
                value_chart(f"{title}, by method", rows, subject.words(name)),
                f"{subject.ranked[0].upper()}{subject.ranked[1:]} of {subject.where}."
                f"{several}{bar}",
                ("Method", subject.words(name)),
                [(row.label, f"{100 * row.value:.2f} %") for row in rows],
            )
        )
    return part
