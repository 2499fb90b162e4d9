"""Transfer: what one model's vectors give to another model (arXiv:2509.06608 Table 1).

A recipient may be another model, the same one under another prompt, or the same one with an adapter on. A model of
another width or depth takes the vectors through maps between the two residual streams (`experiments.widths`), and its
control is the same vectors through random maps.
"""

from __future__ import annotations

from functools import partial
from math import nan
from typing import Any, ClassVar

import pandas as pd

from experiments.controls import (
    Acting,
    SetControls,
    Sets,
    acting,
    control_interval,
    draw_controls,
    too_few,
    training_texts,
)
from experiments.graded import COLUMNS, Condition, answers, floor, gain_of, references, summarise
from experiments.recipients import HOME, OPTIONAL, PROMPTS, Recipient, donors, recipient
from interp.cell import Cell
from interp.context import Context
from interp.declaration import Declaration
from interp.digest import digest
from interp.errors import UserError
from interp.experiment import Experiment
from interp.identity import identity_of
from interp.settings import Count, Names, Temperature
from interp.summaries import Verdict, share, verdict

MARGIN = 0.05
UNIT = "share of problems"
CONTROLS = ("random-isotropic", "permuted-layers")
MAPPED = "random-map"
"""The kind of control of a recipient of another width or depth."""
RECIPIENTS = (*PROMPTS, "lora-r1", "lora-r4")


class Transfer(Experiment):
    """Points gained by each recipient with each donor's vectors, beside control sets of the same norms.

    In a recipient of another width or depth the controls are the vectors carried by random maps, of the same norms.

    Gains are paired by problem and random stream with the recipient without any vectors.
    """

    version: ClassVar[int] = 4
    figures: ClassVar[tuple[str, ...]] = ("transfer", "transfer-table")
    declaration: ClassVar[Declaration] = Declaration(
        estimand="accuracy gained by a recipient with the run's vectors, which were trained elsewhere",
        unit="problem",
        statistic="paired difference of accuracies; share of the gain by the recipient's own vectors where the lower "
        "bound of the latter is >= 5 points",
        family="one verdict for each recipient but the one the vectors were trained on, no correction",
        controls=(
            *CONTROLS,
            "random-map (recipients of another shape)",
            "base at matched entropy",
            "1, 3, 5 worked examples",
        ),
        margin=MARGIN,
        claim="vectors trained on one model help another model of the same shape",
        margin_unit=UNIT,
    )
    columns: ClassVar[dict[str, str]] = COLUMNS | {
        "part": "grain of the row: accuracy, references (of the recipient that the vectors were trained on), answers",
        "vector": '"base"; "trained" = the run\'s vectors; "donor" = another set; else the kind of control',
        "recipient": "what the vectors are put into",
        "donor": "name of the set; of a control, the set that it stands against",
        "share": "gain divided by that of the recipient's own vectors; for another prompt of the same model, by that "
        "of the run's vectors under the prompt they were trained with; empty where its lower bound is below 5 points",
        "share_low": "lower end of its 95 % interval over problems",
        "share_high": "upper end",
        "r2": "of the maps that carry the vectors to a recipient of another shape: share of the variance of its states "
        "on held-out texts that is explained, mean over layers; empty where no fitted map is used",
    }
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"n": 4, "recipients": (HOME, "no-example"), "donors": (), "draws": 1, "few_shot": False},
        "quick": {
            "n": 28, "controls": ("permuted-layers",), "recipients": (HOME, "other-system-line", "lora-r1"),
            "donors": ("all-layer@1", "mean-difference"), "draws": 3,
        },
        "full": {"n": 256, "samples": 4, "draws": 8, "recipients": (*RECIPIENTS, *OPTIONAL)},
    }  # fmt: skip

    recipients: Names = RECIPIENTS
    """Prompts of the model, sets of adapters that come with it, or other models of any shape as MODEL or MODEL=VECTORS,
    where VECTORS are the recipient's own."""
    donors: Sets = ("all-layer@1", "all-layer@2", "single-layer", "mean-difference")
    """Further sets: those that come with the model, aliases or paths; a set trained layer by layer is on together."""
    controls: SetControls = CONTROLS
    """Kinds of control; see `experiments.controls`. A recipient of another shape has random maps instead."""
    draws: Count = 8
    """Draws of each kind, the same for every recipient."""
    matched_n: Count = 8
    """Training problems on which covariance and effect of controls are taken, where a kind needs them."""
    temperature: Temperature = 1.0
    """Of the completions; 0 = greedy."""
    samples: Count = 1
    """Completions of each problem."""
    few_shot: bool = True
    """Measure the model at the steered one's entropy, and with 1, 3 and 5 worked examples."""

    def cells(self, ctx: Context) -> list[Cell]:
        """One for each recipient that there is."""
        found = [name for name in self.recipients if recipient(ctx, name) is not None]
        if not found:
            raise UserError("none of these recipients exists here", given=", ".join(self.recipients))
        return [Cell.at(recipient=name) for name in found]

    def inputs(self, ctx: Context) -> dict[str, str]:
        """Digests of donors, recipients and their own vectors."""
        given = {f"donor {name}": one.digest for name, one in donors(ctx, self.donors).items()}
        for name in self.recipients:
            one = recipient(ctx, name)
            if one is not None:
                own = "" if one.own is None else one.own.digest
                about = (
                    one.ctx.model.fingerprint,
                    identity_of(one.ctx.task),
                    [identity_of(edit) for edit in one.edits],
                    own,
                )
                given[f"recipient {name}"] = digest(*about)
        return given

    def measure(self, ctx: Context, cells: list[Cell]) -> pd.DataFrame:
        """Accuracy of each recipient with each donor."""
        frames: list[pd.DataFrame] = []
        for cell in cells:
            one = recipient(ctx, str(cell["recipient"]))
            if one is not None:
                frames.append(self._recipient(ctx, one).assign(recipient=one.name))
        return pd.concat(frames, ignore_index=True)

    def verdicts(self, frame: pd.DataFrame) -> list[Verdict]:
        """One for each recipient but the first one's home."""
        names = [name for name in dict.fromkeys(frame["recipient"]) if name != HOME]
        return [judge(frame, str(name)) for name in names]

    def _recipient(self, ctx: Context, one: Recipient) -> pd.DataFrame:
        conditions = [Condition(edits=one.edits, at={"donor": ""})]
        r2: dict[tuple[str, str], float] = {}
        for kind, draw, name, donor in self._donors(ctx, one):
            edits = one.takes(donor, draw if kind == MAPPED else None)
            conditions.append(Condition(kind, draw, edits, {"donor": name}))
            r2[kind, name] = one.r2(donor) if kind != MAPPED else nan
        rows = answers(one.ctx, conditions, temperature=self.temperature, samples=self.samples)
        base: Any = rows[rows["vector"] == "base"]
        found = with_shares(summarise(rows, ["donor"], base), rows, base, self._own_gain(ctx, one, rows))
        found["r2"] = [r2.get(key, nan) for key in zip(found["vector"], found["donor"], strict=True)]
        frames = [found.assign(part="accuracy"), rows.assign(part="answers")]
        if one.name == HOME and self.few_shot:
            own: Any = rows[rows["vector"] == "trained"]
            beside = partial(references, ctx, base, temperature=self.temperature, samples=self.samples)
            frames.append(beside(entropy=float(own["entropy"].mean())).assign(part="references"))
        return pd.concat(frames, ignore_index=True)

    def _donors(self, ctx: Context, one: Recipient) -> list[tuple[str, int, str, Acting]]:
        """Kind, draw and name of everything that is put into a recipient."""
        vectors = acting(ctx)
        make = partial(training_texts, ctx, self.matched_n, vectors.layers)

        def draw() -> dict[str, list[Acting]]:
            drawn = partial(draw_controls, ctx, vectors, draws=self.draws, trained_on=make)
            return drawn(self.controls) or drawn(CONTROLS[:1])  # one layer, or adapters, cannot be shuffled

        found: list[tuple[str, int, str, Acting]] = [("trained", 0, vectors.name, vectors)]
        found += [("donor", 0, name, donor) for name, donor in donors(ctx, self.donors).items()]
        if one.own is not None and one.own != vectors:
            found.append(("donor", 0, "own", one.own))
        if one.bridge is not None:
            return found + [(MAPPED, at, vectors.name, vectors) for at in range(self.draws)]
        for kind, drawn in ctx.once("controls of the set", draw).items():
            found += [(kind, at, vectors.name, control) for at, control in enumerate(drawn)]
        return found

    def _own_gain(self, ctx: Context, one: Recipient, rows: Any) -> Any:
        """Gain of each row by the recipient's own vectors, which is what a donor's is divided by; None without any."""
        if one.own is None:
            return None
        if one.name in PROMPTS and one.name != HOME:
            conditions = [Condition(), Condition("trained", edits=acting(ctx).edits())]
            rows = answers(ctx, conditions, temperature=self.temperature, samples=self.samples)
        own = rows[rows["vector"] == "trained"] if one.name in PROMPTS else rows[rows["donor"] == "own"]
        return own["right"].to_numpy() - rows.loc[rows["vector"] == "base", "right"].to_numpy()


