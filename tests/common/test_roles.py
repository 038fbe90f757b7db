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
        ({"kept": 0}, "", "setting 'kept' is 0: Input should be greater than or equal to 1"),
        ({"kept": 0}, "own", "setting 'own.kept' is 0: Input should be greater than or equal to 1"),
        ({"more": 0}, "own", "unknown setting 'own.more'; `snowdrop settings` lists them all"),
        ({"plain": "x"}, "", "setting 'plain' is 'x': Input should be a valid number"),
        ({"plain": float("inf")}, "", "setting 'plain' is inf"),
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
