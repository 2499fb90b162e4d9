"""What runs is the wrapped object as it is at the call: weights, settings and hooks, equal to its own forward pass."""

from __future__ import annotations

import copy
import types
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.components import RMSNorm, TransformerBlock

from interp import Add, Batch, Model, Prompt, Site, UserError, compare, load_model
from interp.backend.engine import Engine
from interp.patching import PatchSweep
from interp.positions import Positions, at
from tests.interp import tiny

SHIFT = torch.linspace(-1, 2, 48)
EDIT = (Add(Site(1, "resid_post"), SHIFT),)
LENGTHS = (9, 12)


def bare(**settings: Any) -> HookedTransformer:
    """A HookedTransformer as TransformerLens builds it, in a layout that the engine cannot view."""
    shape = {"n_layers": 3, "d_model": 48, "n_heads": 4, "d_head": 12, "n_ctx": 64, "d_vocab": 100, "d_mlp": 64}
    chosen: dict[str, Any] = {**shape, "act_fn": "gelu", "seed": 0, **settings}
    with pytest.warns(DeprecationWarning):
        made = HookedTransformer(HookedTransformerConfig(**chosen))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in made.parameters():
            draw = torch.randn(value.shape, generator=generator)
            value.copy_(1 + 0.2 * draw if value.ndim == 1 else draw * (0.6 if value.ndim == 2 else 0.3))
    return made


def windowed() -> HookedTransformer:
    rotary = {"positional_embedding_type": "rotary", "normalization_type": "RMS", "n_key_value_heads": 2}
    return bare(**rotary, use_local_attn=True, window_size=4, attn_types=["local", "global", "local"])


def loaded() -> HookedTransformer:
    """A model as `load_model` lays it out."""
    return load_model(tiny.model("qwen2"), tokenizer=tiny.tokenizer()).hooked


@cache
def _made(name: str) -> HookedTransformer:
    return {"bare": bare, "windowed": windowed, "loaded": loaded}[name]()


def fresh(name: str) -> Any:
    return copy.deepcopy(_made(name))


def rows() -> list[tuple[int, ...]]:
    return [tuple(tiny.token_ids(1, n, seed=n)[0].remainder(100).tolist()) for n in LENGTHS]


def own(hooked: Any, row: tuple[int, ...]) -> Tensor:
    with torch.no_grad():
        return hooked(torch.tensor([row]), prepend_bos=False)[0].float().log_softmax(-1)


def agree(hooked: Any, model: Model, tolerance: float = 1e-3) -> None:
    """Run, score and generate against the object's own forward pass of every row alone."""
    run_and_generate_agree(hooked, model, tolerance)
    score_agrees(hooked, model, tolerance)


def run_and_generate_agree(hooked: Any, model: Model, tolerance: float = 1e-3) -> None:
    wanted = rows()
    for row in wanted[:1]:
        assert (model.run(torch.tensor([row])).log_probs()[0] - own(hooked, row)).abs().max() < tolerance
    made = model.generate([Prompt(row) for row in wanted], max_new_tokens=2, temperature=0)
    for row, completion in zip(wanted, made.rows, strict=True):
        for step, (token, log_prob) in enumerate(zip(completion.ids, completion.log_prob, strict=True)):
            after = own(hooked, (*row, *completion.ids[:step]))[-1]
            assert abs(float(after[token]) - log_prob) < tolerance
            assert float(after.max()) - log_prob < tolerance


def score_agrees(hooked: Any, model: Model, tolerance: float = 1e-3) -> None:
    wanted = rows()
    frame = model.score(torch.tensor([wanted[0]]), EDIT, ["log_prob"], at=Positions(prompt=range(8)))
    following = own(hooked, wanted[0])[:-1].gather(-1, torch.tensor(wanted[0][1:])[:, None])[:, 0]
    known = frame["log_prob_base"].dropna()
    assert len(known) == 8
    assert (torch.tensor(known.to_numpy()).float() - following[:8]).abs().max() < tolerance


