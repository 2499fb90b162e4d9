"""MatchFullTuning: do trained vectors match training all weights (arXiv:2505.18706, arXiv:2509.06608, abstracts)?

Vectors in all layers, LoRA of rank 1 and 4 on down_proj and all weights, trained on the same rollouts. All weights do
not ship: their evaluation does, problem by problem, with what changed in the last hidden state on fixed texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from experiments.controls import too_few
from experiments.tuned_sets import (
    FULL,
    Tuned,
    as_tensor,
    changes,
    cosine_of,
    cosines,
    digests,
    expected_jaccard,
    fixed_texts,
    flipped,
    jaccard,
    random_sets,
    right_by_problem,
    tuned_sets,
)
from interp.cell import Cell
from interp.context import Context
from interp.declaration import Declaration
from interp.experiment import Experiment
from interp.settings import Count, Names, Temperatures, TemperaturesOrNone
from interp.summaries import FLOOR, GAIN, POSITIVE, SHARE, Interval, Verdict, bootstrap, difference, verdict
from vectors.train.record import BASE

MARGIN = 0.05
UNIT = "share of problems, difference from full tuning plus the 0.05 that is allowed"
NO_FULL = "there is no evaluation of full tuning of this model on this task"
Right = Mapping[str, tuple[str, dict[str, float]]]


class MatchFullTuning(Experiment):
    """Accuracy of small trained sets against all weights, and whether they do the same thing.

    Sets that have a record of their evaluation take part with all of its problems, others complete the problems of the
    run. Seeds are averaged within a problem; intervals are over problems.
    """

    version: ClassVar[int] = 2
    needs: ClassVar[tuple[str, ...]] = ("model", "task")
    figures: ClassVar[tuple[str, ...]] = ("match-full-tuning", "match-full-tuning-mechanism")
    declaration: ClassVar[Declaration] = Declaration(
        estimand="accuracy of vectors and of LoRA minus that of all weights, trained on the same number of completions",
        unit="problem",
        statistic="paired difference of accuracies, seeds averaged within a problem",
        family="one verdict a kind of set, no correction",
        controls=("base", "random-isotropic", "flips permuted within templates"),
        margin=MARGIN,
        claim="trained vectors match training all weights: not worse by 5 points",
        margin_unit="share of problems",
    )
    columns: ClassVar[dict[str, str]] = {
        "part": "grain of the row: answers, accuracy, seeds, against-full, change, overlap, missing",
        "kind": "base, all-layer (vectors), lora-r1, lora-r4 (on down_proj), full (all weights), or random",
        "seed": "of training, or the draw of a random set",
        "temperature": "of sampling; 0 = greedy",
        "source": "record (of the evaluation after training) or live",
        "example": "problem",
        "right": "1 where the completion is graded right",
        "accuracy": "share of problems graded right",
        "accuracy_low": "lower end of its 95 % interval over problems",
        "accuracy_high": "upper end",
        "gain": "accuracy minus the base's, paired by problem and random stream",
        "gain_low": "lower end of its 95 % interval over problems",
        "gain_high": "upper end",
        "difference": "accuracy minus full tuning's, paired by problem and random stream",
        "difference_low": "lower end of its 95 % interval over problems",
        "difference_high": "upper end",
        "rollouts": "completions that the set was trained on",
        "trials": "training runs among which it was chosen",
        "seeds": "training seeds behind the row",
        "n": "problems, or texts, behind the row",
        "kl": "KL(full || set) per token on fixed texts of the base, mean over texts, nats",
        "kl_low": "lower end of its 95 % interval over texts",
        "kl_high": "upper end",
        "cosine": "cosine of the mean change of the last hidden state with full tuning's",
        "cosine_low": "lower end of its 95 % interval over texts",
        "cosine_high": "upper end",
        "jaccard": "problems that the base has wrong and both sets right, over those that either has right",
        "expected": "the same with one set's flips on random problems of the same template, mean",
        "expected_low": "lower end of the range of 95 % of the permutations",
        "expected_high": "upper end",
        "reason": "why a kind of set is missing",
    }
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"n": 4, "texts": 2, "draws": 3, "permutations": 20},
        "quick": {"n": 28, "texts": 8},
        "full": {"n": 512, "temperatures": (1.0, 0.0), "live_temperatures": (1.0, 0.0), "texts": 32},
    }

    kinds: Names = ("all-layer", "lora-r1", "lora-r4", "full")
    """Sets that are compared; "full" = all weights."""
    folder: str = ""
    """Where the sets and records of the model lie; empty = those that ship."""
    temperatures: Temperatures = (1.0, 0.0)
    """Temperatures of the comparison; 0 = greedy. Records hold 1 and 0."""
    live_temperatures: TemperaturesOrNone = (1.0,)
    """Temperatures at which sets without a record are evaluated here."""
    texts: Count = 32
    """Fixed texts of the base on which changes are compared."""
    draws: Count = 8
    """Random vectors whose change is compared with full tuning's."""
    permutations: Count = 1000
    """Permutations for the expected overlap of flipped problems."""

    def inputs(self, ctx: Context) -> dict[str, str]:
        """The sets and their records."""
        return digests(self._sets(ctx))

    def cells(self, ctx: Context) -> list[Cell]:  # noqa: ARG002
        """Accuracy at each temperature, and the change on fixed texts."""
        return [*(Cell.at(part="accuracy", temperature=t) for t in self.temperatures), Cell.at(part="change")]

    def measure(self, ctx: Context, cells: list[Cell]) -> pd.DataFrame:
        """Accuracies, differences, overlaps and changes."""
        sets = self._sets(ctx)
        frames = [
            self._change(ctx, sets)
            if cell["part"] == "change"
            else self._accuracy(ctx, sets, float(cell["temperature"]))
            for cell in cells
        ]
        return pd.concat(frames, ignore_index=True)

    def verdicts(self, frame: pd.DataFrame) -> list[Verdict]:
        """Whether each kind is not worse than full tuning by 5 points."""
        return [judge(frame, kind, max(self.temperatures)) for kind in self.kinds if kind != FULL]

    def _sets(self, ctx: Context) -> list[Tuned]:
        return ctx.once("tuned sets", partial(tuned_sets, ctx, self.kinds, self.folder))

    def _accuracy(self, ctx: Context, sets: Sequence[Tuned], temperature: float) -> pd.DataFrame:
        right = right_by_problem(ctx, sets, temperature, live=temperature in self.live_temperatures)
        there = [one for one in sets if one.name in right]
        kinds = {kind: [one for one in there if one.kind == kind] for kind in (BASE, *self.kinds)}
        frames = [self._answers(there, right), self._seeds(there, right), self._missing(sets, there)]
        means = {kind: _mean(ones, right) for kind, ones in kinds.items() if ones}
        rows = [_compared(kind, mean, means) | {"seeds": len(kinds[kind])} for kind, mean in means.items()]
        frames.append(pd.DataFrame(rows))
        frames.append(self._overlap(ctx, there, right))
        return pd.concat([one for one in frames if len(one)], ignore_index=True).assign(temperature=temperature)

    def _answers(self, there: Sequence[Tuned], right: Right) -> pd.DataFrame:
        rows = [
            {"part": "answers", "kind": one.kind, "seed": one.seed, "source": source, "example": name, "right": mark}
            for one in there
            for source, marks in [right[one.name]]
            for name, mark in marks.items()
        ]
        return pd.DataFrame(rows)

    def _seeds(self, there: Sequence[Tuned], right: Right) -> pd.DataFrame:
        """One point a training seed."""
        rows: list[dict[str, Any]] = []
        for one in there:
            source, marks = right[one.name]
            about = {"part": "seeds", "kind": one.kind, "seed": one.seed, "source": source, "n": len(marks)}
            mean = float(np.mean(list(marks.values())))
            rows.append({**about, "accuracy": mean, "rollouts": one.rollouts, "trials": one.trials})
        return pd.DataFrame(rows)

    def _missing(self, sets: Sequence[Tuned], there: Sequence[Tuned]) -> pd.DataFrame:
        """Kinds that cannot be shown, and why."""
        rows: list[dict[str, Any]] = []
        for kind in self.kinds:
            if any(one.kind == kind for one in there):
                continue
            known = any(one.kind == kind for one in sets)
            reason = "it was not evaluated at this temperature" if known else f"no set {kind} of this model and task"
            reason = NO_FULL if kind == FULL and not known else reason
            rows.append({"part": "missing", "kind": kind, "reason": f"not testable here, because {reason}"})
        return pd.DataFrame(rows)

    def _overlap(self, ctx: Context, there: Sequence[Tuned], right: Right) -> pd.DataFrame:
        """Shared flips of each set with each run of full tuning, among problems that the base has wrong."""
        base = right.get(f"{BASE}@0", ("", {}))[1]
        template = {problem.id: problem.template for problem in ctx.task.problems("test")}
        rows: list[dict[str, Any]] = []
        for full in (one for one in there if one.kind == FULL):
            for one in there:
                own, other = right[one.name][1], right[full.name][1]
                names = [name for name in other if name in own and base.get(name) == 0]
                if one.kind == BASE or one.name == full.name or not names:
                    continue
                flips = flipped(base, own, names), flipped(base, other, names)
                strata = [template.get(name, "") for name in names]
                drawn = expected_jaccard(*flips, strata, draws=self.permutations, seed=self.seed)
                ends = dict(zip(("expected_low", "expected_high"), np.nanquantile(drawn, (0.025, 0.975)), strict=True))
                about = {"part": "overlap", "kind": one.kind, "seed": one.seed, "n": len(names)}
                rows.append({**about, "jaccard": jaccard(*flips), "expected": float(np.nanmean(drawn)), **ends})
        return pd.DataFrame(rows)

    def _change(self, ctx: Context, sets: Sequence[Tuned]) -> pd.DataFrame:
        """Change of the last hidden state against full tuning's, and KL(full || set) per token."""
        now = {one.name: one.vectors.digest for one in sets if one.vectors is not None}
        fulls = [one.record.change for one in sets if one.kind == FULL and one.record and one.record.change]
        # one run of full tuning, that which was held against most of these sets
        full = max(fulls, key=lambda one: sum(bool(one.kl_to(*pair)) for pair in now.items()), default=None)
        if full is None:
            reason = f"not testable here, because {NO_FULL}"
            return pd.DataFrame([{"part": "missing", "kind": FULL, "reason": reason}])
        fixed = fixed_texts(ctx, full, self.texts)
        reference = as_tensor(full, len(fixed.texts)).numpy().astype(float)
        own = {one.name: one.edits for one in sets if one.edits and one.kind != BASE}
        random = random_sets(sets, self.draws, self.seed)
        found = changes(ctx, fixed, {**own, **random})
        rows = [
            _change_row(name, delta, reference, full.kl_to(name, now.get(name, ""))) for name, delta in found.items()
        ]
        base = _kl_ends(full.kl_to(BASE), len(fixed.texts))
        rows.append({"part": "change", "kind": BASE, "seed": 0, "n": len(fixed.texts), **base})
        return pd.DataFrame(rows)


