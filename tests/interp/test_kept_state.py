"""What is kept between calls is that of the model and the vectors as they are, or is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from interp import Add, AddAdaptive, Batch, Model, PatchSweep, Prompt, Site, UserError
from interp.completion_cache import Request, complete
from interp.edits import Edit, Patch, per_row
from interp.forced import Forced
from interp.lens import CentredLens, CosineLens
from interp.positions import Tokens
from tests.interp import tiny
from tests.interp.test_what_runs import fresh, own
from vectors import AdaptiveVectors, Card, SteeringVectors

IDS, OTHER = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[5, 9, 7, 8]])


def scaled_data(hooked: Any) -> None:
    hooked.blocks[1].mlp.W_out.data.mul_(3)


def element(hooked: Any) -> None:
    hooked.blocks[2].attn.W_Q.data[0, 3, 2] += 1


def exchanged(hooked: Any) -> None:
    hooked.unembed.W_U = torch.nn.Parameter(hooked.unembed.W_U.detach().flip(1))


def setting(hooked: Any) -> None:
    hooked.blocks[0].ln1.eps = 0.5


def hook(hooked: Any) -> None:
    hooked.add_hook("blocks.1.hook_mlp_out", lambda value, hook: value * 2, is_permanent=True)


@pytest.mark.parametrize("change", [scaled_data, element, exchanged, setting, hook])
def test_what_keeps_streams_refuses_a_changed_model(change: Callable[[Any], None]) -> None:
    hooked: Any = fresh("bare")
    model, batch = Model(hooked, stop_ids=()), Batch.unpadded(IDS)
    forced, sweep = Forced(model, batch, keep=[0]), PatchSweep(model, batch, Batch.unpadded(OTHER))
    edits = [Add(Site(0, "resid_post"), torch.ones(48))]
    forced.steered(edits)
    sweep.score()
    model.run(torch.randint(0, 100, (1, 60)))  # makes tables of angles longer, where there are any
    forced.steered_at(edits, [2])
    change(hooked)
    calls: list[Callable[[], Any]] = [
        lambda: forced.steered(edits),
        lambda: forced.steered_at(edits, [2]),
        lambda: sweep.score(),
        lambda: sweep.attributions(lambda log_p: log_p[:, 0]),
    ]
    for call in calls:
        with pytest.raises(UserError, match="the model changed"):
            call()


def test_log_probabilities_of_a_trace_are_those_of_its_run() -> None:
    for part in ("ln_final.w", "unembed.W_U", "unembed.b_U"):
        hooked: Any = fresh("bare")
        trace = Model(hooked, stop_ids=()).run(IDS)
        before = trace.log_probs()
        held = hooked.get_parameter(part).data.view(-1)[:1]
        kept = held.clone()
        held += 1
        with pytest.raises(UserError, match="another one than in this run"):
            trace.log_probs()
        held.copy_(kept)
        assert (trace.log_probs() - before).abs().max() < 1e-5
    hooked.cfg = type(hooked.cfg).from_dict({**hooked.cfg.to_dict(), "output_logits_soft_cap": 0.5})
    with pytest.raises(UserError, match="than in this run"):
        trace.log_probs()
    assert (Model(hooked, stop_ids=()).run(IDS).log_probs()[0] - own(hooked, (5, 6, 7, 8))).abs().max() < 1e-3


def test_a_lens_stays_that_of_its_model_and_follows_no_hook() -> None:
    hooked: Any = fresh("bare")
    model, directions = Model(hooked, stop_ids=()), torch.randn(2, 48)
    lenses = CentredLens.of(model), CosineLens.of(model)
    before = [lens.scores(directions) for lens in lenses]
    hooked.unembed.W_U.data.add_(torch.randn(48, 1))
    hooked.ln_final.w.data.mul_(2)
    for lens, scores in zip(lenses, before, strict=True):
        assert torch.equal(lens.scores(directions), scores)
        assert not torch.allclose(type(lens).of(model).scores(directions), scores)
    hooked.ln_final.register_forward_hook(lambda module, inputs, output: output * 2)
    for kind in (CentredLens, CosineLens):
        with pytest.raises(UserError, match="foreign code"):
            kind.of(model)


def test_a_tensor_that_is_written_into_is_another_content(tmp_path: Path) -> None:
    card = Card(d_model=48)
    rank1 = card.model_copy(update={"kind": "rank1", "site": "mlp_out"})
    held: list[tuple[Any, Tensor]] = []
    for make in (
        lambda d: Add(Site(1, "resid_post"), d),
        lambda d: AddAdaptive(1, d, torch.ones(48)),
        lambda d: Patch(Site(1, "resid_post"), d[None, None]),
    ):
        direction = torch.randn(48)
        held.append((make(direction), direction))
    vectors = SteeringVectors(torch.randn(2, 48), (0, 1), card)
    adapters = AdaptiveVectors(torch.randn(2, 64), torch.randn(2, 48), (1.0, 1.0), (0, 1), rank1)
    held += [(vectors, vectors.directions), (adapters, adapters.a), (adapters, adapters.b)]
    for thing, tensor in held:
        before = thing.digest
        tensor.data[0] += 1
        assert thing.digest != before
    model = Model(fresh("bare"), stop_ids=())
    edit, direction = held[0]
    request = Request((Prompt((5, 6, 7)),), (edit,), 4, 0.0, 1, 0)
    complete(model, request, tmp_path)
    direction.mul_(-9)
    wanted = model.generate(request.prompts, (edit,), max_new_tokens=4, temperature=0)
    assert complete(model, request, tmp_path).rows[0].ids == wanted.rows[0].ids


@dataclass(frozen=True, eq=False)
class Repeated(Add):
    times: int = 1

    def apply(self, site: Site, value: Tensor, tokens: Tokens) -> Tensor:
        for _ in range(self.times):
            value = super().apply(site, value, tokens)
        return value


def test_edits_of_a_subclass_are_equal_only_with_equal_fields(tmp_path: Path) -> None:
    model = Model(fresh("bare"), tokenizer=tiny.tokenizer(), stop_ids=())
    once, often, again = (Repeated(Site(1, "resid_post"), torch.ones(48), times=times) for times in (1, 5, 1))
    assert once == again
    assert once != often
    rows: list[tuple[Edit, ...]] = [(once,), (often,), (again,)]
    together = model.run(IDS.repeat(3, 1), per_row(rows)).log_probs()
    for row, edits in zip(together, rows, strict=True):
        assert (row - model.run(IDS, edits).log_probs()[0]).abs().max() < 1e-4
    request = Request((Prompt((5, 6, 7)),) * 3, per_row(rows), 4, 0.0, 1, 0)
    keys = request.folder_keys(model)
    assert keys[0] == keys[2]
    assert keys[0] != keys[1]


def test_weights_of_another_dtype_than_the_config_says_are_refused_in_words() -> None:
    hooked: Any = fresh("bare")
    model = Model(hooked, stop_ids=())
    hooked.half()
    with pytest.raises(UserError, match=r"torch\.float16 and torch\.float32"):
        model.run(IDS)
    hooked.to(torch.float16)
    assert model.run(IDS).final.dtype == torch.float16
