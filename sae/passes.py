"""The streams of one site on given texts, with edits and without, each prompt run once for all of its completions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.backend.hook_path import HookPath
from interp.bare_model import takes_model
from interp.editor import Editor
from interp.edits import Edit
from interp.errors import UserError
from interp.positions import Tokens
from interp.prompts import Prompt, shared_prefix
from interp.sites import Site


@dataclass(frozen=True)
class Layout:
    """Prompts and what was said after them, in three pieces that attend to one another.

    Attributes:
        shared: the prefix that all prompts have in common, one row; None where there is none.
        heads: the rest of each prompt but its last token, left-padded.
        tails: one row for each completion: the last prompt token and all said tokens but the last, right-padded, so
            that column i predicts token i of the completion.
        owner: the prompt of each row of `tails`.
        following: the token that each position of `tails` predicts; -1 on padding.
    """

    shared: Tokens | None
    heads: Tokens
    tails: Tokens
    owner: Int[Tensor, " row"]
    following: Int[Tensor, "row pos"]

    @property
    def said(self) -> Bool[Tensor, "row pos"]:
        """The real positions of `tails`: those that predict a token of the completion."""
        return self.following >= 0


@takes_model
def lay_out(model: Any, prompts: Sequence[Prompt], completions: Sequence[Sequence[Sequence[int]]]) -> Layout:
    """Lay texts out.

    Args:
        model: a Model.
        prompts: at least two tokens each.
        completions: of each prompt, token ids.

    Raises:
        UserError: the model runs through its own hooks, or there is no completion.
    """
    if isinstance(model.path, HookPath):
        works = "remove foreign hooks"
        raise UserError("streams are compared in the engine, and this model runs through its own hooks", works=works)
    owner = [index for index, some in enumerate(completions) for _ in some]
    said = [list(one) for some in completions for one in some]
    if not said or not all(said):
        raise UserError("there is no completion to read", given=f"{len(said)} completions")
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
    shared = min(shared_prefix(prompts), int(lengths.min()) - 2)
    shared = shared if shared > 0 and len(prompts) > 1 else 0
    heads = [list(prompt.ids[shared:-1]) for prompt in prompts]
    tails = [[prompts[at].ids[-1], *ids[:-1]] for at, ids in zip(owner, said, strict=True)]
    rows = torch.tensor(owner, device=model.device)
    return Layout(
        _tokens(model, [list(prompts[0].ids[:shared])], torch.tensor([0]), lengths[:1]) if shared else None,
        _tokens(model, heads, torch.full((len(heads),), shared), lengths, left=True),
        _tokens(model, tails, lengths.cpu()[owner] - 1, lengths[rows]),
        rows,
        _padded(said, -1).to(model.device),
    )


def _tokens(model: Any, rows: list[list[int]], start: Tensor, prompt_len: Tensor, *, left: bool = False) -> Tokens:
    """Rows of ids from absolute positions on; -1 on padding."""
    ids = _padded(rows, 0, left=left)
    position = _padded([list(range(int(s), int(s) + len(r))) for s, r in zip(start, rows, strict=True)], -1, left=left)
    index = torch.arange(len(rows), device=model.device)
    return model.tokens(ids.to(model.device), position.to(model.device), prompt_len, index)


def _padded(rows: Sequence[Sequence[int]], value: int, *, left: bool = False) -> Int[Tensor, "row pos"]:
    width = max(len(row) for row in rows)
    pads = [[value] * (width - len(row)) for row in rows]
    return torch.tensor([[*p, *r] if left else [*r, *p] for p, r in zip(pads, rows, strict=True)], dtype=torch.long)


@dataclass(frozen=True)
class Streams:
    """One site's stream on a layout.

    Attributes:
        heads: [prompt, pos, d_model], laid out as `Layout.heads`.
        tails: [row, pos, d_model], laid out as `Layout.tails`.
        cache: keys and values of the prompts but their last tokens, a row for each row of `tails`, which the blocks
            above can go on from; only where all blocks were run.
    """

    heads: Float[Tensor, "prompt head d_model"]
    tails: Float[Tensor, "row pos d_model"]
    cache: Any = None


@takes_model
def streams(model: Any, layout: Layout, edits: Sequence[Edit], site: Site, *, whole: bool = False) -> Streams:
    """The stream at a site under edits, after those of the site itself.

    Args:
        model: a Model.
        layout: the texts.
        edits: those of higher blocks are left out unless `whole`.
        site: what to read.
        whole: run all blocks over the prompts, so that passes over the tails can resume above the site.
    """
    below = [edit for edit in edits if whole or max(one.layer for one in edit.sites) <= site.layer]
    editor = Editor(below, n_rows=len(layout.owner), n_layers=model.n_layers, read=[site])
    stop = None if whole else site.layer + 1
    with torch.no_grad():
        cache = model.path.new_cache()
        if layout.shared is not None:
            editor.run(model.path, layout.shared, cache=cache, stop=stop)
            cache = cache.take(torch.zeros(len(layout.heads.ids), dtype=torch.long, device=model.device))
        editor.run(model.path, layout.heads, cache=cache, stop=stop)
        kept = cache.take(layout.owner) if whole else None
        editor.run(model.path, layout.tails, cache=cache.take(layout.owner), stop=site.layer + 1)
    *_, heads, tails = editor.values[site]
    return Streams(heads, tails, kept)


def described(of: str, base: Tensor, steered: Tensor) -> Tensor:
    """What a dictionary describes: the change, or the stream under the edits."""
    return steered - base if of == "change" else steered
