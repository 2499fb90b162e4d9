"""Accuracy of a model under many conditions at once, with what must stand beside every accuracy.

All conditions are rows of one batch, each with its own edits, on the same problems and the same random streams, so
that differences between them are paired by problem and sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from experiments.controls import MATCHED_POSITIONS
from experiments.texts import places, texts
from interp.chat import render
from interp.completions import Completion, Completions
from interp.context import Context
from interp.distributions import entropy as entropy_of
from interp.distributions import log_probs
from interp.edits import Edit, per_row
from interp.errors import UserError
from interp.prompts import Prompt
from interp.summaries import SHARE, Interval, bootstrap, difference, wilson
from interp.tasks.task import Problem, Split

SHOTS = (1, 3, 5)
"""Worked examples of the few-shot prompts that stand beside a steered model."""

Complete = Callable[..., Completions]
"""Has the arguments of `Context.completions`."""

COLUMNS: dict[str, str] = {
    "vector": '"base" for none, "trained" for the vector under study, else the kind of control',
    "draw": "draw of a control",
    "temperature": "of sampling; 0 = greedy",
    "accuracy": "share of completions graded right; a cut completion keeps its grade",
    "accuracy_low": "lower end of its 95 % interval over problems",
    "accuracy_high": "upper end",
    "gain": "accuracy minus the base's at the same temperature, paired by problem and random stream",
    "gain_low": "lower end of its 95 % interval over problems",
    "gain_high": "upper end",
    "boxed": "share of completions with a closed box",
    "right_if_boxed": "accuracy among completions with a closed box",
    "ended": "share of completions that ended by themselves",
    "length": "tokens of a completion",
    "entropy": "mean entropy of a token's sampling distribution, nats",
    "n": "problems behind the row",
    "example": "problem",
    "right": "1 where the completion is graded right",
}
"""Columns of `answers` and `summarise` with their units, for an experiment's own `columns`."""


@dataclass(frozen=True)
class Condition:
    """One way to complete every problem.

    Attributes:
        vector: "base", "trained" or a kind of control.
        draw: of a control; 0 otherwise.
        edits: what is switched on.
        at: further coordinates, which become columns: {"layer": 3, "factor": 2.0}.
        prefix: tokens written before the completion; they count as part of it.
        shots: worked examples in the prompt in place of the task's own; None = the task's own.
        rotation: one of these for each problem in turn, in place of `edits`, so that the mean over many draws costs
            no more than one draw.
    """

    vector: str = "base"
    draw: int = 0
    edits: tuple[Edit, ...] = ()
    at: dict[str, Any] = field(default_factory=dict[str, Any])
    prefix: tuple[int, ...] = ()
    shots: int | None = None
    rotation: tuple[tuple[Edit, ...], ...] = ()

    def edits_of(self, problem: int) -> tuple[Edit, ...]:
        """What is switched on for a problem, by its index."""
        return self.rotation[problem % len(self.rotation)] if self.rotation else self.edits

    @property
    def coordinates(self) -> dict[str, Any]:
        """What names the condition in a frame."""
        return {"vector": self.vector, "draw": self.draw, **self.at}


