"""TokenSubstitution: is the last block's vector a substitution of single tokens (arXiv:2509.06608 Figs 3, 19)?

A change of probability is about p (1 - p) times a change of log-odds, so any bias peaks where the base is undecided:
log-odds stand beside it, every vector is read beside controls, and accuracy is measured with the vector only at the
position that predicts the first token, and everywhere but there.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Literal

import pandas as pd

from experiments.controls import (
    KINDS,
    Acting,
    Controls,
    acting,
    control_interval,
    draw_controls,
    halves,
    too_few,
    training_texts,
)
from experiments.first_position import APPLIED, add_share, judge, placed
from experiments.graded import COLUMNS, Condition, answers, matched_temperature, summarise
from experiments.last_block import complete
from experiments.texts import places, steered_at, texts
from experiments.token_effects import chosen_tokens
from experiments.token_frames import Table
from interp.cell import Cell
from interp.context import Context
from interp.declaration import Declaration
from interp.errors import UserError
from interp.experiment import Experiment
from interp.settings import Block, Count, CountOrZero, TemperaturesOrNone, Tokens
from interp.summaries import Interval, Verdict, verdict

MARGIN_SHARE = 0.1
MARGIN_GAIN = 0.05
UNIT_SHARE = "share of the total variation"
NO_DRAWS = "there are no control draws to compare with"


class TokenSubstitution(Experiment):
    """What the vector of one block does to each token's probability, and whether the first token is enough.

    Everything is read on the same tokens: completions of the base model at temperature 1, or of the steered one.
    Tokens are chosen by |U| on a random half of the problems and reported on the other half.
    """

    version: ClassVar[int] = 2
    prefers: ClassVar[tuple[str, ...]] = ("single-layer", "all-layer")
    figures: ClassVar[tuple[str, ...]] = ("token-substitution", "token-substitution-paper", "token-substitution-causal")
    declaration: ClassVar[Declaration] = Declaration(
        estimand="share of the summed total variation that falls on the token with the largest |U|, held-out half; "
        "accuracy gained by the vector at the last prompt position alone",
        unit="problem",
        statistic="ratio of sums over first and generated positions; paired difference of accuracies",
        family="two verdicts, no correction; tokens are chosen on one half and reported on the other",
        controls=KINDS,
        margin=MARGIN_SHARE,
        claim="the last layer's vector substitutes single tokens, above all the first",
        margin_unit="share of the total variation (the gain's margin is 5 points)",
    )
    columns: ClassVar[dict[str, str]] = COLUMNS | {
        "part": "grain of the row: positions, chosen, summary, concentration, causal, entropy-matched, answers",
        "layer": "block of the vector, 0 = first",
        "position": "0 = the LAST PROMPT position, which predicts the first generated token",
        "stratum": "first, generated or template; all = first and generated",
        "max_dp": "largest increase of a token's probability",
        "max_token_id": "the token with it",
        "max_token": "its text",
        "min_dp": "largest decrease, negative",
        "min_token_id": "the token with it",
        "min_token": "its text",
        "argmax_base_id": "most likely token without the vector",
        "argmax_base": "its text",
        "argmax_steered_id": "most likely token with it",
        "argmax_steered": "its text",
        "entropy_base": "entropy of the next token without the vector, nats",
        "entropy_steered": "the same with it, nats",
        "kl": "KL(steered || base), nats",
        "tv": "total variation, in [0, 1]",
        "token_id": "a chosen token",
        "token": "its text",
        "chosen_by": "selected (largest |U| on the choosing half) or named (by the user)",
        "p_base": "its probability without the vector",
        "p_steered": "its probability with it",
        "delta_p": "change of its probability",
        "rank": "1 = largest |U| on the choosing half",
        "half": "choosing or held-out",
        "u": "U(v), mean change of probability over positions, then problems",
        "u_low": "lower end of its 95 % interval over problems",
        "u_high": "upper end",
        "tv_share": "the token's share of the summed total variation, in [0, 1]",
        "tv_share_low": "lower end of its 95 % interval over problems",
        "tv_share_high": "upper end",
        "delta_log_odds": "change of log-odds, nats (a mean over positions, then problems, in a summary)",
        "delta_log_odds_low": "lower end of its 95 % interval over problems",
        "delta_log_odds_high": "upper end",
        "applied": "where the vector is added: nowhere, first (last prompt position only), all-but-first, everywhere",
        "share": "gain divided by the gain everywhere; empty where the latter's lower bound is below 5 points",
        "share_low": "lower end of its 95 % interval over problems",
        "share_high": "upper end",
    }
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"n": 4, "draws": 3, "train_n": 2, "at_most": 3, "chosen": 6, "causal_draws": 0},
        "quick": {"n": 28, "at_most": 6, "causal_draws": 4},
        "full": {"n": 256, "train_n": 32, "at_most": 64, "temperatures": (1.0, 0.0), "samples": 4},
    }

    layer: Block | None = None
    """Block of the vector; the last one of the set if none."""
    text: Literal["base", "steered"] = "base"
    """Whose completions are read; the base's favour no vector."""
    at_most: CountOrZero = 12
    """Generated positions read of each problem, drawn at random; 0 = all."""
    chosen: Count = 12
    """Tokens chosen of each stratum."""
    named: Tokens = ()
    """Further tokens to report, each a single token's text."""
    controls: Controls = KINDS
    """Kinds of control."""
    draws: Count = 8
    """Draws of each kind of control."""
    train_n: Count = 8
    """Training problems on which the controls' covariance and effect are taken."""
    temperatures: TemperaturesOrNone = (1.0,)
    """Temperatures of the causal test; 0 = greedy; none = no causal test."""
    samples: Count = 1
    """Completions of each problem in the causal test."""
    causal_draws: CountOrZero = 8
    """Draws of the effect-matched control in the causal test."""

    def cells(self, ctx: Context) -> list[Cell]:
        """The readout, and the completions at each temperature."""
        if all(problem.answer is None for problem in ctx.problems()):
            return [Cell.at(part="readout")]
        return [Cell.at(part="readout"), *(Cell.at(part="causal", temperature=t) for t in self.temperatures)]

    def measure(self, ctx: Context, cells: list[Cell]) -> pd.DataFrame:
        """Readouts and graded completions."""
        every = acting(ctx)
        layer = max(every.layers) if self.layer is None else self.layer
        vectors = every.only(layer)
        frames = [
            self._readout(ctx, every, vectors, layer)
            if cell["part"] == "readout"
            else self._causal(ctx, every, layer, float(cell["temperature"]))
            for cell in cells
        ]
        return pd.concat([frame.assign(layer=layer) for frame in frames], ignore_index=True)

    def verdicts(self, frame: pd.DataFrame) -> list[Verdict]:
        """One on the share of a single token, one on the first position."""
        return [judge_share(frame), judge(frame, MARGIN_GAIN)]

    def _readout(self, ctx: Context, every: Acting, vectors: Acting, layer: int) -> pd.DataFrame:
        edits = vectors.edits() if self.text == "steered" else ()
        said = ctx.once(f"{self.text} texts", partial(texts, ctx, edits=edits, keep=[layer]))
        at = places(said, "first", "generated", "template", at_most=self.at_most, seed=self.seed)
        choosing, reporting = halves(len(said.examples), self.seed)
        trained = steered_at(said, vectors, at.where, ctx)
        selected = chosen_tokens(ctx.model, said, at, trained, choosing, self.chosen)
        table = Table(ctx.model, said, at, (choosing, reporting), selected, _ids(ctx.model, self.named))
        kinds: dict[str, list[Acting]] = {"trained": [vectors]}
        kinds |= {kind: self._control(ctx, every, layer, kind)[: self.draws] for kind in self.controls}
        frames: list[pd.DataFrame] = []
        for kind, drawn in kinds.items():
            finals = [trained] if kind == "trained" else [steered_at(said, one, at.where) for one in drawn]
            for draw, effect in enumerate(table.effects(finals)):
                frames += [
                    part.assign(vector=kind, draw=draw) for part in table.parts(effect, trained=kind == "trained")
                ]
        return pd.concat(frames, ignore_index=True)

    def _causal(self, ctx: Context, every: Acting, layer: int, temperature: float) -> pd.DataFrame:
        vectors, drawn = every.only(layer), self._causal_controls(ctx, every, layer)
        longest = max(len(prompt) for prompt in ctx.prompts(ctx.problems()))
        base = Condition(at={"applied": "nowhere"})
        conditions = [
            base,
            *(placed("trained", 0, vectors, applied, longest) for applied in APPLIED[1:]),
            *(placed(kind, draw, one, "first", longest) for kind, of in drawn.items() for draw, one in enumerate(of)),
        ]
        rows = answers(ctx, conditions, temperature=temperature, samples=self.samples, complete=complete)
        plain: Any = rows[rows["vector"] == "base"]
        summary = add_share(summarise(rows, ["applied"]), rows, plain).assign(part="causal")
        frames = [summary, rows.assign(part="answers")]
        if temperature:
            entropy = float(rows.loc[rows["applied"] == "everywhere", "entropy"].mean())
            sharp = answers(ctx, [base], temperature=matched_temperature(ctx, entropy), samples=self.samples)
            frames.append(summarise(sharp, ["applied"], base=plain).assign(part="entropy-matched"))
        return pd.concat(frames, ignore_index=True)

    def _control(self, ctx: Context, every: Acting, layer: int, kind: str) -> list[Acting]:
        """Draws of a kind, made once for the readout and the causal test."""
        draws = max(self.draws, self.causal_draws)
        make = partial(training_texts, ctx, self.train_n, [layer])
        draw = partial(draw_controls, ctx, every, (kind,), layer=layer, draws=draws, trained_on=make)
        return list(ctx.once(f"controls {kind}", draw).get(kind, []))

    def _causal_controls(self, ctx: Context, every: Acting, layer: int) -> dict[str, list[Acting]]:
        """Effect-matched draws; norm-matched ones where too few random directions reach such an effect."""
        if not self.causal_draws:
            return {}
        for kind in ("random-effect-matched", "random-isotropic"):
            drawn = self._control(ctx, every, layer, kind)[: self.causal_draws]
            if len(drawn) == self.causal_draws:
                return {kind: drawn}
        return {}


