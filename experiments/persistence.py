"""Persistence: does what a vector writes keep its direction through later blocks (arXiv:2509.06608 Figs 2, 14, 18)?

Delta_{l->k}(t) is the change of block k's output at token t when only s_l is on, on the same tokens. The authors'
cosines (Diff-Vector, Diff-Diff, Mean-Diff) hardly tell a trained vector from a random one, because a residual stream
carries any vector on. So each statistic stands beside random vectors, Diff-Diff leaves the token out of the mean it is
compared with, and Induced looks at Delta - s_l, what the network adds to what the stream carries. Means over tokens are
taken within a problem; whether the authors pool all tokens is not known. Diff-Vector is high also where s_k resembles
s_l and the stream merely carries s_l on: read it beside Self and the cosines between the vectors (`VectorGeometry`).

Of a rank-1 adapter, s_l is what it adds at the token, c_t b, so that no statistic of l alone depends on the sign of b;
s_k of a later block is the mean that its adapter adds to generated tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import pandas as pd

from experiments.adaptive_writing import written
from experiments.controls import KINDS, Controls, acting, draw_controls, training_texts
from experiments.lens_frames import as_direction
from experiments.persistence_frames import TRAINED, by_pair, by_problem, final_cosines
from experiments.persistence_readings import READ, Reading, read_all
from experiments.persistence_verdicts import CLAIMS, judge, judge_final
from experiments.sweeps import spread
from experiments.texts import Said, Texts, completed
from interp.cell import Cell
from interp.context import Context
from interp.declaration import Declaration
from interp.errors import UserError
from interp.experiment import Experiment
from interp.settings import Blocks, Count, CountOrZero
from interp.summaries import Verdict

MARGIN = 0.1
KEPT_SHARE = 0.25
"""Part of the memory bound that streams of all blocks may take together."""

_Readings = dict[tuple[str, int], dict[str, Reading]]


class Persistence(Experiment):
    """Cosines of a vector's effect between blocks, beside random vectors; each vector on alone.

    Vectors that were trained together are measured one at a time as well (column `trained`): what each does alone, not
    what it does among the others. Position 0, the last prompt token and template tokens are in no mean.
    """

    version: ClassVar[int] = 2
    prefers: ClassVar[tuple[str, ...]] = ("single-layer", "all-layer")
    figures: ClassVar[tuple[str, ...]] = (
        "persistence",
        "persistence-controls",
        "persistence-final",
        "persistence-paper",
    )
    declaration: ClassVar[Declaration] = Declaration(
        estimand="generated tokens, less the mean of random vectors: Self = cos(Delta, s_l), Induced = agreement of "
        "Delta - s_l between a problem's tokens, and Diff-Vector, mean over observed and steered blocks; mean cosine "
        "of the effects of two blocks after the last one",
        unit="problem",
        statistic="paired difference by problem; cosine of mean effects after the last block",
        family="four verdicts, no correction between them; single pairs of blocks are shown and not tested",
        controls=KINDS,
        margin=MARGIN,
        claim="a vector's change keeps its direction through the later layers",
        margin_unit="cosine",
    )
    columns: ClassVar[dict[str, str]] = {
        "part": "grain of the row: problems (mean over observed blocks), pairs of blocks, final, final-mean",
        "text": "whose completions are read: base (the same tokens for all blocks) or steered (by this block's vector)",
        "stratum": "generated tokens or tokens of the problem (prompt)",
        "vector": '"trained" for the vector under study, else the kind of control',
        "draw": "draw of a control",
        "trained": "how the vectors were trained: together, apart or unknown; here each is on alone",
        "layer": "steered block l, 0 = first (i of D_i in the parts final)",
        "observed": "observed block k > l (j of D_j in the part final)",
        "statistic": "diff_vector = mean_t cos(Delta, s_k); diff_diff = mean_t cos(Delta, mean Delta); mean_diff = "
        "cos(mean Delta, s_k); diff_diff_out = diff_diff with the token left out of the mean; self = cos(Delta, s_l); "
        "gain = mean |Delta| / mean |s_l|; induced = diff_diff_out of Delta - s_l; final = cos(D_i, D_j), D_l = mean "
        "Delta after the last block",
        "example": "problem",
        "value": "the statistic: a cosine in [-1, 1], for gain a ratio >= 0; mean over tokens, then problems",
        "low": "lower end of its 95 % interval over problems",
        "high": "upper end",
        "n": "problems behind the row",
        "random": "mean of the random vectors on the problems that they were read on",
        "random_low": "smallest mean of a random vector",
        "random_high": "largest",
        "above": "value less the mean of random vectors, paired by problem",
        "above_low": "lower end of its 95 % interval over problems",
        "above_high": "upper end",
        "above_n": "problems behind it",
    }
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"n": 4, "blocks": 3, "observed": 6, "control_blocks": 2, "control_n": 4, "draws": 3},
        "quick": {"n": 28, "blocks": 6, "control_blocks": 3, "control_n": 14},
        "full": {
            "n": 256,
            "texts": ("base", "steered"),
            "controls": ("random-isotropic", "random-covariance", "random-effect-matched", "negated"),
            "control_n": 64,
            "train_n": 32,
        },
    }

    layers: Blocks = ()
    """Blocks whose vectors are measured; those of the vectors if none. The model's last block has none after it."""
    blocks: CountOrZero = 0
    """At most so many of them, evenly spread; 0 = all."""
    observed: CountOrZero = 0
    """At most so many later blocks observed, evenly spread; 0 = all."""
    texts: tuple[Literal["base", "steered"], ...] = ("base",)
    """Whose completions are read: the base model's, one fixed text for all blocks, or those under each vector."""
    controls: Controls = ("random-isotropic",)
    """Kinds of control."""
    control_blocks: CountOrZero = 0
    """At most so many steered blocks with controls, evenly spread below the last measured one; 0 = all."""
    control_n: Count = 32
    """Problems, the first ones, that controls are read on."""
    draws: Count = 8
    """Draws of each kind of control."""
    train_n: Count = 8
    """Training problems on which the controls' covariance and effect are taken."""

    def cells(self, ctx: Context) -> list[Cell]:
        """One for each text and steered block, then the cosines of the effects after the last block."""
        layers = self._layers(ctx)
        pairs = [Cell.at(part="pairs", text=text, layer=layer) for text in self.texts for layer in layers]
        return [*pairs, *(Cell.at(part="final", text=text) for text in self.texts if len(layers) > 1)]

    def measure(self, ctx: Context, cells: list[Cell]) -> pd.DataFrame:
        """Each block on its own; what the last cells need of all blocks is kept, or made again after a resume."""
        frames = [
            self._pairs(ctx, str(cell["text"]), int(cell["layer"]))
            if cell["part"] == "pairs"
            else self._final(ctx, str(cell["text"]))
            for cell in cells
        ]
        return pd.concat(frames, ignore_index=True).assign(trained=acting(ctx).card.trained)

    def verdicts(self, frame: pd.DataFrame) -> list[Verdict]:
        """Self, Induced, Diff-Vector and the common effect after the last block, all above random vectors."""
        text = self.texts[0]
        direction = [judge(frame, statistic, text=text, margin=MARGIN) for statistic in CLAIMS]
        return [*direction, judge_final(frame, text=text, margin=MARGIN)]

    def _layers(self, ctx: Context) -> tuple[int, ...]:
        every = acting(ctx)
        chosen = every.only(self.layers).layers if self.layers else every.layers
        before = [layer for layer in chosen if layer < ctx.model.n_layers - 1]
        if not before:
            raise UserError("nothing comes after the last block", given=f"block {chosen[-1]}", works="vectors below it")
        return spread(before, self.blocks)

    def _controlled(self, ctx: Context) -> tuple[int, ...]:
        layers = self._layers(ctx)
        return spread(layers[:-1] or layers, self.control_blocks) if self.control_blocks else layers

    def _observed(self, ctx: Context, layer: int) -> tuple[int, ...]:
        return spread(range(layer + 1, ctx.model.n_layers), self.observed)

    def _pairs(self, ctx: Context, text: str, layer: int) -> pd.DataFrame:
        readings, observed = self._readings(ctx, text, layer), self._observed(ctx, layer)
        examples = self._said(ctx, text, layer).examples
        frames: list[pd.DataFrame] = []
        for stratum in READ:
            own = {key: reading[stratum] for key, reading in readings.items()}
            both = (by_problem(own, examples), by_pair(own, observed))
            frames += [frame.assign(stratum=stratum) for frame in both]
        return pd.concat(frames, ignore_index=True).assign(text=text, layer=layer)

    def _final(self, ctx: Context, text: str) -> pd.DataFrame:
        readings = {layer: self._readings(ctx, text, layer) for layer in self._layers(ctx)}
        keys = dict.fromkeys(key for of in readings.values() for key in of)
        frames: list[pd.DataFrame] = []
        for stratum in READ:
            finals = {
                key: {layer: of[key][stratum].final for layer, of in readings.items() if key in of} for key in keys
            }
            own = {f"{layer}": as_direction(rows)[0] for layer, rows in finals[TRAINED].items()}
            ctx.save_tensors(f"final-{text}-{stratum}", own)
            frames.append(final_cosines(finals, n=self.control_n, seed=self.seed).assign(stratum=stratum))
        return pd.concat(frames, ignore_index=True).assign(text=text)

    def _readings(self, ctx: Context, text: str, layer: int) -> _Readings:
        return ctx.once(f"readings {text} {layer}", partial(self._read, ctx, text, layer))

    def _read(self, ctx: Context, text: str, layer: int) -> _Readings:
        every, observed = acting(ctx), self._observed(ctx, layer)
        later = [k for k in observed if k in every.layers]
        among = {k: written(ctx, every)[k] for k in later}
        controls = self._controls(ctx, layer)
        drawn = [one for of in controls.values() for one in of]
        keys = [TRAINED, *((kind, draw) for kind, of in controls.items() for draw in range(len(of)))]
        own: list[dict[str, Reading]] = []
        parts: list[list[dict[str, Reading]]] = []
        for start, said in self._parts(ctx, text, layer):
            own += read_all([said], [every.only(layer)], observed, among, ctx)
            if drawn and start < self.control_n:
                parts.append(read_all([said], drawn, observed, among))
        every_vector = [_joined(own), *(_joined(list(one)) for one in zip(*parts, strict=True))]
        return dict(zip(keys, every_vector, strict=True))

    def _controls(self, ctx: Context, layer: int) -> Mapping[str, list[Any]]:
        if layer not in self._controlled(ctx):
            return {}
        make = partial(training_texts, ctx, self.train_n, [layer])
        return draw_controls(ctx, acting(ctx), self.controls, layer=layer, draws=self.draws, trained_on=make)

    def _said(self, ctx: Context, text: str, layer: int) -> Said:
        edits = acting(ctx).only(layer).edits() if text == "steered" else ()
        name = f"completed {text} {layer if edits else ''}"
        return ctx.once(name, partial(completed, ctx, edits=edits))

    def _parts(self, ctx: Context, text: str, layer: int) -> Iterator[tuple[int, Texts]]:
        """The texts in parts that fit into memory, run without edits; those of the base are kept where all fit."""
        said, model = self._said(ctx, text, layer), ctx.model
        n, longest = len(said.examples), said.batch.ids.shape[1]
        size = longest * model.d_model * model.dtype.itemsize * model.n_layers
        room = KEPT_SHARE * model.memory_bytes(ctx.memory)
        shared = text == "base" and n * size < room
        at_once = max(1, int(room / (3 * size)))  # the base's streams, the steered ones, and their layout
        lowest = min(self._layers(ctx)) if shared else layer
        for start, stop in _slices(n, self.control_n, at_once):
            make = partial(said[start:stop].run, model, range(lowest, model.n_layers))
            yield start, ctx.once(f"part {start}", make) if shared else make()


def _slices(n: int, cut: int, size: int) -> list[tuple[int, int]]:
    """Rows 0 to n in parts of at most `size`, with a boundary at `cut`."""
    found: list[tuple[int, int]] = []
    for begin, end in ((0, min(cut, n)), (min(cut, n), n)):
        found += [(start, min(start + size, end)) for start in range(begin, end, size)]
    return found


def _joined(parts: list[dict[str, Reading]]) -> dict[str, Reading]:
    return {name: Reading.joined([part[name] for part in parts]) for name in READ}