# --- weights and modules that change after wrapping ---


def in_place(hooked: Any) -> None:
    with torch.no_grad():
        hooked.blocks[1].attn.W_Q.mul_(3)
        hooked.blocks[1].attn.W_O[2] = 0


def through_data(hooked: Any) -> None:
    for name, value in hooked.named_parameters():
        if "b_" not in name:
            value.data.mul_(1.3)
    for block in hooked.blocks:
        block.attn.b_Q.data.add_(0.5)


def state_dict(hooked: Any) -> None:
    hooked.load_state_dict(
        {name: value * 1.2 for name, value in hooked.state_dict().items() if "rotary" not in name}, strict=False
    )


def parameter(hooked: Any) -> None:
    key = "_W_V" if hasattr(hooked.blocks[0].attn, "_W_V") else "W_V"
    setattr(hooked.blocks[0].attn, key, nn.Parameter(torch.flip(getattr(hooked.blocks[0].attn, key).detach(), (0,))))
    hooked.unembed.W_U = nn.Parameter(hooked.unembed.W_U.detach() * 1.5)


def swapped(hooked: Any) -> None:
    hooked.blocks[0].mlp, hooked.blocks[2].mlp = hooked.blocks[2].mlp, hooked.blocks[0].mlp


def swapped_blocks(hooked: Any) -> None:
    hooked.blocks[0], hooked.blocks[1] = hooked.blocks[1], hooked.blocks[0]


def replaced(hooked: Any) -> None:
    hooked.blocks[1].mlp = nn.Sequential(hooked.blocks[1].mlp, nn.Tanh())


def no_norm(hooked: Any) -> None:
    hooked.blocks[1].ln2 = nn.Identity()


def double(hooked: Any) -> None:
    hooked.to(torch.float64)


def folded(hooked: Any) -> None:
    hooked.process_weights_(fold_ln=True, center_writing_weights=False, center_unembed=True)


def activation(hooked: Any) -> None:
    hooked.blocks[0].mlp.act_fn = torch.tanh


def settings(hooked: Any) -> None:
    hooked.blocks[1].attn.attn_scale = 0.5
    hooked.blocks[2].ln1.eps = 0.7
    hooked.cfg.output_logits_soft_cap = 2.0
    hooked.cfg.attn_scores_soft_cap = 1.0


def tables(hooked: Any) -> None:
    if hasattr(hooked.blocks[2].attn, "rotary_cos"):
        hooked.blocks[2].attn.rotary_cos.mul_(0.3)


def plain_tensor(hooked: Any) -> None:
    weight = hooked.blocks[1].mlp.W_out.detach() * 2
    del hooked.blocks[1].mlp.W_out
    hooked.blocks[1].mlp.W_out = weight


def flags(hooked: Any) -> None:
    hooked.set_use_attn_result(True)
    hooked.set_use_split_qkv_input(True)
    hooked.set_use_hook_mlp_in(True)


CHANGES: list[Callable[[Any], None]] = [
    in_place, through_data, state_dict, parameter, swapped, swapped_blocks, replaced, no_norm, double, folded,
    activation, settings, tables, plain_tensor, flags,
]  # fmt: skip


CASES = [
    *[("bare", change) for change in CHANGES],
    *[("windowed", change) for change in (in_place, parameter, double, folded, settings, tables, flags)],
    *[("loaded", change) for change in (in_place, through_data, parameter, folded)],
]


@pytest.mark.parametrize(("maker", "change"), CASES, ids=lambda one: getattr(one, "__name__", one))
def test_a_change_after_wrapping_is_what_runs(maker: str, change: Callable[[Any], None]) -> None:
    hooked = fresh(maker)
    model, before = Model(hooked, stop_ids=()), own(hooked, rows()[0])
    keys = {model.fingerprint}
    change(hooked)
    moved = (own(hooked, rows()[0]) - before).abs().max() > 1e-3
    agree(hooked, model)
    keys.add(model.fingerprint)
    assert not moved or len(keys) == 2


