"""SideEffects: what vectors change besides the task they were trained on, at half, full and twice their scale.

Any push of the residual stream moves every text. The question is whether these vectors move neutral text less than
random ones that move the task's own text as much. So the cost is taken at equal effect, as a ratio of the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any, ClassVar

import pandas as pd
from pydantic import field_validator

from experiments.controls import Acting, SetControls, acting, draw_controls, training_texts
from experiments.graded import COLUMNS, Condition, answers, references, summarise
from experiments.neutral import cost, passages, questions, repetition
from experiments.side_effect_frames import CONTROLLED, damage, judge_repetition, judge_selectivity, spread, style
from experiments.texts import places, texts
from interp.cell import Cell
from interp.context import Context
from interp.declaration import Declaration
from interp.edits import per_row
from interp.errors import UserError
from interp.experiment import Experiment
from interp.settings import Count, CountOrZero, Factors, Temperature
from interp.summaries import Verdict

CONTROLS = ("random-isotropic", "random-effect-matched")


class SideEffects(Experiment):
    """KL and perplexity on neutral text, style of off-task answers, and problems that break, at several doses.

    Neutral text, off-task questions and problems are the same for all vectors and doses; completions share their
    random streams. Controls are drawn for the whole set and measured at dose 1.
    """

    version: ClassVar[int] = 2
    figures: ClassVar[tuple[str, ...]] = ("side-effects", "side-effects-answers")
    declaration: ClassVar[Declaration] = Declaration(
        estimand="selectivity ln(KL on the task's text / KL on neutral text) of the vectors, minus that of random "
        "vectors scaled to the same KL on training problems; change of the longest repeated run off the task",
        unit="neutral text and problem; off-task question",
        statistic="logarithm of a ratio of means, its interval made of those of both means; paired difference",
        family="two verdicts, no correction",
        controls=(*CONTROLS, "base at matched entropy", "1, 3, 5 worked examples"),
        margin=0.5,
        claim="the vectors move neutral text less than random vectors that move the task's text as much",
        margin_unit="ln of a ratio (repetition: 0.05 of the tokens)",
    )
    columns: ClassVar[dict[str, str]] = COLUMNS | {
        "part": "grain of the row: texts, effect (their means), off-task (answers to questions), style (their means), "
        "accuracy, references, answers",
        "dose": "factor on the vectors; 1 = as trained",
        "kind": "of a text: prose, code, list; task = a problem with the base's completion",
        "kl": "mean KL(steered || base) of a token of the text, nats",
        "nll_base": "mean surprise of a token without the vectors, nats",
        "nll": "mean surprise of a token with them, nats",
        "kl_neutral": "mean KL of a token of neutral text, nats",
        "kl_neutral_low": "lower end of its 95 % interval over texts",
        "kl_neutral_high": "upper end",
        "kl_task": "mean KL of a token of the base's completions of problems, nats",
        "kl_task_low": "lower end of its 95 % interval over problems",
        "kl_task_high": "upper end",
        "selectivity": "ln(kl_task / kl_neutral); 0 = neutral text is moved as much as the task's",
        "selectivity_low": "lower end of its 95 % interval",
        "selectivity_high": "upper end",
        "perplexity_base": "of neutral text without the vectors",
        "perplexity": "of neutral text with them",
        "nll_change": "mean change of surprise of a token of neutral text, nats",
        "nll_change_low": "lower end of its 95 % interval over texts",
        "nll_change_high": "upper end",
        "distinct": "different pairs of neighbouring tokens of an off-task answer, as a share of all pairs",
        "repeated": "longest run of tokens that occurs twice in it, as a share of its tokens",
        "repeated_change": "repeated minus the base's, paired by question",
        "repeated_change_low": "lower end of its 95 % interval over questions",
        "repeated_change_high": "upper end",
        "broken": "problems that the base had right and that now fail",
        "fixed": "problems that the base had wrong and that are now right",
        "broken_share": "broken as a share of what the base had right",
        "broken_low": "lower end of its 95 % (Wilson) interval",
        "broken_high": "upper end",
        "fixed_share": "fixed as a share of what the base had wrong",
        "p": "exact two-sided p of broken = fixed (McNemar, binomial)",
    }
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {
            "n": 4, "n_texts": 5, "n_questions": 3, "task_n": 2, "matched_n": 2, "draws": 3, "doses": (1.0,),
            "length": 12, "controls": ("random-isotropic",), "generated_draws": 0, "few_shot": False,
        },
        "quick": {"n": 28, "n_texts": 20, "length": 24, "n_questions": 12, "draws": 4, "task_n": 8, "matched_n": 4},
        "full": {"n": 256, "task_n": 64, "matched_n": 16, "length": 64, "generated_draws": 8},
    }  # fmt: skip

    doses: Factors = (0.5, 1.0, 2.0)
    """Factors on the vectors; 1 must be among them."""
    n_texts: Count = 60
    """Neutral texts."""
    length: Count = 48
    """Tokens of a neutral text at most."""
    n_questions: Count = 36
    """Off-task questions."""
    answer_tokens: Count = 40
    """Tokens of an off-task answer at most."""
    task_n: Count = 16
    """Problems whose text is read."""
    at_most: CountOrZero = 8
    """Generated positions read of each of them; 0 = all."""
    controls: SetControls = CONTROLS
    """Kinds of control; see `experiments.controls`."""
    draws: Count = 8
    """Draws of each kind."""
    generated_draws: CountOrZero = 3
    """Draws of one kind of control that complete questions and problems too."""
    matched_n: Count = 8
    """Training problems on which the controls' covariance and effect are taken."""
    temperature: Temperature = 1.0
    """Of all completions; 0 = greedy."""
    few_shot: bool = True
    """Measure the base at the vectors' entropy, and with 1, 3 and 5 worked examples."""

    @field_validator("doses")
    @classmethod
    def _holds_the_trained_scale(cls, doses: tuple[float, ...]) -> tuple[float, ...]:
        if 1.0 not in doses:
            raise UserError("the doses must hold 1, the trained scale", given=", ".join(map(str, doses)))
        return doses

    def cells(self, ctx: Context) -> list[Cell]:  # noqa: ARG002
        """Texts that are read, questions that are answered, problems that are solved."""
        return [Cell.at(part=name) for name in ("texts", "off-task", "accuracy")]

    def measure(self, ctx: Context, cells: list[Cell]) -> pd.DataFrame:
        """Rows of all parts."""
        measured = {"texts": self._texts, "off-task": self._off_task, "accuracy": self._accuracy}
        return pd.concat([measured[str(cell["part"])](ctx) for cell in cells], ignore_index=True)

    def verdicts(self, frame: pd.DataFrame) -> list[Verdict]:
        """One on the cost at equal effect, one on repetition off the task."""
        return [judge_selectivity(frame), judge_repetition(frame)]

    def _drawn(self, ctx: Context) -> Mapping[str, Sequence[Acting]]:
        vectors = acting(ctx)
        make = partial(training_texts, ctx, self.matched_n, vectors.layers)
        draw = partial(draw_controls, ctx, vectors, self.controls, draws=self.draws, trained_on=make)
        return ctx.once("controls of the set", draw)

    def _named(self, ctx: Context, drawn: Mapping[str, Sequence[Acting]]) -> list[tuple[dict[str, Any], Acting]]:
        """The vectors at each dose, then the controls."""
        named = [
            (
                {"vector": "trained", "draw": 0, "dose": dose},
                dose * acting(ctx) if dose != 1 else acting(ctx),
            )
            for dose in self.doses
        ]
        return named + [
            ({"vector": kind, "draw": draw, "dose": 1.0}, one)
            for kind, every in drawn.items()
            for draw, one in enumerate(every)
        ]

    def _generating(self, ctx: Context) -> Mapping[str, Sequence[Acting]]:
        """Some effect-matched draws; of another kind where too few random directions reach the effect."""
        drawn = self._drawn(ctx) if self.generated_draws else {}
        for kind in sorted(drawn, key=lambda kind: kind != CONTROLLED):
            if len(drawn[kind]) >= self.generated_draws:
                return {kind: drawn[kind][: self.generated_draws]}
        return {}

    def _texts(self, ctx: Context) -> pd.DataFrame:
        named = self._named(ctx, self._drawn(ctx))
        said, kinds = passages(ctx, self.n_texts, self.length)
        neutral = cost(ctx, said, places(said, "generated", at_most=0), [one for _, one in named])
        task = texts(ctx, n=min(self.task_n, ctx.n))
        at = places(task, "first", "generated", at_most=self.at_most, seed=self.seed)
        own = cost(ctx, task, at, [one for _, one in named])
        frames: list[pd.DataFrame] = []
        for (about, _), read, on_task in zip(named, neutral, own, strict=True):
            rows = pd.concat([read.assign(kind=kinds), on_task.assign(kind="task")], ignore_index=True)
            frames += [rows.assign(part="texts", **about), spread(rows).assign(part="effect", **about)]
        return pd.concat(frames, ignore_index=True)

    def _off_task(self, ctx: Context) -> pd.DataFrame:
        prompts = questions(ctx, self.n_questions)
        named = [({"vector": "base", "draw": 0, "dose": 0.0}, None), *self._named(ctx, self._generating(ctx))]
        said = ctx.completions(
            prompts * len(named),
            per_row([() if one is None else one.edits() for _, one in named for _ in prompts]),
            max_new_tokens=self.answer_tokens,
            temperature=self.temperature,
            keys=[f"question {index}" for index in range(len(prompts))] * len(named),
        )
        rows: list[dict[str, Any]] = []
        for row in said.rows:
            about, number = named[row.prompt // len(prompts)][0], row.prompt % len(prompts)
            ids = [token for token in row.ids if token not in ctx.model.stop_ids]
            found = {"ended": float(row.ended), "length": float(len(row.ids)), "entropy": fmean(row.entropy)}
            rows.append({**about, "example": f"question {number}", **repetition(ids), **found})
        frame = pd.DataFrame(rows).assign(temperature=self.temperature)
        return pd.concat([frame.assign(part="off-task"), style(frame).assign(part="style")], ignore_index=True)

    def _accuracy(self, ctx: Context) -> pd.DataFrame:
        conditions = [Condition(at={"dose": 0.0})]
        for about, one in self._named(ctx, self._generating(ctx)):
            conditions.append(Condition(about["vector"], about["draw"], one.edits(), {"dose": about["dose"]}))
        rows: Any = answers(ctx, conditions, temperature=self.temperature)
        base = rows[rows["vector"] == "base"]
        found = damage(summarise(rows, ["dose"], base), rows, base)
        frames = [found.assign(part="accuracy"), rows.assign(part="answers")]
        if self.few_shot:
            steered = rows[(rows["vector"] == "trained") & (rows["dose"] == 1)]
            beside = references(ctx, base, entropy=float(steered["entropy"].mean()), temperature=self.temperature)
            frames.append(beside.assign(part="references"))
        return pd.concat(frames, ignore_index=True)
