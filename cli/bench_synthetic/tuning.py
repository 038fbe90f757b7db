"""`snowdrop tune-synthetic`: settings of synthesizers, searched on users who are never reported."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from cli.bench.runs import in_own_process
from cli.bench_synthetic.command import PRELOADED, FormerRuns, listed
from cli.bench_synthetic.names import MODES, PROTOCOLS, RECOMMENDERS, Mode, Protocol
from cli.search import as_choices, counted, failed, last_error, open_study, search
from common import methods
from common.durable import lock_folder, make_folder, write_atomic
from common.errors import SnowdropError
from common.toml import toml_key, toml_lines

if TYPE_CHECKING:
    from cli.bench_synthetic.methods import Row
    from cli.bench_synthetic.protocol import World

TUNED = "tuned.toml"
HELD_OUT = 0.2
"""Share of the users to train on who take the place of the reported ones."""


def tune_synthetic(
    data: Annotated[
        Path, typer.Argument(help="folder with train, test and validation, which cut the users")
    ],
    chosen: Annotated[
        str,
        typer.Option(
            "--methods",
            help=f"comma-separated, as for bench-synthetic: {', '.join(methods.synthesizers())}",
        ),
    ],
    out: Annotated[Path, typer.Option(help="where the journal and the best settings go")],
    recommender: Annotated[str, typer.Option(help=f"one of {', '.join(RECOMMENDERS)}")] = "svd",
    modes: Annotated[str, typer.Option(help="augment, replace, or the mean of both")] = ",".join(
        MODES
    ),
    protocol: Annotated[str, typer.Option(help="published or likes")] = "likes",
    trials: Annotated[int, typer.Option(min=1, help="settings to try of each method")] = 30,
    seeds: Annotated[int, typer.Option(min=1, help="trainings of each trial")] = 1,
    runs: FormerRuns = None,
    users: Annotated[
        int, typer.Option(min=0, help="synthetic users; 0: as many as there are to train on")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="of the search and of the users held out")] = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="a setting that is not searched"),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
) -> None:
    """Search settings of synthesizers by Recall@10, with as many trials for each of them."""
    from cli.bench_synthetic.methods import Row, shared_settings
    from cli.bench_synthetic.protocol import World
    from cli.bench_synthetic.runs import checksum_of
    from common.device import pick_device

    seeds = runs or seeds
    rows = {row.name: row for row in map(Row.parse, filter(None, chosen.split(",")))}
    for row in rows.values():
        check_searchable(row)
    if not rows:
        raise SnowdropError(f"no method is named; choose from {', '.join(able())}")
    name = only(listed(recommender, RECOMMENDERS, "--recommender"), "--recommender")
    which = cast(list[Mode], listed(modes, MODES, "--modes"))
    rule = cast(Protocol, only(listed(protocol, PROTOCOLS, "--protocol"), "--protocol"))
    shared = shared_settings(set_ or [])
    pick_device(device, "--device")
    world = World.read(data).held_out_part(HELD_OUT, seed)
    typer.echo(
        f"{len(world.train.users)} users to train on, {len(world.reported.users)} held out to "
        "search on; reported users take no part"
    )
    make_folder(out)
    with lock_folder(out, "give another --out"):
        for row in rows.values():
            told = [checksum_of(world), name, which, rule, seeds, users, seed, shared]
            study = open_study(out, f"{row.name} on {json.dumps(told, sort_keys=True)}", seed)
            attempt = Attempts(row, world, name, which, rule, seeds, users, shared, device)
            try:
                attempt.search(study, trials)
            except KeyboardInterrupt:
                raise SnowdropError(
                    f"stopped after {counted(study)} of {trials} trials of {row.name}; the same "
                    "command goes on"
                ) from None
            if lost := failed(study):
                last = last_error(study)
                typer.echo(f"{row.name}: {lost} of {trials} trials failed; the last: {last}")
            if not study.best_trials:
                continue
            values = study.best_trial.user_attrs["settings"]
            place = [data.resolve().name, name, row.tuned_as]
            keep(out / TUNED, place, values)
            typer.echo(
                f"# {trials} trials, Recall@10 {100 * study.best_value:.2f} % on users held out\n"
                f"{as_toml(place, values)}"
            )
    if not (out / TUNED).exists():
        raise SnowdropError("every trial of every method failed")
    typer.echo(
        f"best settings are in {out / TUNED}; `snowdrop bench-synthetic --tuned` takes the file"
    )


def able() -> list[str]:
    """Synthesizers whose card says what may be chosen."""
    return [name for name in methods.synthesizers() if methods.card(name).search]


def only(words: list[str], option: str) -> str:
    """The one word of a list.

    Raises
    ------
    SnowdropError
        If there are more.
    """
    if len(words) > 1:
        raise SnowdropError(f"{option} takes one of {', '.join(words)}")
    return words[0]


def check_searchable(row: "Row") -> None:
    """Raise a SnowdropError where nothing can be searched of a row."""
    if row.card is None or not row.card.search:
        raise SnowdropError(f"{row.name} has no search; choose from {', '.join(able())}")
    if row.changes:
        raise SnowdropError(f"{row.name}: give --set for a setting that is not searched")


class Attempts:
    """Trials of one synthesizer.

    Parameters
    ----------
    row : Row
    world : World
        Without reported users.
    recommender : str
    modes, protocol
        Whose Recall@10 counts.
    runs, users : int
        Trainings of each trial; synthetic users, 0 for as many as there are to train on.
    shared : Mapping[str, Any]
        What is not searched.
    device : str
    """

    def __init__(
        self,
        row: "Row",
        world: "World",
        recommender: str,
        modes: list[Mode],
        protocol: Protocol,
        runs: int,
        users: int,
        shared: Mapping[str, Any],
        device: str,
    ) -> None:
        assert row.card is not None
        assert row.named is not None
        self._row, self._card, self._world = row, row.card, world
        self._recommender, self._modes, self._protocol = recommender, modes, protocol
        self._runs, self._users, self._device = runs, users or len(world.train.users), device
        group = f"{row.card.name}."
        self._kept = {name: value for name, value in shared.items() if name.startswith(group)}
        fixed = {**self._kept, **row.named.fixed}
        self._space = {name: r for name, r in row.card.search.items() if name not in fixed}

    def search(self, study: Any, trials: int) -> None:
        """Try settings until ``trials`` of them are done; the first are those of now."""
        from cli.bench_synthetic.methods import Row

        forms = dict.fromkeys([self._row.name, f"{self._card.name}:paper"])
        known = []
        for form in forms:
            settings = Row.parse(form).settings({}, {}, "", "")
            assert settings is not None
            flat = {f"{self._card.name}.{k}": v for k, v in settings.model_dump().items()}
            known.append(as_choices(self._space, flat))
        search(study, self._row.name, self._space, known, self._attempt, trials)

    def _attempt(
        self, tried: Mapping[str, Any], tell: Callable[[], None]
    ) -> tuple[dict[str, Any], float]:
        from cli.bench_synthetic.work import worth

        values = {**tried, **self._kept}
        settings = self._row.settings({}, values, "", "")
        arguments = (
            self._row, settings, self._world, self._recommender, self._modes, self._protocol,
            self._runs, self._users, self._device,
        )  # fmt: skip
        return values, in_own_process(worth, arguments, tell, PRELOADED)


def keep(path: Path, place: list[str], values: Mapping[str, Any]) -> None:
    """Write a table of settings into a file, beside those that are there.

    Raises
    ------
    SnowdropError
        If the file that is there cannot be read, or the file cannot be written.
    """
    from cli.bench_synthetic.methods import read_tuned
    from common.settings import flattened

    tables: dict[tuple[str, ...], Mapping[str, Any]] = {}
    if path.exists():
        for data, recommenders in read_tuned([path]).items():
            for recommender, rows in recommenders.items():
                for row, settings in rows.items():
                    tables[data, recommender, row] = flattened(settings)
    tables[tuple(place)] = values
    text = "\n".join(as_toml(where, settings) for where, settings in tables.items())
    write_atomic(path, text.encode())


def as_toml(place: "list[str] | tuple[str, ...]", values: Mapping[str, Any]) -> str:
    """A table as `cli.bench_synthetic.methods.read_tuned` reads it."""
    return f"[{'.'.join(toml_key(part) for part in place)}]\n{toml_lines(values)}"
