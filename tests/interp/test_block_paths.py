"""Path patches against a brute-force second implementation, against identities, and against numbers worked by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformer_lens import HookedTransformer
from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig

from interp.batch import Batch
from interp.edits import Add, AddAdaptive, Edit, per_row
from interp.errors import UserError
from interp.forced import Forced
from interp.load import load_model
from interp.model import Model
from interp.paths import CLEAN, STEERED, BlockPaths, Heads, clean, steered
from interp.positions import Positions
from interp.prompts import Prompt
from interp.sites import Site
from tests.interp import tiny
from tests.interp.brute_paths import Brute

HEADS, KV_HEADS = 6, 2
NOTHING = BlockPaths(q=CLEAN, k=CLEAN, v=CLEAN, z=CLEAN, resid_to_mlp=CLEAN, resid=CLEAN)
TABLE = {
    "steered": BlockPaths(),
    "base": BlockPaths(q=CLEAN, k=CLEAN, v=CLEAN, resid_to_mlp=CLEAN, resid=CLEAN),
    "skip-attn": BlockPaths(q=CLEAN, k=CLEAN, v=CLEAN),
    "skip-layer": BlockPaths(q=CLEAN, k=CLEAN, v=CLEAN, resid_to_mlp=CLEAN),
    "skip-mlp": BlockPaths(attn_to_mlp=CLEAN, resid_to_mlp=CLEAN),
    "only-attn": BlockPaths(resid_to_mlp=CLEAN, resid=CLEAN),
    "skip-head": BlockPaths(z=clean(4)),
    "only-head": BlockPaths(z=steered(1)),
    "two heads of one group": BlockPaths(z=clean(0, 1, 5)),
    "skip-q": BlockPaths(q=clean(3)),
    "skip-k": BlockPaths(k=clean(1)),
    "skip-v": BlockPaths(v=clean(0)),
    "only-q": BlockPaths(q=steered(2), k=CLEAN, v=CLEAN),
    "only-k": BlockPaths(q=CLEAN, k=steered(0), v=CLEAN),
    "only-v": BlockPaths(q=CLEAN, k=CLEAN, v=steered(1)),
    "skip-head to the stream": BlockPaths(z=clean(4), attn_to_mlp=STEERED),
    "skip-head to the mlp": BlockPaths(z=clean(4), attn_to_resid=STEERED),
    "keys and heads": BlockPaths(k=clean(0), z=steered(0, 3), attn_to_resid=CLEAN, resid_to_mlp=CLEAN),
}
CONFIGS: dict[str, dict[str, Any]] = {"llama": {}, "qwen2": {"sliding_window": 7}, "gemma2": {}}
GENERATOR = torch.Generator().manual_seed(11)
VECTORS = [3 * torch.randn(48, generator=GENERATOR) for _ in range(3)]
A = torch.randn(80, generator=GENERATOR) / 20


@pytest.fixture(scope="module", params=CONFIGS)
def both(request: pytest.FixtureRequest) -> tuple[Brute, Model]:
    hf = tiny.model(request.param, config=CONFIGS[request.param])
    return Brute(hf), load_model(hf, tokenizer=tiny.tokenizer())


@pytest.fixture(scope="module")
def llama() -> Model:
    return load_model(tiny.model("llama"), tokenizer=tiny.tokenizer())


def added(*layers: int) -> list[Edit]:
    return [Add(Site(layer, "resid_post"), VECTORS[layer]) for layer in layers]


def ids(length: int = 21, seed: int = 0) -> Tensor:
    return tiny.token_ids(1, length, seed)


def prompts(*lengths: int) -> list[Prompt]:
    rows = tiny.token_ids(len(lengths), max(lengths), seed=3)
    return [Prompt(tuple(row[:n].tolist())) for row, n in zip(rows, lengths, strict=True)]


def test_the_second_implementation_is_the_hugging_face_model(both: tuple[Brute, Model]) -> None:
    brute, _ = both
    with torch.no_grad():
        theirs = brute.hf(ids()).logits[0].log_softmax(-1)
    torch.testing.assert_close(brute.log_probs(ids()[0], {}), theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layers", [(1,), (0, 1, 2)], ids=["one vector", "all layers"])
@pytest.mark.parametrize("block", [1, 2])
def test_every_patch_equals_brute_force(both: tuple[Brute, Model], block: int, layers: tuple[int, ...]) -> None:
    brute, model = both
    layers = layers if len(layers) > 1 else (block - 1,)
    vectors = {layer: VECTORS[layer] for layer in layers}
    moved = float((brute.log_probs(ids()[0], vectors) - brute.log_probs(ids()[0], {})).abs().max())
    assert moved > 0.1
    for name, patch in TABLE.items():
        theirs = brute.log_probs(ids()[0], vectors, patch.at(block))
        ours = model.run(ids(), [*added(*layers), patch.at(block)]).log_probs()[0]
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_the_rows_of_the_table_are_different_patches(both: tuple[Brute, Model]) -> None:
    _, model = both
    values = [model.run(ids(), [*added(1), patch.at(2)]).final for patch in TABLE.values()]
    for index, one in enumerate(values):
        assert all(float((one - other).abs().max()) > 1e-4 for other in values[:index])


def test_everything_steered_is_the_steered_run_and_everything_clean_is_bit_identical_to_the_base(
    both: tuple[Brute, Model],
) -> None:
    _, model = both
    whole = model.run(ids(), added(1)).final
    for patch in (BlockPaths(), BlockPaths(attn_to_mlp=STEERED, attn_to_resid=STEERED)):
        torch.testing.assert_close(model.run(ids(), [*added(1), patch.at(2)]).final, whole, atol=1e-5, rtol=1e-5)
    base = model.run(ids()).final
    for patch in (
        NOTHING,
        BlockPaths(z=CLEAN, attn_to_mlp=CLEAN, attn_to_resid=CLEAN, resid_to_mlp=CLEAN, resid=CLEAN),
    ):
        assert torch.equal(model.run(ids(), [*added(1), patch.at(2)]).final, base)


def test_clean_keeps_what_other_blocks_receive(llama: Model) -> None:
    below_and_above = llama.run(ids(), added(0, 2)).final
    assert torch.equal(llama.run(ids(), [*added(0, 1, 2), NOTHING.at(2)]).final, below_and_above)


def test_vectors_at_some_positions_only_change_the_paths_from_there(both: tuple[Brute, Model]) -> None:
    brute, model = both
    edit = Add(Site(1, "resid_post"), VECTORS[1], positions=Positions(prompt=(3, 4)))
    where = torch.isin(torch.arange(21), torch.tensor([3, 4]))
    for name in ("skip-attn", "skip-layer", "only-k", "skip-head"):
        theirs = brute.log_probs(ids()[0], {1: VECTORS[1]}, TABLE[name].at(2), where)
        ours = model.run(ids(), [edit, TABLE[name].at(2)]).log_probs()[0]
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_what_the_mlp_below_receives_counts_as_the_edit_too(llama: Model) -> None:
    patch = TABLE["skip-layer"].at(2)
    at_stream = llama.run(ids(), [*added(1), patch]).final
    at_mlp = llama.run(ids(), [Add(Site(1, "mlp_out"), VECTORS[1]), patch]).final
    torch.testing.assert_close(at_mlp, at_stream, atol=1e-5, rtol=1e-5)
    adaptive = AddAdaptive(1, A, VECTORS[1])
    assert torch.equal(llama.run(ids(), [adaptive, NOTHING.at(2)]).final, llama.run(ids()).final)
    whole = llama.run(ids(), [adaptive]).final
    torch.testing.assert_close(llama.run(ids(), [adaptive, BlockPaths().at(2)]).final, whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["skip-attn", "skip-mlp", "only-k", "skip-head", "keys and heads"])
@pytest.mark.parametrize("block", [1, 2])
def test_cached_generation_equals_uncached(both: tuple[Brute, Model], name: str, block: int) -> None:
    brute, model = both
    patch = TABLE[name].at(block)
    prompt = Prompt(tuple(ids(13)[0].tolist()))
    said = model.generate([prompt], [*added(block - 1), patch], max_new_tokens=8, temperature=0)
    row = list(prompt.ids)
    for token in said.rows[0].ids:
        assert int(model.run(torch.tensor([row]), [*added(block - 1), patch]).log_probs()[0, -1].argmax()) == token
        assert int(brute.log_probs(torch.tensor(row), {block - 1: VECTORS[block - 1]}, patch)[-1].argmax()) == token
        row.append(token)


def test_a_padded_batch_equals_its_rows_alone(both: tuple[Brute, Model]) -> None:
    brute, model = both
    rows = prompts(5, 21, 12)
    for name in ("skip-attn", "skip-head", "only-v", "keys and heads"):
        patch = TABLE[name].at(2)
        together = model.run(Batch.of(rows), [*added(1), patch]).log_probs()
        for index, row in enumerate(rows):
            theirs = brute.log_probs(torch.tensor(row.ids), {1: VECTORS[1]}, patch)
            torch.testing.assert_close(together[index, -len(row) :], theirs, atol=1e-5, rtol=1e-5)


def test_padded_generation_equals_each_prompt_alone(llama: Model) -> None:
    rows, edits = prompts(5, 21, 12), [*added(1), TABLE["skip-head"].at(2)]
    together = llama.generate(rows, edits, max_new_tokens=6, temperature=0)
    alone = [llama.generate([row], edits, max_new_tokens=6, temperature=0).rows[0] for row in rows]
    assert [row.ids for row in together.rows] == [row.ids for row in alone]


def test_a_different_patch_in_every_row_equals_each_row_alone(both: tuple[Brute, Model]) -> None:
    _, model = both
    names = list(TABLE)
    batch = Batch.of(prompts(*(9 + index for index in range(len(names)))))
    rows = [[*added(1), TABLE[name].at(2)] for name in names]
    rows[0], rows[1] = [], added(1)  # rows without a patch beside rows with one
    together = model.run(batch, per_row(rows))
    for index in range(len(names)):
        alone = model.run(batch.rows(torch.tensor([index])), rows[index]).final[0]
        torch.testing.assert_close(together.final[index, -len(alone) :], alone, atol=1e-5, rtol=1e-5)


def test_one_prompt_under_different_patches_generates_what_each_gives_alone(llama: Model) -> None:
    prompt, names = prompts(17)[0], ("skip-attn", "base", "skip-head", "only-q")
    rows = [[*added(1), TABLE[name].at(2)] for name in names]
    together = llama.generate([prompt] * 4, per_row(rows), max_new_tokens=6, temperature=0)
    alone = [llama.generate([prompt], edits, max_new_tokens=6, temperature=0).rows[0].ids for edits in rows]
    assert [row.ids for row in together.rows] == alone


def test_teacher_forcing_resumes_below_the_patch(both: tuple[Brute, Model]) -> None:
    _, model = both
    common = tuple(tiny.token_ids(1, 12, seed=4)[0].tolist())
    batch = Batch.of([Prompt(common + row.ids) for row in prompts(5, 9, 7)], [(9, 8, 7), (6,), ()])
    forced = Forced(model, batch, keep=[0, 1])
    for block in (1, 2):
        for name in ("skip-attn", "skip-head", "skip-head to the mlp"):
            edits = [*added(block - 1), TABLE[name].at(block)]
            final, fired = forced.steered(edits)
            whole = model.run(batch, edits)
            torch.testing.assert_close(final[batch.mask], whole.final[batch.mask], atol=1e-5, rtol=1e-5)
            assert [one.rows for one in fired] == [one.rows for one in whole.fired]


def test_a_patch_without_an_edit_below_it_is_refused(llama: Model) -> None:
    patch = TABLE["skip-attn"]
    for edits in ([patch.at(2)], [*added(0), patch.at(2)], [*added(2), patch.at(2)]):
        with pytest.raises(UserError, match="block"):
            llama.run(ids(), edits)
    with pytest.raises(UserError):
        llama.run(torch.cat([ids(), ids()]), per_row([[*added(1), patch.at(2)], [patch.at(2)]]))
    with pytest.raises(UserError):
        llama.run(ids(), [*added(1), patch])  # not placed


def test_heads_beyond_the_model_are_refused(llama: Model) -> None:
    for patch in (BlockPaths(z=clean(HEADS)), BlockPaths(q=steered(HEADS)), BlockPaths(k=clean(KV_HEADS))):
        with pytest.raises(UserError, match="head"):
            llama.run(ids(), [*added(1), patch.at(2)])
    with pytest.raises(UserError, match="distinct"):
        Heads(CLEAN, (1, 1))


def test_parallel_blocks_are_refused_by_name() -> None:
    cfg = HookedTransformerConfig(
        n_layers=2,
        d_model=48,
        n_heads=4,
        d_head=12,
        n_ctx=64,
        d_vocab=64,
        act_fn="gelu",
        parallel_attn_mlp=True,
        seed=0,
    )
    with pytest.warns(DeprecationWarning, match="HookedTransformer is deprecated"):
        model = Model(HookedTransformer(cfg), stop_ids=())
    with pytest.raises(UserError, match="parallel"):
        model.run(ids() % 64, [*added(0), TABLE["skip-attn"].at(1)])


def test_two_heads_worked_by_hand() -> None:
    """One token, so each head gives its own value; x = (1, 1, 1, 1) and x' = (-1, 1, -1, 1), both of norm 1 as read.

    Heads copy: head 0 the first two coordinates, head 1 the others. The MLP writes 1 into the last coordinate where
    the first two of what it reads are positive, and 0 where the first is 0 or negative.
    """
    model = by_hand()
    edit = Add(Site(0, "resid_post"), torch.tensor([-2.0, 0, -2, 0]))
    expected: dict[str, tuple[float, ...]] = {
        "base": (2, 2, 2, 3),  # x + x, and the MLP writes
        "steered": (-2, 2, -2, 2),
        "skip-attn": (0, 2, 0, 2),  # x' + x
        "skip-layer": (0, 2, 0, 3),  # x' + x + MLP(x + x)
        "skip-mlp": (-2, 2, -2, 3),  # x' + x' + MLP(x + x)
        "only-attn": (0, 2, 0, 2),  # x + x' + MLP(x + x')
    }
    hands = {name: TABLE[name] for name in expected}
    hands |= {"skip 0": BlockPaths(z=clean(0)), "skip 1": BlockPaths(z=clean(1)), "v 0": BlockPaths(v=clean(0))}
    hands["only 0, mlp"] = BlockPaths(z=steered(0), attn_to_resid=STEERED, resid_to_mlp=CLEAN, resid=CLEAN)
    hands["only 1, mlp"] = BlockPaths(z=steered(1), attn_to_resid=STEERED, resid_to_mlp=CLEAN, resid=CLEAN)
    expected |= {"skip 0": (0, 2, -2, 2), "skip 1": (-2, 2, 0, 2), "v 0": (0, 2, -2, 2)}
    expected["only 0, mlp"] = (0, 2, 0, 2)  # the MLP reads (1, 1, 1, 1) + (-1, 1, 1, 1), the stream gets x'
    # the MLP reads (1, 1, 1, 1) + (1, 1, -1, 1), whose norm is sqrt(3) times that of x: it writes 2/sqrt(3) squared
    expected["only 1, mlp"] = (0, 2, 0, 2 + 4 / 3)
    for name, patch in hands.items():
        got = model.run(torch.tensor([[5]]), [edit, patch.at(1)]).final[0, 0]
        wanted = torch.tensor(expected[name], dtype=torch.float32)
        torch.testing.assert_close(got, wanted, atol=1e-3, rtol=0, msg=lambda text, name=name: f"{name}: {text}")


def by_hand() -> Model:
    """Two blocks of two heads: the first does nothing, the second copies; see `test_two_heads_worked_by_hand`."""
    shape = {"hidden_size": 4, "intermediate_size": 1, "num_hidden_layers": 2, "head_dim": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "attention_bias": False, "mlp_bias": False}
    hf: Any = tiny.model("llama", config={**shape, **heads, "rms_norm_eps": 1e-12})
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.zero_()
        hf.model.embed_tokens.weight.fill_(1.0)
        for layer in hf.model.layers:
            layer.input_layernorm.weight.fill_(1.0)
            layer.post_attention_layernorm.weight.fill_(1.0)
        block = hf.model.layers[1]
        block.self_attn.v_proj.weight.copy_(torch.eye(4))
        block.self_attn.o_proj.weight.copy_(torch.eye(4))
        block.mlp.gate_proj.weight.copy_(torch.tensor([[100.0, 0, 0, 0]]))
        block.mlp.up_proj.weight.copy_(torch.tensor([[0, 1.0, 0, 0]]))
        block.mlp.down_proj.weight.copy_(torch.tensor([[0], [0], [0], [0.01]]))
        hf.model.norm.weight.fill_(1.0)
    return load_model(hf, tokenizer=tiny.tokenizer())
