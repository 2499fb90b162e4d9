"""LogitLens: which tokens each layer's vector promotes and suppresses (arXiv:2509.06608 Figs 4, 15-17).

Theirs: cos(W_U[:, v], D_l). Ours: the centred, gain-weighted lens first, because a softmax ignores the mean row and the
final norm weighs coordinates; their cosine second, a tuned lens third. Each of the vector itself (s_l, "raw") and of
D_l, its mean effect on the last block's output with only s_l on: over generated tokens ("propagated") and over the
problem's tokens ("propagated-prompt"). A tuned lens reads s_l at its own block; for D_l, which lives after the last
block, it is the centred lens.

A rank-1 adapter has no s_l: "raw" is then the mean that it adds to generated tokens, b with the sign and size of its
mean strength. Where the strength changes sign between tokens, what is promoted at some is suppressed at others; D_l is
what the model does with all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import pandas as pd
import torch
from torch import Tensor

from experiments.adaptive_writing import written
from experiments.class_effects import by_problem, class_log_probs, summarise
from experiments.controls import KINDS, Acting, Controls, acting, draw_controls, halves, training_texts
from experiments.lens_frames import Vocabulary, as_direction, middle, resampled, rms
from experiments.lens_verdicts import judge_classes, judge_scripts
from experiments.script_shift import Null, null
from experiments.sweeps import spread
from experiments.texts import Places, Texts, mean_by_row, places, texts
from experiments.vocabulary import TokenClasses
from interp.cell import Cell
from interp.context import Context
from interp.declaration import Declaration
from interp.experiment import Experiment
from interp.lens import TunedLens, fit_affine
from interp.lens_training import train_affine
from interp.settings import Blocks, Count, CountOrZero
from interp.summaries import Verdict

MARGIN_AUC = 0.1
MARGIN_ODDS = 0.1
KEPT_SHARE = 0.25
"""Part of the memory bound that the base's streams at all layers may take; else they are made again for each layer."""


@dataclass(frozen=True)
class _Shared:
    """What all layers share."""

    vocabulary: Vocabulary
    codes: Tensor
    classes: TokenClasses
    texts: Texts
    at: Places
    base: Tensor


