"""`snowdrop simulate`: a whole federation on this machine, a thin front on `flwr run`.

It starts a SuperLink of its own on a free port with a Flower home of its own, submits the app,
shows its log, and ends what it started; the user's Flower configuration is never touched.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import psutil
import typer
from rich.console import Console

import cli as this_package
from cli.prepare.folder import with_splits
from cli.recommend import find_recommendations, recommendation_table, titles
from client_app.interactions import interaction_files, read_interactions
from client_app.recommend import FILE
from common.errors import SnowdropError
from common.settings import DEMO, RunSettings
from server_app.app import load_catalogue

CONNECTION = "snowdrop"
_START_SECONDS = 60.0
_STOP_SECONDS = 15.0
_FLOWER_NOISE = re.compile(
    r"^\s*$|\x1b\[9[0-9]m|^(INFO|DEBUG|WARNING) *:|^Using SuperLink|^Successfully installed"
)
_FAILURE = re.compile(r"^snowdrop: ")


def simulate(
    data: Annotated[str, typer.Argument(help="data folder, or 'demo' for generated demo data")],
    run_dir: Annotated[
        Path | None, typer.Option(help="where results go [default: runs/<time>-<data>]")
    ] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="number of simulated nodes")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="a setting; `snowdrop settings` lists all"),
    ] = None,
    tensorboard: Annotated[bool, typer.Option(help="write curves for TensorBoard too")] = False,
    verbose: Annotated[bool, typer.Option(help="show Flower's and Ray's own log too")] = False,
) -> None:
    """Train, test and recommend in a federation simulated on this machine."""
    values = parse_assignments(set_ or [])
    if nodes is not None:
        values["nodes"] = nodes
    if tensorboard:
        values["tensorboard"] = True
    name = Path(data).name
    folder = run_dir or Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{name}"
    values |= {"data": data, "run_dir": str(folder.absolute())}
    settings = RunSettings.parse(values)
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
    typer.echo(f"results are in {folder}: summary.json, rounds.csv, metrics.png, embeddings.png")


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """``key=value`` pairs; a value is read as TOML where it is TOML, else as a string.

    Raises
    ------
    SnowdropError
        If a pair has no '='.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise SnowdropError(f"--set {assignment!r} has no '='; write --set key=value")
        try:
            values[key] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            values[key] = text
    return values


def check_data(settings: RunSettings) -> str:
    """Check the data before anything is started; the folder that the run shall use.

    Raises
    ------
    SnowdropError
        If it is malformed, or no user could take part.
    """
    if settings.data == DEMO:
        return DEMO
    folder = Path(settings.data).absolute()
    if not folder.is_dir():
        raise SnowdropError(f"the data folder {folder} does not exist")
    folder = with_splits(folder, Path(settings.run_dir) / "data")
    catalogue = load_catalogue(settings.model_copy(update={"data": str(folder)}))
    interactions = read_interactions(interaction_files(folder))
    index = catalogue.frame()
    known = interactions.join(index, on="item_id", how="inner")
    if (skipped := interactions.height - known.height) > 0:
        typer.echo(f"warning: {skipped} interactions are with items that items.csv lacks; skipped")
    warm = known.filter(pl.col("split") == "warm")["user_id"].n_unique()
    everyone = interactions["user_id"].n_unique()
    if not warm:
        raise SnowdropError(f"no user of {folder} has an interaction with a warm item")
    if everyone > warm:
        typer.echo(f"warning: {everyone - warm} users have no warm interaction and take no part")
    return str(folder)


def sample_user(folder: Path) -> str | None:
    """The first user that some node of the run keeps recommendations for."""
    for path in sorted((folder / "nodes").glob(f"*/{FILE}")):
        frame = pl.scan_parquet(path).select("user_id").head(1).collect()
        if frame.height:
            return str(frame["user_id"][0])
    return None


