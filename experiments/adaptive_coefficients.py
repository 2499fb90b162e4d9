"""Token-wise strength of rank-1 adapters, c_t = (a . m_t)|b| with m_t = mlp_post, read with the adapters on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from pydantic import AfterValidator
from torch import Tensor

from experiments.adaptive_words import CLASSES, token_kinds
from experiments.texts import special_ids
from interp.batch import Batch
from interp.completions import paired_rows
from interp.context import Context
from interp.digest import digest
from interp.edits import AddAdaptive, Edit
from interp.positions import Positions
from interp.registry import unknown
from interp.scoring import positions_of
from interp.settings import Names
from interp.sites import Site
from vectors import AdaptiveVectors, SteeringVectors

SEGMENTS = ("system", "example", "header", "problem", "assistant", "generated")
"""Parts of a row; the header opens the user's turn, the assistant part opens the model's."""


def _check_parts(parts: tuple[str, ...]) -> tuple[str, ...]:
    for part in parts:
        if part not in (*SEGMENTS, *CLASSES):
            raise unknown("part of a prompt", part, [*SEGMENTS, *CLASSES])
    return parts


Parts = Annotated[Names, AfterValidator(_check_parts)]
"""Segments and kinds of words, as a setting."""
BYTES = 2**28
"""Activations held at once; results do not depend on it."""

Read = dict[int, tuple[Tensor, Tensor]]
"""Block -> mlp_post [row, pos, d_mlp] and MLP output [row, pos, d_model]."""


@dataclass(frozen=True)
class Rows:
    """Problems with completions, one row each, and what their tokens are.

    Attributes:
        examples: the problem of each row, by its id.
        batch: the rows.
        segment: of each token, "" where it belongs to none.
        kind: kind of word of each token of the problem; "" elsewhere.
        counted: tokens that enter means: neither the row's first token, nor one of the template, nor an end token.
        edits: what is on while the rows are read.
    """

    examples: tuple[str, ...]
    batch: Batch
    segment: np.ndarray
    kind: np.ndarray
    counted: np.ndarray
    edits: tuple[Edit, ...]

    @property
    def lengths(self) -> list[int]:
        """Generated tokens of each row."""
        return self.batch.in_completion.sum(1).tolist()


@dataclass(frozen=True)
class Strength:
    """What one block's adapter, and controls, do at each token.

    Attributes:
        c: (a . m_t)|b| over the median norm of the MLP's output, without unit, [draw, row, pos]; draw 0 is the adapter.
        cosine: of the MLP's own output with b, in [-1, 1], [row, pos].
        median: median norm of the MLP's own output, without position 0.
    """

    c: Float[Tensor, "draw row pos"]
    cosine: Float[Tensor, "row pos"]
    median: float

    @property
    def coefficient(self) -> Float[Tensor, "row pos"]:
        """C of the adapter in units of the residual stream."""
        return self.c[0] * self.median


def oriented(ctx: Context, vectors: AdaptiveVectors, reference: str) -> AdaptiveVectors:
    """The adapters, each signed so that cos(b, s_l) >= 0 with the reference's vector at its block, where it has one.

    (a, b) and (-a, -b) are the same adapter, so that without a reference the sign of c_t means nothing.
    """
    found = ctx.related(reference) if reference else None
    if not isinstance(found, SteeringVectors):
        ctx.say("no reference vectors of this model: the sign of the coefficients is arbitrary")
        return vectors
    return vectors.oriented(found)


def alone(vectors: AdaptiveVectors, layer: int) -> AdaptiveVectors:
    """What is on when a block's adapter acts: that adapter of a set trained apart, else the whole set."""
    return vectors if vectors.card.trained != "apart" else vectors.only(layer)


def rows_of(
    ctx: Context, split: Literal["train", "test"], n: int, on: AdaptiveVectors, *, text: Literal["steered", "base"]
) -> Rows:
    """Problems completed at temperature 1 by the steered or the base model, with what is on while they are read."""
    problems = ctx.problems(split, n)
    keys = [problem.id for problem in problems]
    edits = on.edits() if text == "steered" else ()
    said = ctx.completions(ctx.prompts(problems), edits, temperature=1.0, keys=keys)
    batch = Batch.of(*paired_rows(said), device=ctx.model.device)
    shape = tuple(batch.ids.shape)
    segment, kind = np.full(shape, "", dtype=object), np.full(shape, "", dtype=object)
    starts = (~batch.mask).sum(1).tolist()
    for row, completion in enumerate(said.rows):
        prompt, start = said.prompts[completion.prompt], starts[row]
        segment[row, start : start + len(prompt)] = prompt.parts
        kind[row, start : start + len(prompt)] = token_kinds(ctx.model, prompt)
    segment[batch.in_completion.cpu().numpy()] = "generated"
    examples = tuple(problem.id for problem in problems)
    return Rows(examples, batch, segment, kind, _counted(ctx.model, batch, segment), reading(on))


