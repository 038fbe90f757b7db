"""Test results, by method."""

from cli.comparison import TESTED_METRICS
from cli.report.charts import Figure, Row, value_chart
from cli.report.parts.part import BENCH, SIMULATE, Part, metric_words
from cli.report.subject import Subject
from server_app.run_folder import SUMMARY


def results_part(subject: Subject) -> Part:
    """Recall and NDCG on test items, by method."""
    part = Part()
    if not subject.by_method:
        command = BENCH if subject.bench else SIMULATE
        part.lack("Test results, which a run has at its end", command, SUMMARY)
        return part
    for name in TESTED_METRICS:
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
        title = f"{metric_words(name)} on cold test items"
        several = " Small strokes are single seeds." if len(subject.seeds) > 1 else ""
        bar = f" The hollow dot is the best local rule, {subject.bar}." if subject.bar else ""
        part.figures.append(
            Figure(
                title,
                value_chart(f"{title}, by method", rows, metric_words(name)),
                f"Test items of {subject.where}.{several}{bar}",
                ("Method", metric_words(name)),
                [(row.label, f"{100 * row.value:.2f} %") for row in rows],
            )
        )
    return part