def run(settings: RunSettings, values: Mapping[str, Any], verbose: bool) -> None:
    """Run the app on a SuperLink of its own until it has ended.

    Raises
    ------
    SnowdropError
        If the run fails; its reason stands in the log above.
    """
    app_folder = Path(this_package.__file__).resolve().parents[1]
    if not (app_folder / "pyproject.toml").exists():
        raise SnowdropError(
            f"{app_folder} has no pyproject.toml for `flwr run`: install Snowdrop with "
            "`pip install -e` from a clone"
        )
    signal.signal(signal.SIGTERM, _interrupt)
    with tempfile.TemporaryDirectory(prefix="snowdrop-") as home, superlink(Path(home)) as flower:
        config = Path(home) / "run.toml"
        config.write_text(
            "".join(f"{k} = {json.dumps(v, ensure_ascii=False)}\n" for k, v in values.items()),
            encoding="utf-8",
        )
        federation = f"num-supernodes={settings.nodes} client-resources-num-cpus=1"
        submitted = flower.json(
            "run", str(app_folder), CONNECTION, "--run-config", str(config),
            "--federation-config", federation,
        )  # fmt: skip
        run_id = str(submitted["run-id"])
        try:
            flower.follow(run_id, verbose)
            status = flower.status(run_id)
        except KeyboardInterrupt:
            typer.echo("\nstopping the run …", err=True)
            flower.call("stop", run_id, CONNECTION)
            raise SnowdropError(
                f"stopped; what was trained is kept in {settings.run_dir}: the same command with "
                "--set resume=true goes on"
            ) from None
    if status != "finished:completed":
        raise SnowdropError(f"the run ended as {status}; its log above says why")


class Flower:
    """The `flwr` command, with a home of its own."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One `flwr` command, run to its end."""
        return subprocess.run(
            [tool("flwr"), *arguments],
            env=self._environment, capture_output=True, text=True, check=False,
            start_new_session=True,
        )  # fmt: skip

    def json(self, *arguments: str) -> Any:
        """The JSON that a `flwr` command prints.

        Raises
        ------
        SnowdropError
            If it fails, with what it printed.
        """
        done = self.call(*arguments, "--format", "json")
        try:
            answer = json.loads(done.stdout[done.stdout.index("{") :])
        except ValueError as error:
            raise SnowdropError(
                f"flwr {arguments[0]} failed: {done.stdout}{done.stderr}"
            ) from error
        if done.returncode or answer.get("success") is False:
            raise SnowdropError(
                f"flwr {arguments[0]} failed: {answer.get('error-message', answer)}"
            )
        return answer

    def follow(self, run_id: str, verbose: bool) -> None:
        """Show the log of a run until it ends."""
        process = subprocess.Popen(
            [tool("flwr"), "log", run_id, CONNECTION, "--stream"],
            env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            explained = False
            for line in process.stdout:
                # What follows our own sentence on a failure is Flower's traceback of it.
                if verbose or not (explained or _FLOWER_NOISE.search(line)):
                    sys.stdout.write(line)
                    sys.stdout.flush()
                explained = explained or bool(_FAILURE.search(line))
            process.wait()
        finally:
            end(process)

    def status(self, run_id: str) -> str:
        """Final status of a run, such as ``finished:completed``."""
        deadline = time.monotonic() + _START_SECONDS
        while True:
            status = str(self.json("ls", CONNECTION, "--run-id", run_id)["runs"][0]["status"])
            if status.startswith("finished") or time.monotonic() > deadline:
                return status
            time.sleep(0.5)


@contextmanager
def superlink(home: Path) -> Iterator[Flower]:
    """A SuperLink for simulations on a free loopback port, ended with all it started."""
    port = free_port()
    environment = os.environ | {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_DISABLE_MEMORY_MONITOR": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "PYTHONUNBUFFERED": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "{CONNECTION}"\n'
        f'[superlink.{CONNECTION}]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    log_path = home / "superlink.log"
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
        yield Flower(environment)
    finally:
        end(process)


def tool(name: str) -> str:
    """Path of a command that is installed beside this Python."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise SnowdropError(f"the command {name} is not installed; run `pip install flwr`")
    return found


def free_port() -> int:
    """A loopback port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the SuperLink answers on its port.

    Raises
    ------
    SnowdropError
        If it ends or does not come up, with the end of its log.
    """
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SnowdropError(f"the SuperLink did not start: {log.read_text()[-500:]}")


def end(process: subprocess.Popen[Any]) -> None:
    """End a process and all that descends from it, in whatever session: asked, then made to."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    everyone = [*family, process] if process.poll() is None else family
    for member in everyone:
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            member.terminate()
    _, alive = psutil.wait_procs(family, timeout=_STOP_SECONDS)
    for member in alive:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