def reading(on: AdaptiveVectors) -> tuple[Edit, ...]:
    """What is on while strengths are read: nothing for one adapter, which does not change what it reads itself."""
    return on.edits() if len(on.layers) > 1 else ()


def _counted(model: Any, batch: Batch, segment: np.ndarray) -> np.ndarray:
    readable: Bool[Tensor, "row pos"] = positions_of(model, batch, Positions()) & (batch.position > 0)
    special = torch.isin(batch.ids, torch.tensor(sorted(special_ids(model)), device=batch.ids.device))
    template = (segment == "") | (segment == "header") | (segment == "assistant")
    return (readable & ~special).cpu().numpy() & ~template


def activations(ctx: Context, rows: Rows, layers: Sequence[int]) -> Iterator[tuple[slice, Read]]:
    """mlp_post and the MLP's own output, without the adapters' part, of some rows at a time, in float32."""
    sites = [Site(layer, stream) for layer in layers for stream in ("mlp_post", "mlp_out")]
    added = {edit.layer: edit for edit in rows.edits if isinstance(edit, AddAdaptive)}
    width = int(ctx.model.cfg.d_mlp) + ctx.model.d_model
    size = max(1, BYTES // (4 * width * len(layers) * rows.batch.ids.shape[1]))
    for start in range(0, len(rows.examples), size):
        some = slice(start, min(start + size, len(rows.examples)))
        trace = ctx.model.run(rows.batch.rows(some), rows.edits, sites)
        ctx.fired(trace.fired)
        found: Read = {}
        for layer in layers:
            post, out = (trace[Site(layer, stream)].float() for stream in ("mlp_post", "mlp_out"))
            if layer in added:
                edit = added[layer]
                out = out - edit.scale * (post @ edit.a.to(post))[..., None] * edit.b.to(post)
            found[layer] = post, out
        yield some, found


def strengths(
    ctx: Context, rows: Rows, vectors: AdaptiveVectors, probes: Mapping[int, Float[Tensor, "draw d_mlp"]]
) -> dict[int, Strength]:
    """Strength of each block's adapter, and of other reading directions at that block, on the same activations.

    Args:
        ctx: the run.
        rows: the texts, read under their own edits.
        vectors: the adapters.
        probes: further reading directions of a block, which take the adapter's b.
    """
    shape = tuple(rows.batch.ids.shape)
    reading = {
        layer: torch.cat([a[None], probes[layer]]) if layer in probes else a[None]
        for layer, a in zip(vectors.layers, vectors.a, strict=True)
    }
    c = {layer: torch.zeros(len(a), *shape) for layer, a in reading.items()}
    cosine, norm = ({layer: torch.zeros(shape) for layer in reading} for _ in range(2))
    for some, read in activations(ctx, rows, vectors.layers):
        for row, layer in enumerate(vectors.layers):
            post, out = read[layer]
            here, b = (some, slice(shape[1] - post.shape[1], None)), vectors.b[row].to(post)
            own = vectors.scales[row] * b.norm() * (post @ reading[layer].to(post).T)
            c[layer][:, *here] = own.movedim(-1, 0).cpu()
            norm[layer][here] = out.norm(dim=-1).cpu()
            cosine[layer][here] = torch.nn.functional.cosine_similarity(out, b, dim=-1).cpu()
    real = (rows.batch.position > 0).cpu()
    median = {layer: float(norm[layer][real].median()) for layer in reading}
    return {layer: Strength(c[layer] / median[layer], cosine[layer], median[layer]) for layer in reading}


def random_readers(
    ctx: Context, a: Float[Tensor, " d_mlp"], layer: int, kind: str, draws: int, said: Rows
) -> Float[Tensor, "draw d_mlp"]:
    """Reading directions of the same norm: uniform on the sphere, or with the covariance of mlp_post on some texts.

    Args:
        ctx: the run, for its seed.
        a: the adapter's reading direction.
        layer: its block.
        kind: "random-isotropic" or "random-covariance".
        draws: how many.
        said: texts whose activations give the covariance.
    """
    spread = torch.eye(len(a)) if kind == "random-isotropic" else _centred(ctx, said, layer)
    # a Gaussian mixture of centred rows has exactly their covariance
    weights = [torch.randn(len(spread), generator=_generator(ctx, kind, draw, layer)) for draw in range(draws)]
    drawn = torch.stack(weights) @ spread
    return drawn / drawn.norm(dim=1, keepdim=True) * a.norm()


def _centred(ctx: Context, said: Rows, layer: int) -> Float[Tensor, "token d_mlp"]:
    parts: list[Tensor] = []
    for some, read in activations(ctx, said, [layer]):
        post = read[layer][0].cpu()
        parts.append(post[torch.as_tensor(said.counted[some, -post.shape[1] :])])
    return torch.cat(parts) - torch.cat(parts).mean(0)


def _generator(ctx: Context, kind: str, draw: int, layer: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(digest("reader", kind, ctx.seed, draw, layer), 16) % 2**63)
