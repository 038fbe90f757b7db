"""`snowdrop simulate`: a whole federation on this machine, a thin front on `flwr run`.

It starts a SuperLink of its own on a free port with a Flower home of its own, submits the app,
shows its log, and ends what it started; the user's Flower configuration is never touched.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

import cli as this_package
from cli.assignments import parse_assignments
from cli.recommend import find_recommendations, recommendation_table, titles
from common.errors import SnowdropError
from common.settings import DEMO, KS, MORE, RunSettings, declared
from common.toml import toml_lines
from deploy.federation import free_ports
from deploy.flower import ENVIRONMENT, Flower, end, tool, wait_for_port

if TYPE_CHECKING:
    from client_app.interactions import NodeInteractions

CONNECTION = "snowdrop"
LOG = "superlink.log"
LOG_LETTERS = 1_000


def simulate(
    data: Annotated[str, typer.Argument(help="data folder, or 'demo' for generated demo data")],
    run_dir: Annotated[
        Path | None, typer.Option(help="where results go (default: runs/<time>-<data>)")
    ] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="number of simulated nodes")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="a setting; `snowdrop settings` lists all"),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(help="policy.toml of all simulated nodes: what they answer, and at which ε"),
    ] = None,
    tensorboard: Annotated[bool, typer.Option(help="write curves for TensorBoard too")] = False,
    verbose: Annotated[bool, typer.Option(help="show Flower's and Ray's own log too")] = False,
) -> None:
    """Train, test and recommend in a federation simulated on this machine."""
    from server_app.run_folder import RunFolder

    values = parse_assignments(set_ or [])
    if nodes is not None:
        values["nodes"] = nodes
    if policy is not None:
        values["policy"] = str(policy)
    if tensorboard:
        values["tensorboard"] = True
    name = Path(data).name
    folder = run_dir or Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{name}"
    if folder.exists() and not folder.is_dir():
        raise SnowdropError(f"{folder} is a file; give --run-dir a folder")
    values |= {"data": data, "run_dir": str(folder.absolute())}
    values |= checked_policy(values)
    settings = RunSettings.parse(values)
    RunFolder(Path(settings.run_dir)).refuse_training(settings, option="--set ")
    values["data"] = check_data(settings)
    settings = RunSettings.parse(values)
    typer.echo(f"starting a federation of {settings.nodes} nodes")
    run(settings, values, verbose)
    sample = sample_user(folder)
    if sample:
        typer.echo(f"\nnew items for {sample}, as its node keeps them:")
        table = recommendation_table(
            find_recommendations(folder, sample).head(5), titles(folder, None)
        )
        Console().print(table)
        typer.echo(f"more: snowdrop recommend {folder} --user {sample}")
    typer.echo(f"results are in {folder}: {', '.join(RunFolder(folder).results())}")
    typer.echo(f"all of it on one page: snowdrop report {folder}")


def checked_policy(values: Mapping[str, Any]) -> dict[str, str]:
    """The policy that settings name, as an absolute path; nothing where they name none.

    Raises
    ------
    SnowdropError
        If it is missing, or is no policy.
    """
    if not values.get("policy"):
        return {}
    from client_app.policy import Policy

    path = Path(str(values["policy"])).absolute()
    Policy.read(path)
    return {"policy": str(path)}


def check_data(settings: RunSettings, measured: str | None = None) -> str:
    """Check the data before anything is started; the folder that the run shall use.

    Parameters
    ----------
    settings : RunSettings
    measured : str, optional
        The split whose items somebody must have interacted with.

    Raises
    ------
    SnowdropError
        If it is the folder that results go to, it is malformed, no user could take part, nothing
        could be measured, or an encoder cannot be had.
    """
    if measured and not settings.tells_metrics:
        raise SnowdropError(
            "with noise nodes tell no metrics, so there is nothing to compare: --set "
            "release_metrics=true asks for them, outside ε"
        )
    from server_app.modality import check_encoders

    if settings.data == DEMO:
        check_encoders(None, settings)
        return DEMO
    from cli.prepare.folder import with_splits
    from client_app.interactions import arrange, interaction_files, read_interactions
    from common.catalogue import COLD_SPLITS
    from common.task import draws_cold
    from server_app.items import check_folder, load_catalogue

    folder = check_folder(Path(settings.data).absolute())
    if folder.resolve() == Path(settings.run_dir).resolve():
        raise SnowdropError(f"{folder} is the data folder; give results a folder of their own")
    folder = with_splits(folder, Path(settings.run_dir) / "data" / folder.name)
    catalogue = load_catalogue(settings.model_copy(update={"data": str(folder)}))
    check_encoders(folder, settings)
    cold = draws_cold(settings.task)
    if cold and "test" not in catalogue.splits:
        raise SnowdropError(f"the split of {folder} leaves no cold test item to recommend")
    files = interaction_files(folder)
    rows = read_interactions(files, timed=not cold)
    if rows.is_empty():
        raise SnowdropError(f"{files[0]} has a header and no rows: nobody has interacted")
    data = arrange(rows, catalogue)
    if data.unknown:
        typer.echo(
            f"warning: {data.unknown} interactions are with items that items.csv lacks; skipped"
        )
    if not data.users:
        raise SnowdropError(f"no user of {folder} has an interaction with a warm item")
    if not cold:
        _check_last_items(data, folder)
    elif measured and not len(data.by_split[measured].items):
        raise SnowdropError(
            f"nobody who takes part has an interaction with a {measured} item of {folder}: there "
            "is nothing to measure"
        )
    if data.users_without_warm:
        typer.echo(
            f"warning: {data.users_without_warm} users have no warm interaction and take no part"
        )
    for split in COLD_SPLITS if cold else ("warm",):
        if split in catalogue.splits and (count := len(catalogue.rows(split))) <= KS[0]:
            typer.echo(
                f"warning: {count} {split} items tell no methods apart by Recall@{KS[0]}: every "
                "ranking finds all of them"
            )
    return str(folder)


def _check_last_items(data: "NodeInteractions", folder: Path) -> None:
    """Refuse interactions of which none can be held out, or whose order cannot be told."""
    from client_app.tasks import measurable, times_of

    if not measurable(data):
        raise SnowdropError(
            f"no user of {folder} has three interactions with warm items: none can be held out, "
            "and there is nothing to measure"
        )
    try:
        times_of(data)
    except SnowdropError as error:
        raise SnowdropError(f"{folder}: {error}") from None


def sample_user(folder: Path) -> str | None:
    """The first user that some node of the run keeps recommendations for."""
    import polars as pl

    from client_app.lists import FILE

    for path in sorted((folder / "nodes").glob(f"*/{FILE}")):
        frame = pl.scan_parquet(path).select("user_id").head(1).collect()
        if frame.height:
            return str(frame["user_id"][0])
    return None


def run_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as `flwr run` takes them: it refuses keys that the app does not declare.

    Settings of other packages' methods travel in one key.
    """
    known = declared()
    config = {name: value for name, value in values.items() if name in known}
    others = {name: value for name, value in values.items() if name not in known}
    return config | ({MORE: toml_lines(others)} if others else {})


