"""Figures of feature correctness: what features mark, what taking one out does, and where they fire.

Columns read (a tidy frame, `part` names the grain; accuracies and effects as shares):

- part "features": feature, rank, half ("discovery" | "held-out"), score, p, rate, rate_right, rate_wrong, effect,
  odds_ratio, each of the last two with _low and _high, n, link.
- part "null": vector ("permuted-labels" | "random-feature"), draw, effect.
- part "accuracy": vector ("base" | "trained" | "ablated" | "random-feature"), draw, feature, accuracy, accuracy_low,
  accuracy_high, drop, n.
- part "tokens": feature, context, position, token, activation, right.

`quality` says in every row why the autoencoder is not good enough; it is empty where it is.
"""

from __future__ import annotations

import math
from statistics import fmean

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from figures.bars import Bar, Row, draw_bars, row_traces
from figures.record import Record, count, first, keep, numbers, part
from figures.sae_attribution import quality_note
from figures.style import BASE, CONTRAST, STEERED, Reference, dress, plain
from figures.tokens import visible

_WINDOW = 18
_CONTEXTS = 4


def build(run: Record) -> go.Figure:
    """Draw what each reported feature marks on held-out problems, beside features chosen under permuted labels."""
    if "features" not in set(run.frame["part"]):
        return _nothing(run)
    rows = keep(part(run, "features"), "half", "held-out").sort_values("rank")
    null = keep(run.frame, "part", "null")
    figure = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.04, column_widths=[0.6, 0.4])
    chosen = [100 * value for value in numbers(keep(null, "vector", "permuted-labels"), "effect")]
    random = [100 * value for value in numbers(keep(null, "vector", "random-feature"), "effect")]
    effects = [_row(rows.iloc[[at]], "effect", 100, chosen if at == 0 else ()) for at in range(len(rows))]
    effects += [Row("", math.nan, controls=random)] if random else []
    drawn = "feature chosen under permuted labels (first row) and random features of its rate (last row), a mark a draw"
    for trace in row_traces(effects, label="feature, 95 % interval", control=drawn, unit="points", legend=True):
        figure.add_trace(trace, row=1, col=1)
    odds = [_row(rows.iloc[[at]], "odds_ratio", 1, ()) for at in range(len(rows))]
    for trace in row_traces(odds, label="odds ratio", control="", unit="", legend=False):
        figure.add_trace(trace, row=1, col=2)
    figure.add_vline(x=0, row=1, col=1)  # pyright: ignore[reportArgumentType]
    figure.add_vline(x=1, row=1, col=2)  # pyright: ignore[reportArgumentType]
    labels = [_label(rows.iloc[[at]]) for at in range(len(rows))] + (["random features"] if random else [])
    figure.update_yaxes(tickvals=list(range(len(labels))), ticktext=labels, range=[len(labels) - 0.5, -0.5])
    figure.update_yaxes(title_text="feature, by score on the problems it was chosen on", col=1)
    figure.update_xaxes(title_text="accuracy where it fires more less accuracy where not (points)", row=1, col=1)
    figure.update_xaxes(title_text="odds ratio (Mantel-Haenszel)", type="log", row=1, col=2)
    title = f"{_headline(rows)}{quality_note(run)}"
    size = 250 + 30 * len(labels)
    return dress(figure, run.meta, title, n=count(rows), unit="held-out problems", height=size, legend=True)


def _headline(rows: pd.DataFrame) -> str:
    """Say which completions the chosen feature marks, where its interval says so."""
    low, high = (numbers(rows, name)[0] for name in ("effect_low", "effect_high"))
    if low > 0:
        return "The chosen feature marks right completions"
    return "The chosen feature marks WRONG completions" if high < 0 else "Do sparse features mark right completions?"


def _row(rows: pd.DataFrame, column: str, factor: float, controls: list[float] | tuple[float, ...]) -> Row:
    value, low, high = (factor * numbers(rows, f"{column}{end}")[0] for end in ("", "_low", "_high"))
    return Row("", value, low, high, controls)


def _label(rows: pd.DataFrame) -> str:
    """Name the feature, with its page where there is one, its p-value and how often it fires."""
    name = f"feature {int(numbers(rows, 'feature')[0])}"
    link = str(first(rows, "link") or "")
    if link.startswith("https://"):
        name = f'<a href="{plain(link)}">{name}</a>'
    p, rate = numbers(rows, "p")[0], numbers(rows, "rate")[0]
    return f"{name}<br>p = {p:.3f}, fires at {100 * rate:.0f} %"


