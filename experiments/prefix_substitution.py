"""PrefixSubstitution: does writing one token before the completion do what the last vector does (arXiv:2509.06608)?

The token is the one whose probability the vector raises most at the first generated position, chosen on training
problems. Writing any likely opener may help, and a random vector raises tokens too, so the same is done for the base's
likeliest openers and for the tokens that random vectors choose in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from experiments.controls import Acting, Controls, acting, control_interval, draw_controls, too_few, training_texts
from experiments.graded import COLUMNS, Condition, answers, floor, gain_of, references, summarise
from experiments.last_block import complete
from experiments.openers import Openers, choices, distinct
from interp.cell import Cell
from interp.context import Context
from interp.declaration import Declaration
from interp.experiment import Experiment
from interp.settings import Block, Count, Temperatures
from interp.summaries import Verdict, share, verdict

MARGIN = 0.05
UNIT = "share of problems"
STRATA = ("all", "opens with it", "opens otherwise")
CONTROLS = ("random-isotropic", "random-effect-matched", "permuted")


class PrefixSubstitution(Experiment):
    """Accuracy of the base with a token written first, beside the vector that raises this token.

    Gains are paired by problem and random stream. The tokens of control vectors are chosen as the vector's own is: the
    claim needs a token that random vectors do not find as well.
    """

    version: ClassVar[int] = 2
    prefers: ClassVar[tuple[str, ...]] = ("single-layer", "all-layer")
    figures: ClassVar[tuple[str, ...]] = ("prefix-substitution",)
    declaration: ClassVar[Declaration] = Declaration(
        estimand="accuracy gained by writing the token that the vector raises most at the first generated position",
        unit="problem",
        statistic="paired difference of accuracies; share of the vector's own gain",
        family="one verdict; the token is chosen on training problems, the openers only rank it",
        controls=(*CONTROLS, "the base's likeliest openers", "base at matched entropy", "1, 3, 5 worked examples"),
        margin=MARGIN,
        claim="writing the promoted token before the completion gives much of the last vector's gain",
        margin_unit=UNIT,
    )
    columns: ClassVar[dict[str, str]] = COLUMNS | {
        "part": "grain of the row: tokens (chosen on training problems), accuracy, references, answers",
        "vector": '"base"; "trained" = the vector itself (in part tokens: the token it chose); "prefix" = a token '
        'written first; a kind of control (tokens that its draws chose); "opener" (the base\'s likeliest tokens)',
        "layer": "block of the vector, 0 = first",
        "token_id": "the token written first",
        "token": "its text",
        "u": "change of its mean probability at the first generated position by the vector that chose it",
        "p_base": "its mean probability there without any vector",
        "stratum": "all problems; those whose base completion opens with the token; the others",
        "rank": "1 = the largest gain among the written openers and the vector's token (stratum all)",
        "share": "gain divided by the vector's own; empty where the lower bound of the latter is below 5 points",
        "share_low": "lower end of its 95 % interval over problems",
        "share_high": "upper end",
    }
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"n": 4, "train_n": 4, "openers": 2, "draws": 3, "few_shot": False},
        "quick": {"n": 28, "draws": 4},
        "full": {"n": 256, "train_n": 128, "samples": 4, "temperatures": (1.0, 0.0)},
    }

    layer: Block | None = None
    """Block of the vector; the last one of the set if none."""
    openers: Count = 10
    """How many of the base's likeliest first tokens are written too."""
    train_n: Count = 32
    """Training problems on which tokens are chosen."""
    controls: Controls = CONTROLS
    """Kinds of control that choose tokens."""
    draws: Count = 8
    """Draws of each kind of control."""
    matched_n: Count = 8
    """Training problems on which the controls' covariance and effect are taken."""
    temperatures: Temperatures = (1.0,)
    """Temperatures; 0 = greedy."""
    samples: Count = 1
    """Completions of each problem."""
    few_shot: bool = True
    """Measure the base at the vector's entropy, and with 1, 3 and 5 worked examples."""

    def cells(self, ctx: Context) -> list[Cell]:  # noqa: ARG002
        """The choice of tokens, and the completions at each temperature."""
        return [Cell.at(part="tokens"), *(Cell.at(part="accuracy", temperature=t) for t in self.temperatures)]

    def measure(self, ctx: Context, cells: list[Cell]) -> pd.DataFrame:
        """Chosen tokens and graded completions."""
        every = acting(ctx)
        layer = max(every.layers) if self.layer is None else self.layer
        tokens = ctx.once("chosen tokens", partial(self._tokens, ctx, every, layer))
        frames = [
            tokens.assign(part="tokens")
            if cell["part"] == "tokens"
            else self._accuracy(ctx, every.only(layer), tokens, float(cell["temperature"]))
            for cell in cells
        ]
        return pd.concat([frame.assign(layer=layer) for frame in frames], ignore_index=True)

    def verdicts(self, frame: pd.DataFrame) -> list[Verdict]:
        """Whether writing the token raises accuracy, by more than writing the tokens of random vectors does."""
        return [judge(frame)]

    def _tokens(self, ctx: Context, every: Acting, layer: int) -> pd.DataFrame:
        make = partial(training_texts, ctx, self.matched_n, [layer])
        drawn = draw_controls(ctx, every, self.controls, layer=layer, draws=self.draws, trained_on=make)
        return choices(Openers.of(ctx, self.train_n, layer), every.only(layer), drawn, self.openers)

    def _accuracy(self, ctx: Context, vectors: Acting, tokens: pd.DataFrame, temperature: float) -> pd.DataFrame:
        texts = {int(number): text for number, text in zip(tokens["token_id"], tokens["token"], strict=True)}
        written = [
            Condition("prefix", at={"token_id": token, "token": texts[token]}, prefix=(token,))
            for token in distinct(tokens["token_id"].tolist())
        ]
        nothing = {"token_id": -1, "token": ""}
        plain = [Condition(at=nothing), Condition("trained", edits=vectors.edits(), at=nothing)]
        ask = partial(answers, ctx, temperature=temperature, samples=self.samples)
        rows = pd.concat([ask(plain, complete=complete), ask(written)], ignore_index=True)
        base: Any = rows[rows["vector"] == "base"]
        found = summarise(rows, ["token_id", "token"], base)
        first = self._first_tokens(ctx, temperature)
        frames = [with_strata(found, rows, base, first), rows.assign(part="answers")]
        if temperature and self.few_shot:
            entropy = float(rows.loc[rows["vector"] == "trained", "entropy"].mean())
            beside = references(ctx, base, entropy=entropy, temperature=temperature, samples=self.samples)
            frames.append(beside.assign(part="references"))
        return pd.concat([as_controls(frames[0], tokens), *frames[1:]], ignore_index=True)

    def _first_tokens(self, ctx: Context, temperature: float) -> list[int]:
        """Of the base's completions, which the rows of vector "base" have left on the disk."""
        problems = ctx.problems()
        keys = [problem.id for problem in problems]
        samples = self.samples if temperature else 1
        said = ctx.completions(ctx.prompts(problems), temperature=temperature, samples=samples, keys=keys)
        return [row.ids[0] for row in said.rows]