def answers(
    ctx: Context,
    conditions: Sequence[Condition],
    *,
    temperature: float,
    samples: int = 1,
    split: Split = "test",
    n: int | None = None,
    complete: Complete = Context.completions,
) -> pd.DataFrame:
    """Graded completions of the run's problems under each condition, a row each.

    Args:
        ctx: the run.
        conditions: rows of one batch, in order.
        temperature: 0 = greedy.
        samples: completions of each problem; one where greedy.
        split: of the task.
        n: problems; the run's by default.
        complete: what completes; `experiments.last_block.complete` shares texts between vectors of the last block.

    Returns:
        The conditions' coordinates, temperature, example, right, boxed, ended, length (tokens), entropy (nats).
    """
    problems = ctx.problems(split, n)
    asked = {shots: _prompts(ctx, problems, shots) for shots in {condition.shots for condition in conditions}}
    said = complete(
        ctx,
        [_begun(prompt, condition.prefix) for condition in conditions for prompt in asked[condition.shots]],
        per_row([condition.edits_of(index) for condition in conditions for index in range(len(problems))]),
        temperature=temperature,
        samples=samples if temperature else 1,
        keys=[problem.id for problem in problems] * len(conditions),
    )
    written = {prefix: ctx.model.decode([prefix])[0] for prefix in {condition.prefix for condition in conditions}}
    rows: list[dict[str, Any]] = []
    for row, text in said:
        condition, problem = conditions[row.prompt // len(problems)], problems[row.prompt % len(problems)]
        graded = _graded(ctx, problem, row, written[condition.prefix] + text, len(condition.prefix))
        rows.append({**condition.coordinates, "temperature": float(temperature), **graded})
    return pd.DataFrame(rows)


def _graded(ctx: Context, problem: Problem, row: Completion, text: str, begun: int) -> dict[str, Any]:
    """What is measured of a completion, `begun` tokens of which were given."""
    grade = ctx.task.grade(problem, text)
    return {
        "example": problem.id,
        "right": float(bool(grade.right)),
        "boxed": float(grade.boxed),
        "ended": float(row.ended),
        "length": float(len(row.ids) + begun),
        "entropy": fmean(row.entropy),
    }


def _prompts(ctx: Context, problems: Sequence[Problem], shots: int | None) -> list[Prompt]:
    if shots is None:
        return ctx.prompts(problems)
    example = demonstrations(ctx, shots)
    return [render(ctx.model.tokenizer, one.problem, system=ctx.task.system, example=example) for one in problems]


def demonstrations(ctx: Context, shots: int) -> list[tuple[str, str]]:
    """Worked examples for a few-shot prompt: the task's own first, then solved training problems.

    A training problem without a written solution shows its boxed answer alone.
    """
    own = list(ctx.task.example[:shots])
    solved = ctx.problems("train", shots - len(own)) if len(own) < shots else []
    return [*own, *((one.problem, one.solution or rf"\boxed{{{one.answer}}}") for one in solved)]


def _begun(prompt: Prompt, prefix: tuple[int, ...]) -> Prompt:
    """The prompt with the first tokens of its completion."""
    if not prefix:
        return prompt
    return Prompt((*prompt.ids, *prefix), prompt.spans, prompt.text)


def summarise(rows: pd.DataFrame, by: Iterable[str] = (), base: pd.DataFrame | None = None) -> pd.DataFrame:
    """Accuracy and gain of each condition with 95 % intervals over problems, and what must stand beside an accuracy.

    Args:
        rows: of `answers`; conditions that are compared have the same problems and samples in the same order.
        by: coordinates that tell conditions apart, besides vector and draw.
        base: what gains are taken over; the rows of vector "base" at the same temperature if not given.
    """
    keys = ["vector", "draw", "temperature", *by]
    grouped: Any = rows.groupby(keys, sort=False, dropna=False)
    found: list[dict[str, Any]] = []
    for key, own in grouped:
        reference: Any = rows[(rows["vector"] == "base") & (rows["temperature"] == own["temperature"].iloc[0])]
        beside = reference if base is None else base
        found.append({**dict(zip(keys, key, strict=True)), **_summary(own, beside)})
    return pd.DataFrame(found)


def references(
    ctx: Context, base: pd.DataFrame, *, entropy: float, temperature: float = 1.0, samples: int = 1
) -> pd.DataFrame:
    """What sharpening and examples alone give: the base at a steered model's entropy, and 1, 3 and 5 worked examples.

    Args:
        ctx: the run.
        base: the base's rows of `answers` at `temperature`, with which the gains are paired.
        entropy: mean entropy of the steered model's tokens, nats.
        temperature: of the few-shot prompts.
        samples: completions of each problem.

    Returns:
        Rows of `summarise`, whose vector is "matched-entropy", "1-shot", "3-shot" or "5-shot".
    """
    return summarise(reference_answers(ctx, entropy=entropy, temperature=temperature, samples=samples), base=base)


def reference_answers(ctx: Context, *, entropy: float, temperature: float = 1.0, samples: int = 1) -> pd.DataFrame:
    """Rows of `answers` behind `references`.

    Prompts for which the task has no training problems, or that the model's context cannot hold, are left out.
    """
    sharp = matched_temperature(ctx, entropy)
    frames = [answers(ctx, [Condition("matched-entropy")], temperature=sharp, samples=samples)]
    for shots in SHOTS:
        condition = Condition(f"{shots}-shot", shots=shots)
        try:
            frames.append(answers(ctx, [condition], temperature=temperature, samples=samples))
        except UserError as error:
            ctx.say(f"{shots}-shot prompts are left out: {error}")
    return pd.concat(frames, ignore_index=True)


def matched_temperature(ctx: Context, entropy: float, *, problems: int = 32) -> float:
    """The temperature at which the base's mean entropy on its own completions is that of a steered model, nats.

    Sharpening alone may raise accuracy, so a steered model is compared with a base as sharp as it is. Between 0.05 and
    2, to two digits.
    """
    said = ctx.once("base texts for the entropy", lambda: texts(ctx, n=min(problems, ctx.n)))
    at = places(said, "first", "generated", at_most=MATCHED_POSITIONS)
    log_p = log_probs(ctx.model, said.forced.base[at.where])

    def excess(temperature: float) -> float:
        return float(entropy_of((log_p / temperature).log_softmax(-1)).mean()) - entropy

    low, high = 0.05, 2.0
    if excess(low) >= 0 or excess(high) <= 0:
        return low if excess(low) >= 0 else high
    return round(float(brentq(excess, low, high, xtol=1e-3)), 2)  # pyright: ignore[reportArgumentType]


def _summary(own: Any, base: Any) -> dict[str, float]:
    once = own["example"].nunique() == len(own)
    accuracy = (
        wilson(int(own["right"].sum()), len(own)) if once else bootstrap(own["right"], own["example"], bounds=SHARE)
    )
    paired = len(base) == len(own) and list(base["example"]) == list(own["example"])
    unknown = Interval(np.nan, np.nan, np.nan, accuracy.n)
    gain = difference(own["right"], base["right"], own["example"], share=True) if paired else unknown
    right, boxed = own["right"].to_numpy(), own["boxed"].to_numpy()
    return {
        "accuracy": accuracy.estimate,
        "accuracy_low": max(0.0, accuracy.low),
        "accuracy_high": min(1.0, accuracy.high),
        "gain": gain.estimate,
        "gain_low": gain.low,
        "gain_high": gain.high,
        "boxed": float(boxed.mean()),
        "right_if_boxed": float(right[boxed > 0].mean()) if boxed.any() else np.nan,
        "ended": float(own["ended"].mean()),
        "length": float(own["length"].mean()),
        "entropy": float(own["entropy"].mean()),
        "n": accuracy.n,
    }


def gain_of(row: Any) -> Interval:
    """The gain of a row of `summarise`, as share of problems."""
    return Interval(float(row["gain"]), float(row["gain_low"]), float(row["gain_high"]), int(row["n"]))


def floor(row: Any) -> str | None:
    """Return why a gain cannot be tested where no completion is right, with the edit or without; None elsewhere.

    Args:
        row: of `summarise`.
    """
    accuracy, gain = float(row["accuracy"]), float(row["gain"])
    at_floor = accuracy == 0 and abs(gain) < 1e-9
    return (
        "no completion is right, with the vectors or without: a floor on which no gain or loss can show"
        if at_floor
        else None
    )
