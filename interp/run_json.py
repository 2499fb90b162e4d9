"""What run.json must look like before anything of it is used: a run's folder may come from a stranger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from interp.errors import UserError


class _Open(BaseModel):
    """Fields that are there have their types; more of them are welcome."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Interval(_Open):
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None


class _Verdict(_Open):
    claim: str | None = None
    phrase: str | None = None
    because: str | None = None
    unit: str | None = None
    estimate: _Interval | None = None
    control: _Interval | None = None
    margin: float | None = None
    detectable: float | None = None


class _Plan(_Open):
    claim: str = ""
    estimand: str = ""
    unit: str = ""
    statistic: str = ""
    family: str = ""
    margin_unit: str = ""
    margin: float = 0.0
    controls: list[str] = []


class _Named(_Open):
    name: str


class _Edited(_Open):
    edit: str
    touched: int
    rows: int
    untouched: int = 0
    sites: list[str] = []
    positions: str = ""
    origin: str = ""


class _RunJson(_Open):
    experiment: str
    schema_: int = Field(default=1, alias="schema")
    key: str = ""
    version: int = 0
    scale: str = ""
    target: str = ""
    source: str = ""
    partial: bool = False
    n: int | None = None
    seed: int | None = None
    settings: dict[str, JsonValue] = {}
    columns: dict[str, str] = {}
    versions: dict[str, str] = {}
    git: dict[str, JsonValue] | None = None
    figures: list[str] = []
    edits: list[_Edited] = []
    verdicts: list[_Verdict] = []
    declaration: _Plan | None = None
    model: _Named | None = None
    vectors: _Named | None = None
    task: _Named | None = None


DEFAULTS: dict[str, Any] = {
    **{"key": "", "version": 0, "scale": "", "target": "", "n": None, "seed": None},
    **{"settings": {}, "columns": {}, "figures": [], "verdicts": []},
}
"""What readers take for granted."""


def checked(meta: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The contents of run.json, with what readers take for granted.

    Raises:
        UserError: something in it is of another type than it should be.
    """
    try:
        _RunJson.model_validate(meta)
    except (ValidationError, RecursionError) as error:
        first = error.errors(include_url=False, include_input=False)[0] if isinstance(error, ValidationError) else {}
        where = ".".join(map(str, first.get("loc", ()))) or "run.json"
        reason = first.get("msg", "nested too deeply")
        raise UserError(f"this run.json is damaged: {where}: {reason}", given=folder) from None
    return {**DEFAULTS, **meta}
