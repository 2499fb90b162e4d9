"""What becomes of a vector in later blocks: statistics of each problem, from sums, no token's change is kept.

Delta_{l->k}(t) = resid_post of block k at token t with s_l on, minus the same without, on the same tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cosine_similarity

from experiments.controls import Acting
from experiments.texts import Texts, mean_by_row
from interp.context import Context
from vectors import SteeringVectors

THEIRS = ("diff_vector", "diff_diff", "mean_diff")
"""As in arXiv:2509.06608 Figs 2, 14, 18."""
OURS = ("diff_diff_out", "self", "gain", "induced")
STATISTICS = (*THEIRS, *OURS)
READ = ("generated", "prompt")
"""Strata that are read; generated tokens are the ones that verdicts are about."""
SMALLEST = 1e-30


@dataclass(frozen=True)
class Reading:
    """One vector on some problems, one stratum; NaN where a problem has no tokens of it.

    Attributes:
        values: of each statistic at each observed block.
        final: mean change after the last block.
    """

    values: Float[Tensor, "problem observed statistic"]
    final: Float[Tensor, "problem d_model"]

    @staticmethod
    def joined(parts: Sequence[Reading]) -> Reading:
        """One reading of all problems."""
        return Reading(torch.cat([p.values for p in parts]), torch.cat([p.final for p in parts]))


def read(
    said: Texts,
    vectors: Acting,
    observed: Sequence[int],
    among: Mapping[int, Float[Tensor, " d_model"]],
    ctx: Context | None = None,
) -> dict[str, Reading]:
    """One steered pass, read at later blocks; by stratum.

    Args:
        said: texts with these blocks and the vector's own kept.
        vectors: of one block; what an adapter adds at each token is read there.
        observed: later blocks.
        among: block -> the vector that was trained there, for the authors' cosines with s_k.
        ctx: where the pass is counted.
    """
    last = said.forced.last
    fixed = vectors.directions[0].to(said.batch.ids.device) if isinstance(vectors, SteeringVectors) else None
    added = vectors.layers if fixed is None else ()
    states, fired = said.forced.steered_at(vectors.edits(), {*added, *observed, last})
    if ctx is not None:
        ctx.fired(fired)
    found: dict[str, Reading] = {}
    for name in READ:
        where = said.where(name)
        row, n = where.nonzero(as_tuple=True)[0], len(said.examples)
        own = _change(said, states, vectors.layers[0], where) if fixed is None else fixed
        values = [of_block(_change(said, states, k, where), row, n, own, among.get(k)) for k in observed]
        final = mean_by_row(_change(said, states, last, where), row, n)
        found[name] = Reading(torch.stack(values, 1).cpu(), final.cpu())
    return found


def read_all(
    texts: Iterable[Texts],
    vectors: Sequence[Acting],
    observed: Sequence[int],
    among: Mapping[int, Float[Tensor, " d_model"]],
    ctx: Context | None = None,
) -> list[dict[str, Reading]]:
    """Several vectors on the same texts, which come in parts; one dictionary a vector."""
    parts = [[read(said, one, observed, among, ctx) for one in vectors] for said in texts]
    return [
        {name: Reading.joined([part[index][name] for part in parts]) for name in READ} for index in range(len(vectors))
    ]


def of_block(
    change: Float[Tensor, "token d_model"],
    row: Int[Tensor, " token"],
    n_rows: int,
    own: Float[Tensor, "*token d_model"],
    there: Float[Tensor, " d_model"] | None = None,
) -> Float[Tensor, "row statistic"]:
    """Mean of each of STATISTICS over each row's tokens.

    Args:
        change: Delta of each token.
        row: of each token.
        n_rows: rows, those without tokens included (NaN).
        own: s_l, the vector that is on, or what an adapter adds at each token.
        there: s_k of the observed block; the statistics that need it are NaN without.
    """
    mean = mean_by_row(change, row, n_rows)
    missing = change.new_full((len(change),), torch.nan)
    by_token = {
        "diff_vector": missing if there is None else cosine(change, there.to(change.device)),
        "diff_diff": cosine(change, mean[row]),
        "diff_diff_out": left_out(change, row, n_rows),
        "self": cosine(change, own),
        "gain": change.norm(dim=-1),
        "induced": left_out(change - own, row, n_rows),
        "added": own.norm(dim=-1).expand(len(change)),
    }
    means = mean_by_row(torch.stack(list(by_token.values()), -1), row, n_rows)
    columns = dict(zip(by_token, means.unbind(-1), strict=True))
    # a ratio of means: an adapter adds next to nothing at some tokens, where the stream still changes
    columns["gain"] = columns["gain"] / columns.pop("added").clamp(min=SMALLEST)
    columns["mean_diff"] = columns["gain"] * torch.nan if there is None else cosine(mean, there.to(change.device))
    return torch.stack([columns[name] for name in STATISTICS], -1)


def left_out(
    change: Float[Tensor, "token d_model"], row: Int[Tensor, " token"], n_rows: int
) -> Float[Tensor, " token"]:
    """Cosine of each token's change with the mean over its row's OTHER tokens; NaN where it is alone.

    With the token inside the mean, as in plain Diff-Diff, unrelated changes of n tokens seem to agree by 1/sqrt(n).
    """
    sums = change.new_zeros(n_rows, change.shape[-1]).index_add(0, row, change)
    alone = torch.bincount(row, minlength=n_rows)[row] < 2
    return cosine(change, sums[row] - change).masked_fill(alone, torch.nan)


def cosine(a: Float[Tensor, "n d_model"], b: Float[Tensor, "*n d_model"]) -> Float[Tensor, " n"]:
    """Cosine of each row; 0 for a zero vector, NaN for NaN."""
    return cosine_similarity(a, b.expand_as(a), dim=-1, eps=SMALLEST)


def _change(said: Texts, states: Mapping[int, Tensor], layer: int, where: Tensor) -> Float[Tensor, "token d_model"]:
    # in float32: nearby states differ by little, and bfloat16 would round most of it away
    return states[layer][where].float() - said.forced.base_at(layer)[where].float()
