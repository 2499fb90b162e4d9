"""The card of vectors as text for a terminal: facts, every trial, scores by template."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from typing import Any, cast

LONGEST_LIST = 8
"""Items of a list, or of a mapping of numbers, that are written out."""


def card_text(name: str, card: Mapping[str, Any], width: int) -> str:
    """A card's facts line by line, then its trials and scores as tables.

    Args:
        name: heads the text.
        card: fields of `vectors.Card`, as JSON.
        width: of the terminal, characters.
    """
    facts = {key: value for key, value in card.items() if key not in ("recipe", "trials", "scores") and _told(value)}
    tables = [part for title, table in _tables(card) for part in (f"\n{title}", table)]
    return _rendered([name, _pairs(facts), *tables], width)


def scores_text(scores: Mapping[str, Any], width: int) -> str:
    """Right answers on the test split by template, a column a temperature."""
    return _rendered([part for pair in _tables({"scores": {"test": scores}}) for part in pair], width)


def _rendered(parts: Iterable[Any], width: int) -> str:
    from rich.console import Console

    console = Console(file=StringIO(), width=width, highlight=False, markup=False, no_color=True)
    for part in parts:
        console.print(part)
    return cast("StringIO", console.file).getvalue().rstrip()


def recipe_facts(recipe: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The fields of a recipe with dotted names, as text; long lists keep their ends."""
    return [(name, _said(value)) for name, value in _flat(recipe)]


def _tables(card: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    if card.get("recipe"):
        yield "Recipe", _pairs(dict(_flat(card["recipe"])))
    if card.get("trials"):
        yield "Trials", _trials(card["trials"])
    scores = dict(card.get("scores") or {})
    test = scores.get("test")
    if isinstance(test, dict) and test and all(isinstance(one, dict) and "by_template" in one for one in test.values()):
        yield "Test split: right answers in %, with 95 % intervals", _test(scores.pop("test"))
    if scores:
        yield "Scores", _pairs(dict(_flat(scores)))


def _told(value: Any) -> bool:
    return value not in (None, "", [], {})


def _pairs(facts: Mapping[str, Any]) -> Any:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for key, value in facts.items():
        table.add_row(f"  {key}", _said(value))
    return table


def _flat(value: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, Any]]:
    """Nested fields with dotted names; what is empty is left out."""
    for key, one in value.items():
        if isinstance(one, dict) and not _numbers(cast("Mapping[str, Any]", one)):
            yield from _flat(cast("Mapping[str, Any]", one), f"{above}{key}.")
        elif _told(one):
            yield f"{above}{key}", one


def _numbers(value: Mapping[str, Any]) -> bool:
    return bool(value) and all(isinstance(one, int | float) for one in value.values())


def _said(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        pairs = [f"{key}: {_said(one)}" for key, one in cast("Mapping[str, Any]", value).items()]
        return _shortened(pairs)
    if isinstance(value, list):
        return _shortened([_said(one) for one in cast("Sequence[Any]", value)])
    return str(value)


def _shortened(parts: Sequence[str]) -> str:
    some = parts if len(parts) <= LONGEST_LIST else [*parts[:2], "...", parts[-1]]
    return ", ".join(some) + (f" ({len(parts)})" if len(parts) > LONGEST_LIST else "")


def _trials(trials: Sequence[Mapping[str, Any]]) -> Any:
    from rich.box import SIMPLE
    from rich.table import Table

    columns = list(dict.fromkeys(key for trial in trials for key in trial))
    table = Table(*(column.replace("_", " ") for column in columns), box=SIMPLE, pad_edge=False)
    for trial in trials:
        table.add_row(*(_said(trial.get(column, "")) for column in columns))
    return table


def _test(test: Mapping[str, Mapping[str, Any]]) -> Any:
    """A row a template, a column a temperature."""
    from rich.box import SIMPLE
    from rich.table import Table

    grouped = {name: {"all": one, **one.get("by_operations", {}), **one["by_template"]} for name, one in test.items()}
    rows = list(dict.fromkeys(row for one in grouped.values() for row in one))
    table = Table("problems", "n", *grouped, box=SIMPLE, pad_edge=False)
    for row in rows:
        found = [one.get(row) for one in grouped.values()]
        n = next(str(one["n"]) for one in found if one)
        label = {"all": "all", "1": "one operation", "2": "two operations"}.get(row, row)
        table.add_row(label, n, *(_percent(one) if one else "" for one in found))
    for beside in ("boxed", "ended", "tokens", "entropy_nats"):
        table.add_row(beside.replace("_", ", "), "", *(_said(one.get(beside, "")) for one in test.values()))
    return table


def _percent(one: Mapping[str, Any]) -> str:
    return f"{100 * one['accuracy']:.1f} [{100 * one['low']:.1f}, {100 * one['high']:.1f}]"