def with_strata(found: pd.DataFrame, rows: Any, base: Any, first: Sequence[int]) -> pd.DataFrame:
    """Add shares of the vector's gain, and the same accuracies by whether the base opens with the token.

    Args:
        found: of `summarise`.
        rows: of `answers`.
        base: the base's rows.
        first: first token of each of them.
    """
    own: Any = rows[rows["vector"] == "trained"]
    steered = own["right"].to_numpy() - base["right"].to_numpy()
    examples, frames = base["example"].to_numpy(), [found.assign(stratum=STRATA[0])]
    for token, part in rows[rows["vector"] == "prefix"].groupby("token_id", sort=False):
        ratio = share(part["right"].to_numpy() - base["right"].to_numpy(), steered, examples)
        if ratio is not None:
            frames[0].loc[found["token_id"] == token, ["share", "share_low", "share_high"]] = [
                ratio.estimate,
                ratio.low,
                ratio.high,
            ]
        opens = np.asarray(first) == token
        for name, inside in zip(STRATA[1:], (opens, ~opens), strict=True):
            if inside.any():
                few = summarise(part[inside], ["token_id", "token"], base[inside])
                frames.append(few.assign(stratum=name))
    return pd.concat(frames, ignore_index=True)


def as_controls(found: Any, tokens: Any) -> pd.DataFrame:
    """Rows of the written tokens under the names of all that chose them: a control's draw, an opener's rank."""
    whole = found[(found["vector"] == "prefix") & (found["stratum"] == STRATA[0])]
    mine = tokens.loc[tokens["vector"].isin(["trained", "opener"]), "token_id"]
    ranked = whole[whole["token_id"].isin(mine)]["gain"].rank(ascending=False, method="min")
    kept = found[(found["vector"] != "prefix") | found["token_id"].isin(mine)].copy()
    kept["rank"] = ranked.reindex(kept.index)
    chosen = int(tokens.loc[tokens["vector"] == "trained", "token_id"].iloc[0])
    kept.loc[(kept["vector"] == "prefix") & (kept["token_id"] != chosen), "vector"] = "opener"
    drawn = tokens[~tokens["vector"].isin(["trained", "opener"])][["vector", "draw", "token_id", "u"]]
    copies = drawn.merge(whole.drop(columns=["vector", "draw"]), on="token_id")
    order = tokens.drop_duplicates("token_id").set_index("token_id")["p_base"]
    both = pd.concat([kept, copies], ignore_index=True)
    return both.assign(part="accuracy", p_base=both["token_id"].map(order))


def judge(frame: pd.DataFrame) -> Verdict:
    """The verdict on the token's gain."""
    claim = "promoted-token-raises-accuracy"
    rows: Any = frame[(frame["part"] == "accuracy") & (frame["stratum"] == STRATA[0])]
    rows = rows[rows["temperature"] == rows["temperature"].max()]
    row = rows[rows["vector"] == "prefix"].iloc[0]
    gain = gain_of(row)
    drawn = rows[~rows["vector"].isin(["base", "trained", "prefix", "opener"])]
    control = control_interval({str(kind): list(own["gain"]) for kind, own in drawn.groupby("vector")}, problems=gain.n)
    reason = too_few(gain.n) or floor(row) or (None if control else "there are no control draws to compare with")
    if np.isnan(gain.estimate):
        reason = "no completions were graded"
    return verdict(gain, control, MARGIN, testable=reason, claim=claim, unit=UNIT)
