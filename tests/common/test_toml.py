"""What is written as TOML, the standard library reads back."""

import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.toml import toml_lines

BARE = st.from_regex(r"[A-Za-z0-9_-]+", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(TEXTS.filter(lambda key: "." not in key), VALUES))
def test_any_key_and_value_come_back(values: dict[str, Any]) -> None:
    read = tomllib.loads(toml_lines(values))
    assert read == values
    assert repr(read) == repr(values)  # True is no 1, and 1 no 1.0


@settings(max_examples=40)
@given(st.dictionaries(BARE, st.dictionaries(BARE, VALUES, min_size=1, max_size=3), max_size=3))
def test_dotted_keys_are_groups(groups: dict[str, dict[str, Any]]) -> None:
    flat = {f"{name}.{key}": value for name, own in groups.items() for key, value in own.items()}
    assert tomllib.loads(toml_lines(flat)) == groups


@given(st.lists(TEXTS, min_size=1, max_size=1), VALUES)
def test_other_keys_with_dots_are_quoted_as_a_whole(parts: list[str], value: Any) -> None:
    key = f"{parts[0]}. x"
    assert tomllib.loads(toml_lines({key: value})) == {key: value}


def test_how_lines_look() -> None:
    values = {"mdifffr.steps": 20, "data": "a\x7f\n'\"ü", "resume": True, "lr": 1e-05, "a b": []}
    assert toml_lines(values) == (
        'mdifffr.steps = 20\ndata = "a\\u007f\\n\'\\"ü"\nresume = true\nlr = 1e-05\n"a b" = []\n'
    )
    assert toml_lines({}) == ""


def test_no_number_is_lost() -> None:
    read = tomllib.loads(toml_lines({"a": float("inf"), "b": float("nan"), "c": (-1, 2.0)}))
    assert read["a"] == float("inf") and read["b"] != read["b"] and read["c"] == [-1, 2.0]


@pytest.mark.parametrize("value", [None, {"a": 1}, b"x"])
def test_what_toml_lacks_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="TOML has no"):
        toml_lines({"key": value})
