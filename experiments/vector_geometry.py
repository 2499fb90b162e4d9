"""VectorGeometry: how large vectors are, how they lie to each other, and which others they agree with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal

import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from experiments.adaptive_writing import written
from experiments.controls import Acting, Sets, acting, other_seeds
from experiments.geometry_frames import Nulls, against, between, judge, norms, null_means, ranks
from experiments.texts import STRATA, completed
from interp.cell import Cell
from interp.context import Context
from interp.declaration import Declaration
from interp.errors import UserError
from interp.experiment import Experiment
from interp.settings import Count
from interp.summaries import Verdict
from vectors import SteeringVectors
from vectors.from_model import from_completions

MARGIN = 0.1
STREAM = (STRATA.index("prompt"), STRATA.index("generated"))
"""Strata whose stream is measured."""
TOKENS = 4096
"""Tokens a block that norms and covariances are taken from."""
KEPT_SHARE = 0.25
"""Part of the memory bound that streams may take."""
RELATIONS = {
    "seed": "seeds-agree",
    "apart-together": "vectors-trained-apart-and-together-agree",
    "mean-difference": "mean-difference-agrees",
    "probe": "probe-agrees",
}
"""How another set is related to the one under study -> claim."""


class VectorGeometry(Experiment):
    """Norms, cosines and stable rank of a set, and its cosines with other sets and with untrained baselines.

    Two random directions of d coordinates have an expected |cos| of about sqrt(2 / (pi d)); two random directions with
    the covariance of a residual stream, which has few large directions, have a much larger one. Each cosine stands
    beside both. Norms are compared with the median norm of the stream at the block, without the row's first token and
    template tokens.

    Of rank-1 adapters, the vector of a block is the mean that the adapter adds to generated tokens of the base model's
    completions: the writing direction b, with the sign and length that its token-wise strength gives it on average. b
    alone would do for |cos|, but the set's stable rank, its norms and claims of agreement need a sign.
    """

    version: ClassVar[int] = 2
    figures: ClassVar[tuple[str, ...]] = ("vector-geometry", "vector-geometry-sets")
    declaration: ClassVar[Declaration] = Declaration(
        estimand="cosine of the vectors of two sets at the same block: other seeds, trained apart against together, "
        "mean difference and probe of right against wrong completions at matched positions within problem",
        unit="block",
        statistic="mean over blocks",
        family="four verdicts, no correction between them",
        controls=("random-isotropic", "random-covariance"),
        margin=MARGIN,
        claim="vectors found in different ways point in one direction",
        margin_unit="cosine",
    )
    columns: ClassVar[dict[str, str]] = {
        "part": "grain of the row: norms, between (pairs of blocks), rank, against (another set), null (its draws)",
        "layer": "block of the vector, 0 = first",
        "other_layer": "the other block",
        "set": "name of the other set",
        "relation": "seed, apart-together, other, mean-difference or probe",
        "digest": "content of the other set",
        "vector": '"trained" for the set under study, else the kind of random rows',
        "matrix": "as given, or unit rows",
        "draw": "draw of random directions",
        "norm": "Euclidean norm, units of the residual stream",
        "residual_norm": "median norm of the stream after the block, same unit",
        "relative": "norm / residual_norm",
        "cosine": "cosine in [-1, 1]; in part null the mean over blocks with one draw",
        "isotropic_abs": "expected |cos| of two isotropic random directions of this width",
        "isotropic_high": "|cos| that 95 % of them stay below",
        "covariance_abs": "mean |cos| with random directions of the stream's covariance at the block",
        "covariance_low": "2.5 % quantile of cos with them",
        "covariance_high": "97.5 % quantile",
        "stable_rank": "|M|_F^2 / |M|_2^2 of the matrix of vectors, 1 to rows; median of draws for random rows",
        "stable_rank_low": "2.5 % quantile over draws",
        "stable_rank_high": "97.5 % quantile over draws",
    }
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"n": 4, "train_n": 4, "samples": 4, "draws": 50, "baselines": ("mean-difference",)},
        "quick": {"n": 16, "train_n": 24, "samples": 4},
        "full": {"n": 128, "train_n": 128, "samples": 16, "draws": 1000},
    }

    seeds: Sets | None = None
    """The same set trained with other seeds, as aliases or paths; None = those of the catalogue."""
    others: Sets = ("all-layer", "single-layer")
    """Other sets to compare with, where the model has them: names, aliases or files."""
    baselines: tuple[Literal["mean-difference", "probe"], ...] = ("mean-difference", "probe")
    """Directions taken from the model's own right and wrong completions."""
    train_n: Count = 64
    """Training problems behind the baselines."""
    samples: Count = 8
    """Completions of each."""
    positions: Count = 16
    """First generated positions that the baselines read."""
    draws: Count = 200
    """Random directions a block."""

    def cells(self, ctx: Context) -> list[Cell]:  # noqa: ARG002 - see the base
        """The set itself, each kind of other set."""
        return [Cell.at(part=part) for part in ("own", "sets", *self.baselines)]

    def inputs(self, ctx: Context) -> dict[str, str]:
        """Digests of the other sets."""
        return {name: other.digest for name, _, other in self._sets(ctx)}

    def measure(self, ctx: Context, cells: list[Cell]) -> pd.DataFrame:
        """Cheap but for the baselines, which need completions."""
        frames: list[pd.DataFrame] = []
        for cell in cells:
            frames += self._own(ctx) if cell["part"] == "own" else self._against(ctx, str(cell["part"]))
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame({"part": []})

    def verdicts(self, frame: pd.DataFrame) -> list[Verdict]:
        """One for each relation."""
        return [judge(frame, relation, claim, margin=MARGIN) for relation, claim in RELATIONS.items()]

    def _own(self, ctx: Context) -> list[pd.DataFrame]:
        every, nulls, residual = written(ctx, acting(ctx)), *self._streams(ctx)
        found = [norms(every, residual)]
        if len(every.layers) > 1:
            found += [between(every, nulls), ranks(every, nulls, draws=self.draws, seed=self.seed)]
        return found

    def _against(self, ctx: Context, part: str) -> list[pd.DataFrame]:
        every, (nulls, _) = written(ctx, acting(ctx)), self._streams(ctx)
        sets = self._sets(ctx) if part == "sets" else self._baseline(ctx, part)
        found: list[pd.DataFrame] = []
        for name, relation, other in sets:
            shared = [layer for layer in every.layers if layer in other.layers]
            if shared:
                both = (against(every, other, nulls), null_means(every, shared, nulls))
                found += [one.assign(set=name, relation=relation, digest=other.digest) for one in both]
        return found

    def _sets(self, ctx: Context) -> Iterator[tuple[str, str, SteeringVectors]]:
        every = acting(ctx)
        seeds = other_seeds(ctx) if self.seeds is None else self.seeds
        for name in (*seeds, *self.others):
            other = ctx.related(name)
            if name in seeds and other is None:
                raise UserError("no such vectors for this model", given=name, works="an alias, a file or a folder")
            if isinstance(other, Acting) and other.digest != every.digest:
                apart = {other.card.trained, every.card.trained} == {"apart", "together"}
                relation = "seed" if name in seeds else "apart-together" if apart else "other"
                yield name, relation, written(ctx, other)

    def _baseline(self, ctx: Context, method: Any) -> Iterator[tuple[str, str, SteeringVectors]]:
        layers = acting(ctx).layers
        try:
            problems = ctx.problems("train", self.train_n)
            keys = [problem.id for problem in problems]
            said = ctx.completions(ctx.prompts(problems), samples=self.samples, keys=keys)
            settings = ctx.model, ctx.task, problems, said, method
            made = from_completions(*settings, layers=layers, positions=self.positions)
        except UserError as error:
            ctx.say(f"no {method} vectors: {error}")
            return
        yield method, method, made

    def _streams(self, ctx: Context) -> tuple[Nulls, dict[int, float]]:
        return ctx.once("streams", partial(self._read, ctx))

    def _read(self, ctx: Context) -> tuple[Nulls, dict[int, float]]:
        """Random directions and the median norm of the stream, at the blocks of the set."""
        layers, model, said = acting(ctx).layers, ctx.model, completed(ctx)
        chosen = _some(torch.isin(said.stratum, torch.tensor(STREAM, device=said.stratum.device)))
        said = replace(said, stratum=said.stratum.masked_fill(~chosen, -1))
        size = said.batch.ids.shape[1] * model.d_model * model.dtype.itemsize * len(layers)
        at_once = max(1, int(KEPT_SHARE * model.memory_bytes(ctx.memory) / size))
        parts: dict[int, list[Tensor]] = {layer: [] for layer in layers}
        for start in range(0, len(said.examples), at_once):
            some = said[start : start + at_once].run(model, layers)
            for layer, rows in parts.items():
                rows.append(some.forced.base_at(layer)[some.stratum >= 0].float().cpu())
        tokens = {layer: torch.cat(rows) for layer, rows in parts.items()}
        residual = {layer: float(rows.norm(dim=1).median()) for layer, rows in tokens.items()}
        return Nulls.of(tokens, draws=self.draws, seed=self.seed), residual


def _some(where: Bool[Tensor, "row pos"]) -> Bool[Tensor, "row pos"]:
    """At most about TOKENS of the places, evenly spread."""
    step = -(-int(where.sum()) // TOKENS)
    return where & ((where.flatten().cumsum(0).reshape(where.shape) - 1) % max(step, 1) == 0)
