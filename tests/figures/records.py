"""Small runs with known numbers, and texts that try to break a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

META: dict[str, Any] = {
    "experiment": "token-substitution",
    "key": "0123456789abcdef",
    "scale": "smoke",
    "model": {"name": "smollm2-135m-instruct"},
    "vectors": {"name": "smollm2-135m-instruct/single-layer/29"},
    "task": {"name": "word-problems"},
    "n": 8,
}
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "\u202egnissim",
    "\ud800",
    "\n\n",
    "\x00\x1b[31m",
    "</script><!--",
    "&lt;b&gt;",
    "<a href='javascript:alert(1)'>x</a>",
    "\u0645\u0631\u062d\u0628\u0627",
    "\u0301",
)


@dataclass(frozen=True)
class Made:
    """A record that lies nowhere."""

    meta: Mapping[str, Any]
    frame: pd.DataFrame
    path: Path = Path("runs/token-substitution/0123456789abcdef")


def substitution(tokens: tuple[str, ...] = (" To", " we"), meta: Mapping[str, Any] = META) -> Made:
    """Two problems, positions 0 to 2, a summary with one control of two draws, and the causal test."""
    rows: list[dict[str, Any]] = []
    for example in range(2):
        for position in range(3):
            which = position % len(tokens)
            values = {
                "max_dp": 0.1 * (position + 1) + 0.01 * example,
                "max_token_id": which,
                "max_token": tokens[which],
            }
            stratum = "first" if position == 0 else "generated"
            rows.append(_row("positions", "trained", example=example, position=position, stratum=stratum, **values))
        chosen = {"token_id": 0, "token": tokens[0], "chosen_by": "selected", "delta_p": 0.7 + 0.1 * example}
        rows.append(_row("chosen", "trained", example=example, position=0, stratum="first", **chosen))
    for half in ("choosing", "held-out"):
        for number, token in enumerate(tokens):
            rows += _summary(number, token, half)
    rows.append(_row("concentration", "permuted", stratum="all", half="held-out", tv_share=0.0625))
    for applied, accuracy in {"nowhere": 0.25, "first": 0.5, "all-but-first": 0.375, "everywhere": 0.625}.items():
        ends = {"accuracy_low": accuracy - 0.125, "accuracy_high": accuracy + 0.25, "temperature": 0.0, "n": 8}
        vector = "base" if applied == "nowhere" else "trained"
        rows.append(_row("causal", vector, applied=applied, accuracy=accuracy, **ends))
        if applied == "first":
            rows.append(_row("causal", "permuted", applied=applied, accuracy=0.125, temperature=0.0, n=8))
    return Made(meta, pd.DataFrame(rows))


def lens(tokens: tuple[str, ...] = (" To", " we"), meta: Mapping[str, Any] = META) -> Made:
    """Layers 0 and 2, one rank a token and side, two scripts, two token classes."""
    rows: list[dict[str, Any]] = []
    for layer in (0, 2):
        for name, scale in (("centred", 4.0), ("cosine", 0.25)):
            for number, token in enumerate(tokens):
                for side, sign in (("top", 1), ("bottom", -1)):
                    ids = {"token_id": number, "token": token, "rank": number + 1, "side": side}
                    score = sign * scale * (layer + 1) / (number + 1)
                    rows.append(_row("tokens", "trained", layer=layer, quantity="raw", lens=name, score=score, **ids))
        for script, count in (("Han", 40), ("non-Latin", 90)):
            null = {"null_low": 0.375, "null_high": 0.625, "n_tokens": count, "testable": script == "non-Latin"}
            values = {"quantity": "raw", "lens": "centred", "script": script, "auc": 0.25 + 0.125 * layer}
            rows.append(_row("scripts", "trained", layer=layer, **values, **null))
        for token_class, value in (("process word", 0.5), ("digit", -0.25)):
            for vector, share in (("trained", 1.0), ("permuted", 0.125)):
                effect = {"delta_p": value / 8 * share, "log_odds": value * share}
                values = {"quantity": "propagated", "n": 8, **effect}
                ends = {"log_odds_low": value - 0.125, "log_odds_high": value + 0.25} if share == 1.0 else {}
                rows.append(_row("classes", vector, layer=layer, token_class=token_class, **values, **ends))
    return Made({**meta, "experiment": "logit-lens"}, pd.DataFrame(rows))


def persistence(meta: Mapping[str, Any] = META) -> Made:
    """Steered blocks 0 and 1 of three; block 0 has one control of two draws."""
    rows: list[dict[str, Any]] = []
    for number, statistic in enumerate(("self", "induced", "diff_vector", "diff_diff", "mean_diff")):
        for layer, observed in ((0, 1), (0, 2), (1, 2)):
            value = 0.5 / observed - number / 8
            about = {"layer": layer, "observed": observed, "statistic": statistic, "n": 8}
            beside = {"random": 0.125, "random_low": 0.0625, "random_high": 0.25, "above": value - 0.125, "above_n": 4}
            ends = {"low": value - 0.125, "high": value + 0.25, **(beside if layer == 0 else {})}
            rows.append(_row("pairs", "trained", value=value, **about, **ends))
    for vector, draws in (("trained", 1), ("random-isotropic", 2), ("negated", 1)):
        for draw in range(draws):
            value = 0.75 if vector == "trained" else 0.25 * draw
            ends = {"low": 0.5, "high": 0.875} if vector == "trained" else {}
            about = {"statistic": "final", "value": value, "n": 8, **ends}
            rows.append(_row("final", vector, layer=0, observed=1, **about) | {"draw": draw})
            rows.append(_row("final-mean", vector, **about) | {"draw": draw})
    both = [{**row, "text": "base", "stratum": stratum} for row in rows for stratum in ("generated", "prompt")]
    frame = pd.DataFrame(both)
    frame.loc[frame["stratum"] == "prompt", ["value", "above"]] = -1.0  # must not be drawn
    return Made({**meta, "experiment": "persistence"}, frame)


def _row(part: str, vector: str, **values: Any) -> dict[str, Any]:
    return {"part": part, "vector": vector, "draw": 0, **values}


def _summary(number: int, token: str, half: str) -> list[dict[str, Any]]:
    sign = 1 if half == "held-out" else 100  # the choosing half must not be drawn
    u = sign * 0.5 / (number + 1)
    named = {"stratum": "all", "rank": number + 1, "token_id": number, "token": token, "half": half, "n": 4}
    ends = {"u_low": u - 0.125, "u_high": u + 0.25}
    own = _row("summary", "trained", u=u, tv_share=u / 2, delta_log_odds=4 * u, **named, **ends)
    draws = [
        _row("summary", "permuted", u=0.01 * draw, tv_share=0.0, delta_log_odds=0.0, **named) | {"draw": draw}
        for draw in range(2)
    ]
    return [own, *draws]
