"""Types for settings of experiments that state their range, so that a bad value is refused before a model is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from interp.errors import UserError
from interp.limits import HIGHEST_SEED, MOST, VERBATIM

if TYPE_CHECKING:
    from typing import Self  # unresolved at run time, where beartype refuses it outside of a class

Value = TypeVar("Value")


class Settings(BaseModel):
    """Frozen settings whose mistakes are one line; NaN and infinity, which no record could hold, are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="wrap")
    @classmethod
    def _in_one_line(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Turn pydantic's report into the one line that a user reads."""
        try:
            return handler(data)
        except ValidationError as error:
            raise setting_error(cls, error) from None


def setting_error(cls: type[BaseModel], error: ValidationError) -> UserError:
    """Return the first of pydantic's complaints about settings, as an error for the user."""
    from interp.registry import unknown

    first = error.errors()[0]
    name = getattr(cls, "name", "") or cls.__name__
    setting = ".".join(str(part) for part in first["loc"]) or name
    if first["type"] == "extra_forbidden":
        return unknown(f"setting of {name}", setting, list(cls.model_fields))
    if first["type"] == "too_short":
        return UserError(f"{name}: setting {setting} needs at least one value", works=_example(cls, setting))
    reason = first["msg"].removeprefix("Value error, ")
    return UserError(f"{name}: setting {setting}: {reason}", given=_plain(first.get("input")))


def _plain(value: object) -> str:
    """A value as a user would write it; of an object, what it is."""
    plain = value is None or isinstance(value, str | int | float | list | tuple | dict)
    return repr(value)[:80] if plain else f"an object of type {type(value).__name__}"


def _example(cls: type[BaseModel], setting: str) -> str:
    default = cls.model_fields[setting].get_default(call_default_factory=True)
    return f"{setting} = {', '.join(map(str, default))}, for example" if default else "name some"


def distinct(values: tuple[Value, ...]) -> tuple[Value, ...]:
    """Return the values, each of which must occur once: a second one would be measured or counted twice.

    Raises:
        ValueError: a value is repeated.
    """
    repeated = [value for index, value in enumerate(values) if value in values[:index]]
    if repeated:
        raise ValueError(f"{repeated[0]} is repeated; name each value once")
    return values


Count = Annotated[int, Field(ge=1, le=MOST)]
"""A number of things, at least one."""
CountOrZero = Annotated[int, Field(ge=0, le=MOST)]
"""A number of things; the setting says what 0 stands for."""
Seed = Annotated[int, Field(ge=0, le=HIGHEST_SEED)]
"""Seed of random streams."""
Block = Annotated[int, Field(ge=0, le=MOST)]
"""A block, counted from 0."""
Temperature = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""Temperature of sampling; 0 = greedy."""
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
"""A part of a whole."""
Factor = Annotated[float, Field(allow_inf_nan=False)]
"""A multiple of vectors; negative ones point the other way."""
Size = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A norm."""

Blocks = Annotated[tuple[Block, ...], AfterValidator(distinct)]
Temperatures = Annotated[tuple[Temperature, ...], AfterValidator(distinct), Field(min_length=1)]
TemperaturesOrNone = Annotated[tuple[Temperature, ...], AfterValidator(distinct)]
Factors = Annotated[tuple[Factor, ...], AfterValidator(distinct), Field(min_length=1)]
FactorsOrNone = Annotated[tuple[Factor, ...], AfterValidator(distinct)]
Sizes = Annotated[tuple[Size, ...], AfterValidator(distinct), Field(min_length=1)]
Names = Annotated[tuple[str, ...], AfterValidator(distinct)]
Tokens = Annotated[tuple[Annotated[str, VERBATIM], ...], AfterValidator(distinct)]
