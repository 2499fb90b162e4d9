"""Teacher forcing: the same tokens with and without edits, doing only the work that differs.

What lies below the edits is computed once for all of them, a prefix that all rows share once for all rows, and an edit
of the last block's output costs no pass at all. Equal to `Model.run` up to rounding (tests/interp/test_forced.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from interp.backend.hook_path import HookPath
from interp.backend.watch import Watch
from interp.bare_model import takes_model
from interp.batch import Batch
from interp.editor import Editor, Fired
from interp.edits import Edits, PerRow
from interp.errors import UserError
from interp.fired import refuse_untouched
from interp.placed_edits import refuse_outside
from interp.positions import Tokens
from interp.sites import Site

MIN_PREFIX = 8
"""A shorter common prefix is not worth a pass of its own."""


@runtime_checkable
class Runs(Protocol):
    """What teacher forcing needs of a model; `interp.model.Model` has it."""

    hooked: Any

    @property
    def path(self) -> Any: ...  # noqa: D102 - see Model
    @property
    def n_layers(self) -> int: ...  # noqa: D102

    def check(self, batch: Batch) -> None: ...  # noqa: D102
    def tokens(  # noqa: D102
        self,
        ids: Tensor,
        position: Tensor,
        prompt_len: Tensor,
        rows: Tensor,
        weight: Tensor | None = None,
        members: Tensor | None = None,
    ) -> Tokens: ...


@dataclass(frozen=True)
class _Piece:
    """The shared prefix (one row for all rows), or what follows it; resid_post of the kept blocks and the last one."""

    tokens: Tokens
    resid: dict[int, Tensor]


class Forced:
    """Rows of tokens run without edits, ready to be run with them.

    Args:
        model: a Model.
        batch: prompts with what was said after them.
        keep: blocks whose output is kept in memory, [batch, pos, d_model] each; the last one always is. Edits of a
            kept block's output, or of what lies above it, resume there.

    What was run without edits belongs to the model as it was: a later call raises UserError where it changed.
    """

    @takes_model
    def __init__(self, model: Runs, batch: Batch, keep: Iterable[int] = ()) -> None:
        model.check(batch)
        self.model, self.path = model, model.path
        self._watch = Watch(model.hooked)
        self.device = self.path.device
        self.last = model.n_layers - 1
        self.batch = Batch(batch.ids.to(self.device), batch.mask.to(self.device), batch.prompt_len.to(self.device))
        self.resumes = not isinstance(self.path, HookPath)
        self.kept = sorted({*keep, self.last})
        self.prefix = shared_length(self.batch) if self.resumes else 0
        self.whole = self._tokens(self.batch)
        self.pieces = self._run_base()

    @property
    def base(self) -> Float[Tensor, "batch pos d_model"]:
        """resid_post of the last block without edits, laid out as the batch; zero on padding."""
        return self.base_at(self.last)

    def base_at(self, layer: int) -> Float[Tensor, "batch pos d_model"]:
        """resid_post of a kept block without edits, laid out as the batch; zero on padding.

        Raises:
            UserError: the block was not kept.
        """
        if layer not in self.kept:
            raise UserError("this block was not kept", given=layer, works=f"Forced(..., keep=[{layer}])")
        return self._lay_out([piece.resid[layer] for piece in self.pieces])

    def steered(self, edits: Edits) -> tuple[Float[Tensor, "batch pos d_model"], tuple[Fired, ...]]:
        """resid_post of the last block under edits, laid out as the batch, and what the edits touched.

        Raises:
            UserError: an edit never fired or touched no token, or a site or position does not exist.
        """
        refuse_outside(edits, self.batch.prompt_len.tolist())
        editor = Editor(edits, n_rows=len(self.batch), n_layers=self.model.n_layers)
        final, fired = self._steer(editor, edits), tuple(editor.fired())
        refuse_untouched(fired)
        return final, fired

    def steered_at(
        self, edits: Edits, layers: Iterable[int]
    ) -> tuple[dict[int, Float[Tensor, "batch pos d_model"]], tuple[Fired, ...]]:
        """resid_post of some blocks under edits, laid out as the batch, and what the edits touched.

        Args:
            edits: one sequence for all rows, or `per_row([...])`.
            layers: the blocks; one below all edits must be a kept one.

        Raises:
            UserError: an edit never fired or touched no token, a site or position does not exist, or a block below the
                edits was not kept.
        """
        refuse_outside(edits, self.batch.prompt_len.tolist())
        read = {layer: Site(layer, "resid_post") for layer in layers}
        editor = Editor(edits, n_rows=len(self.batch), n_layers=self.model.n_layers, read=list(read.values()))
        self._steer(editor, edits)
        found: dict[int, Tensor] = {}
        for layer, site in read.items():
            parts = editor.values.pop(site)  # let go, so that no block is held twice for longer than it takes
            found[layer] = self._lay_out(parts) if len(parts) > 1 else parts[0] if parts else self.base_at(layer)
        fired = tuple(editor.fired())
        refuse_untouched(fired)
        return found, fired

    def _steer(self, editor: Editor, edits: Edits) -> Float[Tensor, "batch pos d_model"]:
        self._watch.check("teacher forcing")
        start, at_output = self._start(editor)
        with torch.no_grad():
            if start == self.last and at_output:
                return editor(Site(start, "resid_post"), self.base, self.whole)
            if not self.prefix or isinstance(edits, PerRow) or self._splits_prefix(editor):
                resid = self.base_at(start) if start >= 0 else None
                return self._forward(self.whole, editor, resid, start, at_output=at_output)
            return self._lay_out(self._in_pieces(editor, start, at_output=at_output))

    def _in_pieces(self, editor: Editor, start: int, *, at_output: bool) -> list[Tensor]:
        cache, finals = self.path.new_cache(), list[Tensor]()
        for piece in self.pieces:
            cache = self._widen(cache) if finals else cache
            finals.append(
                self._forward(piece.tokens, editor, piece.resid.get(start), start, cache, at_output=at_output)
            )
        return finals

    def _start(self, editor: Editor) -> tuple[int, bool]:
        """The kept block to resume after (-1 = the embedding), and whether its output itself is edited."""
        lowest = editor.first_layer
        if not self.resumes or lowest is None:
            return -1, False
        outputs = lowest in self.kept and not editor.base_sites
        at_output = outputs and {s.stream for s in editor.sites if s.layer == lowest} == {"resid_post"}
        below = [layer for layer in self.kept if layer < lowest]
        return (lowest, True) if at_output else (below[-1] if below else -1, False)

    def _splits_prefix(self, editor: Editor) -> bool:
        ids = self.pieces[0].tokens.ids[0].tolist()
        return editor.shared_prefix(self.batch.prompt_len.cpu(), self.prefix, ids) < self.prefix

    def _forward(
        self,
        tokens: Tokens,
        editor: Editor,
        resid: Tensor | None = None,
        start: int = -1,
        cache: Any = None,
        *,
        at_output: bool = False,
    ) -> Tensor:
        """The blocks after `start`, whose output is `resid`."""
        if resid is None:
            return editor.run(self.path, tokens, cache=cache)
        edited = editor(Site(start, "resid_post"), resid, tokens) if at_output else resid
        return editor.run(self.path, tokens, cache=cache, resid=edited, start=start + 1, clean=resid)

    def _run_base(self) -> list[_Piece]:
        pieces: list[_Piece] = []
        cache = self.path.new_cache() if self.prefix else None
        with torch.no_grad():
            for tokens in self._split_tokens():
                cache = self._widen(cache) if pieces else cache
                read = [Site(layer, "resid_post") for layer in self.kept]
                editor = Editor((), n_rows=len(self.batch), n_layers=self.model.n_layers, read=read)
                self._forward(tokens, editor, cache=cache)
                pieces.append(_Piece(tokens, {site.layer: values[0] for site, values in editor.values.items()}))
        return pieces

    def _widen(self, cache: Any) -> Any:
        return cache.take(torch.zeros(len(self.batch), dtype=torch.long, device=self.device))

    def _tokens(self, batch: Batch, skip: int = 0, cut: int = 0) -> Tokens:
        rows = torch.arange(len(batch), device=self.device)
        position = batch.position[:, cut:]
        position = torch.where(position < skip, -1, position) if skip else position
        return self.model.tokens(batch.ids[:, cut:], position, batch.prompt_len, rows)

    def _split_tokens(self) -> list[Tokens]:
        if not self.prefix:
            return [self.whole]
        padding = (~self.batch.mask).sum(1)
        row = int(padding.argmin())
        first = int(padding[row])
        ids = self.batch.ids[row : row + 1, first : first + self.prefix]
        position = torch.arange(self.prefix, device=self.device)[None]
        zero = torch.zeros(1, dtype=torch.long, device=self.device)
        weight = zero + len(self.batch)
        members = torch.ones(1, len(self.batch), dtype=torch.bool, device=self.device)
        shared = self.model.tokens(ids, position, self.batch.prompt_len[:1], zero, weight, members)
        return [shared, self._tokens(self.batch, self.prefix, first + self.prefix)]

    def _lay_out(self, parts: list[Tensor]) -> Float[Tensor, "batch pos d_model"]:
        mask, position = self.batch.mask, self.batch.position
        rest = parts[-1]
        full = rest.new_zeros(*mask.shape, rest.shape[-1])
        if self.prefix:
            full[mask & (position < self.prefix)] = parts[0].expand(len(mask), -1, -1).flatten(0, 1)
        own = (mask & (position >= self.prefix))[:, -rest.shape[1] :]
        full[:, -rest.shape[1] :][own] = rest[own]
        return full


def shared_length(batch: Batch) -> int:
    """Leading tokens that all rows have in common, before every row's last prompt token; 0 where not worth sharing."""
    if len(batch) < 2:
        return 0
    longest = int(batch.prompt_len.min()) - 1
    padding = (~batch.mask).sum(1, keepdim=True)
    index = padding + torch.arange(longest, device=batch.ids.device)[None]
    heads = batch.ids.gather(1, index)
    differs = (heads != heads[:1]).any(0).nonzero()
    length = int(differs[0]) if len(differs) else longest
    return length if length >= MIN_PREFIX else 0
