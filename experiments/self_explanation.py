"""SelfExplanation: what does a model say that a vector means, put where a word should stand (arXiv:2401.06102)?

A prompt repeats words ("cat -> cat, ..."); the last one is a placeholder whose residual stream is replaced, at an early
block, by the vector's direction. What comes next is read. The instrument is tested first: the embedding of a known word
must be repeated. Where it is not, nothing that is said about a vector means anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from experiments.adaptive_writing import written
from experiments.controls import ENOUGH, acting, control_interval, halves, too_few
from experiments.token_frames import storable
from interp.batch import Batch
from interp.cell import Cell
from interp.context import Context
from interp.declaration import Declaration
from interp.distributions import log_probs
from interp.edits import Add, per_row
from interp.errors import UserError
from interp.experiment import Experiment
from interp.numbers import shown
from interp.positions import Positions
from interp.prompts import Prompt
from interp.settings import Blocks, Count, CountOrZero, Sizes
from interp.sites import Site
from interp.summaries import SHARE, Interval, Verdict, bootstrap, verdict, wilson
from vectors.controls import random_isotropic

MARGIN = 0.1
REPEATED = 0.5
"""Share of known words whose repetition makes the instrument usable; the interval's lower end must reach it."""
PLACEHOLDER = "?"
UNIT = "total variation"
WORDS = (
    "dog", "house", "water", "music", "tree", "school", "book", "river", "money", "horse", "winter", "doctor", "paper",
    "garden", "king", "bread", "window", "train", "green", "summer", "table", "church", "silver", "mother", "bird",
    "stone", "fire", "letter", "road", "island", "milk", "gold",
)  # fmt: skip
"""Known words; every fourth is shown as an example in the prompts, the others test the instrument."""


