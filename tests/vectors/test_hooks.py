"""Vectors on real (tiny, random) models: hooks, checkpoints and adapters do what their libraries do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from interp import Model, load_model
from interp.errors import UserError
from interp.grading import Grade
from interp.tasks.task import Task
from tests.interp import tiny
from vectors import AdaptiveVectors, Card, SteeringVectors, check_fit, convert, load_vectors
from vectors.from_model import baseline

LAYERS = (0, 2)


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(tiny.model("qwen2"), tokenizer=tiny.tokenizer())


def vectors_for(model: Model, **card: Any) -> SteeringVectors:
    rows = torch.randn(len(LAYERS), model.d_model, generator=torch.Generator().manual_seed(5))
    fields: dict[str, Any] = {"d_model": model.d_model, "n_layers": model.n_layers, **card}
    return SteeringVectors(rows, LAYERS, Card(**fields))


def by_hand(model: Model, ids: torch.Tensor, vectors: SteeringVectors) -> torch.Tensor:
    """Logits with the vectors added between the blocks."""
    resid = model.hooked.embed(ids)
    for layer in range(model.n_layers):
        resid = model.hooked(resid, start_at_layer=layer, stop_at_layer=layer + 1)
        if layer in vectors.layers:
            resid = resid + vectors[layer]
    return model.hooked.unembed(model.hooked.ln_final(resid))


def count_hooks(model: Model) -> int:
    return sum(len(point.fwd_hooks) + len(point._forward_hooks) for point in model.hooked.hook_dict.values())


def test_hooks_add_to_the_residual_stream(model: Model) -> None:
    ids, vectors = tiny.token_ids(), vectors_for(model)
    wanted = by_hand(model, ids, vectors)
    assert not torch.allclose(wanted, model.hooked(ids), atol=0.1)
    torch.testing.assert_close(model.hooked.run_with_hooks(ids, fwd_hooks=vectors.fwd_hooks()), wanted)
    torch.testing.assert_close(model.unembed(model.run(ids, vectors.edits()).final), wanted)
    with vectors.applied(model.hooked) as hooked:
        torch.testing.assert_close(hooked(ids), wanted)


def test_applied_removes_its_own_hooks_and_no_others(model: Model) -> None:
    ids, vectors = tiny.token_ids(), vectors_for(model)
    plain = model.hooked(ids)
    point = model.hooked.hook_dict["blocks.0.hook_resid_post"]
    seen: list[int] = []
    point.add_hook(lambda tensor, hook: seen.append(1))
    try:
        with pytest.raises(RuntimeError, match="stop"), vectors.applied(model.hooked):
            model.hooked.reset_hooks()  # does not switch the vectors off
            point.add_hook(lambda tensor, hook: seen.append(2))
            assert not torch.allclose(model.hooked(ids), plain, atol=0.1)
            raise RuntimeError("stop")
        assert count_hooks(model) == 2  # the second of the caller's hooks, in both lists of its hook point
        assert torch.equal(model.hooked(ids), plain)
        assert seen == [2, 2]
    finally:
        model.hooked.reset_hooks()
    assert count_hooks(model) == 0


def test_applied_nests(model: Model) -> None:
    ids, vectors = tiny.token_ids(), vectors_for(model)
    with vectors.applied(model.hooked), (2 * vectors).applied(model.hooked):
        twice = model.hooked(ids)
    torch.testing.assert_close(twice, by_hand(model, ids, 3 * vectors))
    assert count_hooks(model) == 0


def test_zero_times_a_vector_is_bit_identical_to_no_hook(model: Model) -> None:
    ids, vectors = tiny.token_ids(), vectors_for(model)
    hooks = (0 * vectors).fwd_hooks()
    assert torch.equal(model.hooked.run_with_hooks(ids, fwd_hooks=hooks), model.hooked(ids))


def test_hooks_need_the_same_permission_as_edits(model: Model) -> None:
    apart = vectors_for(model, trained="apart")
    with pytest.raises(UserError, match="trained apart"):
        apart.fwd_hooks()
    with pytest.raises(UserError, match="trained apart"), apart.applied(model.hooked):
        pass
    assert len(apart.together().fwd_hooks()) == 2
    with pytest.raises(UserError, match="no hook"):
        vectors_for(model, site="ln1_out").fwd_hooks()


def test_a_model_and_its_vectors_fit(model: Model) -> None:
    card = {"lineage": model.lineage, "architecture": model.architecture}
    assert check_fit(vectors_for(model, **card), model) == "same base"


def test_a_bias_of_down_proj_is_the_vector_that_is_read_from_it(tmp_path: Path) -> None:
    config = {"mlp_bias": True, "attention_bias": False}
    source: Any = tiny.model("llama", config=config)
    source.save_pretrained(tmp_path)
    vectors = load_vectors(tmp_path)
    assert isinstance(vectors, SteeringVectors)
    ids = tiny.token_ids()
    wanted = source(ids).logits
    for layer in source.model.layers:
        layer.mlp.down_proj.bias.data.zero_()
    bare = load_model(source, tokenizer=tiny.tokenizer())
    steered = bare.unembed(bare.run(ids, vectors.edits()).final)
    torch.testing.assert_close(steered.log_softmax(-1), wanted.log_softmax(-1), atol=1e-4, rtol=1e-4)


def lora(path: Path, base: Any, *, rslora: bool) -> Any:
    """A rank-1 adapter with random weights, made and saved by PEFT; returns its model."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=1, lora_alpha=3, target_modules=["down_proj"], use_rslora=rslora, task_type="CAUSAL_LM")
    adapted: Any = get_peft_model(base, config).eval()
    generator = torch.Generator().manual_seed(6)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator)
    adapted.save_pretrained(path)
    return adapted


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft's own
@pytest.mark.parametrize("rslora", [False, True])
def test_a_rank_1_adapter_does_here_what_it_does_in_peft(tmp_path: Path, model: Model, rslora: bool) -> None:
    from peft import PeftModel

    ids = tiny.token_ids()
    wanted = lora(tmp_path / "a", tiny.model("qwen2"), rslora=rslora)(ids).logits.log_softmax(-1)
    vectors = load_vectors(tmp_path / "a", model=model)
    assert isinstance(vectors, AdaptiveVectors)
    assert vectors.layers == (0, 1, 2)
    steered = model.unembed(model.run(ids, vectors.edits()).final).log_softmax(-1)
    assert not torch.allclose(steered, model.hooked(ids).log_softmax(-1), atol=0.1)
    torch.testing.assert_close(steered, wanted, atol=1e-4, rtol=1e-4)
    written: Any = PeftModel.from_pretrained(tiny.model("qwen2"), convert(tmp_path / "a", tmp_path / "b", "peft"))
    torch.testing.assert_close(written.eval()(ids).logits.log_softmax(-1), wanted)


