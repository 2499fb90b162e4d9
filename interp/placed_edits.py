"""Edits with the rows of a batch that they belong to, and what they touched there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.arguments import check_items, check_kind
from interp.edits import Edit, Edits, PerRow
from interp.errors import UserError
from interp.positions import Positions, Tokens
from interp.sites import Site


@dataclass
class Entry:
    """An edit in a call: the rows that it belongs to, and what it touched.

    Attributes:
        edit: the edit.
        rows: of the batch; None = all of them.
        n_rows: how many these are.
        hit: True at each row of the batch that was touched.
        reached: the sites where it was applied.
        touched: token positions.
        scratch: what it keeps between its sites.
    """

    edit: Edit
    rows: Int[Tensor, " some"] | None
    n_rows: int
    hit: Bool[Tensor, " row"]
    reached: set[Site] = field(default_factory=set)
    touched: int = 0
    scratch: dict[str, Any] = field(default_factory=dict)

    def count(self, tokens: Tokens, selected: Bool[Tensor, "batch pos"]) -> None:
        """Count what a pass touches; a row of a shared prefix stands for several rows of the batch."""
        self.touched += int((selected * (1 if tokens.weight is None else tokens.weight[:, None])).sum())
        rows = selected.any(1)
        if tokens.members is None:
            self.hit[tokens.rows[rows].cpu()] = True
        else:
            self.hit |= tokens.members[rows].any(0).cpu()

    @property
    def untouched(self) -> int:
        """Rows that it belongs to and touched nowhere."""
        mine = self.hit if self.rows is None else self.hit[self.rows]
        return int((~mine).sum())

    def check(self) -> None:
        """Refuse an edit with a site that was never reached.

        Raises:
            UserError: the run is not what it says.
        """
        missed = [str(site) for site in self.edit.sites if site not in self.reached]
        if missed:
            raise UserError("an edit never fired", given=self.edit.describe(), works=f"never reached: {missed[0]}")


def entries_of(edits: Edits, n_rows: int) -> list[Entry]:
    """One entry for each edit; with per_row, one for each distinct edit, in an order that keeps every row's own."""
    if not isinstance(edits, PerRow):
        check_edits(edits)
        return [Entry(edit, None, n_rows, _none(n_rows)) for edit in edits]
    if len(edits.rows) != n_rows:
        raise UserError(f"per_row needs one sequence of edits for each of the {n_rows} rows", given=len(edits.rows))
    for sequence in edits.rows:
        check_edits(sequence)
    groups: dict[tuple[int, Edit], list[int]] = {}
    for row, sequence in enumerate(edits.rows):
        for rank, edit in enumerate(sequence):
            groups.setdefault((rank, edit), []).append(row)
    ordered = sorted(groups.items(), key=lambda item: item[0][0])
    return [Entry(edit, torch.tensor(rows), len(rows), _none(n_rows)) for (_, edit), rows in ordered]


def check_edits(edits: object) -> None:
    """Refuse what is no sequence of edits.

    Raises:
        UserError: it is a single edit, vectors, or something else.
    """
    if isinstance(edits, Sequence) and all(isinstance(edit, Edit) for edit in edits):
        for edit in edits:
            check_kind("the positions of an edit", edit.positions, Positions, "Positions(prompt=-1)")
            check_items(
                "the sites of an edit", edit.sites, lambda site: isinstance(site, Site), 'Site(1, "resid_post")'
            )
        return
    works = "vectors.edits()" if hasattr(edits, "edits") else "[Add(...), ...], or per_row([[...], ...])"
    raise UserError("a model takes a sequence of edits", given=type(edits).__name__, works=works)


def _none(n_rows: int) -> Bool[Tensor, " row"]:
    return torch.zeros(n_rows, dtype=torch.bool)


def row_groups(edits: Edits, n_rows: int) -> list[list[int]]:
    """Rows with the same edits, in order of first appearance."""
    if not isinstance(edits, PerRow):
        return [list(range(n_rows))]
    groups: dict[tuple[Edit, ...], list[int]] = {}
    for row, sequence in enumerate(edits.rows):
        groups.setdefault(sequence, []).append(row)
    return list(groups.values())


def refuse_outside(edits: Edits, lengths: Sequence[int]) -> None:
    """Refuse positions that no prompt of a call has; a range or a slice may reach beyond.

    Args:
        edits: one sequence for all rows, or `per_row([...])`.
        lengths: of each row's prompt, tokens.

    Raises:
        UserError: a position exists in none of the rows that its edit belongs to.
    """
    for entry in entries_of(edits, len(lengths)):
        rows = range(len(lengths)) if entry.rows is None else entry.rows.tolist()
        longest = max((lengths[row] for row in rows), default=0)
        outside = entry.edit.positions.outside(longest)
        if rows and outside is not None:
            works = f"the longest prompt has {longest} tokens"
            raise UserError(f"no row has prompt position {outside}", given=entry.edit.describe(), works=works)
