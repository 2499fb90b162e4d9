"""The card that travels with vectors: where they come from, how they were trained, how good they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from interp.active_edits import CONTROL
from interp.errors import UserError
from interp.given import with_lineage
from interp.reading import Placement as Placement
from interp.settings import setting_error

UNKNOWN = "unknown"
LONGEST_NAME = 120


class Card(BaseModel):
    """What is known of a set of vectors; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = ""
    """How reports call the set."""
    kind: Literal["vector", "rank1", "lora"] = "vector"
    """`vector`: a direction added at `site`; `rank1`: a rank-1 adapter of down_proj; `lora`: one of a higher rank."""
    base_model: str = UNKNOWN
    """Name of the model the set was made for; shown, never compared."""
    architecture: str = ""
    """The model's architecture; empty where unknown."""
    lineage: str = ""
    """Lineage of the model, which decides whether the set fits another; empty where unknown."""
    fingerprint: str = ""
    """Fingerprint of the very model, weights and settings, that the set was made on; empty where unknown."""
    d_model: int = Field(gt=0)
    """Width of the residual stream."""
    n_layers: int | None = Field(default=None, gt=0)
    """Number of blocks of the model; None where unknown."""
    site: Placement = "resid_post"
    """Stream of the block at which each vector is added."""
    trained: Literal["together", "apart", "unknown"] = UNKNOWN
    """`apart`: each layer's vector was trained with the others off; `unknown`: the file does not say."""
    origin: str = UNKNOWN
    """Who made the set and from what."""
    recipe: dict[str, JsonValue] = {}
    """Everything needed to make it again."""
    trials: list[dict[str, JsonValue]] = []
    """Every trial that was run to choose this one, the rejected ones included."""
    scores: dict[str, JsonValue] = {}
    """Measured quality, with units in the keys or values."""
    digest: str = ""
    """Content hash of the tensors."""

    if not TYPE_CHECKING:  # the fields are the signature

        def __init__(self, **fields: Any) -> None:
            """Raise UserError, one line, where pydantic would raise its report."""
            try:
                super().__init__(**fields)
            except ValidationError as error:
                raise setting_error(type(self), error) from None

    @model_validator(mode="before")
    @classmethod
    def _read_older(cls, data: Any) -> Any:
        return with_lineage(data)

    @property
    def title(self) -> str:
        """What figures call edits of the set: its name, or of a control its kind."""
        if self.origin == CONTROL:
            return f"{CONTROL} {self.recipe.get('control', '')}".strip()
        return self.name or self.digest

    @property
    def runs(self) -> int:
        """Training runs behind the trials, that of the kept one included; 0 where no trial is known."""
        return len({str(trial.get("run")) for trial in self.trials})

    @classmethod
    def parse(cls, data: object, *, where: str) -> Card:
        """Validate a card read from a file.

        Args:
            data: decoded JSON.
            where: name of the file, for the message.

        Raises:
            UserError: a field is unknown, missing or of a wrong type.
        """
        try:
            return cls.model_validate(data)
        except UserError as error:
            raise UserError(f"{where} is no card of steering vectors: {error}") from error

    def derive(self, name: str, recipe: Mapping[str, Any], *others: Card) -> Card:
        """The card of vectors computed from these.

        What all agree on stays, the task that they were trained on too; trials and scores do not.
        """
        cards = (self, *others)

        def agreed(values: set[str], otherwise: str) -> str:
            return values.pop() if len(values) == 1 else otherwise

        depths = {card.n_layers for card in cards}
        trained = "together" if all(card.trained == "together" for card in cards) else UNKNOWN
        recipes = [card.recipe for card in cards]
        training = {
            name: recipes[0][name]
            for name in ("task", "task_digest", "prompt")
            if name in recipes[0] and all(other.get(name) == recipes[0][name] for other in recipes)
        }
        return self.model_copy(
            update={
                "name": name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}...",
                "base_model": agreed({card.base_model for card in cards}, UNKNOWN),
                "architecture": agreed({card.architecture for card in cards}, ""),
                "lineage": agreed({card.lineage for card in cards}, ""),
                "fingerprint": agreed({card.fingerprint for card in cards}, ""),
                "origin": agreed({card.origin for card in cards}, "several"),
                "n_layers": depths.pop() if len(depths) == 1 else None,
                "trained": "apart" if any(card.trained == "apart" for card in cards) else trained,
                "recipe": {**training, **recipe},
                "trials": [],
                "scores": {},
                "digest": "",
            }
        )
