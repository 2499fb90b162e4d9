"""SaeAttribution: which sparse features of the change carry a vector's effect (arXiv:2509.06608 Figs 7, 8)?

Gradient times activation with the gates held fixed, the error as a node of its own, is held against exact ablation;
principal components of the change at the same L0 stand beside. Nothing of this is in the authors' code, so layer,
width and sparsity are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from experiments.adaptive_writing import written
from experiments.controls import acting, too_few
from experiments.sae_attribution_frames import Pick, directions, summaries, text_frames
from interp.cell import Cell
from interp.completions import Completions
from interp.context import Context
from interp.declaration import Declaration
from interp.experiment import Experiment
from interp.settings import Count, CountOrZero
from interp.sites import Site
from interp.summaries import Interval, Verdict, control_range, verdict
from sae import Dictionary, Principal
from sae.attribute import Attributor, Metric
from sae.loading import SaeName, load_for
from sae.metrics import metrics
from sae.passes import described, lay_out, streams
from sae.report import Report
from vectors.controls import random_isotropic

MARGIN_RANK = 0.5
MARGIN_EXPLAINED = 0.05
PRIMARY = "kl"


class SaeAttribution(Experiment):
    """Attribution of KL, log-probability and logit difference to features of the change, against exact ablation.

    Everything is measured on completions under the vectors at temperature 1, at the positions that predict them; a
    feature is ablated at all of them at once, h <- h - f_j(Delta_t) d_j.
    """

    version: ClassVar[int] = 2
    figures: ClassVar[tuple[str, ...]] = ("sae-attribution", "sae-attribution-nodes", "sae-attribution-vector")
    declaration: ClassVar[Declaration] = Declaration(
        estimand="rank correlation over active features between attribution and exact ablation, in KL; explained "
        "variance of the change by sparse features less that by principal components at equal L0",
        unit="problem",
        statistic="mean over problems",
        family="two verdicts, no correction",
        controls=("shuffled-attribution", "random-direction", "principal-components", "random-isotropic"),
        margin=MARGIN_RANK,
        claim="sparse features of the change carry the vector's effect",
        margin_unit="rank correlation (explained variance: 0.05)",
    )
    columns: ClassVar[dict[str, str]] = {
        "part": "grain of the row: features, nodes, fit, explained, summary, vector",
        "example": "problem",
        "dictionary": "sae or pca (principal components of the change at equal L0, fitted on training problems)",
        "layer": "block of the dictionary (of the vector's row in part vector), 0 = first",
        "metric": "kl: KL(steered || base); log_prob: of a right completion; logit_diff: steered choice less base "
        "choice; each a mean over predicted tokens, nats",
        "vector": "trained; or a control: random-direction (in a feature's place, of its size), shuffled-attribution "
        "(among the features of a text), random-isotropic (in the steering vector's place)",
        "draw": "draw of a control",
        "feature": "index in the dictionary",
        "chosen": "why it was ablated: all, top (by attribution) or random",
        "tokens": "positions of the completion at which it is active",
        "activation": "mean magnitude of its activation there, in units of the residual stream",
        "attribution": "gradient x activation, summed over positions, nats per predicted token",
        "ablation": "the scalar less its value with the feature (or node) taken out, nats per predicted token",
        "node": "features, error (what the dictionary leaves out), bias, or whole (all of the change)",
        "slope": "of ablation on attribution over the features of a text; 1 = the size is right too",
        "rank_correlation": "Spearman's, of attribution and ablation over the features of a text",
        "explained": "explained variance of the change on the completions",
        "l0": "active features of a token",
        "statistic": "what a summary is of",
        "value": "mean over problems",
        "low": "lower end of its 95 % interval over problems",
        "high": "upper end",
        "n": "problems behind the row",
        "cosine": "largest |cosine| of the vector with a decoder direction",
        "response": "largest rise of a feature's activation when the vector itself is encoded, over encoding no change",
        "response_feature": "the feature with it",
        "quality": "why the autoencoder is not good enough; empty where it is",
    }
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"n": 2, "train_n": 2, "draws": 3, "at_most": 6, "beside_at_most": 4},
        "quick": {"n": 12, "train_n": 14, "at_most": 32},
        "full": {"n": 64, "train_n": 256, "beside_at_most": 0},
    }

    n: Count = 12
    """Number of problems, one completion each."""
    sae: SaeName | None = None
    """Autoencoder: alias, folder or release:id; what comes with the package for the vectors if none."""
    at_most: CountOrZero = 0
    """Features of a text that are ablated, half of them the largest attributions, half drawn at random; 0 = all."""
    beside_at_most: CountOrZero = 16
    """The same for principal components."""
    draws: Count = 8
    """Draws of each control."""
    train_n: Count = 32
    """Training problems on which principal components are fitted."""

    def inputs(self, ctx: Context) -> dict[str, str]:
        """The autoencoder."""
        return {"sae": self._dictionary(ctx).digest}

    def cells(self, ctx: Context) -> list[Cell]:  # noqa: ARG002 - the grid does not depend on it
        """Texts, and the vector itself in the dictionary."""
        return [Cell.at(part="texts"), Cell.at(part="vector")]

    def measure(self, ctx: Context, cells: list[Cell]) -> pd.DataFrame:
        """Attributions and ablations."""
        found = [self._texts(ctx) if cell["part"] == "texts" else self._vector(ctx) for cell in cells]
        frame = pd.concat(found, ignore_index=True)
        return frame.assign(quality=quality(self._dictionary(ctx)))

    def verdicts(self, frame: pd.DataFrame) -> list[Verdict]:
        """Whether attribution ranks features as ablation does, and whether they beat principal components."""
        return [judge_rank(frame), judge_explained(frame)]

    def _dictionary(self, ctx: Context) -> Dictionary:
        return ctx.once("dictionary", lambda: load_for(acting(ctx), ctx.model, self.sae))

    def _vector(self, ctx: Context) -> pd.DataFrame:
        vectors = written(ctx, acting(ctx))
        drawn = random_isotropic(vectors, draws=self.draws, seed=self.seed)
        found = self._dictionary(ctx)
        frames = [directions(found, vectors, "trained", 0)]
        frames += [directions(found, one, "random-isotropic", draw) for draw, one in enumerate(drawn)]
        return pd.concat(frames, ignore_index=True)

    def _texts(self, ctx: Context) -> pd.DataFrame:
        found, problems = self._dictionary(ctx), ctx.problems()
        beside = ctx.once("principal components", partial(self._principal, ctx, found))
        said = self._said(ctx, "test", self.n)
        frames: list[pd.DataFrame] = []
        for index, problem in enumerate(problems):
            (row, text), *_ = said.of(index)
            chosen, made = self._scalars(ctx, said.prompts[index], row.ids, found)
            if not ctx.task.grade(problem, text).right:
                chosen = {name: metric for name, metric in chosen.items() if name != "log_prob"}
            for name, one, most in (("sae", found, self.at_most), ("pca", beside, self.beside_at_most)):
                pick = Pick(most, self.draws, (self.seed, index), PRIMARY)
                frames += [
                    part.assign(example=problem.id, dictionary=name, layer=found.site.layer)
                    for part in text_frames(made.use(one), chosen, pick)
                ]
        rows = pd.concat(frames, ignore_index=True)
        return pd.concat([rows, summaries(rows).assign(layer=found.site.layer)], ignore_index=True)

    def _scalars(
        self, ctx: Context, prompt: Any, ids: tuple[int, ...], found: Dictionary
    ) -> tuple[Mapping[str, Metric], Attributor]:
        """One text with its scalars."""
        edits, last = acting(ctx).edits(), Site(ctx.model.n_layers - 1, "resid_post")
        layout = lay_out(ctx.model, [prompt], [[ids]])
        final = [streams(ctx.model, layout, some, last).tails for some in ((), edits)]
        return metrics(ctx.model, layout, *final), Attributor(ctx.model, layout, edits, found)

    def _said(self, ctx: Context, split: Any, n: int) -> Completions:
        problems = ctx.problems(split, n)
        keys = [problem.id for problem in problems]
        return ctx.completions(ctx.prompts(problems), acting(ctx).edits(), temperature=1.0, keys=keys)

    def _principal(self, ctx: Context, found: Dictionary) -> Dictionary:
        """Components of the change on training problems, at the dictionary's L0 there."""
        said = self._said(ctx, "train", self.train_n)
        layout = lay_out(
            ctx.model, said.prompts, [[row.ids for row, _ in said.of(i)] for i in range(len(said.prompts))]
        )
        steered = streams(ctx.model, layout, acting(ctx).edits(), found.site)
        base = streams(ctx.model, layout, (), found.site) if found.card.of == "change" else steered
        x = described(found.card.of, base.tails, steered.tails)[layout.said].float()
        l0 = float((found.encode(x) != 0).sum(1).float().mean())
        return Principal.beside(found, x, max(1, round(l0)))


