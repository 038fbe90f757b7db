"""A synthesizer as it is written on a command line, with the settings of its own group."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from common import methods
from common.errors import SnowdropError
from common.methods import MethodSettings, Named
from common.roles import explain


@dataclass(frozen=True)
class Chosen:
    """A synthesizer and its settings.

    Parameters
    ----------
    named : Named
    settings : MethodSettings
        Of its own group.
    """

    named: Named
    settings: MethodSettings

    @classmethod
    def of(cls, text: str, changes: Mapping[str, Any] | None = None) -> "Chosen":
        """A synthesizer from how it is written.

        Parameters
        ----------
        text : str
            ``NAME[:VARIANT][:paper|:tuned]``; tuned settings where nothing is said.
        changes : Mapping[str, Any], optional
            Flat settings of its own group, such as ``{"NAME.epochs": 5}``.

        Raises
        ------
        SnowdropError
            If there is no such synthesizer, or a setting is unknown or out of range.
        """
        base = text.strip().partition(":")[0]
        if base not in methods.synthesizers():
            raise SnowdropError(
                f"the method '{base}' makes no synthetic users; choose from "
                f"{', '.join(methods.synthesizers())}"
            )
        named = Named.parse(text)
        own, variant = named.card, named.variant
        prefix = f"{own.name}."
        for key in changes or {}:
            if not key.startswith(prefix):
                raise SnowdropError(
                    f"setting '{key}' is none of the method {own.name}: its settings are written "
                    f"{prefix}NAME, and `snowdrop settings` lists them"
                )
        values = {**named.base(named.form or "tuned"), **own.fixed_of(variant), **(changes or {})}
        group = {key.removeprefix(prefix): value for key, value in values.items()}
        try:
            return cls(named, own.settings(**group))
        except ValidationError as error:
            raise SnowdropError(explain(error, own.name)) from error