# --- code that somebody puts on the model ---


def forward_hook(module: Any, inputs: Any, output: Any) -> Any:
    return output * 1.1 + 0.2


def at_place(module: Any, inputs: Any, output: Any) -> Any:
    """A hook that looks at positions: padding, a cache or a shared prefix would show it others."""
    output = output.clone()
    output[:, 3] += 1.0
    output[:, -1] *= 1.5
    return output


def pre_hook(module: Any, inputs: Any) -> Any:
    return tuple(one * 1.2 if isinstance(one, Tensor) and one.is_floating_point() else one for one in inputs)


def pre_hook_with_kwargs(module: Any, inputs: Any, named: dict[str, Any]) -> Any:
    changed = {key: v * 1.2 if isinstance(v, Tensor) and v.is_floating_point() else v for key, v in named.items()}
    return pre_hook(module, inputs), changed


PARTS = (
    "embed", "blocks.0", "blocks.1.attn", "blocks.1.mlp", "blocks.2.ln1", "blocks.1.hook_resid_post",
    "blocks.0.attn.hook_v", "ln_final", "unembed", "ln_final.hook_normalized", "unembed.hook_out", "hook_embed",
)  # fmt: skip


@contextmanager
def torch_hook(hooked: Any, part: str, kind: str) -> Generator[None]:
    module = hooked.get_submodule(part)
    handle = {
        "forward": lambda: module.register_forward_hook(forward_hook),
        "at place": lambda: module.register_forward_hook(at_place),
        "pre": lambda: module.register_forward_pre_hook(pre_hook),
        "kwargs": lambda: module.register_forward_pre_hook(pre_hook_with_kwargs, with_kwargs=True),
        "backward": lambda: module.register_full_backward_hook(lambda *given: None),
    }[kind]()
    try:
        yield
    finally:
        handle.remove()


def agree_or_refused(hooked: Any, model: Model) -> None:
    """Each of run, score and generate gives the object's own numbers, or one line."""
    try:
        run_and_generate_agree(hooked, model)
        score_agrees(hooked, model)
    except UserError as error:
        assert "foreign code" in str(error)


KINDS = {"forward": PARTS[:4], "at place": PARTS, "pre": PARTS[1:4], "kwargs": PARTS[2:4], "backward": PARTS[1:3]}


@pytest.mark.parametrize("kind", KINDS)
def test_hooks_of_pytorch_take_part(kind: str) -> None:
    hooked: Any = fresh("windowed")
    model = Model(hooked, stop_ids=())
    plain, identity = own(hooked, rows()[0]), model.fingerprint
    for part in KINDS[kind]:
        with torch_hook(hooked, part, kind):
            if kind == "forward":
                assert (own(hooked, rows()[0]) - plain).abs().max() > 1e-3
            agree_or_refused(hooked, model)
            assert model.fingerprint not in (identity, model.fingerprint)
    assert isinstance(model.path, Engine)
    assert model.fingerprint == identity
    agree(hooked, model)


def test_hooks_of_transformer_lens_take_part_with_windows_and_prompts_of_many_lengths() -> None:
    hooked: Any = fresh("windowed")
    model = Model(hooked, stop_ids=())

    def hook(value: Tensor, hook: Any) -> Tensor:
        return at_place(None, None, value)

    with hooked.hooks([("blocks.0.hook_resid_post", hook)]):
        agree(hooked, model)
        common = tiny.token_ids(1, 12, seed=5)[0].remainder(100).tolist()
        longer = [Prompt((*common, *row)) for row in rows()]
        together = model.generate(longer, EDIT, max_new_tokens=4, samples=2, seed=3)
        alone = [model.generate([one], EDIT, max_new_tokens=4, samples=2, seed=3) for one in longer]
    assert [row.ids for row in together.rows] == [row.ids for one in alone for row in one.rows]
    assert together.fired[0].touched == sum(one.fired[0].touched for one in alone)
    plain = model.generate(longer, EDIT, max_new_tokens=4, samples=2, seed=3)
    assert plain.fired == together.fired
    assert [row.ids for row in plain.rows] != [row.ids for row in together.rows]


