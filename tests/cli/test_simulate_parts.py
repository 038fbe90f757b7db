"""The parts of `snowdrop simulate` and `snowdrop recommend` that need no federation."""

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console
from rich.table import Table
from typer.testing import CliRunner

from cli import simulate as simulation
from cli.assignments import parse_assignments
from cli.commands import app
from cli.recommend import find_recommendations, recommendation_table, titles
from cli.simulate import check_data, checked_policy, failure, run_config, sample_user, stopped
from client_app.lists import FILE
from common.catalogue import COLD_SPLITS
from common.errors import SnowdropError
from common.settings import MORE, RunSettings
from server_app.run_folder import RunFolder


def data_folder(folder: Path, interactions: str) -> Path:
    """Items a (warm), b (validation) and c (test), and interactions."""
    folder.mkdir(parents=True)
    items = "item_id,title,split\na,Apple,warm\nb,Bread,validation\nc,Cheese,test\n"
    (folder / "items.csv").write_text(items)
    (folder / "interactions.csv").write_text(f"user_id,item_id\n{interactions}")
    return folder


def checked(folder: Path, tmp_path: Path) -> str:
    return check_data(RunSettings(data=str(folder), run_dir=str(tmp_path / "run")))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("rounds=3", {"rounds": 3}),
        ("attention=false", {"attention": False}),
        ("item_lr=0.5", {"item_lr": 0.5}),
        ("mdifffr.lr=1e-3", {"mdifffr.lr": 1e-3}),
        ("head=linear", {"head": "linear"}),
        ('encoder="my model"', {"encoder": "my model"}),
        ("encoder=org/name=x", {"encoder": "org/name=x"}),
        ("encode_cache=", {"encode_cache": ""}),
    ],
)
def test_assignments_are_read_as_what_they_look_like(text: str, value: dict[str, Any]) -> None:
    parsed = parse_assignments([text])
    assert parsed == value
    assert [type(v) for v in parsed.values()] == [type(v) for v in value.values()]


def test_the_last_assignment_of_a_key_counts() -> None:
    assert parse_assignments(["a=1", "b=2", "a=3"]) == {"a": 3, "b": 2}


def test_an_assignment_without_equals_is_refused() -> None:
    with pytest.raises(SnowdropError, match="'rounds' has no '='"):
        parse_assignments(["dim=8", "rounds"])


def test_settings_that_flower_does_not_declare_travel_in_one_key() -> None:
    values = {"rounds": 2, "mdifffr.steps": 5, "their-own.power": 2.5, "their-own.kind": "a b"}
    config = run_config(values)
    assert config == {
        "rounds": 2,
        "mdifffr.steps": 5,
        MORE: 'their-own.power = 2.5\ntheir-own.kind = "a b"\n',
    }
    assert run_config({"rounds": 2}) == {"rounds": 2}


def test_a_run_that_failed_in_silence_is_explained_by_flowers_log() -> None:
    status = "finished:failed"
    assert failure(status, True, "x") == "the run ended as finished:failed; its log above says why"
    told = failure(status, False, "much\n" * 1000 + "no space left on device\n")
    assert "before it logged anything" in told and "above" not in told
    assert told.endswith("no space left on device") and len(told) < 1_200
    assert failure(status, False, "\n").endswith("Flower's own log is empty, too")


def test_data_that_is_whole_is_used_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = data_folder(tmp_path / "data", "u,a\nu,c\n")
    assert checked(folder, tmp_path) == str(folder)
    few = "1 {} items tell no methods apart by Recall@20: every ranking finds all of them\n"
    told = "".join(f"warning: {few.format(split)}" for split in ("validation", "test"))
    assert capsys.readouterr().out == told
    many = "".join(f"{split}{k},Thing,{split}\n" for split in COLD_SPLITS for k in range(21))
    (folder / "items.csv").write_text(f"item_id,title,split\na,Apple,warm\nc,Cup,test\n{many}")
    checked(folder, tmp_path)
    assert capsys.readouterr().out == ""
    assert check_data(RunSettings()) == "demo"


def test_a_split_without_a_test_item_is_refused(tmp_path: Path) -> None:
    folder = data_folder(tmp_path / "data", "u,a\n")
    (folder / "items.csv").write_text("item_id,title,split\na,Apple,warm\nb,Bread,validation\n")
    with pytest.raises(SnowdropError, match="leaves no cold test item"):
        checked(folder, tmp_path)


