"""Completions under vectors of the last block, each text generated once.

Such a vector changes no key and no value: it acts on the distribution of the next token alone. So a completion is
settled by its prompt, its random stream, its first token and by what is on after it. Conditions that agree in these
share one text, and only the first token's own distribution differs (tests/experiments/test_last_block.py).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.batch import Batch
from interp.completion_cache import touched
from interp.completions import Completion, Completions
from interp.context import Context
from interp.edits import Add, Edit, PerRow, per_row
from interp.fired import Fired, fired_by
from interp.forced import Forced
from interp.positions import EVERYWHERE, Tokens
from interp.prompts import Prompt
from interp.sampling import draw, stream_seed, uniforms
from interp.sites import Site

ROWS = 256
"""Rows whose first tokens are drawn together."""


@dataclass(frozen=True)
class _First:
    """First tokens of one row's samples, with their log-probability and the entropy, nats."""

    ids: tuple[int, ...]
    log_prob: tuple[float, ...]
    entropy: tuple[float, ...]


def complete(
    ctx: Context,
    prompts: Sequence[Prompt],
    edits: PerRow,
    *,
    temperature: float,
    samples: int,
    keys: Sequence[str],
) -> Completions:
    """What `Context.completions` gives, with texts that must be the same generated once.

    Rows share a text where every edit is an `Add` to the last block's output; otherwise all rows are generated.

    Args:
        ctx: the run.
        prompts: what is asked, one row each.
        edits: of each row.
        temperature: 0 is greedy.
        samples: completions of each prompt.
        keys: name of each row's problem.
    """
    rows = [tuple(row) for row in edits.rows]
    settled = all(_settled(ctx.model, edit) for row in rows for edit in row)
    if not settled:
        return ctx.completions(prompts, edits, temperature=temperature, samples=samples, keys=keys)
    firsts = _firsts(ctx, prompts, rows, keys, temperature=temperature, samples=samples)
    groups = _groups(prompts, keys, rows, firsts)
    leaders = [members[0] for members in groups]

    def made(some: Sequence[int]) -> Completions:
        chosen = [prompts[row] for row in some], per_row([rows[row] for row in some])
        return ctx.completions(*chosen, temperature=temperature, samples=samples, keys=[keys[row] for row in some])

    found: dict[int, list[tuple[Completion, str]]] = {}
    said = made(leaders)
    for place, members in enumerate(groups):
        texts = said.of(place)
        found[members[0]] = texts
        if tuple(one.ids[0] for one, _ in texts) == firsts[members[0]].ids:
            found |= {row: _shared(texts, firsts[row]) for row in members[1:]}
    # rounding may decide a first token otherwise in a cached pass: then nothing is shared
    alone = [row for row in range(len(rows)) if row not in found]
    found |= {row: said.of(place) for said in ([made(alone)] if alone else []) for place, row in enumerate(alone)}
    shared = [row for row in range(len(rows)) if row not in {*leaders, *alone}]
    ctx.fired(_fired(ctx.model, prompts, rows, found, shared))
    return _assembled(prompts, found)


def _groups(
    prompts: Sequence[Prompt], keys: Sequence[str], rows: Sequence[tuple[Edit, ...]], firsts: Sequence[_First]
) -> list[list[int]]:
    """Rows whose texts are the same: the same prompt, random stream and first tokens, and the same edits after them."""
    found: dict[Hashable, list[int]] = {}
    for row, (prompt, key, own, first) in enumerate(zip(prompts, keys, rows, firsts, strict=True)):
        later = [replace(edit, positions=EVERYWHERE) for edit in own if type(edit) is Add and _later(edit)]
        after = tuple(edit.digest for edit in later)
        found.setdefault((prompt.ids, key, first.ids, after), []).append(row)
    return list(found.values())


def _settled(model: Any, edit: Edit) -> bool:
    """Whether an edit acts on next-token distributions alone, and after the first token everywhere or nowhere."""
    last = Site(model.n_layers - 1, "resid_post")
    return type(edit) is Add and edit.site == last and edit.positions.generated in ("all", "none")


def _later(edit: Add) -> bool:
    return edit.positions.generated == "all"


def _firsts(
    ctx: Context,
    prompts: Sequence[Prompt],
    rows: Sequence[tuple[Edit, ...]],
    keys: Sequence[str],
    *,
    temperature: float,
    samples: int,
) -> list[_First]:
    """First tokens by one pass over the distinct prompts: the vectors are added to what it leaves."""
    distinct = list(dict.fromkeys(prompts))
    place = {prompt: index for index, prompt in enumerate(distinct)}
    hidden = Forced(ctx.model, Batch.of(distinct, device=ctx.model.device)).base[:, -1]
    found: list[_First] = []
    for start in range(0, len(rows), max(1, ROWS // samples)):
        some = range(start, min(start + max(1, ROWS // samples), len(rows)))
        states = torch.stack([_edited(ctx.model, hidden[place[prompts[r]]], prompts[r], rows[r]) for r in some])
        streams = [stream_seed(ctx.seed, keys[row], sample) for row in some for sample in range(samples)]
        logits = ctx.model.unembed(states).repeat_interleave(samples, 0)
        drawn = [part.reshape(-1, samples).tolist() for part in draw(logits, temperature, uniforms(streams, 0))]
        found += [_First(*(tuple(values) for values in one)) for one in zip(*drawn, strict=True)]
    return found


def _edited(model: Any, state: Float[Tensor, " d_model"], prompt: Prompt, edits: tuple[Edit, ...]) -> Tensor:
    """A prompt's last state under the edits that act there, with its norm and unembedding still to come."""
    ids = torch.tensor([prompt.ids])
    tokens = Tokens(
        ids, torch.arange(len(prompt))[None], torch.tensor([len(prompt)]), torch.tensor([0]), model.token_text
    )
    value = state[None, None]
    for edit in edits:
        if bool(edit.positions.mask(tokens)[0, -1]):
            everywhere = replace(edit, positions=EVERYWHERE)  # pyright: ignore[reportArgumentType]
            value = everywhere.apply(edit.sites[0], value, tokens)
    return value[0, 0]


def _shared(texts: Sequence[tuple[Completion, str]], first: _First) -> list[tuple[Completion, str]]:
    """The same texts with the first token's own log-probability and entropy."""
    return [
        (replace(row, log_prob=(log_p, *row.log_prob[1:]), entropy=(entropy, *row.entropy[1:])), text)
        for (row, text), log_p, entropy in zip(texts, first.log_prob, first.entropy, strict=True)
    ]


def _fired(
    model: Any,
    prompts: Sequence[Prompt],
    rows: Sequence[tuple[Edit, ...]],
    found: dict[int, list[tuple[Completion, str]]],
    shared: Sequence[int],
) -> list[Fired]:
    """What the edits of rows with a shared text would have touched."""
    counts = [
        (edit, sum(touched(model, prompts[row], one, edit) for one, _ in found[row]))
        for row in shared
        for edit in rows[row]
    ]
    return [fired_by(edit, positions, 1, int(positions == 0)) for edit, positions in counts]


def _assembled(prompts: Sequence[Prompt], found: dict[int, list[tuple[Completion, str]]]) -> Completions:
    pairs = [(replace(one, prompt=row), text) for row in range(len(prompts)) for one, text in found[row]]
    return Completions(tuple(prompts), tuple(one for one, _ in pairs), tuple(text for _, text in pairs), ())
