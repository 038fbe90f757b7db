"""Interactions as matrices: of a folder, or of one file."""

from pathlib import Path

import pytest

from client_app.synthesis.data import read_users
from common.errors import SnowdropError


def test_one_file_is_read_as_a_folder_with_that_file(tmp_path: Path) -> None:
    text = "user_id,item_id,liked\nb,10,1\na,9,0\na,10,1\n"
    (tmp_path / "interactions.csv").write_text(text)
    for source in (tmp_path, tmp_path / "interactions.csv"):
        table = read_users(source)
        assert table.users == ("a", "b")
        assert table.items == ("9", "10")
        assert table.likes.toarray().tolist() == [[False, True], [False, True]]
        assert table.rated.toarray().tolist() == [[True, True], [False, True]]


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SnowdropError, match=r"shop\.csv is not there; give a data folder"):
        read_users(tmp_path / "shop.csv")
