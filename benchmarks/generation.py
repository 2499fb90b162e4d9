"""(3) Steered generation; (4) a sweep over all blocks; the share of the machine's matrix products in decoding."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from benchmarks.bench import Bench, hooked_layers
from benchmarks.measure import Contender, Line, compare, differ
from interp import Add, Prompt, Site, per_row

LAYER = 12
AGREE = 0.9
"""Share of completions that must be equal, token by token: a tie may fall either way."""

Rows = list[tuple[int, ...]]


def steered(bench: Bench) -> list[Line]:
    """64 prompts, 28 tokens, a vector at one block: bare questions, and behind a shared example."""
    lines: list[Line] = []
    for shared in (False, True):
        prompts, length = bench.prompts(bench.size(64, 4), shared=shared), bench.size(28, 3)
        vector, ids = bench.vector(), bench.ids(prompts)
        contenders = [
            Contender("small-vectors", partial(_ours, bench, prompts, vector, length)),
            Contender("transformers generate with a hook", partial(_hf, bench, ids, {LAYER: vector}, length)),
        ]
        if shared:
            cached = partial(_hf_prefix, bench, ids, {LAYER: vector}, length)
            contenders.append(Contender("transformers, prefix cached by hand", cached))
        else:
            contenders.append(Contender("repeng", _repeng(bench, ids, vector, length)))
            contenders.append(Contender("HookedTransformer.generate", partial(_tl, bench, ids, vector, length)))
        setting = (
            f"{len(prompts)} prompts of {ids.shape[1]} tokens{', 75 of them shared' if shared else ''}, {length} new"
        )
        lines += compare("steered generation", setting, contenders, same_rows, bench.rounds)
    return lines


def same_rows(mine: Rows, theirs: Rows) -> str:
    """Share of equal completions."""
    equal = sum(a == b for a, b in zip(mine, theirs, strict=True)) / len(mine)
    if equal < AGREE:
        raise differ("completions", f"{equal:.0%} are equal")
    return f"{equal:.0%} of completions equal"


def _ours(bench: Bench, prompts: list[Prompt], vector: Tensor, length: int) -> Rows:
    edits = [Add(Site(LAYER, "resid_post"), vector)]
    return [row.ids for row, _ in bench.model.generate(prompts, edits, max_new_tokens=length, temperature=0.0)]


def _generate(model: Any, ids: Tensor, length: int, **given: Any) -> Rows:
    settings = {"do_sample": False, "max_new_tokens": length, "eos_token_id": None, "pad_token_id": 2}
    with torch.inference_mode():
        made = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings, **given)
    return [tuple(row) for row in made[:, ids.shape[1] :].tolist()]


def _hf(bench: Bench, ids: Tensor, vectors: dict[int, Tensor], length: int) -> Rows:
    with hooked_layers(bench.hf, vectors):
        return _generate(bench.hf, ids, length)


def _hf_prefix(bench: Bench, ids: Tensor, vectors: dict[int, Tensor], length: int) -> Rows:
    """Prefix caching as transformers documents it: one pass over the prefix, its cache copied to every row."""
    transformers: Any = import_module("transformers")
    prefix = int((ids != ids[:1]).any(0).nonzero()[0])
    with hooked_layers(bench.hf, vectors), torch.inference_mode():
        cache = transformers.DynamicCache(config=bench.hf.config)
        cache = bench.hf(ids[:1, :prefix], past_key_values=cache, use_cache=True).past_key_values
        cache = copy.deepcopy(cache)
        cache.batch_repeat_interleave(len(ids))
        return _generate(bench.hf, ids, length, past_key_values=cache)


def _repeng(bench: Bench, ids: Tensor, vector: Tensor, length: int) -> Callable[[], Rows]:
    """Its wrapper round the same model, taken off again after each call, since it changes the model."""
    repeng: Any = import_module("repeng")

    def work() -> Rows:
        wrapped = repeng.ControlModel(bench.hf, [LAYER])
        try:
            wrapped.set_raw_control({LAYER: vector})
            return _generate(wrapped, ids, length)
        finally:
            wrapped.unwrap()

    return work


def _tl(bench: Bench, ids: Tensor, vector: Tensor, length: int) -> Rows:
    hooked, name = bench.model.hooked, f"blocks.{LAYER}.hook_resid_post"
    with hooked.hooks(fwd_hooks=[(name, lambda value, hook: value + vector)]):  # noqa: ARG005 - TransformerLens passes it
        made: Any = hooked.generate(
            ids,
            max_new_tokens=length,
            do_sample=False,
            stop_at_eos=False,
            prepend_bos=False,
            return_type="tokens",
            verbose=False,
        )
    return [tuple(row) for row in made[:, ids.shape[1] :].tolist()]


def layers(bench: Bench) -> list[Line]:
    """A vector at each block in turn, on the same problems: all at once, and one run a block (of every fifth one)."""
    prompts, length = bench.prompts(2, shared=True), bench.size(8, 2)
    vector, ids = bench.vector(), bench.ids(prompts)
    every = range(bench.model.n_layers)
    sampled = every[2::5]
    edits = {layer: [Add(Site(layer, "resid_post"), vector)] for layer in every}

    def ours() -> Rows:
        rows = per_row([edits[layer] for layer in every for _ in prompts])
        many = [prompt for _ in every for prompt in prompts]
        return [row.ids for row, _ in bench.model.generate(many, rows, max_new_tokens=length, temperature=0.0)]

    def one_a_layer() -> Rows:
        made = [bench.model.generate(prompts, edits[one], max_new_tokens=length, temperature=0.0) for one in sampled]
        return [row.ids for some in made for row, _ in some]

    def theirs() -> Rows:
        return [row for layer in sampled for row in _hf(bench, ids, {layer: vector}, length)]

    def same(mine: Rows, others: Rows) -> str:
        n = len(prompts)
        return same_rows([row for layer in sampled for row in mine[n * layer : n * (layer + 1)]], others)

    part = len(sampled) / len(every)
    contenders = [
        Contender("small-vectors, one batch", ours),
        Contender("small-vectors, one run a block", one_a_layer, part),
        Contender("transformers with a hook, one run a block", theirs, part),
    ]
    setting = f"{len(every)} blocks x {len(prompts)} prompts of {ids.shape[1]} tokens, {length} new"
    return compare("accuracy sweep", setting, contenders, same, bench.rounds)