def test_a_missing_data_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SnowdropError, match="does not exist"):
        checked(tmp_path / "nowhere", tmp_path)


def test_a_file_is_no_data_folder(tmp_path: Path) -> None:
    folder = data_folder(tmp_path / "data", "u,a\n")
    told = re.escape(f"items.csv is a file; give the folder that it is in: {folder}")
    with pytest.raises(SnowdropError, match=told):
        checked(folder / "items.csv", tmp_path)


def test_data_without_a_warm_user_are_refused(tmp_path: Path) -> None:
    folder = data_folder(tmp_path / "data", "u,b\nv,c\n")
    with pytest.raises(SnowdropError, match=r"no user of .* has an interaction with a warm item"):
        checked(folder, tmp_path)


def test_interactions_without_a_row_are_refused(tmp_path: Path) -> None:
    folder = data_folder(tmp_path / "data", "")
    with pytest.raises(SnowdropError, match=r"interactions\.csv has a header and no rows"):
        checked(folder, tmp_path)


def test_what_takes_no_part_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = data_folder(tmp_path / "data", "u,a\nu,x\nu,y\nv,c\n")
    checked(folder, tmp_path)
    shown = capsys.readouterr().out
    assert "2 interactions are with items that items.csv lacks" in shown
    assert "1 users have no warm interaction" in shown


def test_a_split_in_files_moves_into_a_folder_of_the_run(tmp_path: Path) -> None:
    folder = data_folder(tmp_path / "data", "")
    (folder / "interactions.csv").unlink()
    (folder / "items.csv").write_text("item_id,title\na,Apple\nb,Bread\nc,Cheese\nd,Dust\n")
    for name, item in (("train", "a"), ("validation", "b"), ("test", "c")):
        (folder / f"{name}.csv").write_text(f"user_id,item_id\nu,{item}\n")
    made = Path(checked(folder, tmp_path))
    assert made == tmp_path / "run" / "data" / folder.name
    assert dict(pl.read_csv(made / "items.csv").select("item_id", "split").iter_rows()) == {
        "a": "warm",
        "b": "validation",
        "c": "test",
    }


