"""AdaptiveScaling: where does a vector with token-wise strength act (arXiv:2509.06608 sec. 10, App. S)?

A rank-1 adapter of down_proj adds (a . m_t) b to the MLP's output, m_t = mlp_post: a steering vector whose strength
c_t = (a . m_t)|b| depends on the token. c_t is shown in units of the median norm of the MLP's output, position 0 of the
row left out. Any reading direction gives a pattern over tokens, so every statistic stands beside random ones.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import torch

import experiments.adaptive_causal as causal
from experiments.adaptive_coefficients import (
    Parts,
    Rows,
    Strength,
    alone,
    oriented,
    random_readers,
    rows_of,
    strengths,
)
from experiments.adaptive_frames import agreement, by_word, contrast, judge_words, segments, shuffled, tokens
from experiments.controls import adaptive
from experiments.graded import COLUMNS, answers, summarise
from interp.cell import Cell
from interp.context import Context
from interp.declaration import Declaration
from interp.errors import UserError
from interp.experiment import Experiment
from interp.settings import Block, Count, CountOrZero, TemperaturesOrNone
from interp.summaries import Verdict
from vectors import AdaptiveVectors

MARGIN = 0.1
MARGIN_LOST = 0.05
READERS = ("random-isotropic", "random-covariance")
SHUFFLED = "shuffled-tokens"


class AdaptiveScaling(Experiment):
    """How strongly a rank-1 adapter acts at each token, and what of it accuracy needs.

    Takes adaptive vectors trained here, or any LoRA of rank 1 on down_proj. c_t is read on the problems of the run with
    completions under the adapter; adapters that were trained together are on together, others each alone.
    """

    version: ClassVar[int] = 2
    prefers: ClassVar[tuple[str, ...]] = ("adaptive", "lora-r1")
    figures: ClassVar[tuple[str, ...]] = (
        "adaptive-scaling",
        "adaptive-scaling-tokens",
        "adaptive-scaling-words",
        "adaptive-scaling-causal",
    )
    declaration: ClassVar[Declaration] = Declaration(
        estimand="(C - F) / (C + F) of mean |c_t| on content words (numbers, asked quantity, names) and on function "
        "words of the same problem; accuracy lost with c_t at its mean, and with c_t = 0 on a part, not random tokens",
        unit="problem",
        statistic="ratio of means over problems; paired differences of accuracies",
        family="one verdict on words, one on the mean, one for each part; no correction",
        controls=(*READERS, SHUFFLED, causal.RANDOM),
        margin=MARGIN,
        claim="the magnitude of the adapter sits on meaningful segments",
        margin_unit="contrast in [-1, 1] (the margin of accuracy is 5 points)",
    )
    columns: ClassVar[dict[str, str]] = COLUMNS | {
        "part": "grain of the row: tokens, segments, words, contrast, agreement, causal, lost, answers",
        "layer": "block of the adapter, 0 = first",
        "index": "token of the row, 0 = its first",
        "token_id": "the token",
        "token": "its text",
        "segment": "part of the prompt, or generated; empty for tokens between parts",
        "word": "kind of word of a token of the problem: number, asked quantity, name, function word, other word, mark",
        "c": "(a . mlp_post)|b| over the median norm of the MLP's output",
        "cosine": "cosine of the MLP's own output with b",
        "magnitude": "mean |c| of a segment over tokens, then problems",
        "magnitude_low": "lower end of its 95 % interval over problems",
        "magnitude_high": "upper end",
        "c_mean": "mean c of a segment over tokens, then problems",
        "c_low": "lower end of its 95 % interval over problems",
        "c_high": "upper end",
        "relative": "mean |c| of a kind of word over that of all words of the problem",
        "relative_low": "lower end of its 95 % interval over problems",
        "relative_high": "upper end",
        "contrast": "(C - F) / (C + F) of mean |c| on content and on function words, in [-1, 1]",
        "contrast_low": "lower end of its 95 % interval over problems",
        "contrast_high": "upper end",
        "correlation": "Spearman's correlation of c with the cosine over a problem's tokens, mean over problems",
        "correlation_low": "lower end of its 95 % interval over problems",
        "correlation_high": "upper end",
        "applied": "where the adapter acts: nowhere, everywhere, mean (one strength at every token), without PART",
        "lost": "accuracy everywhere minus at the mean; or with random tokens off minus with the part off; paired",
        "lost_low": "lower end of its 95 % interval over problems",
        "lost_high": "upper end",
    }
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"n": 4, "draws": 3, "train_n": 2, "shown": 2},
        "quick": {"n": 28, "draws": 40},
        "full": {
            "n": 256,
            "train_n": 32,
            "draws": 40,
            "temperatures": (1.0, 0.0),
            "samples": 4,
            "parts": ("system", "example", "problem", "generated", "number", "asked quantity", "name", "function word"),
            "random_sets": 4,
        },
    }

    layer: Block | None = None
    """Block that words and causal tests are about; none = the one whose adapter is strongest on training problems."""
    reference: str = "all-layer"
    """Steering vectors that settle the sign of (a, b): a set of the same model, an alias or a path; empty = none."""
    text: Literal["steered", "base"] = "steered"
    """Whose completions are read."""
    draws: Count = 8
    """Random reading directions of each kind, and shuffles of the words."""
    train_n: Count = 8
    """Training problems for the mean strength, the covariance of mlp_post and the choice of the block."""
    shown: CountOrZero = 4
    """Problems whose tokens are kept for every block; of the chosen block all are."""
    temperatures: TemperaturesOrNone = (1.0,)
    """Temperatures of the causal tests; 0 = greedy; none = no causal test."""
    samples: Count = 1
    """Completions of each problem in the causal tests."""
    parts: Parts = ("problem",)
    """Segments, or kinds of words, on which the adapter is switched off."""
    random_sets: Count = 1
    """Sets of equally many random tokens for each part; every problem has its own."""

    def inputs(self, ctx: Context) -> dict[str, str]:
        """The reference vectors."""
        found = ctx.related(self.reference) if self.reference else None
        return {} if found is None else {"reference": found.digest}

    def cells(self, ctx: Context) -> list[Cell]:
        """The readout, and the completions at each temperature."""
        if all(problem.answer is None for problem in ctx.problems()):
            return [Cell.at(part="readout")]
        return [Cell.at(part="readout"), *(Cell.at(part="causal", temperature=t) for t in self.temperatures)]

    def measure(self, ctx: Context, cells: list[Cell]) -> pd.DataFrame:
        """Strengths of tokens and graded completions."""
        vectors = oriented(ctx, adaptive(ctx), self.reference)
        layer = ctx.once("chosen block", partial(self._choose, ctx, vectors))
        frames = [
            self._readout(ctx, vectors, layer)
            if cell["part"] == "readout"
            else self._causal(ctx, alone(vectors, layer), float(cell["temperature"])).assign(layer=layer)
            for cell in cells
        ]
        return pd.concat(frames, ignore_index=True)

    def verdicts(self, frame: pd.DataFrame) -> list[Verdict]:
        """One on kinds of words, one on the mean, one for each part that is switched off."""
        return [judge_words(frame, MARGIN), *causal.judge(frame, MARGIN_LOST)]

    def _readout(self, ctx: Context, vectors: AdaptiveVectors, layer: int) -> pd.DataFrame:
        rows = self._rows(ctx, alone(vectors, layer))
        a = vectors.a[vectors.layers.index(layer)]
        said = self._training(ctx, alone(vectors, layer))
        probes = [random_readers(ctx, a, layer, kind, self.draws, said) for kind in READERS]
        found = strengths(ctx, rows, vectors, {layer: torch.cat(probes)})
        frames: list[pd.DataFrame] = []
        for block, strength in found.items():
            shown = range(len(rows.examples) if block == layer else min(self.shown, len(rows.examples)))
            own = [tokens(ctx.model, rows, strength, shown), segments(rows, strength), agreement(rows, strength)]
            frames += [frame.assign(layer=block, vector="trained", draw=0) for frame in own]
        frames += [frame.assign(layer=layer) for frame in self._words(rows, found[layer])]
        return pd.concat(frames, ignore_index=True)

    def _words(self, rows: Rows, strength: Strength) -> list[pd.DataFrame]:
        """Kinds of words for the adapter, each random reader and each shuffle."""
        c = strength.c.numpy()
        kinds: dict[str, list[Any]] = {"trained": [c[0]]}
        for number, kind in enumerate(READERS):
            kinds[kind] = list(c[1 + number * self.draws :][: self.draws])
        kinds[SHUFFLED] = [shuffled(c[0], rows, draw, self.seed) for draw in range(self.draws)]
        frames: list[pd.DataFrame] = []
        for kind, drawn in kinds.items():
            for draw, one in enumerate(drawn):
                own = kind == "trained"
                whole = contrast(one, rows, intervals=own)
                parts = [by_word(one, rows, intervals=own), pd.DataFrame([whole] if whole else [])]
                frames += [part.assign(vector=kind, draw=draw) for part in parts if len(part)]
        return frames

    def _causal(self, ctx: Context, on: AdaptiveVectors, temperature: float) -> pd.DataFrame:
        said = self._training(ctx, on)
        mean = causal.held_at_mean(on, strengths(ctx, said, on, {}), said)
        rows = self._rows(ctx, on)
        every = causal.conditions(on, mean, rows, self.parts, draws=self.random_sets, seed=self.seed)
        graded = answers(ctx, every, temperature=temperature, samples=self.samples)
        summary = summarise(graded, ["applied"]).assign(part="causal")
        frames = [summary, causal.differences(graded), graded.assign(part="answers")]
        return pd.concat(frames, ignore_index=True)

    def _rows(self, ctx: Context, on: AdaptiveVectors) -> Rows:
        """The problems of the run with completions, read with the adapters on."""
        return ctx.once("rows", partial(rows_of, ctx, "test", self.n, on, text=self.text))

    def _training(self, ctx: Context, on: AdaptiveVectors) -> Rows:
        """Training problems, or those of the run where the task has none."""

        def make() -> Rows:
            try:
                return rows_of(ctx, "train", self.train_n, on, text=self.text)
            except UserError:
                ctx.say(f"{ctx.task.name} has no training problems: means are taken on the problems of the run")
                return rows_of(ctx, "test", self.train_n, on, text=self.text)

        return ctx.once(f"training rows {on.digest}", make)

    def _choose(self, ctx: Context, vectors: AdaptiveVectors) -> int:
        """The block asked for, the only one, or that with the largest mean |c| on training problems."""
        if self.layer is not None or len(vectors.layers) == 1:
            return vectors.only(vectors.layers[0] if self.layer is None else self.layer).layers[0]
        on = vectors if vectors.card.trained != "apart" else vectors.only(vectors.layers[0])
        said = self._training(ctx, on)
        found = strengths(ctx, said, vectors, {})
        size = {layer: float(np.abs(one.c[0].numpy())[said.counted].mean()) for layer, one in found.items()}
        return max(size, key=lambda layer: (size[layer], -layer))
