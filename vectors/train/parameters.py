"""What is trained: named float32 tensors, the edits that they make, and their rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.bare_model import takes_model
from interp.batch import Batch
from interp.edits import Add, Edit
from interp.errors import UserError
from interp.model import Model
from interp.prompts import Prompt
from interp.sites import Site
from vectors.train.low_rank import LowRank
from vectors.train.settings import ADAPTER_RATE, ADAPTERS_RATE, FULL_RATE, TOGETHER_RATE, TrainSettings


@takes_model
@dataclass(frozen=True)
class Parameters:
    """The tensors that AdamW moves.

    Attributes:
        tensors: leaves with gradient, by name.
        rates: AdamW's rate of each.
        settings: what they are.
        model: the model they belong to.
    """

    tensors: dict[str, Tensor]
    rates: dict[str, float]
    settings: TrainSettings
    model: Model

    def edits(self) -> tuple[Edit, ...]:
        """The edits, differentiable; make them anew for every backward pass. None for all weights."""
        layers = self.settings.layers
        if self.settings.kind == "full":
            return ()
        if self.settings.kind == "vector":
            stream = "resid_post" if self.settings.place == "mlp_out" else self.settings.place
            return tuple(Add(Site(layer, stream), row) for layer, row in zip(layers, self.directions(), strict=True))
        return tuple(LowRank(layer, self.tensors[f"a.{layer}"], self.tensors[f"b.{layer}"]) for layer in layers)

    def directions(self) -> Sequence[Float[Tensor, " d_model"]]:
        """The vector of each layer."""
        if self.settings.rank is None:
            return [self.tensors[f"s.{layer}"] for layer in self.settings.layers]
        return list(self.tensors["u"] @ self.tensors["v"])

    @property
    def first(self) -> int:
        """The lowest block that is touched; nothing back-propagates below it."""
        return 0 if self.settings.kind == "full" else min(self.settings.layers)

    @property
    def sampler(self) -> Model:
        """The model to sample with; made anew where its weights have moved, as it may hold copies of them."""
        old = self.model
        if self.settings.kind != "full":
            return old
        return Model(
            old.hooked,
            tokenizer=old.tokenizer,
            name=old.name,
            architecture=old.architecture,
            stop_ids=old.stop_ids,
        )

    def gather(self) -> None:
        """After all backward passes: give the gradient of a tied unembedding to the embedding."""
        if self.settings.kind == "full" and tied(self.model):
            unembedding, embedding = self.model.hooked.unembed.W_U, self.model.hooked.embed.W_E
            if unembedding.grad is not None:
                left = unembedding.grad.T
                embedding.grad = left.clone() if embedding.grad is None else embedding.grad + left
                unembedding.grad = None

    def norm(self) -> float:
        """Mean over layers of |s_l|, or of the Frobenius norm of B A; of all weights, the distance is not kept: 0."""
        with torch.no_grad():
            if self.settings.kind == "full":
                return 0.0
            if self.settings.kind == "vector":
                sizes = [row.norm() for row in self.directions()]
            else:
                layers = self.settings.layers
                sizes = [(self.tensors[f"b.{one}"].T @ self.tensors[f"a.{one}"]).norm() for one in layers]
            return float(torch.stack(sizes).mean())

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Take values of the same names and shapes, bit for bit.

        Raises:
            UserError: names differ.
        """
        if set(values) != set(self.tensors):
            raise UserError("this state holds other parameters", given=sorted(set(values) ^ set(self.tensors))[0])
        with torch.no_grad():
            for name, value in values.items():
                self.tensors[name].copy_(value)


@takes_model
def start(model: Model, settings: TrainSettings, norms: Mapping[int, float]) -> Parameters:
    """Parameters before the first step: every edit is zero, so that training starts at the model itself.

    Rates: `settings.rate` where given. Else a vector alone takes factor * median |h_l| (the paper's single-layer
    rates grow with depth like the residual norm does, arXiv:2509.06608 app. A), what is trained together, adapters
    and all weights the constants of `vectors.train.settings`.

    Args:
        model: frozen, except that all its weights are trained where the settings say so.
        settings: with layers named.
        norms: median norm of what each trained vector is added to, see `median_norms`.
    """
    tensors = _tensors(model, settings)
    rates = {name: settings.rate or _rate(settings, norms) for name in tensors}
    return Parameters(tensors, rates, settings, model)


