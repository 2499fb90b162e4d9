"""Sampling with edits: shared prefixes run once, finished rows leave, every row has its own random stream."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import groupby
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from interp.arguments import check_items
from interp.backend.cache import Cache
from interp.backend.hook_path import HookPath
from interp.bare_model import takes_model
from interp.completions import Completion, Completions
from interp.digest import digest
from interp.editor import Editor
from interp.edits import Edits, Patch, PerRow
from interp.errors import UserError
from interp.memory import halved
from interp.placed_edits import row_groups
from interp.positions import Tokens
from interp.prompts import Prompt, check_prompts, shared_prefix
from interp.sampling import Sampling as Sampling
from interp.sampling import stream_seed
from interp.sites import Site
from interp.whole_rows import Row, WholeRows, extend

MIN_PREFIX = 8
"""A shorter common prefix is not worth a pass of its own."""
MAX_ROWS = 256
"""More rows than this no longer speed up a matrix product."""


@runtime_checkable
class Decodes(Protocol):
    """What generation needs of a model; `interp.model.Model` has it."""

    stop_ids: tuple[int, ...]

    @property
    def path(self) -> Any: ...  # noqa: D102 - see Model
    @property
    def n_layers(self) -> int: ...  # noqa: D102
    @property
    def n_ctx(self) -> int: ...  # noqa: D102
    @property
    def n_tokens(self) -> int: ...  # noqa: D102
    @property
    def d_vocab(self) -> int: ...  # noqa: D102
    @property
    def bytes_per_token(self) -> int: ...  # noqa: D102

    def memory_bytes(self, gigabytes: float | None) -> float: ...  # noqa: D102
    def unembed(self, resid: Tensor) -> Tensor: ...  # noqa: D102
    def logits(self, final: Tensor) -> Tensor: ...  # noqa: D102
    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]: ...  # noqa: D102
    def tokens(  # noqa: D102
        self,
        ids: Tensor,
        position: Tensor,
        prompt_len: Tensor,
        rows: Tensor,
        weight: Tensor | None = None,
        members: Tensor | None = None,
    ) -> Tokens: ...


@takes_model
def generate(model: Decodes, prompts: Sequence[Prompt], edits: Edits, sampling: Sampling) -> Completions:
    """Complete every prompt; see `Model.generate`, which also refuses edits that touched no token."""
    check_items("prompts", prompts, lambda one: isinstance(one, Prompt), "[model.prompt(text)]")
    check_prompts(prompts, tokens=model.n_tokens)
    keys = sampling.keys or [digest(prompt.ids) for prompt in prompts]
    if len(keys) != len(prompts):
        raise UserError(f"{len(prompts)} prompts need as many keys", given=len(keys))
    patches = [edit for edit in _all(edits) if isinstance(edit, Patch) and edit.positions.generated != "none"]
    if patches:
        raise UserError("a patch has no values for tokens not yet generated", works='Positions(generated="none")')
    longest = max((len(prompt.ids) for prompt in prompts), default=0) + sampling.max_new_tokens
    if longest > model.n_ctx:
        raise UserError(f"the model's context holds {model.n_ctx} tokens", given=longest)
    editor = Editor(edits, n_rows=len(prompts), n_layers=model.n_layers)
    rows: list[Row] = []
    with torch.no_grad():
        held = 2 * longest if editor.base_sites else longest  # the base stream's keys and values stand beside
        depths = editor.depths
        by_depth = sorted(range(len(prompts)), key=depths.__getitem__)  # equal prompts share the blocks below
        chunks = _chunks(model, by_depth, sampling, held)
        while chunks:
            before = editor.counts()
            try:
                rows += _Decoder(model, prompts, edits, editor, sampling, keys).run(chunks[0])
            except (MemoryError, RuntimeError) as error:
                size = halved(len(chunks[0]), "prompts", error)
                editor.take_back(before)
                chunks = _split([row for chunk in chunks for row in chunk], size)
            else:
                del chunks[0]
    rows.sort(key=lambda row: (row.prompt, row.sample))
    done = [Completion(r.prompt, r.sample, tuple(r.ids), r.ended, tuple(r.log_prob), tuple(r.entropy)) for r in rows]
    texts = model.decode([row.ids for row in done])
    return Completions(tuple(prompts), tuple(done), tuple(texts), tuple(editor.fired()))


def _all(edits: Edits) -> list[Any]:
    return [edit for row in edits.rows for edit in row] if isinstance(edits, PerRow) else list(edits)


def _chunks(model: Decodes, rows: list[int], sampling: Sampling, held: int) -> list[list[int]]:
    """Prompts whose samples, `held` tokens each, fit in memory together, in order."""
    each = model.bytes_per_token * held + model.d_vocab * 4 * 4
    at_once = min(MAX_ROWS, int(model.memory_bytes(sampling.memory_gb) // each)) // sampling.samples
    return _split(rows, max(1, at_once))


def _split(rows: list[int], size: int) -> list[list[int]]:
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def _keep(kept: dict[Site, Tensor], site: Site, value: Tensor, tokens: Tokens) -> Tensor:  # noqa: ARG001 - a tap
    kept[site] = value
    return value


class _Decoder:
    """One batch of rows, from prompts to completions."""

    def __init__(
        self,
        model: Decodes,
        prompts: Sequence[Prompt],
        edits: Edits,
        editor: Editor,
        sampling: Sampling,
        keys: Sequence[str],
    ) -> None:
        self.model, self.prompts, self.edits, self.editor = model, prompts, edits, editor
        self.sampling, self.keys = sampling, keys
        self.path = model.path
        self.stop = set(model.stop_ids)

    def run(self, chunk: list[int]) -> list[Row]:
        """Prefill, then one token at a time until every row has ended or is cut."""
        samples = self.sampling.samples
        rows = [
            Row(prompt, sample, stream_seed(self.sampling.seed, self.keys[prompt], sample))
            for prompt in chunk
            for sample in range(samples)
        ]
        if isinstance(self.path, HookPath) and not self.path.caches:
            length, temperature = self.sampling.max_new_tokens, self.sampling.temperature
            WholeRows(self.model, self.path, self.prompts, self.editor, temperature, length).complete(rows)
            return rows
        final, cache, prompt_len = self._prefill(chunk)
        expand = torch.arange(len(chunk), device=self.path.device).repeat_interleave(samples)
        if samples > 1:
            final, cache = final[expand], cache.take(expand, reserve=self.sampling.max_new_tokens)
        self._decode(rows, final, cache, prompt_len[expand])
        return rows

    def _decode(self, rows: list[Row], final: Tensor, cache: Any, prompt_len: Int[Tensor, " row"]) -> None:
        active = rows
        index = torch.tensor([row.prompt for row in rows], device=self.path.device)
        for step in range(self.sampling.max_new_tokens):
            token = extend(active, self.model.unembed(final), step, self.sampling.temperature, self.stop)
            alive = [not row.ended for row in active]
            if step + 1 == self.sampling.max_new_tokens or not any(alive):
                return
            if sum(alive) <= 0.9 * len(active):
                keep = torch.tensor([i for i, a in enumerate(alive) if a], device=self.path.device)
                active, alive = [row for row in active if not row.ended], [True] * len(keep)
                cache.keep(keep)
                token = token[keep]
                prompt_len, index = prompt_len[keep], index[keep]
            position = torch.where(torch.tensor(alive, device=self.path.device), prompt_len + step, -1)
            tokens = self.model.tokens(token[:, None], position[:, None], prompt_len, index)
            final = self._forward(tokens, cache)[:, -1]

    def _forward(self, tokens: Tokens, cache: Any) -> Tensor:
        return self.editor.run(self.path, tokens, cache=cache)

    def _prefill(self, chunk: list[int]) -> tuple[Tensor, Any, Int[Tensor, " row"]]:
        """Keys and values of all prompts; a prefix that rows with equal edits share runs once for them."""
        device = self.path.device
        lengths = torch.tensor([len(self.prompts[row].ids) for row in range(len(self.prompts))])
        ids = self.prompts[chunk[0]].ids
        shared = shared_prefix([self.prompts[row] for row in chunk])
        shared = self.editor.shared_prefix(lengths, min(shared, int(lengths[chunk].min()) - 1), ids)
        # The padding after a shared prefix would count in a window of TransformerLens, which goes by places.
        prefix = shared if shared >= MIN_PREFIX and not isinstance(self.path, HookPath) else 0
        cache, group = self._prefix(chunk, lengths, prefix)
        rest = [self.prompts[row].ids[prefix:] for row in chunk]
        width = max(map(len, rest))
        padded = torch.tensor([[0] * (width - len(r)) + list(r) for r in rest], device=device)
        prompt_len = lengths[chunk].to(device)
        position = torch.arange(width, device=device)[None] - width + prompt_len[:, None]
        position = torch.where(position < prefix, -1, position)
        weight = torch.full_like(prompt_len, self.sampling.samples)
        tokens = self.model.tokens(padded, position, prompt_len, torch.tensor(chunk, device=device), weight)
        return *self._above_trunk(chunk, tokens, cache, group), prompt_len

    def _above_trunk(
        self, chunk: list[int], tokens: Tokens, cache: Any, group: Int[Tensor, " row"] | None
    ) -> tuple[Tensor, Any]:
        """The last stream of every prompt, and the cache; rows with equal prompts share the blocks below their edits.

        The rows of a sweep have the same prompts again and again. Blocks below an edit run once for each prompt, and
        rows join where their lowest edit is.

        Args:
            chunk: rows of the batch, by rising depth.
            tokens: of each, after the shared prefix.
            cache: of the shared prefix, one row for each group of equal edits.
            group: of each row; None without a shared prefix.
        """
        depths = [self.editor.depths[row] for row in chunk]
        if self.editor.patches:  # a block with patched paths wants all rows
            depths = [min(depths)] * len(chunk)
        first: dict[tuple[int, ...], int] = {}
        own = [first.setdefault(self.prompts[row].ids, len(first)) for row in chunk]
        if max(depths) == 0 or len(first) == len(chunk) or self.editor.base_sites or isinstance(self.path, HookPath):
            cache = cache if group is None else cache.take(group)
            return self._forward(tokens, cache)[:, -1], cache

        def part_of(rows: list[int]) -> tuple[Tokens, Any]:
            index = torch.tensor(rows, device=self.path.device)
            return tokens.take(index), cache.take(index if group is None else group[index])

        kept: dict[Site, Tensor] = {}
        sites = {Site(depth, "resid_pre") for depth in depths if depth < max(depths)}
        # A prompt's last row has its highest edit: up to there the shared prefix in the cache is clean.
        deepest = {number: row for row, number in enumerate(own)}
        some, trunk = part_of([deepest[number] for number in range(len(first))])
        top: Tensor = self.path.forward(some, tap=partial(_keep, kept), sites=sites, cache=trunk, stop=max(depths))
        finals: list[Tensor] = []
        parts: list[Any] = []
        for depth, members in groupby(range(len(chunk)), key=depths.__getitem__):
            rows = list(members)
            new, part = part_of(rows)
            prompts = torch.tensor([own[row] for row in rows], device=self.path.device)
            part.graft(trunk, prompts, below=depth)
            resid = (top if depth == max(depths) else kept[Site(depth, "resid_pre")])[prompts]
            final: Tensor = self.editor.run(self.path, new, cache=part, resid=resid, start=depth)
            finals.append(final[:, -1])
            parts.append(part)
        joined = parts[0] if len(parts) == 1 else Cache.join(parts, reserve=self.sampling.max_new_tokens)
        return torch.cat(finals), joined

    def _prefix(
        self, chunk: list[int], lengths: Int[Tensor, " prompt"], length: int
    ) -> tuple[Any, Int[Tensor, " row"] | None]:
        """The cache of the shared prefix, one row for each group of equal edits, and each row's group."""
        reserve = self.sampling.max_new_tokens + int(lengths[chunk].max()) - length
        cache = self.path.new_cache(reserve=reserve)
        if length == 0:
            return cache, None
        device = self.path.device
        groups = [[r for r in group if r in set(chunk)] for group in row_groups(self.edits, len(self.prompts))]
        groups = [group for group in groups if group]
        ids = torch.tensor(self.prompts[chunk[0]].ids[:length], device=device)[None].expand(len(groups), -1)
        position = torch.arange(length, device=device)[None].expand(len(groups), -1)
        first = torch.tensor([group[0] for group in groups], device=device)
        weight = torch.tensor([len(group) * self.sampling.samples for group in groups], device=device)
        prompt_len = lengths.to(device)[first]
        members = torch.zeros(len(groups), len(lengths), dtype=torch.bool, device=device)
        for number, group in enumerate(groups):
            members[number, group] = True
        self._forward(self.model.tokens(ids, position, prompt_len, first, weight, members), cache)
        group_of = {row: number for number, group in enumerate(groups) for row in group}
        return cache, torch.tensor([group_of[row] for row in chunk], device=device)
