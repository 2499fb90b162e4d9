"""What a caller says about a file of vectors where the file itself leaves it open."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from interp.errors import UserError

Placement = Literal["resid_pre", "ln1_out", "attn_out", "resid_mid", "ln2_out", "mlp_out", "resid_post"]
"""Streams of width d_model, where a vector can be placed."""

PLACEMENTS: tuple[str, ...] = get_args(Placement)
ROWS = ("blocks", "embeddings-first")
TRAINED = ("together", "apart")


@dataclass(frozen=True)
class Reading:
    """Answers to what a file of vectors does not state; an answer that contradicts the file is refused.

    Attributes:
        site: stream at which a bare tensor is added.
        layer: block of a bare vector, 0 = first block.
        rows: what row 0 of a matrix with L + 1 rows belongs to.
        trained: whether the layers were trained together or apart.

    Example:
        as_vectors("direction.pt", model, reading=Reading(site="resid_post", layer=14))
    """

    site: str | None = None
    layer: int | None = None
    rows: str | None = None
    trained: str | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """The answers that are not None, as keyword arguments of `load_vectors`."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def refuse(self, vectors: object) -> None:
        """Raise if there are answers although no file is read.

        Raises:
            UserError: an answer is there.
        """
        if self.arguments:
            flags = ", ".join(f"--{name} {value}" for name, value in self.arguments.items())
            what = "flags about a file of vectors need a file" if vectors is None else "these vectors come from no file"
            raise UserError(what, given=flags, works="leave them out, or name a file or folder of vectors")


NOTHING_SAID = Reading()
