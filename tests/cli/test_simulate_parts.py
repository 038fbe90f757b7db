"""The parts of `snowdrop simulate` and `snowdrop recommend` that need no federation."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from cli.recommend import find_recommendations, recommendation_table, titles
from cli.simulate import check_data, parse_assignments, sample_user
from client_app.recommend import FILE
from common.catalogue import COLD_SPLITS
from common.errors import SnowdropError
from common.settings import RunSettings


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
        ("generator_lr=1e-3", {"generator_lr": 1e-3}),
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
    (tmp_path / "settings.json").write_text(RunSettings(data=str(folder)).model_dump_json())
    assert titles(tmp_path, None) == expected


def test_the_table_shortens_long_titles() -> None:
    frame = pl.DataFrame({"rank": [1, 2], "item_id": ["a", "b"], "score": [0.51234, 0.25]})
    table = recommendation_table(frame, {"a": "x" * 200})
    cells = [list(column.cells) for column in table.columns]
    assert cells[0] == ["1", "2"]
    assert cells[1] == ["0.512", "0.250"]
    assert cells[3] == ["x" * 79 + "…", ""]