class LogitLens(Experiment):
    """Tokens, scripts and token classes that each layer's vector promotes, with controls at middle layers.

    Read on completions of the base model at temperature 1, the same for all layers. Position 0 (the last prompt
    token) and template tokens stay out of every mean.
    """

    version: ClassVar[int] = 2
    figures: ClassVar[tuple[str, ...]] = ("logit-lens", "logit-lens-scripts", "logit-lens-classes")
    declaration: ClassVar[Declaration] = Declaration(
        estimand="AUC of tokens in other scripts than Latin against matched Latin tokens under D_l of middle layers; "
        "change of log-odds of process words and structure symbols together",
        unit="problem",
        statistic="AUC - 0.5 at the middle layer where it is largest; mean log-odds over generated tokens and layers",
        family="layers, by the simultaneous null band; two verdicts, no correction between them",
        controls=KINDS,
        margin=MARGIN_AUC,
        claim="middle layers push non-English tokens down and promote process words and structure symbols",
        margin_unit="AUC (the log-odds' margin is 0.1 nats)",
    )
    columns: ClassVar[dict[str, str]] = {
        "part": "grain of the row: tokens, histogram, scripts, classes, class-examples",
        "vector": '"trained" for the vector under study, else the kind of control',
        "draw": "draw of a control",
        "layer": "block of the vector, 0 = first",
        "depth": "layer / (layers of the model - 1), in [0, 1]",
        "quantity": "raw = s_l, propagated = D_l over generated tokens, propagated-prompt = D_l over problem tokens",
        "lens": "centred, cosine or tuned",
        "side": "top or bottom",
        "rank": "1 = most extreme",
        "token_id": "a token",
        "token": "its text",
        "score": "centred and tuned: logits at the median norm of a final residual; cosine: in [-1, 1]",
        "bin_left": "left edge of a bin of scores",
        "bin_right": "right edge",
        "count": "tokens in the bin",
        "script": "Unicode script of a token's letters; non-Latin = all but Latin",
        "auc": "P(score of a token of the script > score of a matched Latin token) + ties / 2, in [0, 1]",
        "auc_low": "lower end of its 95 % interval over problems (of effects; a vector itself has none)",
        "auc_high": "upper end",
        "null_low": "2.5 % quantile of the smallest AUC over the measured layers of random directions",
        "null_high": "97.5 % quantile of the largest one",
        "p": "two-sided p-value from that null, corrected over layers",
        "n_tokens": "tokens of the script",
        "n_matched": "Latin tokens matched on id rank and norm",
        "testable": "the script has enough tokens",
        "token_class": "class of the token; raw: with s_l added to the last residual, so what it does by itself",
        "example": "problem",
        "delta_p": "change of the class's probability, mean over generated tokens, then problems",
        "delta_p_low": "lower end of its 95 % interval over problems",
        "delta_p_high": "upper end",
        "log_odds": "change of the class's log-odds, nats, the same means",
        "log_odds_low": "lower end of its 95 % interval over problems",
        "log_odds_high": "upper end",
        "r2": "held-out R^2 of the tuned lens of this layer",
        "lens_kl": "held-out KL(final || tuned lens) of this layer, nats; empty for a lens in closed form",
        "n": "problems behind the row",
    }
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"n": 4, "blocks": 3, "at_most": 2, "train_n": 4, "draws": 3, "null_draws": 100},
        "quick": {"n": 28, "blocks": 6},
        "full": {"n": 256, "at_most": 32, "train_n": 64, "tuned": "kl", "control_blocks": 1000, "controls": KINDS},
    }

    layers: Blocks = ()
    """Blocks to measure; those of the vectors if none."""
    blocks: CountOrZero = 0
    """At most so many blocks, evenly spread; 0 = all."""
    top: Count = 50
    """Tokens a side."""
    at_most: CountOrZero = 8
    """Generated positions of each problem at which class probabilities are read, drawn at random; 0 = all."""
    tuned: Literal["no", "ridge", "kl"] = "ridge"
    """Tuned lens for the vectors themselves: no = without, ridge = in closed form, kl = from there trained."""
    train_n: Count = 16
    """Training problems for tuned lenses and for the controls' covariance and effect."""
    null_draws: Count = 1000
    """Random directions a layer in the null of the script statistic."""
    minimum: CountOrZero = 500
    """Tokens from which a script is testable."""
    control_blocks: CountOrZero = 1
    """Blocks nearest to the middle at which control vectors are propagated, besides the last one; 0 = no controls."""
    controls: Controls = ("random-isotropic", "negated")
    """Kinds of control."""
    draws: Count = 8
    """Draws of each kind of control."""

    def cells(self, ctx: Context) -> list[Cell]:
        """One for each measured block."""
        return [Cell.at(layer=layer) for layer in self._layers(ctx)]

    def measure(self, ctx: Context, cells: list[Cell]) -> pd.DataFrame:
        """Each block on its own."""
        frames = [self._layer(ctx, int(cell["layer"])) for cell in cells]
        return pd.concat(frames, ignore_index=True)

    def verdicts(self, frame: pd.DataFrame) -> list[Verdict]:
        """One on scripts, one on token classes."""
        scripts = judge_scripts(frame, margin=MARGIN_AUC, minimum=self.minimum)
        return [scripts, judge_classes(frame, margin=MARGIN_ODDS)]

    def _layers(self, ctx: Context) -> tuple[int, ...]:
        every = acting(ctx)
        return spread(every.only(self.layers).layers if self.layers else every.layers, self.blocks)

    def _controlled(self, ctx: Context) -> set[int]:
        """The blocks with controls; after the last block they cost no pass."""
        layers, last = self._layers(ctx), ctx.model.n_layers - 1
        chosen = middle(layers, ctx.model.n_layers, self.control_blocks)
        return {*chosen, last} & {*layers} if chosen else set()

    def _layer(self, ctx: Context, layer: int) -> pd.DataFrame:
        shared, every = self._shared(ctx, layer), acting(ctx)
        frames = self._vector(ctx, shared, every.only(layer), layer)
        if layer in self._controlled(ctx):
            make = partial(training_texts, ctx, self.train_n, self._kept(ctx, layer))
            kinds = draw_controls(ctx, every, self.controls, layer=layer, draws=self.draws, trained_on=make)
            for kind, drawn in kinds.items():
                for draw, one in enumerate(drawn):
                    frames += self._control(shared, one, kind, draw)
        depth = layer / max(1, ctx.model.n_layers - 1)
        return pd.concat(frames, ignore_index=True).assign(layer=layer, depth=depth)

    def _vector(self, ctx: Context, shared: _Shared, vectors: Acting, layer: int) -> list[pd.DataFrame]:
        final, fired = shared.texts.forced.steered(vectors.edits())
        ctx.fired(fired)
        strata = {"propagated": "generated", "propagated-prompt": "prompt"}
        means = {name: _mean_change(shared.texts, final, stratum) for name, stratum in strata.items()}
        ctx.save_tensors(f"directions-{layer}", {name: mean.cpu() for name, mean in means.items()})
        counted = {name: int(torch.isfinite(mean).all(1).sum()) for name, mean in means.items()}
        raw = written(ctx, acting(ctx)).only(layer).directions
        directions = {"raw": raw, **{name: as_direction(mean) for name, mean in means.items()}}
        frames: list[pd.DataFrame] = []
        for quantity, direction in directions.items():
            found = [part for lens in shared.vocabulary.lenses for part in self._tokens(shared, lens, direction)]
            drawn = resampled(means[quantity], self.seed) if quantity in means else None
            found.append(shared.vocabulary.shifts(direction, drawn).assign(n=counted.get(quantity, float("nan"))))
            frames += [part.assign(quantity=quantity) for part in found]
        lens = self._tuned(ctx, shared, layer) if self.tuned != "no" else None
        if lens is not None:
            nulls = self._nulls(ctx, shared.vocabulary, lens)
            shifts = shared.vocabulary.shifts(raw, lenses=[lens], nulls=nulls)
            found = [*self._tokens(shared, lens, raw), shifts]
            frames += [part.assign(quantity="raw", r2=lens.affine.r2, lens_kl=lens.affine.kl) for part in found]
        # the vector's own part of the last residual: what it does without any block after it
        direct = shared.texts.forced.base[shared.at.where] + raw.to(final)
        frames += [part.assign(quantity="raw") for part in self._classes(shared, direct, intervals=True)]
        own = self._classes(shared, final[shared.at.where], intervals=True)
        frames += [part.assign(quantity="propagated") for part in own]
        return [frame.assign(vector="trained", draw=0) for frame in frames]

    def _control(self, shared: _Shared, vectors: Acting, kind: str, draw: int) -> list[pd.DataFrame]:
        final, _ = shared.texts.forced.steered(vectors.edits())
        direction = as_direction(_mean_change(shared.texts, final, "generated"))
        shifts = shared.vocabulary.shifts(direction).assign(quantity="propagated")
        classes = self._classes(shared, final[shared.at.where], intervals=False)
        frames = [shifts, *(part.assign(quantity="propagated") for part in classes)]
        return [frame.assign(vector=kind, draw=draw) for frame in frames]

    def _tokens(self, shared: _Shared, lens: Any, direction: Tensor) -> list[pd.DataFrame]:
        return shared.vocabulary.tokens(lens, direction, self.top)

    def _nulls(self, ctx: Context, vocabulary: Vocabulary, lens: TunedLens) -> dict[tuple[str, str], Null]:
        """Of the tuned lens of one layer."""
        settings = {"layers": len(self._layers(ctx)), "draws": self.null_draws, "seed": self.seed}
        testable = [script for script in vocabulary.scripts if script.testable]
        made = {script.name: null(lens, script, width=ctx.model.d_model, **settings) for script in testable}
        return {(lens.name, name): one for name, one in made.items()}

    def _classes(self, shared: _Shared, final: Tensor, *, intervals: bool) -> list[pd.DataFrame]:
        names, model = shared.classes.names, shared.texts.forced.model
        steered = class_log_probs(model, final, shared.codes, len(names))
        rows = by_problem(shared.texts, shared.at, shared.base, steered, names)
        return [summarise(rows, intervals=intervals).assign(part="classes"), rows.assign(part="class-examples")]

    def _tuned(self, ctx: Context, shared: _Shared, layer: int) -> TunedLens | None:
        """None for the last block, whose output is what the plain lens reads."""
        if layer == ctx.model.n_layers - 1:
            return None
        said = training_texts(ctx, self.train_n, self._kept(ctx, layer))
        where = said.where("prompt", "generated")
        rows = where.nonzero(as_tuple=True)[0]
        held_out = torch.isin(rows, torch.tensor(halves(len(said.examples), self.seed)[1], device=rows.device))
        x, final, held = said.forced.base_at(layer)[where], said.forced.base[where], held_out.nonzero()[:, 0].cpu()
        affine = fit_affine(x, final, held)
        if self.tuned == "kl":
            affine = train_affine(affine, x, final, held, ctx.model.unembed, seed=self.seed)
        return TunedLens(affine, shared.vocabulary.lenses[0])

    def _kept(self, ctx: Context, layer: int) -> list[int]:
        """All measured layers if the base's streams there fit in memory together, else this one."""
        layers, model = list(self._layers(ctx)), ctx.model
        longest = 2 * ctx.task.max_new_tokens + 256
        size = max(self.n, self.train_n) * longest * model.d_model * model.dtype.itemsize * len(layers)
        return layers if size < KEPT_SHARE * model.memory_bytes(ctx.memory) else [layer]

    def _shared(self, ctx: Context, layer: int) -> _Shared:
        kept = self._kept(ctx, layer)
        if kept == list(self._layers(ctx)):
            return ctx.once("shared", partial(self._make, ctx, kept))
        return self._make(ctx, kept)

    def _make(self, ctx: Context, kept: list[int]) -> _Shared:
        said, model = texts(ctx, keep=kept), ctx.model
        at = places(said, "generated", at_most=self.at_most, seed=self.seed)
        make = partial(
            Vocabulary.of,
            model,
            scale=1 / rms(said.forced.base[said.where("generated")]),
            minimum=self.minimum,
            layers=len(self._layers(ctx)),
            draws=self.null_draws,
            seed=self.seed,
        )
        vocabulary, classes = ctx.once("vocabulary", make), TokenClasses.load()
        codes = torch.tensor(classes.codes(vocabulary.texts))
        base = class_log_probs(model, said.forced.base[at.where], codes, len(classes.names))
        return _Shared(vocabulary, codes, classes, said, at, base)


def _mean_change(said: Texts, final: Tensor, stratum: str) -> Tensor:
    """Mean over each problem's tokens of a stratum of the change of the last block's output, [problem, d_model]."""
    where = said.where(stratum)
    change = final[where].float() - said.forced.base[where].float()
    return mean_by_row(change, where.nonzero(as_tuple=True)[0], len(said.examples))
