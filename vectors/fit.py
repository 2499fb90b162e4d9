"""Whether vectors fit a model."""

from __future__ import annotations

from typing import Any, Literal, Protocol, runtime_checkable

from interp.arguments import check_kind
from interp.bare_model import takes_model
from interp.errors import UserError
from interp.given import as_model
from vectors.card import Card

Fit = Literal["same base", "origin unknown", "foreign"]

_NORM_AFTER_MLP = ("gemma2", "gemma3", "gemma-2", "gemma-3", "olmo2", "olmo3", "glm4", "exaone4")


@runtime_checkable
class Carded(Protocol):
    """Vectors or adapters with a card."""

    @property
    def card(self) -> Card: ...  # noqa: D102
    @property
    def d_model(self) -> int: ...  # noqa: D102
    @property
    def layers(self) -> tuple[int, ...]: ...  # noqa: D102


@takes_model
def check_fit(vectors: Carded, model: Any, *, foreign: bool = False) -> Fit:
    """Compare architecture, depth, width and, where both have one, the lineage; never names.

    The lineage is the same for a model in another dtype, and for one that was tuned from it without its final norm and
    embedding: vectors may be tried on all of these. It is too weak to recall results by.

    Args:
        vectors: what is to be added.
        model: anything with `n_layers`, `d_model`, `lineage`, `architecture` and `name`; the last three may be
            empty or absent.
        foreign: lifts the lineage, for transfer experiments; never the shape.

    Returns:
        Whether the vectors were made for a model of this lineage, for others (`foreign`), or for nobody knows which.

    Raises:
        UserError: they do not fit.
    """
    check_kind("vectors", vectors, Carded, "steering vectors, or an adapter")
    model = model if hasattr(model, "n_layers") else as_model(model)  # a bare HookedTransformer
    if model is None:
        raise UserError("vectors fit a model, and there is none", works="check_fit(vectors, model)")
    _check_shape(vectors, model)
    card = vectors.card
    architecture, lineage = _text(model, "architecture"), _text(model, "lineage")
    if card.architecture and architecture and card.architecture != architecture:
        raise UserError("these vectors are for another architecture", given=card.architecture, works=architecture)
    _check_down_proj(card, model, architecture)
    _check_width(vectors, model)
    _check_norm(card, model)
    if not card.lineage or not lineage:
        return "origin unknown"
    if card.lineage == lineage:
        return "same base"
    if foreign:
        return "foreign"
    raise UserError(
        "these vectors were made for other weights",
        given=f"made for {card.base_model}, model {_text(model, 'name') or 'unnamed'}",
        works="use foreign=True (--foreign) to transfer them",
    )


def _check_shape(vectors: Carded, model: Any) -> None:
    n_layers, d_model = int(model.n_layers), int(model.d_model)
    if vectors.d_model != d_model:
        raise UserError(f"the model has d_model {d_model}", given=f"vectors of width {vectors.d_model}")
    depth = vectors.card.n_layers
    if depth == n_layers + 1:
        works = 'if row 0 belongs to the embeddings, load with rows="embeddings-first"'
        raise UserError(f"the model has {n_layers} layers", given=f"{depth} rows", works=works)
    if depth is not None and depth != n_layers:
        raise UserError(f"the model has {n_layers} layers", given=f"vectors for {depth} layers")
    if max(vectors.layers) >= n_layers:
        raise UserError(f"the model has layers 0 to {n_layers - 1}", given=f"a vector at layer {max(vectors.layers)}")


def _check_down_proj(card: Card, model: Any, architecture: str) -> None:
    """A file that changes the MLP module itself means the stream before a norm that follows, which has no site."""
    cfg = getattr(model, "cfg", None)
    follows = bool(getattr(cfg, "use_normalization_before_and_after", False))
    follows = follows or architecture.lower().startswith(_NORM_AFTER_MLP)
    if not follows:
        return
    if card.kind != "vector":
        raise UserError("a norm follows this MLP, so its adapter is no addition to the stream", given=architecture)
    if "module" in card.recipe and card.site in ("mlp_out", "resid_post"):
        what = "a norm follows this MLP, so a bias of its output is no addition to the stream"
        raise UserError(what, given=architecture, works="train the vector at resid_post")


def _check_width(vectors: Carded, model: Any) -> None:
    """An adapter also reads the MLP, whose width must be the model's."""
    width = getattr(getattr(model, "cfg", None), "d_mlp", None)
    reads = getattr(vectors, "a", None)
    if width is not None and reads is not None and reads.shape[-1] != width:
        raise UserError(f"the model has an MLP of width {width}", given=f"adapters that read {reads.shape[-1]}")


def _check_norm(card: Card, model: Any) -> None:
    """A folded norm's output lacks its weights; a card with a lineage was written where they were there."""
    folded = str(getattr(getattr(model, "cfg", None), "normalization_type", "")).endswith("Pre")
    if folded and card.lineage and card.site in ("ln1_out", "ln2_out"):
        works = "load the model without fold_ln, or with load_model"
        what = "these vectors act after a norm whose weights this model has folded"
        raise UserError(what, given=card.site, works=works)


def _text(model: Any, name: str) -> str:
    value = getattr(model, name, "")
    return value if isinstance(value, str) else ""