def _rate(settings: TrainSettings, norms: Mapping[int, float]) -> float:
    if settings.kind == "full":
        return FULL_RATE
    alone = len(settings.layers) == 1
    if settings.kind in ("rank1", "lora"):
        return ADAPTER_RATE if alone else ADAPTERS_RATE
    return settings.factor * norms[settings.layers[0]] if alone and settings.rank is None else TOGETHER_RATE


def _tensors(model: Model, settings: TrainSettings) -> dict[str, Tensor]:
    if settings.kind == "full":
        return _weights(model)
    dtype = torch.promote_types(model.dtype, torch.float32)
    generator = torch.Generator().manual_seed(settings.seed)

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=model.device, requires_grad=True)

    def uniform(bound: float, *shape: int) -> Tensor:
        drawn = (2 * torch.rand(shape, generator=generator, dtype=dtype) - 1) * bound
        return drawn.to(model.device).requires_grad_()

    n, d, d_mlp = len(settings.layers), model.d_model, int(model.cfg.d_mlp)
    if settings.kind == "vector" and settings.rank is not None:
        # Entries of variance 1 / rank, so that a row of u has norm 1 whatever the rank.
        return {"u": uniform((3 / settings.rank) ** 0.5, n, settings.rank), "v": zeros(settings.rank, d)}
    if settings.kind == "vector":
        return {f"s.{layer}": zeros(d) for layer in settings.layers}
    rank = settings.rank or 1
    tensors: dict[str, Tensor] = {}
    for layer in settings.layers:
        tensors[f"a.{layer}"] = uniform(d_mlp**-0.5, rank, d_mlp)  # LoRA's own start of A
        tensors[f"b.{layer}"] = zeros(rank, d)
    return tensors


def _weights(model: Model) -> dict[str, Tensor]:
    """Every weight of the checkpoint, tied ones once: W_U follows W_E, whose memory it takes for the training.

    A HookedTransformer holds biases that the architecture lacks as zeros; they stay frozen, or all-weights training
    would have steering vectors inside.
    """
    embedding = model.hooked.embed.W_E
    if model.cfg.tie_word_embeddings and torch.equal(model.hooked.unembed.W_U, embedding.T):
        model.hooked.unembed.W_U = torch.nn.Parameter(embedding.detach().T, requires_grad=embedding.requires_grad)
    named: dict[str, Tensor] = dict(model.hooked.named_parameters(remove_duplicate=False))
    trained = {
        name: value
        for name, value in named.items()
        if value.dtype.is_floating_point and (not name.split(".")[-1].startswith("b_") or bool(value.any()))
    }
    for value in trained.values():
        value.requires_grad_()
    if tied(model):
        del trained["unembed.W_U"]
    return trained


@takes_model
def tied(model: Model) -> bool:
    """Whether unembedding and embedding are the same memory."""
    return model.hooked.unembed.W_U.data_ptr() == model.hooked.embed.W_E.data_ptr()


@takes_model
def median_norms(model: Model, prompts: Sequence[Prompt], settings: TrainSettings) -> dict[int, float]:
    """Median over tokens of |h_l| of each trained block, without position 0 (its norm is an outlier).

    A vector after a LayerNorm joins that norm's output, which is a tenth of the residual stream or less: at a rate
    for the stream it destroys the model within four steps.
    """
    batch = Batch.of(prompts)
    stream = settings.place if settings.place in ("ln1_out", "ln2_out") else "resid_post"
    sites = {layer: Site(layer, stream) for layer in settings.layers}
    trace = model.run(batch, read=list(sites.values()))
    kept = batch.position > 0
    return {layer: float(trace[site][kept].float().norm(dim=-1).median()) for layer, site in sites.items()}