def test_an_adapter_of_a_model_with_a_norm_after_its_mlp_does_not_fit() -> None:
    card = Card(kind="rank1", site="mlp_out", d_model=48, n_layers=3)
    vectors = AdaptiveVectors(torch.ones(1, 80), torch.ones(1, 48), (1.0,), (0,), card)
    gemma = load_model(tiny.model("gemma2"), tokenizer=tiny.tokenizer())
    with pytest.raises(UserError, match="a norm follows"):
        check_fit(vectors, gemma)


class EvenFirstLetter:
    """Right where the code of the first letter is even, which a random model does half of the time."""

    spec = "even"

    def __call__(self, text: str, answer: str | None) -> Grade:
        return Grade(bool(text) and ord(text[0]) % 2 == 0, False, None)


@pytest.mark.parametrize("method", ["mean-difference", "probe"])
def test_a_baseline_comes_out_of_the_models_own_completions(model: Model, method: Any) -> None:
    problems = [("one", "x"), ("two", "y"), ("three", "z")]
    task = Task.of(problems, scorer=EvenFirstLetter(), max_new_tokens=5)
    found = baseline(model, task, method, samples=6, split="test", n=3, positions=3)
    assert found.layers == (0, 1, 2)
    assert found.card.recipe["pooled"] is False
    assert check_fit(found, model) == "same base"
    assert baseline(model, task, method, samples=6, split="test", n=3, positions=3) == found