def test_a_padded_batch_under_a_hook_is_the_objects_own_pass_over_it() -> None:
    hooked: Any = fresh("windowed")
    model, batch = Model(hooked, stop_ids=()), Batch.of([Prompt(row) for row in rows()])
    with hooked.hooks([("blocks.1.hook_mlp_out", lambda value, hook: value * 2)]), torch.no_grad():
        theirs = hooked(batch.ids, attention_mask=batch.mask.int(), prepend_bos=False, padding_side="left")
        assert (model.run(batch).log_probs() - theirs.log_softmax(-1))[batch.mask].abs().max() < 1e-3
    for row, one in zip(rows(), model.run(batch).log_probs(), strict=True):  # and without hooks each row alone
        assert (one[-len(row) :] - own(hooked, row)).abs().max() < 1e-3


def test_replaced_methods_and_classes_of_their_own_take_part(monkeypatch: pytest.MonkeyPatch) -> None:
    class Halved(RMSNorm):
        def forward(self, x: Any) -> Any:
            return super().forward(x) * 0.5

    def halved(self: Any, *given: Any, **named: Any) -> Any:
        return TransformerBlock.forward(self, *given, **named) * 0.5

    for name in ("method", "inner method", "class", "config"):
        hooked: Any = fresh("windowed")
        model, plain = Model(hooked, stop_ids=()), own(hooked, rows()[0])
        if name == "method":
            hooked.blocks[1].forward = types.MethodType(halved, hooked.blocks[1])
        elif name == "inner method":
            attn = hooked.blocks[1].attn
            attn.calculate_z_scores = lambda v, pattern, before=attn.calculate_z_scores: before(v, pattern) * 2
        elif name == "class":
            hooked.blocks[1].ln1.__class__ = Halved
        else:
            hooked.blocks[1].attn.cfg = type(hooked.cfg).from_dict(
                {**hooked.cfg.to_dict(), "attn_scores_soft_cap": 0.5}
            )
        assert (own(hooked, rows()[0]) - plain).abs().max() > 1e-3
        agree(hooked, model)
    hooked = fresh("windowed")
    model, before = Model(hooked, stop_ids=()), TransformerBlock.forward
    monkeypatch.setattr(TransformerBlock, "forward", lambda self, *given, **named: before(self, *given, **named) * 0.5)
    agree(hooked, model)


def test_code_on_the_model_as_a_whole_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    hooked: Any = fresh("windowed")
    model, ids = Model(hooked, stop_ids=()), torch.tensor([rows()[0]])

    class Louder(HookedTransformer):
        def forward(self, *given: Any, **named: Any) -> Any:
            return super().forward(*given, **named) * 2

    register: list[Callable[[], Any]] = [
        lambda: hooked.register_forward_hook(forward_hook),
        lambda: hooked.register_forward_pre_hook(pre_hook),
        lambda: nn.modules.module.register_module_forward_hook(forward_hook),
        lambda: nn.modules.module.register_module_forward_pre_hook(pre_hook),
    ]
    for one in register:
        handle = one()
        # `score` and `generate` take the same path; the type check of these tests would ask for it before they do.
        with pytest.raises(UserError, match="cannot be followed"):
            model.run(ids)
        handle.remove()
    hooked.forward = partial(HookedTransformer.forward, hooked)
    with pytest.raises(UserError, match="cannot be followed"):
        model.run(ids)
    del hooked.forward
    hooked.__class__ = Louder
    with pytest.raises(UserError, match="cannot be followed"):
        model.run(ids)
    hooked.__class__ = HookedTransformer
    hooked.blocks[1].mlp = nn.Sequential(hooked.blocks[1].mlp, nn.Dropout(0.5))
    with pytest.raises(UserError, match=r"dropout is on.*blocks\.1\.mlp\.1"):
        model.run(ids)
    hooked.eval()
    agree(hooked, model)


