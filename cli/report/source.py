"""What a report is made from: a run directory, or the folder of a comparison with many runs.

It reads what `snowdrop simulate` and `snowdrop bench` write, in today's format and in the one
before it. Whatever is missing or damaged leaves its part of the report empty; only a folder that
holds no result at all is an error.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from cli.report.others import other_folder, resembles_results
from cli.report.run import Run
from common.bar import TRAINED, TWIN
from common.errors import SnowdropError
from common.metrics import metric_names
from common.settings import KS
from server_app.run_folder import RunFolder, kind_in_format_1

_NEEDED = {"data", "method", "seed", "digest"}


@dataclass(frozen=True)
class Result:
    """One method's metrics in one run, as fractions."""

    data: str
    method: str
    seed: str
    kind: str = TRAINED
    twin_of: str = ""
    test: Mapping[str, float] = field(default_factory=dict)
    validation: Mapping[str, float] = field(default_factory=dict)
    seconds: float | None = None
    generator_seconds: float | None = None
    memory_mb: float | None = None
    diverged: bool = False
    federation_users: float | None = None


@dataclass(frozen=True, eq=False)
class Source:
    """All results of a folder, and the runs behind them."""

    folder: Path
    bench: bool
    results: list[Result]
    runs: list[Run]
    damaged: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """What could not be read so far, one sentence each, with paths inside the folder."""
        told = [*self.damaged, *(problem for run in self.runs for problem in run.problems)]
        return [problem.replace(f"{self.folder}/", "") for problem in dict.fromkeys(told)]


def read_source(folder: Path) -> Source:
    """Read a run directory or the folder of a comparison.

    Raises
    ------
    SnowdropError
        If it is neither, or a later release wrote it.
    """
    if not holds_results(folder):
        if other := other_folder(folder):
            instead = other.instead.format(folder=folder)
            raise SnowdropError(
                f"{folder} holds {other.holds}, of which there is no report: {instead}"
            )
        raise SnowdropError(
            f"{folder} holds no results; give a folder that `snowdrop simulate --run-dir` or "
            "`snowdrop bench --out` made"
        )
    if _is_bench(folder):
        return _read_bench(folder)
    run = Run(RunFolder(folder))
    _name(run, "run", "")
    return Source(folder, False, _results_of(run), [run])


def holds_results(folder: Path) -> bool:
    """Whether it is a run directory or the folder of a comparison."""
    return (_is_bench(folder) or RunFolder(folder).is_run) and not resembles_results(folder)


def _is_bench(folder: Path) -> bool:
    return (folder / "results.csv").exists() or (folder / "runs").is_dir()


def _name(run: Run, method: str, seed: str) -> None:
    """Say whose run it is, as far as its files tell, else as given."""
    run.method = str(run.summary.get("method") or method)
    run.seed = str(run.settings.seed) if run.settings else seed
    run.kind = str(run.summary.get("kind", TRAINED))


def _results_of(run: Run) -> list[Result]:
    """The run's own result, then those of its baselines."""
    summary = run.summary
    if not _numbers(summary.get("test")):
        return []
    own = Result(
        data=run.data,
        method=run.method,
        seed=run.seed,
        kind=run.kind,
        twin_of=str(summary.get("twin_of") or ""),
        test=_numbers(summary["test"]),
        validation=_numbers(summary.get("validation")),
        seconds=_number(summary.get("timing", {}).get("total_seconds")),
        generator_seconds=sum(row.get("generator_seconds") or 0.0 for row in run.rounds),
        memory_mb=_number(summary.get("memory", {}).get("peak_rss_mb")),
        diverged="broke_off" in summary,
    )
    others = []
    for parts in summary["baselines"].values():
        is_twin = parts["kind"] == TWIN
        others.append(
            Result(
                data=run.data,
                method=str(parts["title"]),
                seed=run.seed,
                kind=TRAINED if is_twin else str(parts["kind"]),
                twin_of=run.method if is_twin else "",
                test=_numbers(parts.get("test")),
                validation=_numbers(parts.get("validation")),
            )
        )
    return [own, *(other for other in others if other.method != own.method)]


def _read_bench(folder: Path) -> Source:
    damaged: list[str] = []
    rows = _rows(folder / "results.csv", damaged)
    told = [(str(row["digest"]), _result(row)) for row in rows]
    results = [result for _, result in told if result.test]
    of_digest: dict[str, dict[str, Result]] = {}
    for digest, result in told:  # methods with the same settings have the same digest
        of_digest.setdefault(digest, {})[result.method] = result
    runs = []
    for path in sorted((folder / "runs").glob("*/")):
        name, _, digest = path.name.rpartition("-")
        method, _, seed = name.rpartition("-")
        run = Run(RunFolder(path))
        if digest in of_digest:
            alike = of_digest[digest]
            own = alike.get(str(run.summary.get("method"))) or next(iter(alike.values()))
            run.method, run.seed, run.kind = own.method, own.seed, own.kind
        elif of_digest or not method:
            continue  # it belongs to an earlier comparison in the same folder
        else:
            _name(run, method, seed)
        runs.append(run)
    if not results:  # the comparison goes on, and has no table yet
        results = [result for run in runs for result in _results_of(run)[:1]]
    if not results and not runs:
        raise SnowdropError(f"{folder}/results.csv has no run yet; `snowdrop bench` makes them")
    return Source(folder, True, results, runs, damaged)


def _rows(path: Path, damaged: list[str]) -> list[dict[str, Any]]:
    """Rows of ``results.csv``, one per run; none where it is absent or damaged."""
    if not path.exists():
        return []
    try:
        text = dict.fromkeys(("data", "method", "digest", "kind", "twin_of"), pl.String)
        table = pl.read_csv(path, infer_schema_length=None, schema_overrides=text)
    except (OSError, pl.exceptions.PolarsError):
        damaged.append(f"{path} is damaged: it must be a CSV table")
        return []
    if lacking := sorted(_NEEDED - set(table.columns)):
        damaged.append(f"{path} is damaged: it has no column {', '.join(lacking)}")
        return []
    return table.to_dicts()


def _result(row: Mapping[str, Any]) -> Result:
    test, validation = (
        _numbers({name: row.get(f"{split}_{name}") for name in metric_names(KS)})
        for split in ("test", "validation")
    )
    method = str(row["method"])
    return Result(
        data=Path(str(row["data"])).name,
        method=method,
        seed=str(row["seed"]),
        kind=str(row["kind"]) if row.get("kind") else kind_in_format_1(method),
        twin_of=str(row.get("twin_of") or ""),
        test=test,
        validation=validation,
        seconds=_number(row.get("seconds")),
        generator_seconds=_number(row.get("generator_seconds")),
        memory_mb=_number(row.get("memory_mb")),
        diverged=bool(row.get("diverged")),
        federation_users=_number(row.get("federation_users")),
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _numbers(metrics: Any) -> dict[str, float]:
    told = metrics if isinstance(metrics, dict) else {}
    return {k: number for k, v in told.items() if (number := _number(v)) is not None}