def judge_share(frame: pd.DataFrame) -> Verdict:
    """Whether one token carries more of the total variation than it does for a random vector."""
    claim = "single-token"
    rows: Any = frame[(frame["stratum"] == "all") & (frame["half"] == "held-out") & (frame["rank"] == 1)]
    own = rows[(rows["part"] == "summary") & (rows["vector"] == "trained")]
    drawn = rows[rows["part"] == "concentration"]
    control = control_interval({str(kind): list(part["tv_share"]) for kind, part in drawn.groupby("vector")})
    if own.empty or control is None:
        return verdict(None, margin=MARGIN_SHARE, claim=claim, unit=UNIT_SHARE, testable=NO_DRAWS)
    one = own.iloc[0]
    share = Interval(float(one["tv_share"]), float(one["tv_share_low"]), float(one["tv_share_high"]), int(one["n"]))
    return verdict(share, control, MARGIN_SHARE, relative=True, testable=too_few(share.n), claim=claim, unit=UNIT_SHARE)


def _ids(model: Any, named: tuple[str, ...]) -> tuple[int, ...]:
    """Ids of tokens by their text.

    Raises:
        UserError: a text is not a single token.
    """
    found: list[int] = []
    for text in named:
        ids = model.tokenizer.encode(text, add_special_tokens=False)
        if len(ids) != 1:
            raise UserError("a named token must be a single token of the model", given=text, works=f"it is {len(ids)}")
        found.append(ids[0])
    return tuple(found)
