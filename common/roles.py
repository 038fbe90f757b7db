"""How a setting is declared: its default, its meaning, and its roles.

Every list of settings in the project is derived from the roles: nothing else lists settings.
"""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import near

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Role(StrEnum):
    """What a setting is for."""

    IDENTITY = "identity"
    """A training keeps it for life: another value would give its numbers another meaning."""
    OPERATION = "operation"
    """Of a run, not of what is trained: publishing takes all other settings from the training."""
    NEUTRAL = "neutral"
    """It changes no result."""
    FEATURES = "features"
    """It makes the modality features, which all methods of a comparison share."""
    TRAVELS = "travels"
    """Nodes need it: it is sent with every message about a training."""
    GIVEN = "given"
    """A comparison or a search gives it to each run."""


def setting(default: Any, description: str, *roles: Role, given: str = "", **limits: Any) -> Any:
    """A field of settings.

    Parameters
    ----------
    default : Any
    description : str
        What it means, as `snowdrop settings` prints it.
    *roles : Role
    given : str
        Marks a setting that a comparison or a search gives to each run; says what to do in place
        of setting it.
    **limits : Any
        As in `pydantic.Field`: ``ge``, ``le`` and so on.
    """
    told = [*roles, Role.GIVEN] if given else list(roles)
    extra: dict[str, Any] = {"roles": [role.value for role in told], "given": given}
    return Field(default, description=description, json_schema_extra=extra, **limits)


def fields_with(model: type[BaseModel], role: Role) -> Iterator[str]:
    """Names of the settings of a model that have a role."""
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and role.value in extra.get("roles", ()):  # type: ignore[operator]
            yield name


def roles_of(model: type[BaseModel], name: str) -> list[str]:
    """Roles of a setting."""
    extra = model.model_fields[name].json_schema_extra
    return list(extra.get("roles", [])) if isinstance(extra, dict) else []  # type: ignore[arg-type]


def given_instead(model: type[BaseModel], name: str) -> str:
    """What to do in place of setting a field with the role `Role.GIVEN`."""
    extra = model.model_fields[name].json_schema_extra
    return str(extra.get("given", "")) if isinstance(extra, dict) else ""


class SettingsModel(BaseModel):
    """Frozen settings that refuse what they do not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


WRONG = {
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be {ge:g} or more",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be {le:g} or less",
    "literal_error": "must be {expected}",
}
"""What pydantic's kinds of errors say of a value, in our words."""


def unknown_setting(name: str, known: Iterable[str] = ()) -> str:
    """One sentence for a setting that there is not."""
    return f"unknown setting '{name}'{near(name, known)}; `snowdrop settings` lists them all"


def explain(error: ValidationError, group: str = "", known: Iterable[str] = ()) -> str:
    """One sentence for the first thing that is wrong in a pydantic error.

    Parameters
    ----------
    error : ValidationError
    group : str
        Name of the method whose settings are wrong; empty for the shared settings.
    known : Iterable[str]
        Settings that there are, among which one may have been meant.
    """
    first = error.errors()[0]
    key = ".".join([*filter(None, [group]), *(str(part) for part in first["loc"])])
    if first["type"] == "extra_forbidden":
        return unknown_setting(key, [".".join(filter(None, [group, name])) for name in known])
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return message
    if (wrong := WRONG.get(first["type"])) is not None:
        return f"setting '{key}' is {first['input']!r}: it {wrong.format(**first.get('ctx', {}))}"
    return f"setting '{key}' is {first['input']!r}: {message}"