def quality(found: Dictionary) -> str:
    """Why a dictionary is not good enough, by its own card; empty where it is, or where nothing is known."""
    report = Report.model_validate(found.card.report) if found.card.report else None
    return "; ".join(report.reasons) if report is not None else ""


def judge_rank(frame: pd.DataFrame) -> Verdict:
    """Whether attribution ranks the active features as their ablation does."""
    claim, unit = "attribution-ranks-features-as-ablation-does", "rank correlation"
    rows: Any = frame[(frame["part"] == "summary") & (frame["dictionary"] == "sae") & (frame["metric"] == PRIMARY)]
    own = rows[(rows["statistic"] == "rank_correlation") & (rows["vector"] == "trained")]
    drawn = rows[(rows["statistic"] == "rank_correlation") & (rows["vector"] == "shuffled-attribution")]
    if own.empty or len(drawn) < 3:
        return verdict(None, margin=MARGIN_RANK, claim=claim, unit=unit, testable="there is nothing to compare")
    effect = interval_of(own.iloc[0])
    control = control_range(np.asarray(drawn["value"], float))
    return verdict(effect, control, MARGIN_RANK, testable=too_few(effect.n), claim=claim, unit=unit)


def judge_explained(frame: pd.DataFrame) -> Verdict:
    """Whether sparse features explain more of the change than as many principal components."""
    claim, unit = "features-explain-more-than-principal-components", "explained variance"
    rows: Any = frame[(frame["part"] == "summary") & (frame["statistic"] == "explained_over_pca")]
    if rows.empty:
        return verdict(None, margin=MARGIN_EXPLAINED, claim=claim, unit=unit, testable="there is nothing to compare")
    effect = interval_of(rows.iloc[0])
    return verdict(effect, None, MARGIN_EXPLAINED, testable=too_few(effect.n), claim=claim, unit=unit)


def interval_of(row: Any) -> Interval:
    """The interval of a summary row."""
    return Interval(float(row["value"]), float(row["low"]), float(row["high"]), int(row["n"]))
