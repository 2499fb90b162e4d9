"""What the machine itself can do: matrix products alone at the shapes of the work, start-up, loading."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.bench import MODEL, Bench
from benchmarks.measure import Contender, Line, compare, line, seconds
from interp import PatchSweep, load_model
from interp.backend.embedded import folder_of
from interp.backend.engine import Engine
from interp.backend.products import linear

WIDE = 1024
"""Tokens at which a sweep's matrix products are timed."""


def median_seconds(work: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """Median, fastest and slowest of some rounds after an untimed one."""
    work()
    taken = [seconds(work) for _ in range(rounds)]
    return statistics.median(taken), min(taken), max(taken)


def products(bench: Bench, tokens: int, *, unembed: bool) -> Callable[[], None]:
    """Only the matrix products of a pass over some tokens, with the model's own weights, by the faster library.

    Args:
        bench: holds the model.
        tokens: rows of every product.
        unembed: the unembedding too.
    """
    engine = bench.model.path
    assert isinstance(engine, Engine)
    every = [w for b in engine.blocks for w in (b.q, b.k, b.v, b.o, b.up, b.gate, b.down) if w is not None]
    every += [bench.model.hooked.unembed.W_U] if unembed else []
    inputs = {width: torch.randn(tokens, width) for width in {w.shape[0] for w in every}}

    def work() -> None:
        with torch.no_grad():
            for weight in every:
                linear(inputs[weight.shape[0]], weight.T)

    return work


def shares(bench: Bench) -> list[Line]:
    """Time of the matrix products alone as a share of the whole work: decoding, and a sweep."""
    rows, model = bench.size(64, 4), bench.model
    prompts = bench.prompts(rows, shared=False)
    long, short = bench.size(24, 4), 2

    def generate(length: int) -> float:
        return seconds(lambda: model.generate(prompts, max_new_tokens=length, temperature=0.0))

    alone, whole = products(bench, rows, unembed=True), list[tuple[float, float]]()
    alone()
    for _ in range(bench.rounds):
        step = (generate(long) - generate(short)) / (long - short)
        whole.append((step, statistics.median(seconds(alone) for _ in range(3))))
    setting = f"{rows} rows, one decoding step"
    return [*_pair("share of matrix products", setting, whole), *_sweep_share(bench)]


def _sweep_share(bench: Bench) -> list[Line]:
    length, n_layers = bench.size(20, 6), bench.model.n_layers
    into, source = bench.pair(length, 0)
    alone, whole = products(bench, WIDE, unembed=False), list[tuple[float, float]]()
    alone()
    sweep = PatchSweep(bench.model, into, source)
    branches = [branch for node in sweep.nodes if (branch := sweep.branch(node)) is not None]
    passes = sum((n_layers - branch.site.layer) * (length - branch.first) for branch in branches) / n_layers
    for _ in range(bench.rounds):
        whole.append((seconds(sweep.final), seconds(alone) * passes / WIDE))
    return _pair("share of matrix products", f"residual sweep, {len(branches)} patches, {length} tokens", whole)


def _pair(comparison: str, setting: str, taken: list[tuple[float, float]]) -> list[Line]:
    share = statistics.median(alone / whole for whole, alone in taken)
    nothing, note = float("nan"), f"{share:.0%} of our time"
    return [
        line(comparison, setting, "small-vectors", taken, 0, nothing, ""),
        line(comparison, setting, "matrix products alone", taken, 1, nothing, note),
    ]


def start_up(bench: Bench) -> list[Line]:
    """`interp list` in a new process, and the model from the disk."""
    command = [sys.executable, "-m", "interp", "list"]
    taken = [(seconds(lambda: subprocess.run(command, check=True, capture_output=True)),) for _ in range(bench.rounds)]
    first = line("start-up", "interp list, a new process", "small-vectors", taken, 0, float("nan"), "")

    def theirs() -> object:
        return AutoModelForCausalLM.from_pretrained(folder_of(MODEL)), AutoTokenizer.from_pretrained(folder_of(MODEL))

    contenders = [Contender("small-vectors", lambda: load_model(MODEL)), Contender("transformers", theirs)]
    same = "model and tokenizer"
    return [first, *compare("load", f"{MODEL}, files cached", contenders, lambda _a, _b: same, bench.rounds)]