def judge(frame: pd.DataFrame, kind: str, temperature: float) -> Verdict:
    """Whether a kind of set is not worse than full tuning by the margin.

    The difference plus the margin is judged against 0: `same direction` = not worse by 5 points, `opposite` = worse.
    """
    claim = f"{kind}-matches-full-tuning"
    at: Any = frame[frame["temperature"] == temperature]
    own, full = (at[(at["part"] == "accuracy") & (at["kind"] == name)] for name in (kind, FULL))
    reason = _untestable(at, own, full, kind)
    if own.empty or "difference" not in own or not np.isfinite(own.iloc[0]["difference"]):
        return verdict(None, claim=claim, unit=UNIT, testable=reason or "there is no problem in common")
    row = own.iloc[0]
    estimate, low, high = (float(row[name]) for name in ("difference", "difference_low", "difference_high"))
    lost = Interval(estimate, low, high, int(row["n"]))
    return verdict(lost.moved(MARGIN), None, 0.0, testable=reason or too_few(lost.n), claim=claim, unit=UNIT)


def _untestable(at: Any, own: Any, full: Any, kind: str) -> str | None:
    for name, rows in ((FULL, full), (kind, own)):
        if rows.empty:
            missing = at[(at["part"] == "missing") & (at["kind"] == name)]
            known = missing["reason"].iloc[0] if len(missing) else f"there is no set {name}"
            return str(known).removeprefix("not testable here, because ")
    seeds = at[at["part"] == "seeds"]
    budgets = set(seeds[seeds["kind"].isin([kind, FULL])]["rollouts"])
    if len(budgets) > 1 or any(budget != budget for budget in budgets):
        numbers = sorted("unknown" if budget != budget else f"{budget:g}" for budget in budgets)
        return f"the sets were not trained on equally many completions: {', '.join(numbers)}"
    low, gain = float(full.iloc[0]["gain_low"]), float(full.iloc[0]["gain"])
    if not low >= FLOOR:
        return (
            f"full tuning gains {100 * gain:z.1f} points, whose lower end is {100 * low:z.1f}, below {100 * FLOOR:.0f}"
        )
    return None


