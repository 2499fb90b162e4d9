"""PathPatching: through which paths of the next block does a vector act (arXiv:2509.06608 sec. 7, Figs 5, 6, 20, 21)?

A vector enters the block above it through queries, keys, values, the stream that the MLP reads, and the stream itself.
Each may see the vector or not. The last block's shares are large at the stream for ANY vector, since all it adds is
unembedded directly: so random vectors go through the same patches, and the claim is judged against them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import pandas as pd

from experiments.attention_rows import attention_change
from experiments.controls import RANDOM, Acting, Controls, acting, draw_controls, training_texts
from experiments.graded import COLUMNS
from experiments.patched_block import PatchedBlock, Readout
from experiments.patches import FAMILIES, Families, Patches, family, patch, placed
from experiments.path_accuracy import Generation
from experiments.path_frames import (
    attention_frame,
    control_places,
    factorial_rows,
    patch_rows,
    sweep_rows,
)
from experiments.path_verdicts import MARGIN_SHARE, MATCHED, judge_gain, judge_rows, judge_share
from experiments.texts import Places, Texts, places, texts
from interp.cell import Cell
from interp.context import Context
from interp.declaration import Declaration
from interp.digest import digest
from interp.errors import UserError
from interp.experiment import Experiment
from interp.identity import identity_of
from interp.paths import BlockPaths
from interp.settings import Block, Count, CountOrZero, TemperaturesOrNone
from interp.summaries import Verdict

NAMED = ("steered", "skip-attn", "skip-layer", "skip-mlp", "only-attn")
TEACHER_FORCED = ("patches", "factorial", "sweep", "attention")


class PathPatching(Experiment):
    """What is left of a vector's effect when paths into the block above it do not see it.

    Recovered = D(steered, base) - D(steered, patched), where D is KL(steered || other) by default, on the same tokens:
    0 where the patch loses everything, D(steered, base) where it keeps everything. In generation, accuracy.
    """

    version: ClassVar[int] = 2
    figures: ClassVar[tuple[str, ...]] = (
        "path-patching",
        "path-patching-factorial",
        "path-patching-interactions",
        "path-patching-heads",
        "path-patching-attention",
        "path-patching-accuracy",
    )
    prefers: ClassVar[tuple[str, ...]] = ("single-layer", "all-layer")
    declaration: ClassVar[Declaration] = Declaration(
        estimand="share of the effect on the next token that goes through the attention of the next block: the summed "
        "Shapley values of q, k, v and attention-to-MLP over 64 coalitions of six paths",
        unit="problem",
        statistic="ratio of means over positions, then problems, minus the mean of random vectors",
        family="three verdicts (share, attention rows, gain without attention), no correction",
        controls=RANDOM[:3],
        margin=MARGIN_SHARE,
        claim="the penultimate block's vector acts through the MLP and the unembedding and leaves attention intact",
        margin_unit="share of the KL (attention rows: 0.05 in total variation; gain: 5 points)",
    )
    columns: ClassVar[dict[str, str]] = {
        "part": "grain of the row: patches, problems, paths, coalitions, sweep, attention, accuracy, answers",
        **COLUMNS,
        "text": "whose completions are read: base or steered",
        "layer": "block of the vector, 0 = first; the patched block is the next one",
        "patch": "name of the patch; in coalitions, the paths that see the vector",
        "family": "family of a head's patch, such as skip-head",
        "head": "query head (key-value head for k and v), counted from 0; -1 = mean over heads",
        "path": "q, k, v, attn-to-mlp, resid-to-mlp, resid; attention = the first four; a \u00d7 b = a pair",
        "statistic": "alone, last, shapley (mean over orders of joining) or interaction (Shapley interaction index)",
        "readout": "distance D: kl in nats, tv in [0, 1], delta_p = largest |change| of a probability",
        "whole": "mean of D(steered, base)",
        "value": "recovered of it, same unit: mean of D(steered, base) - D(steered, patched)",
        "value_low": "lower end of its 95 % interval over problems",
        "value_high": "upper end",
        "share": "value / whole; in accuracy, gain / gain of the whole vector, empty where the latter's lower bound is "
        "below 5 points",
        "share_low": "lower end of its 95 % interval over problems",
        "share_high": "upper end",
        "head_share": "share that a head accounts for: lost where its patch skips it, added to skip-attn where it is "
        "let in alone",
        "head_share_low": "lower end of its 95 % interval over problems",
        "head_share_high": "upper end",
        "kl": "KL(patched || base), nats",
        "tv": "total variation between patched and base, in [0, 1]",
        "max_dp": "largest |change| of a token's probability between patched and base",
        "stratum": "tokens whose attention rows are read: completion (those that predict it) or prompt (the problem's)",
        "keys": "all, or later = without the text's first token, renormalised",
        "attention_tv": "total variation of an attention row without and with the vector, in [0, 1]",
        "attention_tv_low": "lower end of its 95 % interval over problems",
        "attention_tv_high": "upper end",
        "first_key": "attention on the text's first token without the vector, in [0, 1]",
    }
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {
            "n": 4,
            "at_most": 1,
            "draws": 3,
            "train_n": 2,
            "control_n": 2,
            "factorial_at_most": 1,
            "sweep": ("skip-head",),
            "sweep_at_most": 1,
            "references": False,
        },
        "quick": {"n": 28, "at_most": 6, "control_n": 8, "factorial_at_most": 2},
        "full": {
            "n": 256,
            "text": ("base", "steered"),
            "at_most": 32,
            "factorial_at_most": 8,
            "sweep_at_most": 8,
            "control_n": 64,
            "control_at_most": 3,
            "train_n": 32,
            "draws": 16,
            "generated": NAMED,
            "temperatures": (1.0, 0.0),
            "samples": 4,
        },
    }

    patches: Patches = NAMED
    """Patches by name; heads as skip-head-3, only-k-1; path/to/file.py:NAME, a BlockPaths or an edit."""
    layer: Block | None = None
    """Block of the vector; if none, the highest one of the set that has a block above it."""
    readout: Readout = "kl"
    """What is recovered: kl, tv or delta_p."""
    text: tuple[Literal["base", "steered"], ...] = ("base",)
    """Whose completions are read; the base's favour no vector."""
    at_most: CountOrZero = 6
    """Generated positions read of each problem, drawn at random; 0 = all."""
    factorial: bool = True
    """Whether all 64 coalitions of the six paths are measured."""
    factorial_at_most: CountOrZero = 3
    """Generated positions of each problem in the factorial."""
    sweep: Families = FAMILIES
    """Families of patches swept over all heads; none = no sweep."""
    sweep_at_most: CountOrZero = 2
    """Generated positions of each problem in the sweep."""
    attention: bool = True
    """Whether attention rows are compared."""
    controls: Controls = ("random-isotropic", "random-covariance", MATCHED)
    """Kinds of control."""
    draws: Count = 8
    """Draws of each kind of control."""
    train_n: Count = 8
    """Training problems on which the controls' covariance and effect are taken."""
    control_n: Count = 12
    """Problems on which controls are read."""
    control_at_most: CountOrZero = 1
    """Generated positions of each problem on which controls are read."""
    generated: Patches = NAMED[:3]
    """Patches under which completions are generated and graded; "steered" gives the whole gain."""
    temperatures: TemperaturesOrNone = (1.0,)
    """Temperatures of generation under the patches; 0 = greedy; none = no generation."""
    samples: Count = 1
    """Completions of each problem and patch."""
    references: bool = True
    """Whether the base at the steered entropy and few-shot prompts stand beside the accuracies."""

    def cells(self, ctx: Context) -> list[Cell]:
        """Each measurement for the vector and for each kind of control; generation at each temperature."""
        for name in (*self.patches, *self.generated):
            placed(patch(name, ctx.model), self._layer(ctx) + 1)
        for name in self.sweep:
            family(name, ctx.model)
        cells: list[Cell] = []
        wanted = {"patches": True, "factorial": self.factorial, "sweep": bool(self.sweep), "attention": self.attention}
        for part in (part for part in TEACHER_FORCED if wanted[part]):
            kinds = (MATCHED,) if part in ("sweep", "attention") else self.controls
            every = ("trained", *(kind for kind in self.controls if kind in kinds))
            cells += [Cell.at(part=part, text=text, vector=kind) for text in self.text for kind in every]
        if self.generated and any(problem.answer is not None for problem in ctx.problems()):
            cells += [Cell.at(part="accuracy", temperature=temperature) for temperature in self.temperatures]
        return cells

    def inputs(self, ctx: Context) -> dict[str, str]:
        """Digests of the patches, since a name may come to mean another one."""
        every = dict.fromkeys((*self.patches, *self.generated))
        named = {name: patch(name, ctx.model) for name in every}
        return {
            f"patch {name}": digest(one.describe()) if isinstance(one, BlockPaths) else identity_of(one)
            for name, one in named.items()
        }

    def measure(self, ctx: Context, cells: list[Cell]) -> pd.DataFrame:
        """Rows of each cell."""
        layer = self._layer(ctx)
        frames: list[pd.DataFrame] = []
        for cell in cells:
            if cell["part"] == "accuracy":
                frames += self._accuracy(ctx, float(cell["temperature"]))
            else:
                frames += [one.assign(text=cell["text"], readout=self.readout) for one in self._forced(ctx, cell)]
        if not frames:  # a kind of control without a draw
            return pd.DataFrame(columns=list(self.columns))
        return pd.concat([frame.assign(layer=layer) for frame in frames], ignore_index=True)

    def verdicts(self, frame: pd.DataFrame) -> list[Verdict]:
        """Attention's share, attention rows, and the gain without attention."""
        return [judge_share(frame), judge_rows(frame), judge_gain(frame)]

    def _layer(self, ctx: Context) -> int:
        """The vector's block.

        Raises:
            UserError: it has no block above it.
        """
        last, found = ctx.model.n_layers - 1, acting(ctx).layers
        below = [layer for layer in found if layer < last]
        layer = max(below, default=last) if self.layer is None else self.layer
        if layer not in below:
            works = f"the set has {below}" if below else "give a set with a vector below the last block"
            raise UserError("path patching needs a vector with a block above it", given=f"block {layer}", works=works)
        return layer

    def _forced(self, ctx: Context, cell: Cell) -> list[pd.DataFrame]:
        """One teacher-forced measurement, of the vector or of every draw of a control."""
        kind, part = str(cell["vector"]), str(cell["part"])
        said = self._texts(ctx, str(cell["text"]))
        read: dict[str, Callable[..., list[pd.DataFrame]]] = {
            "patches": self._patches,
            "factorial": self._factorial,
            "sweep": self._sweep,
            "attention": self._attention,
        }
        drawn = [acting(ctx).only(self._layer(ctx))] if kind == "trained" else self._controls(ctx, kind)
        return [
            frame.assign(vector=kind, draw=draw)
            for draw, vectors in enumerate(drawn)
            for frame in read[part](ctx, said, vectors, trained=kind == "trained")
        ]

    def _patches(self, ctx: Context, said: Texts, vectors: Acting, *, trained: bool) -> list[pd.DataFrame]:
        at = self._places(said, self.at_most, trained=trained)
        named = {name: patch(name, ctx.model) for name in self.patches}
        return patch_rows(PatchedBlock(ctx, said, vectors, at.where), at, named, self.readout, intervals=trained)

    def _factorial(self, ctx: Context, said: Texts, vectors: Acting, *, trained: bool) -> list[pd.DataFrame]:
        at = self._places(said, self.factorial_at_most, trained=trained)
        return [factorial_rows(PatchedBlock(ctx, said, vectors, at.where), at, self.readout, intervals=trained)]

    def _sweep(self, ctx: Context, said: Texts, vectors: Acting, *, trained: bool) -> list[pd.DataFrame]:
        at = self._places(said, self.sweep_at_most, trained=trained)
        named = {one: {name: patch(name, ctx.model) for name in family(one, ctx.model)} for one in self.sweep}
        return [sweep_rows(PatchedBlock(ctx, said, vectors, at.where), at, named, self.readout, intervals=trained)]

    def _attention(self, ctx: Context, said: Texts, vectors: Acting, *, trained: bool) -> list[pd.DataFrame]:
        change = attention_change(ctx, said, vectors)
        if trained:
            ctx.save_tensors("attention-rows", {"all_keys": change.all_keys, "later_keys": change.later_keys})
        return [attention_frame(said, change, intervals=trained)]

    def _places(self, said: Texts, at_most: int, *, trained: bool) -> Places:
        at = places(said, "first", "generated", at_most=at_most if trained else self.control_at_most, seed=self.seed)
        return at if trained else control_places(at, self.control_n)

    def _texts(self, ctx: Context, text: str) -> Texts:
        layer = self._layer(ctx)
        edits = acting(ctx).only(layer).edits() if text == "steered" else ()
        return ctx.once(f"{text} texts", partial(texts, ctx, edits=edits, keep=[layer]))

    def _controls(self, ctx: Context, kind: str) -> Sequence[Acting]:
        layer = self._layer(ctx)
        make = partial(training_texts, ctx, self.train_n, [layer])
        draw = partial(draw_controls, ctx, acting(ctx), (kind,), layer=layer, draws=self.draws, trained_on=make)
        return ctx.once(f"controls {kind}", draw).get(kind, [])

    def _accuracy(self, ctx: Context, temperature: float) -> list[pd.DataFrame]:
        layer = self._layer(ctx)
        plan = Generation(
            {name: placed(patch(name, ctx.model), layer + 1) for name in self.generated}, temperature, self.samples
        )
        drawn = self._controls(ctx, MATCHED) if MATCHED in self.controls else []
        return plan.measure(ctx, acting(ctx).only(layer), drawn, beside=self.references)
