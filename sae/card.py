"""The card that lies beside a sparse autoencoder: what it was trained on and how good it is."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, JsonValue, model_validator

from interp.given import with_lineage

Of = Literal["change", "stream"]
"""What a dictionary describes: Delta, the change that an intervention makes (DiffSAE), or the stream itself."""


class SaeCard(BaseModel):
    """What is known of a sparse autoencoder; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = ""
    """How reports call it."""
    of: Of = "stream"
    """`change`: h_k(t | edits on) - h_k(t | off), same tokens; `stream`: h_k itself."""
    hook: str = ""
    """TransformerLens name of the hook point; empty where unknown."""
    base_model: str = "unknown"
    """Name of the model; shown, never compared."""
    lineage: str = ""
    """Lineage of the model, which decides whether the autoencoder fits another; empty where unknown."""
    fingerprint: str = ""
    """Fingerprint of the very model, weights and settings, that it was trained on; empty where unknown."""
    vectors: str = ""
    """Name of the vectors whose change is described; empty for a stream."""
    vectors_digest: str = ""
    """Their digest."""
    neuronpedia: str = ""
    """Identifier on Neuronpedia; empty where there is none."""
    recipe: dict[str, JsonValue] = {}
    """Everything needed to make it again."""
    report: dict[str, JsonValue] = {}
    """Measured quality on held-out tokens, see `sae.report.Report`."""

    @model_validator(mode="before")
    @classmethod
    def _read_older(cls, data: Any) -> Any:
        return with_lineage(data)
