"""Activation patching: values of one run put into another, at every block and position, doing only work that differs.

A patch at block l and position p runs the blocks from l on and the tokens from p on; all patches run together, and one
that changes nothing is not run. Equal to one pass for each patch up to rounding (tests/interp/test_patching.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.backend.branches import Branch, Trunk, run_branches
from interp.backend.engine import Engine
from interp.backend.watch import Watch
from interp.bare_model import takes_model
from interp.batch import Batch
from interp.distributions import blocks, log_probs
from interp.editor import Editor
from interp.edits import Edit
from interp.errors import UserError
from interp.fired import refuse_untouched
from interp.memory import halved
from interp.model import Model
from interp.positions import Tokens
from interp.readouts import Readout
from interp.scoring import chosen_readouts, read
from interp.selection import whole
from interp.sites import Site, Stream

if TYPE_CHECKING:
    import pandas as pd

HEADS = ("q", "k", "v", "z")
"""Streams that are patched head by head."""
MOST_TOKENS = {"cpu": 1024, "cuda": 4096}
"""Tokens of a pass: more would hold more memory for little speed (docs/performance.md)."""

Metric = Callable[[Float[Tensor, "row vocab"]], Float[Tensor, " row"]]
"""A number of each row of next-token log-probabilities, differentiable where it is attributed."""


@dataclass(frozen=True)
class Node:
    """A value that is taken from one run and put into another.

    Attributes:
        site: a stream of a block.
        position: counted from the row's first token; None = at all positions.
        head: of q, z (query heads), k, v (key-value heads); None = all heads.
    """

    site: Site
    position: int | None
    head: int | None = None

    def __post_init__(self) -> None:
        if self.position is not None:
            works = "count from the row's first token, or None for all positions"
            object.__setattr__(self, "position", whole(self.position, "a node's position", works=works))
        if self.head is not None:
            object.__setattr__(self, "head", whole(self.head, "a head", works="None patches all heads"))


@dataclass(frozen=True)
class Run:
    """One row of tokens, and the edits under which it is run."""

    batch: Batch
    edits: tuple[Edit, ...] = ()


class PatchSweep:
    """Two runs, one of which takes values from the other; read at the last position.

    Args:
        model: a Model.
        into: the row that is patched: a batch of one row.
        source: the row that values come from, of the same length.
        streams: what is patched; of each, every block is kept.
        into_edits: edits under which `into` is run, patched or not.
        source_edits: edits under which `source` is run.
        memory_gb: bound of what a pass may hold; results do not depend on it.

    Raises:
        UserError: the rows do not match, an edit has no meaning for part of a row, or the model runs through hooks.
    """

    @takes_model
    def __init__(
        self,
        model: Model,
        into: Batch,
        source: Batch,
        *,
        streams: Sequence[Stream] = ("resid_pre",),
        into_edits: Sequence[Edit] = (),
        source_edits: Sequence[Edit] = (),
        memory_gb: float | None = None,
    ) -> None:
        if len(into) != 1 or into.ids.shape != source.ids.shape:
            given = f"{list(into.ids.shape)} and {list(source.ids.shape)}"
            raise UserError("patching takes two rows of equal length", given=given, works="one pair at a time")
        model.check(into)
        if isinstance(streams, str) or not streams or len(set(streams)) != len(streams):
            raise UserError("a patch sweep takes distinct streams", given=streams, works='streams=("resid_pre",)')
        self.model, self.into, self.streams = model, Run(into, tuple(into_edits)), tuple(streams)
        self.engine = _engine(model, self.into.edits)
        self._watch = Watch(model.hooked)
        self.length, self.memory_gb = into.ids.shape[1], memory_gb
        self.sites = [Site(layer, stream) for layer in range(model.n_layers) for stream in self.streams]
        self.source = model.run(source, source_edits, read=self.sites).values
        self.trunk, self.own, self.base = self._run_into()
        same = bool(self.into.edits == tuple(source_edits))
        differs = (into.ids[0] != source.ids[0]).nonzero()
        self.shared = (int(differs[0]) if len(differs) else self.length) if same else 0

    def _run_into(self) -> tuple[Trunk, dict[Site, Tensor], Float[Tensor, "1 d_model"]]:
        n_layers, tokens, cache = self.model.n_layers, self._tokens(), self.engine.new_cache()
        entries = [Site(layer, "resid_pre") for layer in range(n_layers)]
        editor = Editor(self.into.edits, n_rows=1, n_layers=n_layers, read=[*entries, *self.sites])
        with torch.no_grad():
            final = editor.run(self.engine, tokens, cache=cache)
        refuse_untouched(editor.fired())
        own = {site: parts[0] for site, parts in editor.values.items()}
        tap = Editor(self.into.edits, n_rows=1, n_layers=n_layers)
        resid = {site.layer: own[site] for site in entries}
        return Trunk(tokens, resid, cache, tap, tap.sites), own, final[:, -1]

    def _tokens(self) -> Tokens:
        ids, position, prompt_len = (
            t.to(self.engine.device)
            for t in (self.into.batch.ids, self.into.batch.position, self.into.batch.prompt_len)
        )
        return self.model.tokens(ids, position, prompt_len, torch.zeros_like(prompt_len))

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Every block, position and, in q, k, v and z, head, of the patched streams."""
        heads = {site: range(self.own[site].shape[2]) if site.stream in HEADS else (None,) for site in self.sites}
        return tuple(Node(site, p, head) for site in self.sites for p in range(self.length) for head in heads[site])

    def final(self, nodes: Sequence[Node] | None = None) -> Float[Tensor, "node d_model"]:
        """The stream after the last block at the last position, with each node patched alone.

        Raises:
            UserError: a node's site was not kept, its position or head does not exist, or the model changed.
        """
        self._watch.check("patch sweep")
        chosen = self._chosen(nodes)
        branches = {number: branch for number, node in enumerate(chosen) if (branch := self.branch(node)) is not None}
        found = self.base.repeat(len(chosen), 1)
        order = sorted(branches, key=lambda number: (branches[number].first, branches[number].site.layer))
        with torch.no_grad():
            for some in self._passes(order, branches):
                found[torch.tensor(some, device=found.device)] = self._together([branches[n] for n in some])
        return found

    def _chosen(self, nodes: Sequence[Node] | None) -> Sequence[Node]:
        if nodes is not None and not len(nodes):
            raise UserError("no node was asked for", works="nodes=None patches all of them")
        return self.nodes if nodes is None else nodes

    def branch(self, node: Node) -> Branch | None:
        """What a node changes; None where both runs have the same value."""
        new, old = (self._value(run, node) for run in (self.source, self.own))
        differs = (new != old).flatten(1).any(1)
        differs[: self.shared] = False  # whatever rounding says
        first, stop = (0, self.length) if node.position is None else (node.position, node.position + 1)
        where = differs[first:stop].nonzero()
        if not len(where):
            return None
        first += int(where[0])
        return Branch(node.site, first, new[first:stop], node.head)

    def _value(self, run: dict[Site, Tensor], node: Node) -> Float[Tensor, "pos ..."]:
        if node.site not in run:
            raise UserError("this stream was not kept", given=str(node.site), works=f"streams={self.streams!r}")
        if not (node.position is None or 0 <= node.position < self.length):
            raise UserError(f"the row has positions 0 to {self.length - 1}", given=node.position)
        value = run[node.site][0]
        if node.head is None:
            return value
        if node.site.stream not in HEADS or not 0 <= node.head < value.shape[1]:
            raise UserError("there is no such head", given=f"head {node.head} of {node.site}")
        return value[:, node.head]

    def _passes(self, order: Sequence[int], branches: dict[int, Branch]) -> Iterator[list[int]]:
        """Branches whose tokens fit into memory together; those that leave at one position stand together."""
        most, some, held = self._most_tokens(), list[int](), 0
        for number in order:
            width = self.length - branches[number].first
            if some and held + width > most:
                yield some
                some, held = [], 0
            some, held = [*some, number], held + width
        if some:
            yield some

    def _most_tokens(self) -> int:
        cfg: Any = self.model.cfg
        heads = cfg.n_heads * (2 * cfg.d_head + self.length) + 4 * cfg.d_head * (cfg.n_key_value_heads or cfg.n_heads)
        token = (8 * cfg.d_model + 3 * cfg.d_mlp + heads) * 4
        most = MOST_TOKENS.get(self.engine.device.type, 4096)
        return min(most, int(self.model.memory_bytes(self.memory_gb) // token))

    def _together(self, some: Sequence[Branch]) -> Float[Tensor, "branch d_model"]:
        """One pass; in halves where it does not fit."""
        try:
            return run_branches(self.engine, self.trunk, some)
        except (RuntimeError, MemoryError) as error:
            size = halved(len(some), "patches", error)
        return torch.cat([self._together(some[i : i + size]) for i in range(0, len(some), size)])

    def score(self, nodes: Sequence[Node] | None = None, readouts: Sequence[str | Readout] = ("kl",)) -> pd.DataFrame:
        """What each patch changes in the next-token distribution after the row; a row for each node.

        Args:
            nodes: all of them if None.
            readouts: names or readouts; their base is the run without patch.

        Returns:
            `layer`, `stream`, `position` (from the row's first token; -1 = all), `head` (-1 = all), `token` (of the
            patched row, at the position), then the readouts' columns.
        """
        chosen = self._chosen(nodes)
        final = self.final(chosen)
        nothing = torch.full((len(chosen),), -1, device=final.device)
        values = read(self.model, chosen_readouts(readouts), self.base, final, nothing)
        return self.place(chosen).assign(**values)

    def place(self, nodes: Sequence[Node]) -> pd.DataFrame:
        """Where nodes are: `layer`, `stream`, `position`, `head` and `token` as in `score`."""
        import pandas as pd

        ids = self.into.batch.ids[0].tolist()
        text = ["" if node.position is None else self.model.token_text(ids[node.position]) for node in nodes]
        where: dict[str, list[Any]] = {
            "layer": [node.site.layer for node in nodes],
            "stream": [node.site.stream for node in nodes],
            "position": [-1 if node.position is None else node.position for node in nodes],
            "head": [-1 if node.head is None else node.head for node in nodes],
            "token": text,
        }
        return pd.DataFrame(where)

    def effects(self, metric: Metric, nodes: Sequence[Node] | None = None) -> Float[Tensor, " node"]:
        """How far each patch moves a number: with it less without it, exactly."""
        final = self.final(nodes)
        parts = [metric(log_probs(self.model, final[some])) for some in blocks(final, self.model.d_vocab)]
        moved = (final != self.base).any(1)  # a patch that was not run moves nothing, whatever the rounding of logits
        return torch.where(moved, torch.cat(parts) - metric(log_probs(self.model, self.base)), 0.0)

    def attributions(self, metric: Metric, nodes: Sequence[Node] | None = None) -> Float[Tensor, " node"]:
        """The same to first order, all nodes by one pass forward and one back: gradient . (source - own value).

        When NOT to use it alone: a first order is wrong where the change is large, in early blocks above all, and
        zero where the unpatched run is at a minimum (a KL from itself). See `interp.screening.screen`.
        """
        chosen = self._chosen(nodes)
        gradients = self._gradients(metric)
        return torch.stack([self._attribution(gradients, node) for node in chosen])

    def _gradients(self, metric: Metric) -> dict[Site, Tensor]:
        self._watch.check("patch sweep")
        tokens = self._tokens()
        editor = Editor(self.into.edits, n_rows=1, n_layers=self.model.n_layers, read=self.sites)
        with torch.enable_grad():
            start = self.engine.embed(tokens).detach().requires_grad_(True)
            final = editor.run(self.engine, tokens, resid=start)[:, -1]
            value = metric(self.model.unembed(final).float().log_softmax(-1))
            found = torch.autograd.grad(value.sum(), [editor.values[site][0] for site in self.sites])
        return dict(zip(self.sites, found, strict=True))

    def _attribution(self, gradients: dict[Site, Tensor], node: Node) -> Float[Tensor, ""]:
        where = slice(None) if node.position is None else node.position
        new, old, gradient = (self._value(run, node)[where].float() for run in (self.source, self.own, gradients))
        return (gradient * (new - old)).sum()


def _engine(model: Model, edits: Sequence[Edit]) -> Engine:
    """The engine, if it can run these edits over parts of a row."""
    if not isinstance(model.path, Engine):
        raise UserError("a patch sweep needs the engine, and this model runs through its own hooks")
    for edit in edits:
        if not edit.sites or edit.by_row or getattr(edit, "base_sites", ()):
            works = "vectors (Add, AddAdaptive) on the patched run; any edit on the source"
            raise UserError("this edit cannot stay on in a patched run", given=edit.describe(), works=works)
    return model.path
