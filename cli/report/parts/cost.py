"""Time and memory."""

from statistics import fmean

from cli.report.charts import Row, Unit
from cli.report.parts.part import Part, maker, value_figure
from cli.report.run import Run
from cli.report.subject import Subject
from server_app.run_folder import SUMMARY


def _seconds(value: float) -> str:
    if value >= 5400:
        return f"{value / 3600:.3g} h"
    return f"{value / 60:.3g} min" if value >= 600 else f"{value:.3g} s"


def _megabytes(value: float) -> str:
    return f"{value / 1000:.3g} GB" if value >= 1000 else f"{value:.3g} MB"


TIME = Unit(_seconds, _seconds)
MEMORY = Unit(_megabytes, _megabytes)


def cost_part(subject: Subject) -> Part:
    """Time and memory."""
    part = Part()
    if not subject.bench:
        if steps := _time_steps(subject.runs[0]):
            part.figures.append(value_figure(
                "Where the time went",
                [Row(name, value, (), 0) for name, value in steps], "wall-clock time", TIME,
                f"Wall-clock seconds of this run, {subject.where}; {_machine(subject.runs[0])}.",
            ))  # fmt: skip
        memory = subject.runs[0].summary.get("memory", {})
        rows = [
            Row(label, float(memory[key]), (), 0)
            for key, label in (("server_peak_rss_mb", "server"), ("peak_rss_mb", "largest process"))
            if isinstance(memory.get(key), int | float)
        ]
        if rows:
            part.figures.append(value_figure(
                "Peak memory", rows, "peak resident memory", MEMORY,
                f"Peak resident memory, {subject.where}; the largest process may be the server or "
                "a node.",
            ))  # fmt: skip
    else:
        for read, title, axis, unit, caption in (
            (lambda r: r.seconds, "Time of a run", "wall-clock time", TIME,
             "Wall-clock seconds of a whole run"),
            (lambda r: r.generator_seconds, "Time of the generator", "wall-clock time", TIME,
             "Seconds in which the generator trained, over a whole run"),
            (lambda r: r.memory_mb, "Peak memory", "peak resident memory", MEMORY,
             "Peak resident memory of the process"),
        ):  # fmt: skip
            rows = []
            for method in subject.ranking:
                values = [
                    v for r in subject.by_method.get(method, []) if (v := read(r)) is not None
                ]
                if values:
                    rows.append(
                        Row(
                            method,
                            fmean(values),
                            (),
                            subject.colours.get(method),
                            method == subject.main,
                        )
                    )
            if any(row.value for row in rows):
                part.figures.append(value_figure(
                    title, rows, axis, unit, f"{caption}, {subject.where}.",
                ))  # fmt: skip
    if not part.figures:
        part.lack("Time and memory", maker(subject), SUMMARY)
    return part


_BEFORE = {"encode_seconds": "encoding items", "start_seconds": "starting, with nodes"}
_IN_ROUNDS = {
    "train_seconds": "rounds of training",
    "generator_seconds": "training the generator",
    "evaluate_seconds": "validating",
}
_AFTER = {
    "test_seconds": "testing",
    "recommend_seconds": "lists of new items",
    "baselines_seconds": "baselines",
    "twin_seconds": "frozen twin",
}


def _time_steps(run: Run) -> list[tuple[str, float]]:
    """Steps of a run with their seconds, which add up to all that it took."""
    timing = run.summary.get("timing", {})
    rounds = [
        (label, float(sum(row.get(column) or 0.0 for row in run.rounds)))
        for column, label in _IN_ROUNDS.items()
    ]
    if (training := timing.get("training_seconds")) is not None:
        rest = training - sum(seconds for _, seconds in rounds)
        # Rounds before a run was resumed are none of its time.
        resumed = [("training, resumed", training)]
        rounds = [*rounds, ("other work in rounds", rest)] if rest >= 0 else resumed
    steps = [
        *((label, timing.get(name)) for name, label in _BEFORE.items()),
        *rounds,
        *((label, timing.get(name)) for name, label in _AFTER.items()),
    ]
    known = [(label, float(seconds)) for label, seconds in steps if seconds]
    rest = (timing.get("total_seconds") or 0.0) - sum(seconds for _, seconds in known)
    return [*known, ("all else", rest)] if rest > 0 else known


def _machine(run: Run) -> str:
    device = run.summary.get("memory", {}).get("device")
    return f"the server computed on {device}" if device else "device unknown"