def test_hooks_on_the_unembedding_must_stay_until_log_probabilities_are_asked_for() -> None:
    hooked: Any = fresh("windowed")
    model = Model(hooked, stop_ids=())
    with torch_hook(hooked, "unembed", "at place"):
        trace = model.run(torch.tensor([rows()[0]]))
        mask = torch.ones(1, LENGTHS[0], dtype=torch.bool)
        assert (trace.log_probs(mask) - own(hooked, rows()[0])).abs().max() < 1e-3
    with pytest.raises(UserError, match="others than in this run"):
        trace.log_probs()


# --- tokens that a model does not have, and models without text ---


def sweep(model: Model, ids: Any) -> Any:
    batch = Batch.unpadded(ids)
    return PatchSweep(model, batch, batch)


@pytest.mark.parametrize(
    "ids",
    [
        torch.tensor([[5, 100]]), torch.tensor([[5, -1]]), torch.full((1, 65), 5), torch.zeros(0, 4, dtype=torch.long),
        torch.zeros(2, 0, dtype=torch.long), torch.ones(3, dtype=torch.long), torch.ones(1, 4), torch.ones(1, 4).bool(),
        torch.ones(1, 1, 4, dtype=torch.long), torch.ones(1, 4, dtype=torch.complex64),
    ],
    ids=str,
)  # fmt: skip
def test_tokens_that_a_model_does_not_have_are_one_line(ids: Tensor) -> None:
    model = Model(fresh("bare"), stop_ids=())
    calls: list[Callable[[], Any]] = [lambda: model.run(ids), lambda: model.score(ids, EDIT), lambda: sweep(model, ids)]
    if ids.ndim == 2 and not ids.is_floating_point() and not ids.is_complex():
        prompts = [Prompt(tuple(row.tolist())) for row in ids]
        calls.append(lambda: model.generate(prompts, max_new_tokens=2))
        if len(ids):
            calls.append(lambda: compare(model, prompts[0], {"base": None}, max_new_tokens=2))
    for call in calls:
        with pytest.raises(UserError):
            call()


def test_other_mistakes_with_batches_are_one_line() -> None:
    model, ids = Model(fresh("bare"), stop_ids=()), torch.ones(2, 4, dtype=torch.long)
    mask = torch.ones(2, 4, dtype=torch.bool)
    calls: list[Callable[[], Any]] = [
        lambda: Batch(ids, mask, torch.tensor([4, 5])),
        lambda: Batch(ids, mask, torch.tensor([0, 4])),
        lambda: model.generate([], max_new_tokens=2),
        lambda: model.generate([Prompt((1, 2)), Prompt(())], max_new_tokens=2),
    ]
    for call in calls:
        with pytest.raises(UserError):
            call()
    for kind in (torch.int8, torch.int16, torch.int32, torch.uint8):
        assert torch.equal(model.run(ids.to(kind)).final, model.run(ids).final)


def test_a_model_without_a_tokenizer_works_with_numbers() -> None:
    model, ids = Model.of(fresh("bare")), torch.tensor([rows()[0]])
    frame = model.score(ids, EDIT, ["kl", "top_tokens"])
    assert min(frame["kl"]) > 0
    assert frame["token"].tolist() == [f"<{rows()[0][-1]}>"]
    made = model.generate([Prompt(rows()[0])], EDIT, max_new_tokens=3)
    assert made.texts == (" ".join(f"<{one}>" for one in made.rows[0].ids),)
    assert len(compare(model, Prompt(rows()[0]), {"base": None}, max_new_tokens=2).said) == 1
    with pytest.raises(UserError, match="no tokenizer"):
        model.prompt("text")
    with pytest.raises(UserError, match="no tokenizer"):
        model.run(ids, [Add(Site(1, "resid_post"), SHIFT, positions=Positions(prompt=at("text")))])
