"""Frames of the logit lens: tokens, histograms and scripts of one direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from experiments.script_shift import Null, Script, match, null, shift
from experiments.token_frames import storable
from experiments.vocabulary import by_script, token_texts
from interp.bare_model import takes_model
from interp.lens import CentredLens, CosineLens, Lens

BINS = 60


@dataclass(frozen=True)
class Vocabulary:
    """What the tokens of a model are, and what random directions do to them.

    Attributes:
        texts: of each row of the unembedding.
        lenses: the centred lens and the cosine.
        scripts: with tokens to test, or too few of them.
        nulls: of each lens and testable script.
    """

    texts: tuple[str, ...]
    lenses: tuple[CentredLens, CosineLens]
    scripts: tuple[Script, ...]
    nulls: dict[tuple[str, str], Null]

    @classmethod
    @takes_model
    def of(cls, model: Any, *, scale: float, minimum: int, layers: int, draws: int, seed: int) -> Vocabulary:
        """Read a model's vocabulary and draw the nulls.

        Args:
            model: a Model.
            scale: of the centred lens.
            minimum: tokens from which a script is testable.
            layers: how many layers are measured.
            draws: sets of random directions.
            seed: of the directions.
        """
        read = token_texts(model)
        lenses = CentredLens.of(model, scale), CosineLens.of(model)
        norms = model.hooked.unembed.W_U.detach().float().norm(dim=0).cpu().numpy()
        ids = by_script(read)
        latin = ids.pop("Latin")
        scripts = [match(name, own, latin, norms, minimum=minimum) for name, own in ids.items() if own and latin]
        settings = {"width": model.d_model, "layers": layers, "draws": draws, "seed": seed}
        nulls = {
            (lens.name, script.name): null(lens, script, **settings)
            for lens in lenses
            for script in scripts
            if script.testable
        }
        return cls(tuple(map(storable, read)), lenses, tuple(scripts), nulls)

    def tokens(self, lens: Lens, direction: Float[Tensor, "1 d_model"], k: int) -> list[pd.DataFrame]:
        """The k highest and lowest tokens, and a histogram of all scores."""
        scores = lens.scores(direction)[0].cpu()
        frames: list[pd.DataFrame] = []
        for side, largest in (("top", True), ("bottom", False)):
            found = scores.topk(min(k, len(scores)), largest=largest)
            ids = found.indices.tolist()
            about = {"part": "tokens", "lens": lens.name, "side": side, "rank": range(1, len(ids) + 1)}
            named = {"token_id": ids, "token": [self.texts[token] for token in ids], "score": found.values.numpy()}
            frames.append(pd.DataFrame({**about, **named}))
        counts, edges = np.histogram(scores.numpy(), BINS)
        bins = {"bin_left": edges[:-1], "bin_right": edges[1:], "count": counts}
        return [*frames, pd.DataFrame({"part": "histogram", "lens": lens.name, **bins})]

    def shifts(
        self,
        direction: Float[Tensor, "1 d_model"],
        drawn: Float[Tensor, "draw d_model"] | None = None,
        *,
        lenses: Sequence[Lens] = (),
        nulls: Mapping[tuple[str, str], Null] | None = None,
    ) -> pd.DataFrame:
        """The rank statistic of each script; with its null where there are enough tokens.

        Args:
            direction: what is read.
            drawn: the direction in bootstrap samples of the problems, for an interval.
            lenses: other lenses than the vocabulary's own.
            nulls: of those.
        """
        nulls = self.nulls if nulls is None else nulls
        return pd.DataFrame(
            _shift_row(lens, script, direction, drawn, nulls.get((lens.name, script.name)))
            for lens in lenses or self.lenses
            for script in self.scripts
        )


def _shift_row(
    lens: Lens,
    script: Script,
    direction: Float[Tensor, "1 d_model"],
    drawn: Float[Tensor, "draw d_model"] | None,
    null: Null | None,
) -> dict[str, Any]:
    value, missing = float(shift(lens, direction, script)[0]), float("nan")
    low, high = missing, missing
    if drawn is not None and script.testable:
        low, high = np.quantile(shift(lens, drawn, script), [0.025, 0.975]).tolist()
    return {
        "part": "scripts",
        "lens": lens.name,
        "script": script.name,
        "auc": value,
        "auc_low": min(low, value),
        "auc_high": max(high, value),
        "null_low": null.low if null else missing,
        "null_high": null.high if null else missing,
        "p": null.p(value) if null else missing,
        "n_tokens": len(script.tokens),
        "n_matched": len(script.matched),
        "testable": script.testable,
    }


def middle(layers: Sequence[int], n_layers: int, count: int) -> tuple[int, ...]:
    """At most `count` of the layers, those nearest to the middle of the model."""
    order = sorted(layers, key=lambda layer: (abs(layer - (n_layers - 1) / 2), layer))
    return tuple(sorted(order[:count]))


def rms(final: Float[Tensor, "place d_model"]) -> float:
    """Median root mean square of hidden states, in units of the residual stream."""
    return float(final.float().square().mean(-1).sqrt().median())


def resampled(rows: Float[Tensor, "row d_model"], seed: int, draws: int = 400) -> Float[Tensor, "draw d_model"]:
    """Means of bootstrap samples of the problems that have a direction."""
    kept = rows[torch.isfinite(rows).all(1)].float()
    pick = np.random.default_rng(seed).multinomial(len(kept), np.full(len(kept), 1 / len(kept)), size=draws)
    return torch.from_numpy(pick).to(kept) @ kept / len(kept)


def as_direction(rows: Float[Tensor, "row d_model"]) -> Float[Tensor, "1 d_model"]:
    """Mean over problems, of those that have one."""
    return rows[torch.isfinite(rows).all(1)].float().mean(0, keepdim=True)