def _mean(ones: Sequence[Tuned], right: Right) -> dict[str, float]:
    """Right of each problem that all seeds have, averaged over seeds."""
    marks = [right[one.name][1] for one in ones]
    names = [name for name in marks[0] if all(name in mark for mark in marks)]
    return {name: float(np.mean([mark[name] for mark in marks])) for name in names}


def _compared(kind: str, mean: dict[str, float], means: Mapping[str, dict[str, float]]) -> dict[str, Any]:
    found: dict[str, Any] = {"part": "accuracy", "kind": kind, "n": len(mean)}
    found |= _ends("accuracy", bootstrap(list(mean.values()), bounds=SHARE, share=True))
    for name, beside in (("gain", BASE), ("difference", FULL)):
        other = means.get(beside, {})
        both = [example for example in mean if example in other]
        if both and kind != beside:
            pairs = [mean[example] for example in both], [other[example] for example in both]
            found |= _ends(name, difference(*pairs, share=True))
    return found


def _change_row(name: str, delta: Any, reference: np.ndarray, divergence: Sequence[float]) -> dict[str, Any]:
    random = name.startswith("random ")
    kind, _, seed = name.partition(" " if random else "@")
    estimate, both = cosines(delta, reference)
    found = (
        Interval(estimate, np.nan, np.nan, len(both))
        if random
        else bootstrap(both, statistic=cosine_of, draws=500, bounds=GAIN)
    )
    about = {"part": "change", "kind": kind, "seed": int(seed), "n": len(both), **_ends("cosine", found)}
    return about | _kl_ends(divergence, len(both))


def _kl_ends(by_text: Sequence[float], n: int) -> dict[str, float]:
    return _ends("kl", bootstrap(list(by_text[:n]), bounds=POSITIVE)) if by_text else {}


def _ends(name: str, found: Interval) -> dict[str, float]:
    return {name: found.estimate, f"{name}_low": found.low, f"{name}_high": found.high}
