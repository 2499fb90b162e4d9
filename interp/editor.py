"""Applies edits in a forward pass, counts what they touched, keeps what was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.arguments import check_items
from interp.backend.engine import Engine
from interp.backend.hook_path import HookPath
from interp.backend.routes import Routes
from interp.edits import Edit, Edits, PerRow
from interp.errors import UserError
from interp.paths import BlockPaths
from interp.positions import EVERYWHERE, Tokens
from interp.sites import Site

SPLIT = ("resid_pre", "ln1_out", "attn_out", "resid_mid")
"""Streams that have more than one value at once in a block with patched paths."""


@dataclass(frozen=True)
class Fired:
    """What an edit did in a run.

    Attributes:
        edit: `Edit.describe()`.
        touched: token positions it was applied to, over all rows it belongs to. 0 means that no such position
            existed (a row that ended before `generated=5`, say): an edit whose site was never reached is an error.
        rows: how many rows of the batch it belongs to.
    """

    edit: str
    touched: int
    rows: int


@dataclass
class _Entry:
    edit: Edit
    rows: Int[Tensor, " some"] | None  # None = all rows
    n_rows: int
    reached: set[Site] = field(default_factory=set)
    touched: int = 0
    scratch: dict[str, Any] = field(default_factory=dict)


class Editor:
    """The edits and reads of one run, ready to be applied site by site.

    Edits at one site apply in the order given; reads see the value after them.

    Args:
        edits: one sequence for all rows, or `per_row([...])`.
        n_rows: rows of the batch.
        n_layers: blocks of the model; a site beyond them is an error.
        read: sites to keep.
    """

    def __init__(self, edits: Edits, *, n_rows: int, n_layers: int, read: Sequence[Site] = ()) -> None:
        every = _entries(edits, n_rows)
        self.entries = [entry for entry in every if not isinstance(entry.edit, BlockPaths)]
        self.patches = [entry for entry in every if isinstance(entry.edit, BlockPaths)]
        self.values: dict[Site, list[Tensor]] = {site: [] for site in read}
        self._n_rows, self._n_layers = n_rows, n_layers
        self._routes: dict[int, Routes] | None = None
        self.base_sites: set[Site] = {site for e in self.entries for site in getattr(e.edit, "base_sites", ())}
        self._base: dict[Site, Tensor] = {}
        self._by_site: dict[Site, list[_Entry]] = {}
        for entry in self.entries:
            for site in entry.edit.sites:
                self._by_site.setdefault(site, []).append(entry)
        beyond = [site for site in {*self._by_site, *self.values} if site.layer >= n_layers]
        if beyond:
            raise UserError(f"the model has blocks 0 to {n_layers - 1}", given=str(beyond[0]))
        self._check_patches(edits)

    def _check_patches(self, edits: Edits) -> None:
        """A path patch needs a block, and in each of its rows an edit at the output of the block below.

        Inside a patched block the streams that no longer have one value cannot be read or edited.
        """
        for sequence in edits.rows if isinstance(edits, PerRow) else [edits]:
            below = {site.layer for edit in sequence for site in edit.sites if site.stream in ("mlp_out", "resid_post")}
            for patch in (edit for edit in sequence if isinstance(edit, BlockPaths)):
                if patch.layer is None or patch.layer >= self._n_layers:
                    works = f".at(layer) with a block from 1 to {self._n_layers - 1}"
                    raise UserError("this path patch is placed at no block", given=patch.describe(), works=works)
                if patch.layer - 1 not in below:
                    works = f"give vectors with block {patch.layer - 1} too"
                    raise UserError("no edit enters the patched block", given=patch.describe(), works=works)
        split = {entry.edit.layer for entry in self.patches if isinstance(entry.edit, BlockPaths)}
        lost = [site for site in self.sites if site.layer in split and site.stream in SPLIT]
        if lost:
            raise UserError("this stream has no single value in a block with patched paths", given=str(lost[0]))

    @property
    def sites(self) -> set[Site]:
        """Every site that is edited or read."""
        return {*self._by_site, *self.values}

    def run(
        self,
        path: Engine | HookPath,
        tokens: Tokens,
        *,
        cache: Any = None,
        resid: Float[Tensor, "batch pos d_model"] | None = None,
        start: int = 0,
        stop: int | None = None,
        clean: Float[Tensor, "batch pos d_model"] | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """One pass under these edits; arguments as for `Engine.forward`.

        Raises:
            UserError: paths are to be patched, or streams compared with the base's, in a model that runs through its
                own hooks.
        """
        if self.base_sites:
            self._base = self._run_base(path, tokens, cache, resid if clean is None else clean, start)
        if not self.patches:
            return path.forward(tokens, tap=self, sites=self.sites, cache=cache, resid=resid, start=start, stop=stop)
        if isinstance(path, HookPath):
            works = "remove foreign hooks; a model whose attention and MLP run in parallel has no such paths"
            raise UserError("path patches need the engine, and this model runs through its own hooks", works=works)
        if self._routes is None:
            patches = [(entry.edit, None if entry.rows is None else entry.rows.tolist()) for entry in self.patches]
            self._routes = path.routes(patches, self._n_rows)  # pyright: ignore[reportArgumentType]
        for entry in self.patches:
            self._count(entry, tokens)
        return path.forward(
            tokens,
            tap=self,
            sites=self.sites,
            cache=cache,
            resid=resid,
            start=start,
            stop=stop,
            routes=self._routes,
            clean=clean,
        )

    def _run_base(
        self, path: Engine | HookPath, tokens: Tokens, cache: Any, resid: Tensor | None, start: int
    ) -> dict[Site, Tensor]:
        """The streams that edits compare with: the same tokens without edits, in lockstep, with their own cache."""
        if isinstance(path, HookPath):
            works = "remove foreign hooks"
            raise UserError("this edit needs the base stream, and this model runs through its own hooks", works=works)
        found: dict[Site, Tensor] = {}

        def keep(site: Site, value: Tensor, tokens: Tokens) -> Tensor:  # noqa: ARG001 - a tap
            found[site] = value
            return value

        beside = None if cache is None else cache.world("base")
        stop = 1 + max(site.layer for site in self.base_sites)
        path.forward(tokens, tap=keep, sites=self.base_sites, cache=beside, resid=resid, start=start, stop=stop)
        return found

    def _count(self, entry: _Entry, tokens: Tokens) -> None:
        """A path patch touches every token of its rows."""
        real = tokens.position >= 0
        if entry.rows is not None:
            real = real & torch.isin(tokens.rows, entry.rows.to(tokens.rows.device))[:, None]
        entry.touched += int((real * (1 if tokens.weight is None else tokens.weight[:, None])).sum())

    @property
    def first_layer(self) -> int | None:
        """The lowest block with an edit."""
        return min((site.layer for site in self._by_site), default=None)

    @property
    def depths(self) -> list[int]:
        """For each row the lowest block with an edit; the number of blocks where there is none."""
        lowest = [self._n_layers] * self._n_rows
        for entry in self.entries:
            layer = min(site.layer for site in entry.edit.sites)
            for row in range(self._n_rows) if entry.rows is None else entry.rows.tolist():
                lowest[row] = min(lowest[row], layer)
        return lowest

    def __call__(self, site: Site, value: Tensor, tokens: Tokens) -> Tensor:
        """The value of `site` after its edits."""
        for entry in self._by_site.get(site, ()):
            value = self._apply(entry, site, value, tokens)
        if site in self.values:
            self.values[site].append(value)
        return value

    def _apply(self, entry: _Entry, site: Site, value: Tensor, tokens: Tokens) -> Tensor:
        entry.reached.add(site)
        tokens = replace(tokens, base=self._base[site]) if site in self._base else tokens
        if entry.rows is None:
            return self._touch(entry, site, value, tokens)
        rows = torch.isin(tokens.rows, entry.rows.to(tokens.rows.device)).nonzero()[:, 0]
        if len(rows) == 0:
            return value
        return value.index_copy(0, rows, self._touch(entry, site, value[rows], tokens.take(rows)))

    def _touch(self, entry: _Entry, site: Site, value: Tensor, tokens: Tokens) -> Tensor:
        real = tokens.position >= 0
        selected = real if entry.edit.positions == EVERYWHERE else entry.edit.positions.mask(tokens)
        if site == entry.edit.sites[-1]:
            weight = 1 if tokens.weight is None else tokens.weight[:, None]
            entry.touched += int((selected * weight).sum())
        return entry.edit.apply(site, value, replace(tokens, selected=selected, scratch=entry.scratch))

    def fired(self) -> list[Fired]:
        """Counts for every edit.

        Raises:
            UserError: an edit's site was never reached, so that the run is not what it says.
        """
        for entry in self.entries:
            missed = [str(site) for site in entry.edit.sites if site not in entry.reached]
            if missed:
                raise UserError("an edit never fired", given=entry.edit.describe(), works=f"never reached: {missed[0]}")
        return [Fired(entry.edit.describe(), entry.touched, entry.n_rows) for entry in [*self.entries, *self.patches]]

    def counts(self) -> list[tuple[int, dict[str, Any]]]:
        """What `take_back` needs to forget the passes that follow."""
        return [(entry.touched, dict(entry.scratch)) for entry in [*self.entries, *self.patches]]

    def take_back(self, counts: list[tuple[int, dict[str, Any]]]) -> None:
        """Forget what passes did since `counts`, because they failed and will be run again."""
        for entry, (touched, scratch) in zip([*self.entries, *self.patches], counts, strict=True):
            entry.touched, entry.scratch = touched, scratch

    def shared_prefix(self, prompt_len: Int[Tensor, " batch"], length: int, ids: Sequence[int]) -> int:
        """How many of the first `length` tokens, equal in all rows, every row of a group edits in the same way.

        Rows of one group differ in their prompts' lengths, so an edit at `prompt=-1` may fall into the prefix of a
        short row only.
        """
        position = torch.arange(length)[None].expand(len(prompt_len), -1)
        for entry in self.entries:
            if entry.edit.by_row or length == 0:
                return 0
            if entry.edit.positions == EVERYWHERE:
                continue
            rows = torch.arange(len(prompt_len)) if entry.rows is None else entry.rows
            tokens = Tokens(
                torch.tensor(ids[:length])[None].expand(len(rows), -1), position[rows], prompt_len[rows], rows, _no_text
            )
            mask = entry.edit.positions.mask(tokens)
            differs = (mask != mask[:1]).any(0).nonzero()
            length = min(length, int(differs[0])) if len(differs) else length
        return length


def _no_text(token: int) -> str:
    """At("...") selects by text alone, the same in every row of a shared prefix."""
    return str(token)


def check_edits(edits: Edits) -> None:
    """Raise where something else is among the edits.

    Raises:
        UserError: it is.
    """
    if not isinstance(edits, PerRow):
        check_items("edits", edits, lambda one: isinstance(one, BlockPaths) or hasattr(one, "sites"), "[Add(site, v)]")


def _entries(edits: Edits, n_rows: int) -> list[_Entry]:
    """One entry for each edit; with per_row, one for each distinct edit, in an order that keeps every row's own."""
    if not isinstance(edits, PerRow):
        check_edits(edits)
        return [_Entry(edit, None, n_rows) for edit in edits]
    if len(edits.rows) != n_rows:
        raise UserError(f"per_row needs one sequence of edits for each of the {n_rows} rows", given=len(edits.rows))
    groups: dict[tuple[int, Edit], list[int]] = {}
    for row, sequence in enumerate(edits.rows):
        for rank, edit in enumerate(sequence):
            groups.setdefault((rank, edit), []).append(row)
    ordered = sorted(groups.items(), key=lambda item: item[0][0])
    return [_Entry(edit, torch.tensor(rows), len(rows)) for (_, edit), rows in ordered]


def row_groups(edits: Edits, n_rows: int) -> list[list[int]]:
    """Rows with the same edits, in order of first appearance."""
    if not isinstance(edits, PerRow):
        return [list(range(n_rows))]
    groups: dict[tuple[Edit, ...], list[int]] = {}
    for row, sequence in enumerate(edits.rows):
        groups.setdefault(sequence, []).append(row)
    return list(groups.values())