class SelfExplanation(Experiment):
    """The next-token distribution after a placeholder that a vector replaces, beside random vectors and known words.

    Block and scale are those at which most known words are repeated, chosen on one half of the words; the share on the
    other half says whether the instrument works. Of a rank-1 adapter the mean that it adds is put there, which
    needs a task.
    """

    version: ClassVar[int] = 2
    needs: ClassVar[tuple[str, ...]] = ("model", "vectors")
    figures: ClassVar[tuple[str, ...]] = ("self-explanation",)
    declaration: ClassVar[Declaration] = Declaration(
        estimand="total variation between what follows the vector and what follows random vectors in its place, minus "
        "the same of random vectors among themselves",
        unit="prompt",
        statistic="mean over prompts, at the block and scale chosen on known words",
        family="one verdict for each vector, no correction",
        controls=("random-isotropic", "known words"),
        margin=MARGIN,
        claim="the model's own words about a vector are about this vector",
        margin_unit=UNIT,
    )
    columns: ClassVar[dict[str, str]] = {
        "part": "grain of the row: known, chosen, tokens, specific",
        "block": "block before which the placeholder's stream is replaced, 0 = the embedding",
        "scale": "norm of what is put there over the median norm of the prompt's tokens",
        "half": "of the known words: choosing or held-out",
        "word": "known word",
        "repeated": "1 where the likeliest next token is the word; the share of words in a chosen row",
        "repeated_low": "lower end of its 95 % interval over words",
        "repeated_high": "upper end",
        "layer": "block that the vector was trained at",
        "vector": "trained or random-isotropic",
        "draw": "of a random vector",
        "rank": "1 = the token that gains most",
        "token": "text of a next token",
        "log_ratio": "log-probability after the vector minus after random vectors, mean over prompts, nats",
        "variation": "total variation from the mean distribution of (other) random vectors, mean over prompts",
        "variation_low": "lower end of its 95 % interval over prompts",
        "variation_high": "upper end",
        "n": "words or prompts behind the row",
    }
    scales: ClassVar[dict[str, dict[str, Any]]] = {
        "smoke": {"n": 2, "draws": 3, "blocks": (0, 2), "sizes": (1.0,), "layers": 1},
        "quick": {"n": 8, "blocks": (0, 2, 4), "sizes": (1.0,), "layers": 4},
        "full": {"n": 16, "draws": 40},
    }

    n: Count = 8
    """Number of prompts, each with other examples."""
    blocks: Blocks = (0, 1, 2, 3, 4, 6, 8)
    """Blocks before which the stream is replaced."""
    sizes: Sizes = (0.5, 1.0, 2.0)
    """Norms of what is put there, over the median norm of the prompt's tokens at that block."""
    layers: CountOrZero = 0
    """How many vectors of the set are explained, spread over its layers; 0 = all."""
    draws: Count = 8
    """Random vectors."""
    top: Count = 8
    """Tokens reported of each vector."""

    def cells(self, ctx: Context) -> list[Cell]:
        """One for each vector."""
        layers = acting(ctx).layers
        count = min(self.layers or len(layers), len(layers))
        chosen = sorted({layers[round(place)] for place in np.linspace(0, len(layers) - 1, count)})
        return [Cell.at(part="known"), *(Cell.at(part="vector", layer=layer) for layer in chosen)]

    def measure(self, ctx: Context, cells: list[Cell]) -> pd.DataFrame:
        """Known words, then tokens and total variations of each vector."""
        known = ctx.once("known words", partial(self._known, ctx))
        block, size = _best(known)
        frames = [
            known if cell["part"] == "known" else self._vector(ctx, int(cell["layer"]), block, size) for cell in cells
        ]
        return pd.concat(frames, ignore_index=True)

    def verdicts(self, frame: pd.DataFrame) -> list[Verdict]:
        """One for each vector."""
        layers = sorted({int(layer) for layer in frame.loc[frame["part"] == "specific", "layer"]})
        return [judge(frame, layer) for layer in layers]

    def _known(self, ctx: Context) -> pd.DataFrame:
        """Which known words are repeated at each block and scale, and the best of both on one half of the words."""
        words = [word for word in _tested() if len(_encode(ctx.model, f" {word}")) == 1]
        if len(words) < 2:
            return pd.DataFrame([{"part": "chosen", "block": 0, "scale": 1.0, "repeated": np.nan, "n": len(words)}])
        choosing, _ = halves(len(words), self.seed)
        ids = [_encode(ctx.model, f" {word}")[0] for word in words]
        put = ctx.model.hooked.embed.W_E[ids].detach().float()
        prompt = self._prompts(ctx)[:1]
        rows: list[dict[str, Any]] = []
        for block in self.blocks:
            for size in self.sizes:
                likeliest = self._read(ctx, prompt, put, block, size)[:, 0].argmax(-1).tolist()
                for index, (word, token) in enumerate(zip(words, likeliest, strict=True)):
                    said = ctx.model.token_text(token).strip().lower()
                    half = "choosing" if index in choosing else "held-out"
                    about = {"part": "known", "block": block, "scale": size, "half": half, "word": word}
                    rows.append({**about, "repeated": float(said == word)})
        return pd.concat([pd.DataFrame(rows), _chosen(pd.DataFrame(rows))], ignore_index=True)

    def _vector(self, ctx: Context, layer: int, block: int, size: float) -> pd.DataFrame:
        vectors = written(ctx, acting(ctx)).only(layer)
        drawn = [one.directions[0] for one in random_isotropic(vectors, draws=self.draws, seed=self.seed)]
        prompts = self._prompts(ctx)
        log_p = self._read(ctx, prompts, torch.stack([vectors.directions[0], *drawn]), block, size).double().cpu()
        p = log_p.exp()
        rows: list[dict[str, Any]] = []
        for index in range(len(p)):
            others = torch.cat([p[1:index], p[max(1, index + 1) :]]) if index else p[1:]
            each = 0.5 * (p[index] - others.mean(0)).abs().sum(-1).numpy()
            found = bootstrap(each, bounds=SHARE)
            vector, draw = ("random-isotropic", index - 1) if index else ("trained", 0)
            ends = {"variation": found.estimate, "variation_low": found.low, "variation_high": found.high}
            rows.append({"part": "specific", "vector": vector, "draw": draw, "n": len(prompts), **ends})
        ratio = (log_p[0] - p[1:].mean(0).log()).mean(0)
        for rank, token in enumerate(ratio.topk(min(self.top, len(ratio))).indices.tolist(), start=1):
            text, gain = storable(ctx.model.token_text(token)), float(ratio[token])
            rows.append({"part": "tokens", "vector": "trained", "rank": rank, "token": text, "log_ratio": gain})
        return pd.DataFrame(rows).assign(layer=layer, block=block, scale=size)

    def _prompts(self, ctx: Context) -> list[tuple[Prompt, int]]:
        """Prompts that repeat words, and the index of the placeholder."""
        shown = WORDS[::4]
        found: list[tuple[Prompt, int]] = []
        for index in range(self.n):
            examples = [shown[(index + step * (1 + index // len(shown))) % len(shown)] for step in range(4)]
            before = "".join(f"{word} -> {word}\n" for word in examples)
            start, ids = _encode(ctx.model, before), _encode(ctx.model, f"{before}{PLACEHOLDER} ->")
            own = _encode(ctx.model, PLACEHOLDER)
            if len(own) != 1 or ids[len(start)] != own[0]:
                raise UserError("the placeholder must be one token", given=PLACEHOLDER)
            found.append((Prompt(tuple(ids)), len(start)))
        return found

    def _read(
        self,
        ctx: Context,
        prompts: Sequence[tuple[Prompt, int]],
        put: Float[Tensor, "vector d_model"],
        block: int,
        size: float,
    ) -> Float[Tensor, "vector prompt vocab"]:
        """Next-token log-probabilities with each vector in place of each prompt's placeholder."""
        model, site = ctx.model, Site(block, "resid_pre")
        found: list[Tensor] = []
        for prompt, index in prompts:
            plain = model.run(Batch.of([prompt], device=model.device), (), [site])[site][0].float()
            norm = float(plain[1:].norm(dim=-1).median())
            wanted = size * norm * put.to(plain) / put.to(plain).norm(dim=-1, keepdim=True)
            edits = [[Add(site, one - plain[index], positions=Positions(prompt=index))] for one in wanted]
            batch = Batch.of([prompt] * len(put), device=model.device)
            trace = model.run(batch, per_row(edits))
            ctx.fired(trace.fired)
            found.append(log_probs(model, trace.final[:, -1]))
        return torch.stack(found, 1)


def judge(frame: pd.DataFrame, layer: int) -> Verdict:
    """Whether what follows a vector differs from what follows random vectors, where known words are repeated."""
    claim = f"own-words-are-about-the-vector-of-layer-{layer}"
    rows: Any = frame[(frame["part"] == "specific") & (frame["layer"] == layer)]
    drawn = list(rows.loc[rows["vector"] != "trained", "variation"])
    one = rows[rows["vector"] == "trained"].iloc[0]
    whole = Interval(float(one["variation"]), float(one["variation_low"]), float(one["variation_high"]), int(one["n"]))
    control = control_interval({"random-isotropic": drawn})
    reason = _unusable(frame) or too_few(whole.n) or (None if control else "there are too few random vectors")
    return verdict(whole, control, MARGIN, relative=True, testable=reason, claim=claim, unit=UNIT)


def _unusable(frame: pd.DataFrame) -> str | None:
    """Why the instrument does not work on this model; None where known words are repeated."""
    rows: Any = frame[frame["part"] == "chosen"]
    if rows.empty or not rows.iloc[0]["n"] >= ENOUGH:
        return "too few known words are single tokens of this model"
    one = rows.iloc[0]
    if one["repeated_low"] >= REPEATED:
        return None
    ends = " to ".join(shown(100 * float(one[f"repeated_{end}"]), ".0f") for end in ("low", "high"))
    return f"the model repeats {100 * float(one['repeated']):.0f} % [{ends}] of known words put in the same place"


def _chosen(known: Any) -> pd.DataFrame:
    """The block and scale with most repeated words of the choosing half, with the share on the other half."""
    share = known[known["half"] == "choosing"].groupby(["block", "scale"], sort=False)["repeated"].mean()
    block, scale = share.idxmax()
    held = known[(known["half"] == "held-out") & (known["block"] == block) & (known["scale"] == scale)]["repeated"]
    found = wilson(int(held.sum()), len(held))
    ends = {"repeated": found.estimate, "repeated_low": found.low, "repeated_high": found.high, "n": found.n}
    return pd.DataFrame([{"part": "chosen", "block": block, "scale": scale, "half": "held-out", **ends}])


def _best(known: pd.DataFrame) -> tuple[int, float]:
    one: Any = known[known["part"] == "chosen"].iloc[0]
    return int(one["block"]), float(one["scale"])


def _tested() -> list[str]:
    return [word for index, word in enumerate(WORDS) if index % 4]


def _encode(model: Any, text: str) -> list[int]:
    return list(model.tokenizer.encode(text, add_special_tokens=False))
