"""What a training run is: everything that can change a trained number. Torch-free."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from interp.errors import UserError
from interp.settings import Blocks, Settings

Kind = Literal["vector", "rank1", "lora", "full"]
"""What is trained: vectors; one rank-1 adapter of down_proj a layer; LoRA of rank r on down_proj; all weights."""

Place = Literal["ln1_out", "attn_out", "ln2_out", "mlp_out"]
"""Where a vector is added; mlp_out is the bias of down_proj, an addition at resid_post."""

Reward = Literal["correct", "format", "random"]
"""+1 for a right answer; for a boxed answer that ends; for a fair coin. Otherwise -1."""

KINDS: tuple[Kind, ...] = get_args(Kind)
PLACES: tuple[Place, ...] = get_args(Place)
REWARDS: tuple[Reward, ...] = get_args(Reward)

TOGETHER_RATE = 5e-3
"""One rate for vectors of all layers together. Twice as much took the entropy down to 0.1 nats within 12
steps and ended lower on validation problems."""

APART_FACTOR = 6.4e-4
"""c of rate_l = c * median |h_l|: 0.12 at block 16 of the embedded model. A third of it learned nothing at block 28."""

ADAPTER_RATE = 1e-2
"""Of the adapter of one layer's down_proj. A fifth of it, nearer to what LoRA is usually trained with, learned nothing
in 30 steps."""

ADAPTERS_RATE = 3e-3
"""Of adapters of several layers together: at the rate of one, completions stopped ending within 14 steps."""

FULL_RATE = 1e-5
"""All weights."""


class TrainSettings(Settings):
    """Settings of one run; unknown ones are refused."""

    kind: Kind = "vector"
    """What is trained."""
    layers: Blocks = ()
    """Blocks that are trained together in this run, 0 = first block; empty = all."""
    place: Place = "mlp_out"
    """Where a vector is added."""
    rank: int | None = Field(default=None, ge=1)
    """Vectors: rank of the matrix over layers (None = free vectors). LoRA: its rank."""
    reward: Reward = "correct"
    """What is rewarded."""
    steps: int = Field(default=40, ge=1)
    """Updates; one rollout batch each."""
    prompts: int = Field(default=16, ge=1)
    """Problems a step."""
    samples: int = Field(default=8, ge=2)
    """Completions of each problem, G."""
    temperature: float = Field(default=1.0, gt=0)
    """Of sampling, and of the loss."""
    rate: float | None = Field(default=None, gt=0)
    """AdamW's rate; None = by rule, see `vectors.train.parameters`."""
    factor: float = Field(default=APART_FACTOR, gt=0)
    """c of the rule rate_l = c * median |h_l|, for a vector that is trained alone."""
    warm_up: float = Field(default=0.03, ge=0, lt=1)
    """Share of the steps over which the rate rises to its constant value."""
    clip: float = Field(default=2.0, gt=0)
    """Largest norm of the gradient over all parameters."""
    seed: int = Field(default=0, ge=0)
    """Of the order of problems, of sampling, of random starts and of random rewards."""
    validate_every: int = Field(default=10, ge=1)
    """Steps between two greedy evaluations on validation problems."""
    validation: int = Field(default=96, ge=1)
    """Validation problems."""
    test: int | None = Field(default=None, ge=0)
    """Test problems; None = all, 0 = no test."""

    def checked(self, n_layers: int) -> TrainSettings:
        """The same settings with all layers named.

        Raises:
            UserError: a layer does not exist, or settings contradict each other.
        """
        layers = self.layers or tuple(range(n_layers))
        if len(set(layers)) != len(layers) or min(layers) < 0 or max(layers) >= n_layers:
            given = ",".join(map(str, layers))
            raise UserError(f"the model has blocks 0 to {n_layers - 1}, each trained once", given=given)
        self.check_kind()
        if self.kind == "full" and len(layers) != n_layers:
            raise UserError("full tuning trains all weights", works="--layers all")
        return self.model_copy(update={"layers": tuple(sorted(layers))})

    def check_kind(self) -> None:
        """Raise where the kind contradicts the place or the rank.

        Raises:
            UserError: it does.
        """
        if self.kind != "vector" and self.place != "mlp_out":
            raise UserError("only a vector has a place", given=f"{self.kind} at {self.place}", works="--kind vector")
        if self.kind in ("rank1", "full") and self.rank is not None:
            works = "use --kind lora for an adapter of rank r, --kind vector for a matrix of rank r over layers"
            raise UserError(f"{self.kind} takes no rank", given=self.rank, works=works)
        if self.kind == "lora" and self.rank is None:
            raise UserError("LoRA needs a rank", works="--rank 1")

    @property
    def warm_steps(self) -> int:
        """Steps before the rate is constant."""
        return -int(-self.warm_up * self.steps // 1)

    def warmth(self, step: int) -> float:
        """Share of the full rate at a step, steps counted from 0."""
        return min(1.0, (step + 1) / max(1, self.warm_steps))