def test_the_data_folder_is_no_place_for_results(tmp_path: Path) -> None:
    folder = data_folder(tmp_path / "data", "u,a\nu,c\n")
    (tmp_path / "same").symlink_to(folder)
    settings = RunSettings(data=str(folder), run_dir=str(tmp_path / "same"))
    with pytest.raises(SnowdropError, match="is the data folder; give results a folder of their"):
        check_data(settings)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run of two nodes with a user each, u and v."""
    folder = tmp_path / "run"
    for node, user in (("00000", "u"), ("00001", "v")):
        (folder / "nodes" / node).mkdir(parents=True)
        frame = {"user_id": user, "rank": [1, 2], "item_id": ["c", "b"], "score": [0.9, 0.2]}
        pl.DataFrame(frame).write_parquet(folder / "nodes" / node / FILE)
    return folder


def test_recommendations_are_found_in_a_run_and_in_a_state_folder(run_folder: Path) -> None:
    assert sample_user(run_folder) == "u"
    for folder in (run_folder, run_folder / "nodes" / "00001"):
        assert find_recommendations(folder, "v")["item_id"].to_list() == ["c", "b"]


def test_a_node_without_users_hides_no_other_nodes_lists(run_folder: Path) -> None:
    (run_folder / "nodes" / "00000" / FILE).unlink()
    assert find_recommendations(run_folder, "v")["item_id"].to_list() == ["c", "b"]


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("run", "keeps no recommendations for user 'w'"),
        ("nowhere", "is no folder"),
        ("", "no run has ended there yet"),
    ],
)
def test_missing_recommendations_are_one_sentence(
    run_folder: Path, place: str, sentence: str
) -> None:
    with pytest.raises(SnowdropError, match=sentence):
        find_recommendations(run_folder.parent / place, "w")


def test_a_run_without_recommendations_has_no_sample_user(tmp_path: Path) -> None:
    assert sample_user(tmp_path) is None


def test_titles_come_from_the_items_or_from_the_runs_data(tmp_path: Path) -> None:
    folder = data_folder(tmp_path / "data", "")
    expected = {"a": "Apple", "b": "Bread", "c": "Cheese"}
    assert titles(tmp_path, folder) == expected
    assert titles(tmp_path, None) == {}
    RunFolder(tmp_path).write_settings(RunSettings.parse({"data": str(folder)}))
    assert titles(tmp_path, None) == expected


def test_a_state_folder_without_titles_says_what_gives_them(
    run_folder: Path, tmp_path: Path
) -> None:
    data = data_folder(tmp_path / "data", "")
    call = ["recommend", str(run_folder / "nodes" / "00001"), "--user", "v"]
    told = CliRunner().invoke(app, call).output
    assert "titles: --items DATA, the data folder that the items come from" in told
    told = CliRunner().invoke(app, [*call, "--items", str(data)]).output
    assert "Cheese" in told
    assert "--items" not in told


def test_without_texts_there_is_no_column_of_titles() -> None:
    frame = pl.DataFrame({"item_id": ["a"], "score": [0.5], "rank": [1]})
    heads = [column.header for column in recommendation_table(frame, {}).columns]
    assert heads == ["rank", "score", "item"]
    assert "0.500" in shown(recommendation_table(frame, {}))


def test_the_table_shortens_long_titles() -> None:
    frame = pl.DataFrame({"rank": [1, 2], "item_id": ["a", "b"], "score": [0.51234, 0.25]})
    table = recommendation_table(frame, {"a": "x" * 200})
    cells = [[str(cell) for cell in column.cells] for column in table.columns]
    assert cells[0] == ["1", "2"]
    assert cells[1] == ["0.512", "0.250"]
    assert cells[3] == ["x" * 79 + "…", ""]


def shown(table: Table) -> str:
    console = Console(width=200, file=io.StringIO())
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_brackets_and_colons_in_ids_and_titles_are_shown_as_they_are() -> None:
    frame = pl.DataFrame({"rank": [1, 2], "item_id": ["[b]a", "[/b]"], "score": [0.5, 0.25]})
    lines = shown(recommendation_table(frame, {"[b]a": "Pen [/x] :pen:", "[/b]": "[red]Ink"}))
    assert "[b]a" in lines
    assert "Pen [/x] :pen:" in lines
    assert "[red]Ink" in lines


CANNOT = "holds settings that this release cannot read"
UNREADABLE = {
    "cut off": (b'{"rounds": 4', "is damaged: it must hold JSON"),
    "no text": (b'{"rounds": "\xff"}', "is damaged: it must hold JSON"),
    "empty": (b"", "is damaged: it must hold JSON"),
    "a list": (b"[1]", "is damaged: it must hold a JSON object"),
    "another version's": (b'{"warp": 9}', f"{CANNOT}: unknown setting 'warp'"),
    "out of range": (b'{"rounds": 0}', f"{CANNOT}: setting 'rounds' is 0"),
    "of data that is gone": (b'{"data": "/nowhere"}', "the data folder /nowhere does not exist"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_run_whose_settings_cannot_be_read_still_recommends(run_folder: Path, kind: str) -> None:
    content, sentence = UNREADABLE[kind]
    (run_folder / "settings.json").write_bytes(content)
    result = CliRunner().invoke(app, ["recommend", str(run_folder), "--user", "v"])
    assert result.exit_code == 0, result.output
    assert "0.900" in result.stdout
    (warning,) = result.stderr.splitlines()
    assert re.search(f"warning: titles are not shown: .*{sentence}", warning)


def test_items_that_are_given_and_cannot_be_read_are_an_error(run_folder: Path) -> None:
    with pytest.raises(SnowdropError, match=r"items\.csv is missing"):
        titles(run_folder, run_folder)


def test_a_folder_with_a_training_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "round-000002.ckpt").touch()
    refused = CliRunner().invoke(app, ["simulate", "demo", "--run-dir", str(tmp_path)])
    assert isinstance(refused.exception, SnowdropError)
    assert "holds a training: --set resume=true goes on" in str(refused.exception)
    assert "starting" not in refused.output


def test_a_stopped_simulation_says_what_is_kept_and_how_it_goes_on(tmp_path: Path) -> None:
    def told(**values: Any) -> str:
        return stopped(RunSettings.parse({"run_dir": str(tmp_path), **values}))

    nothing = "stopped before there was anything to keep; the same command begins anew"
    assert {told(), told(fresh=True), told(resume=True)} == {nothing}
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "round-000002.ckpt").touch()
    kept = f"stopped; the training in {tmp_path} is kept: the same command"
    assert told() == f"{kept} with --set resume=true goes on with it"
    assert told(resume=True) == f"{kept} goes on with it"
    instead = "--set resume=true in place of fresh=true"
    assert told(fresh=True) == f"{kept} with {instead} goes on with it"


def test_a_simulation_that_is_stopped_before_it_has_begun_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopping(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(simulation, "superlink", stopping)
    values = {"run_dir": str(tmp_path / "run")}
    with pytest.raises(SnowdropError, match=r"^stopped before there was anything to keep; "):
        simulation.run(RunSettings.parse(values), values, verbose=False)


@pytest.mark.parametrize("status", ["finished:completed", "finished:failed"])
def test_an_interrupt_while_the_superlink_of_a_finished_run_stops_loses_no_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    class Finished:
        def json(self, *_: str) -> dict[str, int]:
            return {"run-id": 1}

        def follow(self, run_id: str, verbose: bool) -> bool:
            return True

        def status(self, run_id: str) -> str:
            return status

    @contextmanager
    def stopping(home: Path) -> Iterator[Finished]:
        (home / simulation.LOG).touch()
        yield Finished()
        raise KeyboardInterrupt

    monkeypatch.setattr(simulation, "superlink", stopping)
    values = {"run_dir": str(tmp_path / "run")}
    settings = RunSettings.parse(values)
    if status == "finished:completed":
        simulation.run(settings, values, verbose=False)
    else:
        with pytest.raises(SnowdropError, match=r"^the run ended as finished:failed; "):
            simulation.run(settings, values, verbose=False)


def check_last(folder: Path, tmp_path: Path, interactions: str) -> str:
    (folder / "interactions.csv").write_text(f"user_id,item_id,timestamp\n{interactions}")
    settings = RunSettings(
        data=str(folder), run_dir=str(tmp_path / "run"), task="last-warm-item", method="ridge"
    )
    return check_data(settings, measured="test")


def test_last_warm_items_need_users_with_three_and_an_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = data_folder(tmp_path / "data", "")
    (folder / "items.csv").write_text("item_id,title\na,Apple\nb,Bread\nc,Cheese\n")
    assert check_last(folder, tmp_path, "u,a,1\nu,b,2\nu,c,3\n") == str(folder)
    assert "warning: 3 warm items tell no methods apart" in capsys.readouterr().out
    with pytest.raises(SnowdropError, match="has three interactions with warm items"):
        check_last(folder, tmp_path, "u,a,1\nu,b,2\nv,c,3\n")
    with pytest.raises(SnowdropError, match="data: the column 'timestamp' holds no number in 1 of"):
        check_last(folder, tmp_path, "u,a,1\nu,b,2\nu,c,yesterday\n")
    (folder / "items.csv").write_text("item_id,title,split\na,A,warm\nb,B,warm\nc,C,test\n")
    with pytest.raises(SnowdropError, match="three interactions"):
        check_last(folder, tmp_path, "u,a,1\nu,b,2\nu,c,3\n")


def test_a_policy_is_checked_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert checked_policy({}) == {}
    with pytest.raises(SnowdropError, match=r"policy\.toml cannot be read"):
        checked_policy({"policy": "policy.toml"})
    (tmp_path / "policy.toml").write_text("fewest_users = 0")
    with pytest.raises(SnowdropError, match="setting 'fewest_users' is 0"):
        checked_policy({"policy": "policy.toml"})
    (tmp_path / "policy.toml").write_text("fewest_users = 4")
    assert checked_policy({"policy": "policy.toml"}) == {"policy": str(tmp_path / "policy.toml")}


def test_data_are_checked_and_kept_lists_read_without_torch(tmp_path: Path) -> None:
    data = data_folder(tmp_path / "data", "user-1,a\nuser-1,c\n")
    code = (
        "import sys; from pathlib import Path; from cli import recommend, simulate;"
        "from common.settings import RunSettings; data, run = sys.argv[1:];"
        "simulate.check_data(RunSettings.parse({'data': data, 'run_dir': run}));"
        "print(recommend.titles(Path(run), Path(data))['a']);"
        "print(recommend.find_recommendations(Path(run), 'user-1')['item_id'][0]);"
        "assert not {'torch', 'flwr', 'sklearn'} & set(sys.modules)"
    )
    kept = {"user_id": ["user-1"], "rank": [1], "item_id": ["c"], "score": [0.5]}
    pl.DataFrame(kept).write_parquet(tmp_path / FILE)
    done = subprocess.run(
        [sys.executable, "-c", code, data, tmp_path],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.splitlines()[-2:] == ["Apple", "c"], done.stderr
    assert done.returncode == 0, done.stderr