def with_shares(found: pd.DataFrame, rows: Any, base: Any, own: Any) -> pd.DataFrame:
    """Add each donor's share of the own vectors' gain, where the ratio may be shown."""
    if own is None:
        return found
    for _, part in rows[rows["vector"].isin(["trained", "donor"])].groupby(["vector", "donor"], sort=False):
        ratio = share(part["right"].to_numpy() - base["right"].to_numpy(), own, base["example"].to_numpy())
        here = (found["vector"] == part["vector"].iloc[0]) & (found["donor"] == part["donor"].iloc[0])
        if ratio is not None:
            found.loc[here, ["share", "share_low", "share_high"]] = [ratio.estimate, ratio.low, ratio.high]
    return found


def judge(frame: Any, name: str) -> Verdict:
    """Whether the run's vectors help a recipient, by more than controls do."""
    rows = frame[(frame["part"] == "accuracy") & (frame["recipient"] == name)]
    gain = gain_of(rows[rows["vector"] == "trained"].iloc[0])
    drawn = rows[~rows["vector"].isin(["base", "trained", "donor"])]
    kinds = [str(kind) for kind in drawn["vector"].unique()]
    control = control_interval(
        {kind: list(drawn.loc[drawn["vector"] == kind, "gain"]) for kind in kinds}, kinds, problems=gain.n
    )
    reason = too_few(gain.n) or (None if control else "there are too few control draws to compare with")
    reason = reason or floor(rows[rows["vector"] == "trained"].iloc[0])
    return verdict(gain, control, MARGIN, testable=reason, claim=f"helps-{name}", unit=UNIT)