def run(settings: RunSettings, values: Mapping[str, Any], verbose: bool) -> None:
    """Run the app on a SuperLink of its own until it has ended.

    Raises
    ------
    SnowdropError
        If the run fails; its reason stands in the log above, or here where nothing was logged. If
        it is stopped with Ctrl-C, which also says what is kept.
    """
    app_folder = Path(this_package.__file__).resolve().parents[1]
    if not (app_folder / "pyproject.toml").exists():
        raise SnowdropError(
            f"{app_folder} has no pyproject.toml for `flwr run`: install Snowdrop with "
            "`pip install -e` from a clone"
        )
    federation = f"num-supernodes={settings.nodes} client-resources-num-cpus=1"
    outcome = None
    try:
        with (
            tempfile.TemporaryDirectory(prefix="snowdrop-") as home,
            superlink(Path(home)) as flower,
        ):
            config = Path(home) / "run.toml"
            config.write_text(toml_lines(run_config(values)), encoding="utf-8")
            submitted = flower.json(
                "run", str(app_folder), CONNECTION, "--run-config", str(config),
                "--federation-config", federation,
            )  # fmt: skip
            run_id = str(submitted["run-id"])
            try:
                explained = flower.follow(run_id, verbose)
                status = flower.status(run_id)
            except KeyboardInterrupt:
                typer.echo("\nstopping the run …", err=True)
                flower.call("stop", run_id, CONNECTION)
                raise
            outcome = status, explained, (Path(home) / LOG).read_text(errors="replace")
    except KeyboardInterrupt:
        if outcome is None:  # afterwards only the SuperLink is stopped
            raise SnowdropError(stopped(settings)) from None
    if outcome and outcome[0] != "finished:completed":
        raise SnowdropError(failure(*outcome))


def stopped(settings: RunSettings) -> str:
    """What is left of a run that was stopped, and how it goes on."""
    from server_app.run_folder import RunFolder

    if not RunFolder(Path(settings.run_dir)).holds_training:
        return "stopped before there was anything to keep; the same command begins anew"
    again = "the same command"
    if not settings.resume:
        again += " with --set resume=true"
    if settings.fresh:
        again += " in place of fresh=true"
    return f"stopped; the training in {settings.run_dir} is kept: {again} goes on with it"


def failure(status: str, explained: bool, flower_log: str) -> str:
    """Why a run failed, as a sentence.

    Parameters
    ----------
    status : str
        How it ended.
    explained : bool
        Whether its log was shown, so that the reason stands above.
    flower_log : str
        Log of the SuperLink that ran it.
    """
    if explained:
        return f"the run ended as {status}; its log above says why"
    said = flower_log.strip()[-LOG_LETTERS:]
    return f"the run ended as {status} before it logged anything; " + (
        f"Flower's own log ends with: {said}" if said else "Flower's own log is empty, too"
    )


@contextmanager
def superlink(home: Path) -> Iterator[Flower]:
    """A SuperLink for simulations on a free loopback port, ended with all it started."""
    (port,) = free_ports(1)
    environment = os.environ | {
        **ENVIRONMENT,
        "FLWR_HOME": str(home),
        "RAY_DISABLE_MEMORY_MONITOR": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "{CONNECTION}"\n'
        f'[superlink.{CONNECTION}]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    log_path = home / LOG
    with log_path.open("w") as log:
        process = subprocess.Popen(
            [
                tool("flower-superlink"), "--insecure", "--simulation", "--isolation", "subprocess",
                "--host", "127.0.0.1", "--port", str(port),
            ],
            env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        wait_for_port(port, process, log_path)
        yield Flower(environment, CONNECTION)
    finally:
        end(process)
