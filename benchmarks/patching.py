"""(1) Residual patching at all blocks and positions; (2) all heads of a block."""

from __future__ import annotations

import random
from functools import partial
from importlib import import_module
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from benchmarks.bench import SEED, Bench
from benchmarks.measure import Contender, Line, compare, differ
from interp import Batch, Node, PatchSweep, Site

LENGTH, CELLS = 20, 24
"""Tokens of a row; cells that peers patch in a round (their cost depends on neither block nor position)."""
TOLERANCE = 2e-3
"""Largest difference of a log-probability, nats."""


def residual(bench: Bench) -> list[Line]:
    """Pairs that differ from the first, the middle, or the last quarter on."""
    lines: list[Line] = []
    length = bench.size(LENGTH, 6)
    for name, first in (("first", 0), ("middle", length // 2), ("last quarter", 3 * length // 4)):
        lines += _residual(bench, name, length, first)
    return lines


def _residual(bench: Bench, name: str, length: int, first: int) -> list[Line]:
    model, (into, source) = bench.model, bench.pair(length, first)
    answer = int(source.ids[0, -1])
    drawn = random.Random(SEED)
    grid = [(layer, position) for layer in range(model.n_layers) for position in range(length)]
    cells = sorted(drawn.sample(grid, bench.size(CELLS, 3)))
    index = [layer * length + position for layer, position in cells]

    def ours() -> Tensor:
        return PatchSweep(model, into, source).score(readouts=[_LogProb(answer)])["p"].pipe(_tensor)

    def same(mine: Tensor, theirs: Tensor) -> str:
        worst = float((mine[index] - theirs).abs().max())
        if not worst < TOLERANCE:
            raise differ("patched log-probabilities", worst)
        return f"log-probabilities within {worst:.0e}"

    part = len(cells) / len(grid)
    peers = [
        Contender("transformer_lens.patching", _transformer_lens(bench, into, source, cells, answer), part),
        Contender("nnsight, one batch of patches", _nnsight(bench, into, source, cells, answer), part),
    ]
    setting = f"{model.n_layers} blocks x {length} positions, differ at the {name} token"
    return compare("residual patching", setting, [Contender("small-vectors", ours), *peers], same, bench.rounds)


class _LogProb:
    """Log-probability of one token."""

    def __init__(self, token: int) -> None:
        self.token = token
        self.columns = {"p": "log-probability, nats"}

    def __call__(self, rows: Any) -> dict[str, list[float]]:
        return {"p": rows.steered[:, self.token].tolist()}


def _tensor(column: Any) -> Tensor:
    return torch.tensor(column.to_numpy())


def _transformer_lens(
    bench: Bench, into: Batch, source: Batch, cells: list[tuple[int, int]], answer: int
) -> partial[Tensor]:
    """The library's own function, without gradient, for the cells of a data frame."""
    patching: Any = import_module("transformer_lens.patching")
    patching.tqdm = lambda rows: rows  # the bar is not what is timed
    hooked = bench.model.hooked
    with torch.no_grad():
        _, cache = hooked.run_with_cache(source.ids, names_filter=lambda name: name.endswith("hook_resid_pre"))

    def work() -> Tensor:
        with torch.no_grad():
            return patching.generic_activation_patch(
                model=hooked,
                corrupted_tokens=into.ids,
                clean_cache=cache,
                patching_metric=lambda logits: logits[0, -1].log_softmax(-1)[answer],
                patch_setter=patching.layer_pos_patch_setter,
                activation_name="resid_pre",
                index_df=pd.DataFrame(cells, columns=["layer", "pos"]),
            )

    return partial(work)


def _nnsight(bench: Bench, into: Batch, source: Batch, cells: list[tuple[int, int]], answer: int) -> partial[Tensor]:
    """One trace over as many copies of the row as there are cells, logits at the last position only."""
    nnsight: Any = import_module("nnsight")
    wrapped = nnsight.LanguageModel(bench.hf, tokenizer=bench.model.tokenizer)
    layers = range(bench.model.n_layers)
    clean = bench.model.run(source, read=[Site(layer, "resid_pre") for layer in layers])
    by_layer = {layer: [(i, p) for i, (at, p) in enumerate(cells) if at == layer] for layer in layers}
    values = {layer: clean[Site(layer, "resid_pre")][0] for layer in layers}
    copies = into.ids.repeat(len(cells), 1)

    def work() -> Tensor:
        with torch.no_grad(), wrapped.trace(copies, logits_to_keep=1):
            for layer in layers:
                for row, position in by_layer[layer]:
                    wrapped.model.layers[layer].input[row, position] = values[layer][position]
            logits = wrapped.lm_head.output.save()
        return logits[:, -1].log_softmax(-1)[:, answer]

    return partial(work)


def heads(bench: Bench) -> list[Line]:
    """The output of each head at all positions, at three blocks, one hooked pass a head beside."""
    model, length = bench.model, bench.size(31, 6)
    into, source = bench.pair(length, 0)
    sites = [Site(layer, "z") for layer in range(model.n_layers)]
    clean = model.run(source, read=sites).values
    lines: list[Line] = []
    for layer in (0, model.n_layers // 2 - 1, model.n_layers - 1):
        lines += _heads(bench, layer, into, source, clean[Site(layer, "z")])
    return lines


def _heads(bench: Bench, layer: int, into: Batch, source: Batch, clean: Tensor) -> list[Line]:
    model = bench.model
    nodes = [Node(Site(layer, "z"), None, head) for head in range(model.cfg.n_heads)]
    sweep = PatchSweep(model, into, source, streams=("z",))

    def ours() -> Tensor:
        return model.unembed(sweep.final(nodes)).log_softmax(-1)

    def put(value: Tensor, hook: Any, *, head: int) -> Tensor:  # noqa: ARG001 - TransformerLens passes it
        value = value.clone()
        value[:, :, head] = clean[:, :, head]
        return value

    def loop() -> Tensor:
        name = f"blocks.{layer}.attn.hook_z"
        with torch.no_grad():
            rows = [
                model.hooked.run_with_hooks(into.ids, fwd_hooks=[(name, partial(put, head=head))])[0, -1]
                for head in range(len(nodes))
            ]
        return torch.stack(rows).log_softmax(-1)

    def same(mine: Tensor, theirs: Tensor) -> str:
        worst = float((mine.exp() - theirs.exp()).abs().max())
        if not worst < TOLERANCE:
            raise differ("probabilities under patched heads", worst)
        return f"probabilities within {worst:.0e}"

    contenders = [Contender("small-vectors", ours), Contender("HookedTransformer, one hooked pass a head", loop)]
    setting = f"{len(nodes)} heads of block {layer}, {into.ids.shape[1]} tokens, both runs kept"
    return compare("head patching", setting, contenders, same, bench.rounds)
