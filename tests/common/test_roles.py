from typing import Literal

import pytest
from pydantic import ValidationError

from common.roles import (
    Role,
    SettingsModel,
    explain,
    fields_with,
    given_instead,
    roles_of,
    setting,
    unknown_setting,
)


class Example(SettingsModel):
    kept: int = setting(1, "kept for life", Role.IDENTITY, Role.TRAVELS, ge=1)
    given: str = setting("", "given by a command", Role.OPERATION, given="give --given")
    plain: float = setting(0.5, "without a role", gt=0, le=1)


def test_a_field_has_its_roles_and_no_others() -> None:
    assert list(fields_with(Example, Role.IDENTITY)) == ["kept"]
    assert list(fields_with(Example, Role.TRAVELS)) == ["kept"]
    assert list(fields_with(Example, Role.GIVEN)) == ["given"]
    assert list(fields_with(Example, Role.NEUTRAL)) == []
    assert roles_of(Example, "given") == ["operation", "given"]
    assert roles_of(Example, "plain") == []


def test_what_to_do_instead() -> None:
    assert given_instead(Example, "given") == "give --given"
    assert given_instead(Example, "plain") == ""


@pytest.mark.parametrize(
    ("values", "group", "sentence"),
    [
        ({"kept": 0}, "", "setting 'kept' is 0: it must be 1 or more"),
        ({"kept": 0}, "own", "setting 'own.kept' is 0: it must be 1 or more"),
        ({"more": 0}, "own", "unknown setting 'own.more'; `snowdrop settings` lists them all"),
        ({"plain": "x"}, "", "setting 'plain' is 'x': it must be a number"),
        ({"plain": float("inf")}, "", "setting 'plain' is inf: it must be a finite number"),
    ],
)
def test_what_is_wrong_in_one_sentence(
    values: dict[str, object], group: str, sentence: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        Example.model_validate(values)
    assert explain(caught.value, group).startswith(sentence)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Example().kept = 3  # type: ignore[misc]


class Every(SettingsModel):
    number: int = 1
    share: float = setting(0.5, "between two bounds", gt=0, lt=1)
    most: float = setting(0.5, "at most", le=1)
    on: bool = True
    text: str = ""
    choice: Literal["a", "b"] = "a"


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ({"number": "x"}, "it must be a whole number"),
        ({"number": 1.5}, "it must be a whole number"),
        ({"number": None}, "it must be a whole number"),
        ({"share": None}, "it must be a number"),
        ({"share": 0}, "it must be above 0"),
        ({"share": 1}, "it must be below 1"),
        ({"most": 2}, "it must be 1 or less"),
        ({"on": "x"}, "it must be true or false"),
        ({"on": 7.5}, "it must be true or false"),
        ({"text": 3}, "it must be text"),
        ({"choice": "c"}, "it must be 'a' or 'b'"),
    ],
)
def test_values_are_refused_in_our_words(values: dict[str, object], wrong: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Every.model_validate(values)
    ((name, value),) = values.items()
    assert explain(caught.value) == f"setting '{name}' is {value!r}: {wrong}"


def test_a_similar_name_is_offered() -> None:
    with pytest.raises(ValidationError) as caught:
        Every.model_validate({"numbr": 1})
    told = "unknown setting 'numbr' (did you mean 'number'?); `snowdrop settings` lists them all"
    assert explain(caught.value, known=Every.model_fields) == told
    assert explain(caught.value, known=["else"]) == unknown_setting("numbr")
