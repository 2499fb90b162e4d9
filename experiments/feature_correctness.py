"""FeatureCorrectness: do sparse features of the change mark right completions, and do they cause them?

(arXiv:2509.06608 Figs 7, 8.) Features are chosen on validation problems (on one half, where the task has none) and
reported on others, stratified by problem, adjusted for length, end and box, against permuted labels; then the chosen
one is taken out while the model generates, beside random features of the same rate.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from experiments.controls import acting, halves
from experiments.feature_correctness_frames import (
    MARGIN,
    counts_row,
    feature_row,
    frequent,
    judge_cause,
    judge_mark,
    with_drop,
)
from experiments.feature_correctness_tests import Firing, effect, null_effects, of_same_rate, screen
from experiments.feature_correctness_texts import firing, said, top_contexts
from experiments.graded import COLUMNS, Condition, answers, summarise
from experiments.sae_attribution import quality
from interp.cell import Cell
from interp.context import Context
from interp.declaration import Declaration
from interp.errors import UserError
from interp.experiment import Experiment
from interp.settings import Count, Share
from interp.summaries import Verdict
from interp.tasks.task import Problem
from sae import Ablate, Dictionary
from sae.loading import SaeName, load_for


class FeatureCorrectness(Experiment):
    """Firing of features before the answer against correctness, and accuracy with the chosen feature taken out.

    Only problems with right and wrong completions say anything about what tells them apart.
    """

    version: ClassVar[int] = 2
    figures: ClassVar[tuple[str, ...]] = (
        "feature-correctness",
        "feature-correctness-ablation",
        "feature-correctness-examples",
    )
    declaration: ClassVar[Declaration] = Declaration(
        estimand="accuracy where the chosen feature fires more than in the median completion of the problem less "
        "accuracy where it does not, with length, end and box held fixed, on problems it was not chosen on; accuracy "
        "under the vectors less accuracy with the feature taken out",
        unit="problem",
        statistic="least squares with problem effects; paired difference of accuracies",
        family="two verdicts; the feature is the largest score of all, chosen on other problems, and the p-value is "
        "against the largest of all under permuted labels",
        controls=("permuted-labels", "random-feature"),
        margin=MARGIN,
        claim="features of a sparse autoencoder on the change mark correct completions",
        margin_unit="share of completions",
    )
    columns: ClassVar[dict[str, str]] = COLUMNS | {
        "part": "grain of the row: features, null, accuracy, answers, tokens, completions",
        "vector": "base, trained, ablated (trained without the chosen feature); or a control: permuted-labels (chosen "
        "and reported likewise), random-feature (of the same firing rate)",
        "layer": "block of the dictionary, 0 = first",
        "feature": "index in the dictionary",
        "half": "discovery or held-out problems",
        "rank": "1 = largest |score| on the discovery problems",
        "score": "of the firing rate within problem, less what length, end and box predict, in permutation deviations",
        "p": "share of permutations whose largest |score| over all features is at least this",
        "rate": "share of tokens before the answer at which it fires",
        "rate_right": "the same in right completions",
        "rate_wrong": "the same in wrong ones",
        "effect": "accuracy where it fires more than in the problem's median completion less where not, adjusted",
        "effect_low": "lower end of its 95 % interval over problems",
        "effect_high": "upper end",
        "odds_ratio": "Mantel-Haenszel, stratified by problem, not adjusted",
        "odds_ratio_low": "lower end of its 95 % interval",
        "odds_ratio_high": "upper end",
        "drop": "accuracy under the vectors less accuracy with the feature taken out, paired",
        "drop_low": "lower end of its 95 % interval over problems",
        "drop_high": "upper end",
        "context": "one of the completions in which the feature fires most",
        "position": "token of the completion",
        "token": "its text",
        "activation": "of the feature where the token is predicted, in units of the residual stream",
        "link": "address of the feature's page where the autoencoder is a published one; nothing is fetched",
        "quality": "why the autoencoder is not good enough; empty where it is",
    }
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"n": 4, "associate_n": 4, "samples": 8, "draws": 3, "permutations": 50, "null_draws": 40},
        "quick": {"n": 28, "associate_n": 28, "samples": 6, "draws": 4},
        "full": {"n": 256, "associate_n": 128, "samples": 16, "ablation_samples": 4},
    }

    n: Count = 48
    """Problems on which the feature is taken out."""
    associate_n: Count = 64
    """Problems to choose on, and as many to report on."""
    samples: Count = 8
    """Completions of each of them, at temperature 1."""
    sae: SaeName | None = None
    """Autoencoder: alias, folder or release:id; what comes with the package for the vectors if none."""
    permutations: Count = 1000
    """Permutations of labels within problem behind a p-value."""
    null_draws: Count = 200
    """Times that choosing and reporting are repeated with permuted labels."""
    draws: Count = 8
    """Random features of the same rate that are taken out."""
    reported: Count = 12
    """Features that are reported, by score."""
    least_rate: Share = 0.005
    """Features that fire at a smaller share of tokens on the discovery problems are left out."""
    ablation_samples: Count = 1
    """Completions of each problem with a feature taken out."""

    def inputs(self, ctx: Context) -> dict[str, str]:
        """The autoencoder."""
        return {"sae": self._dictionary(ctx).digest}

    def cells(self, ctx: Context) -> list[Cell]:  # noqa: ARG002 - the grid does not depend on it
        """What features mark, and what they cause."""
        return [Cell.at(part="association"), Cell.at(part="ablation")]

    def measure(self, ctx: Context, cells: list[Cell]) -> pd.DataFrame:
        """Firing against correctness, and graded completions."""
        found = [self._associate(ctx) if cell["part"] == "association" else self._ablate(ctx) for cell in cells]
        one = self._dictionary(ctx)
        return pd.concat(found, ignore_index=True).assign(layer=one.site.layer, quality=quality(one))

    def verdicts(self, frame: pd.DataFrame) -> list[Verdict]:
        """What the chosen feature marks, and whether taking it out costs accuracy."""
        return [judge_mark(frame), judge_cause(frame)]

    def _dictionary(self, ctx: Context) -> Dictionary:
        return ctx.once("dictionary", lambda: load_for(acting(ctx), ctx.model, self.sae))

    def _split(self, ctx: Context) -> tuple[list[Problem], list[Problem]]:
        """Problems to choose on, and others to report on."""
        try:
            return ctx.problems("validation", self.associate_n), ctx.problems("test", self.associate_n)
        except UserError:
            every = ctx.problems("test", 2 * self.associate_n)
            ctx.say(f"{ctx.task.name} has no validation problems: features are chosen on half of the test problems")
            return tuple([every[index] for index in half] for half in halves(len(every), self.seed))  # pyright: ignore[reportReturnType]

    def _firing(self, ctx: Context) -> tuple[Firing, Firing]:
        edits, found = acting(ctx).edits(), self._dictionary(ctx)

        def make() -> tuple[Firing, Firing]:
            both = [
                firing(ctx, problems, said(ctx, problems, edits, self.samples), edits, found)
                for problems in self._split(ctx)
            ]
            return both[0], both[1]

        return ctx.once("firing", make)

    def _chosen(self, ctx: Context) -> tuple[list[int], Any, Any]:
        """Features by |score| on the discovery problems, with all scores and p-values."""

        def make() -> tuple[list[int], Any, Any]:
            discovery, _ = self._firing(ctx)
            if not len(discovery):
                return [], np.zeros(0), np.zeros(0)
            kept = frequent(discovery, self.least_rate)
            score, p = screen(kept, permutations=self.permutations, seed=self.seed)
            order = np.argsort(-np.abs(score), kind="stable")
            return [int(feature) for feature in order if score[feature] != 0][: self.reported], score, p

        return ctx.once("chosen", make)

    def _associate(self, ctx: Context) -> pd.DataFrame:
        discovery, held_out = self._firing(ctx)
        features, score, p = self._chosen(ctx)
        rows = [counts_row(part, half) for part, half in ((discovery, "discovery"), (held_out, "held-out"))]
        if not features or not len(held_out):
            ctx.say("too few problems have right and wrong completions: nothing is reported about features")
            return pd.DataFrame(rows)
        link = self._dictionary(ctx).neuron
        for rank, feature in enumerate(features, start=1):
            told = {"rank": rank, "score": score[feature], "p": p[feature], "link": link.format(feature)}
            rows += [feature_row(part, half, feature) | told for part, half in
                     ((discovery, "discovery"), (held_out, "held-out"))]  # fmt: skip
        kept = frequent(discovery, self.least_rate)
        drawn = null_effects(kept, held_out, draws=self.null_draws, seed=self.seed)
        rows += [
            {"part": "null", "vector": "permuted-labels", "draw": draw, "feature": feature, "effect": value}
            for draw, (feature, value) in enumerate(drawn)
        ]
        for draw, feature in enumerate(self._random(ctx)):
            value = effect(held_out, feature, interval=False).difference.estimate
            rows.append({"part": "null", "vector": "random-feature", "draw": draw, "feature": feature, "effect": value})
        return pd.DataFrame([*rows, *self._contexts(ctx, features[:3])])

    def _contexts(self, ctx: Context, features: list[int]) -> list[dict[str, Any]]:
        edits, problems = acting(ctx).edits(), self._split(ctx)[1]
        rows = said(ctx, problems, edits, self.samples)
        return top_contexts(ctx, problems, rows, edits, self._dictionary(ctx), features, self._firing(ctx)[1], count=4)

    def _random(self, ctx: Context) -> list[int]:
        features, _, _ = self._chosen(ctx)
        rate = self._firing(ctx)[0].rate.mean(0)
        return of_same_rate(rate, features[0], draws=self.draws, seed=self.seed)

    def _ablate(self, ctx: Context) -> pd.DataFrame:
        features, _, _ = self._chosen(ctx)
        if not features:
            return pd.DataFrame([{"part": "accuracy", "vector": "trained", "n": 0}])
        edits, without = acting(ctx).edits(), partial(Ablate, self._dictionary(ctx))
        conditions = [
            Condition(at={"feature": -1}),
            Condition("trained", edits=edits, at={"feature": -1}),
            Condition("ablated", edits=(*edits, without(features[0])), at={"feature": features[0]}),
            *(
                Condition("random-feature", draw, (*edits, without(feature)), {"feature": feature})
                for draw, feature in enumerate(self._random(ctx))
            ),
        ]
        rows: Any = answers(ctx, conditions, temperature=1.0, samples=self.ablation_samples)
        chosen_on = {problem.id for problem in self._split(ctx)[0]}
        rows = rows[~rows["example"].isin(chosen_on)]
        return pd.concat([with_drop(summarise(rows, ["feature"]), rows), rows.assign(part="answers")])