def build_ablation(run: Record) -> go.Figure:
    """Draw accuracy of the base, under the vectors, without the chosen feature and without random ones."""
    rows = part(run, "accuracy")
    if "ablated" not in set(rows["vector"]):
        return _nothing(run)
    base, trained, ablated = (keep(rows, "vector", name) for name in ("base", "trained", "ablated"))
    random = [100 * value for value in numbers(keep(rows, "vector", "random-feature"), "accuracy")]
    bars = [
        _bar(base, "base", BASE),
        _bar(trained, "vectors", STEERED),
        _bar(ablated, f"vectors without<br>feature {int(numbers(ablated, 'feature')[0])}", CONTRAST),
    ]
    if random:
        bars.append(Bar("vectors without a<br>random feature", fmean(random), colour=CONTRAST, dots=random))
    lines = [Reference("vectors", 100 * numbers(trained, "accuracy")[0])]
    figure = draw_bars(
        bars,
        x_title="what is on while the model generates",
        y_title="accuracy (%)",
        lines_at=lines,
        dots="one random feature of the same firing rate",
    )
    labels = [bar.label for bar in bars]
    figure.update_xaxes(ticktext=labels)
    lost, low, high = (100 * numbers(ablated, f"drop{end}")[0] for end in ("", "_low", "_high"))
    title = (
        f"Without the chosen feature, accuracy falls by {lost:z.1f} [{low:z.1f}, {high:z.1f}] points{quality_note(run)}"
    )
    return dress(figure, run.meta, title, n=count(ablated), height=460, legend=bool(random))


def _bar(rows: pd.DataFrame, label: str, colour: str) -> Bar:
    value, low, high = (100 * numbers(rows, f"accuracy{end}")[0] for end in ("", "_low", "_high"))
    return Bar(label, value, low, high, colour=colour)


def build_examples(run: Record) -> go.Figure:
    """Draw the completions in which the reported features fire most, tokens coloured by activation."""
    if "tokens" not in set(run.frame["part"]):
        return _nothing(run)
    rows = part(run, "tokens")
    lines: list[tuple[str, list[str], list[float]]] = []
    for feature in dict.fromkeys(int(value) for value in numbers(rows, "feature")):
        own = keep(rows, "feature", feature)
        contexts = sorted(set(own["context"]))[:_CONTEXTS]
        lines += [_line(feature, keep(own, "context", context).sort_values("position")) for context in contexts]
    values = [(row + [math.nan] * _WINDOW)[:_WINDOW] for _, _, row in lines]
    texts = [(row + [""] * _WINDOW)[:_WINDOW] for _, row, _ in lines]
    figure = go.Figure(
        go.Heatmap(
            z=values,
            text=texts,
            texttemplate="%{text}",
            colorscale=[[0, "#ffffff"], [1, STEERED]],
            zmin=0,
            colorbar={"title": {"text": "activation"}},
            hovertemplate="%{text}<br>activation %{z:.3g}<extra></extra>",
            xgap=1,
            ygap=2,
            textfont={"size": 11, "color": "#1b1d20"},
        )
    )
    labels = [label for label, _, _ in lines]
    figure.update_yaxes(tickvals=list(range(len(lines))), ticktext=labels, autorange="reversed", showgrid=False)
    figure.update_xaxes(title_text="tokens before the answer, around the largest activation", showticklabels=False)
    figure.update_xaxes(showgrid=False, ticks="", range=[-0.5, _WINDOW])
    title = f"Where do the reported features fire most?{quality_note(run)}"
    return dress(figure, run.meta, title, n=len(set(rows["example"])), height=200 + 30 * len(lines))


def _line(feature: int, rows: pd.DataFrame) -> tuple[str, list[str], list[float]]:
    values = numbers(rows, "activation")
    start = max(0, min(values.index(max(values)) - _WINDOW // 2, len(values) - _WINDOW))
    tokens = [plain(visible(str(token)) if str(token).strip(" ") else "\u2423") for token in rows["token"]]
    outcome = "right" if numbers(rows, "right")[0] else "wrong"
    return f"feature {feature}, {outcome}", tokens[start : start + _WINDOW], values[start : start + _WINDOW]


def _nothing(run: Record) -> go.Figure:
    """Say that there was nothing to report."""
    figure = go.Figure()
    text = "Too few problems have right and wrong completions: nothing can be said about features."
    figure.add_annotation(text=text, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return dress(figure, run.meta, f"Do sparse features mark right completions?{quality_note(run)}", height=320)
