"""Figure of self-explanation: is a known word repeated, and what follows each vector?

Columns read (a tidy frame, `part` names the grain):

- part "known": block, scale, half, word, repeated.
- part "chosen": block, scale, repeated, repeated_low, repeated_high, n.
- part "tokens": layer, rank, token, log_ratio.
- part "specific": layer, vector, draw, variation, variation_low, variation_high, n.
"""

from __future__ import annotations

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from figures.bars import row_traces
from figures.controls import control_label, estimate_row
from figures.record import Record, first, keep, numbers, part
from figures.style import dress
from figures.tokens import plot_label
from interp.numbers import shown

_SHOWN = 4


def build(run: Record) -> go.Figure:
    """Draw the total variation of each vector from random ones, with the tokens that gain most behind it."""
    rows, tokens = part(run, "specific"), part(run, "tokens")
    layers = sorted({int(layer) for layer in rows["layer"]})
    figure = make_subplots(rows=1, cols=1)
    drawn = [estimate_row(keep(rows, "layer", layer), str(layer), "variation") for layer in layers]
    label, control = "vector, 95 % interval over prompts", control_label(rows)
    for trace in row_traces(drawn, label=label, control=control, unit="total variation", legend=True):
        figure.add_trace(trace)
    for place, layer in enumerate(layers):
        own = keep(tokens, "layer", layer).sort_values("rank").head(_SHOWN)
        text = ", ".join(plot_label(str(token), limit=14) for token in own["token"])
        figure.add_annotation(x=1.02, xref="paper", xanchor="left", y=place, text=text, name="tokens")
    figure.update_yaxes(tickvals=list(range(len(layers))), ticktext=[str(layer) for layer in layers])
    figure.update_yaxes(title_text="layer of the vector", range=[len(layers) - 0.5, -0.5])
    figure.update_xaxes(title_text="total variation of the next token from that of random vectors", range=[0, 1.02])
    title = f"What the model says in place of a vector: {_instrument(run)}"
    count = int(numbers(rows, "n")[0])
    dress(figure, run.meta, title, n=count, unit="prompts", height=230 + 32 * len(layers), legend=True)
    return figure.update_layout(margin={"r": 330})


def _instrument(run: Record) -> str:
    chosen = part(run, "chosen")
    share = numbers(chosen, "repeated")[0]
    if share != share:
        return "known words could not be tested"
    at = f"block {first(chosen, 'block'):g}, scale {first(chosen, 'scale'):g}"
    return f"{shown(100 * share, '.0f')} % of known words repeated ({at})"
