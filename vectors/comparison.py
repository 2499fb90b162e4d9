"""Sets of vectors side by side: norms, and how far they point the same way, block by block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from itertools import combinations
from typing import TYPE_CHECKING

from torch.nn.functional import cosine_similarity

from interp.arguments import check_items, check_kind
from interp.errors import UserError
from interp.numbers import shown
from vectors.steering import SteeringVectors

if TYPE_CHECKING:
    import pandas as pd

_ORANGE, _BLUE = "242,142,43", "86,180,233"


@dataclass(frozen=True)
class VectorComparison:
    """Pairs of sets; a table in a notebook.

    Attributes:
        frame: a row for each pair and block that both have: a, b, layer, cosine, and both norms in units of the stream.
    """

    frame: pd.DataFrame

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in self.frame.columns)
        rows = "".join(f"<tr>{''.join(map(_cell, row.items()))}</tr>" for row in self.frame.to_dict("records"))
        note = "Colour: cosine, orange = same direction, blue = opposite."
        return f"<div><table><tr>{head}</tr>{rows}</table><p>{note}</p></div>"

    def __str__(self) -> str:
        return self.frame.to_string(index=False)


def compare_vectors(sets: Mapping[str, SteeringVectors]) -> VectorComparison:
    """Compare each pair of sets, block by block.

    A cosine is judged against random directions with the stream's covariance, not against 0: see
    `experiments.VectorGeometry`, which has them beside.

    Args:
        sets: by name, two or more of one width.

    Raises:
        UserError: there are fewer than two, widths differ, or no pair has a block in common.
    """
    import pandas as pd

    check_kind("sets", sets, Mapping, '{"a": v, "b": w}')
    check_items("sets", sets.values(), lambda one: isinstance(one, SteeringVectors), '{"a": v, "b": w}')
    if len(sets) < 2:
        raise UserError("two sets are needed to compare", given=len(sets))
    if len({one.d_model for one in sets.values()}) > 1:
        widths = ", ".join(f"{name} {one.d_model}" for name, one in sets.items())
        raise UserError("vectors of different width cannot be compared", given=widths)
    rows = [
        {
            "a": a,
            "b": b,
            "layer": layer,
            "cosine": float(cosine_similarity(sets[a][layer], sets[b][layer], dim=0)),
            "norm_a": sets[a].norms[layer],
            "norm_b": sets[b].norms[layer],
        }
        for a, b in combinations(sets, 2)
        for layer in sets[a].layers
        if layer in sets[b].layers
    ]
    if not rows:
        raise UserError("no two of these sets have a block in common", given=", ".join(sets))
    return VectorComparison(pd.DataFrame(rows))


def _cell(item: tuple[str, object]) -> str:
    name, value = item
    if name == "cosine" and isinstance(value, float):
        colour = _ORANGE if value > 0 else _BLUE
        return f'<td style="background:rgba({colour},{abs(value):.2f})">{shown(value, "+.3f")}</td>'
    return f"<td>{shown(value, '.4g') if isinstance(value, float) else escape(str(value))}</td>"
