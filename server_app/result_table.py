"""The table that a run prints at its end."""

from collections.abc import Mapping
from typing import Any

from common.bar import BAR_METRIC, CONTROL, RULE, TWIN, best_local_rule, control_words
from common.metrics import metric_names
from common.settings import KS
from common.task import metric_label, metric_words, ranked_words, shown_metrics

_SHORT = {"recall": "R", "precision": "P", "ndcg": "N", "hr": "HR"}
_MEANING = {"R": "R recall", "P": "P precision", "N": "N ndcg", "HR": "HR hit rate"}


def result_table(summary: Mapping[str, Any]) -> str:
    """The method beside the baselines of the same run, on what was tested.

    Parameters
    ----------
    summary : Mapping[str, Any]
        What ``summary.json`` holds; its baselines have ``kind``, ``title`` and ``test``.
    """
    task = summary.get("task", "cold-items")
    names = metric_names(KS) if task == "cold-items" else shown_metrics(task)
    baselines = summary["baselines"]
    rows = {summary["method"]: summary["test"]}
    rows |= {parts["title"]: parts["test"] for parts in baselines.values()}
    note = " (generated data)" if summary["generated_data"] else ""
    width = max(len(name) for name in rows)
    parts = [metric_label(task, name).partition("@") for name in names]
    heads = [f"{_SHORT[metric]}@{k}" for metric, _, k in parts]
    meaning = ", ".join(dict.fromkeys(_MEANING[_SHORT[metric]] for metric, *_ in parts))
    lines = [
        f"{ranked_words(task)}{note}, {summary['tested_users']} users, per cent; {meaning}",
        " " * width + "".join(f"{head:>8}" for head in heads),
    ]
    for name, metrics in rows.items():
        cells = "".join(f"{100 * metrics[metric]:8.2f}" for metric in names)
        lines.append(f"{name:<{width}}{cells}")
    controls = [parts["title"] for parts in baselines.values() if parts["kind"] == CONTROL]
    if controls:
        lines.append(control_words(controls))
    metric = metric_words(BAR_METRIC, task)
    return "\n".join([*lines, *_synthetic(summary), *_against_no_federation(summary, metric)])


def _synthetic(summary: Mapping[str, Any]) -> list[str]:
    told = summary.get("synthetic", {})
    if not told.get("users"):
        return []
    return [
        f"trained on {told['users']} synthetic users of {told['silos']} nodes too, "
        f"{told['bytes_up'] / 1e6:.2f} MB in all, sent once"
    ]


def _against_no_federation(summary: Mapping[str, Any], metric: str) -> list[str]:
    baselines = summary["baselines"]
    own = summary["test"][BAR_METRIC]
    bar = best_local_rule(
        {name: parts["kind"] for name, parts in baselines.items()},
        {name: parts.get("validation", {}).get(BAR_METRIC) for name, parts in baselines.items()},
        {name: parts["test"].get(BAR_METRIC) for name, parts in baselines.items()},
    )
    lines = []
    if bar and (level := baselines[bar.name]["test"][BAR_METRIC]):
        chosen = "validation" if bar.validated else "test"
        lines.append(
            f"{own / level:.2f} times the {metric} of the best rule that needs no federation "
            f"({baselines[bar.name]['title']}, the best on {chosen} items)"
        )
        rules = [parts for parts in baselines.values() if parts["kind"] == RULE]
        best = max(rules, key=lambda parts: parts["test"].get(BAR_METRIC, 0.0))
        if (highest := best["test"].get(BAR_METRIC, 0.0)) > level:
            lines.append(
                f"on test items {best['title']} is ahead of that rule: {own / highest:.2f} times "
                f"its {metric}"
            )
    for parts in baselines.values():
        if parts["kind"] == TWIN:
            gain = 100 * (own - parts["test"][BAR_METRIC])
            lines.append(
                f"the federation adds {gain:+.2f} points of {metric} to the same method with the "
                "federation switched off"
            )
    return lines
