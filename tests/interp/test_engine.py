"""The engine against Hugging Face and TransformerLens; edits, caches and batches against their own identities."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from interp.backend.cache import Cache
from interp.backend.engine import Engine
from interp.backend.hook_path import HookPath, path_of
from interp.backend.weights import unembed
from interp.batch import Batch
from interp.completions import paired_rows
from interp.editor import Editor
from interp.edits import Add, AddAdaptive, Custom, Patch, per_row, scaled
from interp.errors import UserError
from interp.load import load_model
from interp.model import Model
from interp.paths import CLEAN, BlockPaths
from interp.positions import Positions, Tokens, at
from interp.prompts import Prompt
from interp.sampling import draw
from interp.sites import STREAMS, Site
from tests.interp import tiny

FAMILIES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3", "mistral", "gpt2")
LENGTHS = (7, 23, 12)


@pytest.fixture(scope="module", params=FAMILIES)
def both(request: pytest.FixtureRequest) -> tuple[Any, Model]:
    hf = tiny.model(request.param)
    return hf, load_model(hf, tokenizer=tiny.tokenizer())


@pytest.fixture(scope="module")
def llama() -> Model:
    return load_model(tiny.model("llama"), tokenizer=tiny.tokenizer())


def prompts(lengths: tuple[int, ...] = LENGTHS, prefix: int = 0) -> list[Prompt]:
    ids = tiny.token_ids(len(lengths), max(lengths), seed=3)
    common = tuple(tiny.token_ids(1, prefix, seed=4)[0].tolist()) if prefix else ()
    return [Prompt(common + tuple(row[:n].tolist())) for row, n in zip(ids, lengths, strict=True)]


def direction(model: Model, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(model.d_model, generator=torch.Generator().manual_seed(seed))


class ThroughHooks(Model):
    """A model that runs as one does whose architecture the engine does not know."""

    @property
    def path(self) -> HookPath:
        return path_of(self.hooked)


def through_hooks(model: Model) -> Model:
    """The same weights through TransformerLens' own forward pass."""
    return ThroughHooks(model.hooked, tokenizer=model.tokenizer, stop_ids=model.stop_ids)


def some_edits(model: Model) -> list[Any]:
    a = torch.randn(model.cfg.d_mlp, generator=torch.Generator().manual_seed(9))
    edits = [
        Add(Site(1, "resid_post"), direction(model, 1), positions=Positions(prompt=(-1, 2), generated=range(1, 3))),
        Add(Site(0, "attn_out"), direction(model, 2), scale=0.5),
        Add(Site(1, "z"), torch.randn(model.cfg.n_heads, model.cfg.d_head, generator=torch.Generator().manual_seed(5))),
    ]
    return edits if model.cfg.use_normalization_before_and_after else [*edits, AddAdaptive(0, a, direction(model, 3))]


def test_log_probabilities_equal_those_of_hugging_face(both: tuple[Any, Model]) -> None:
    hf, model = both
    for prompt in prompts((tiny.LENGTH, 5)):
        ids = torch.tensor([prompt.ids])
        with torch.no_grad():
            theirs = hf(ids).logits.log_softmax(-1)
        torch.testing.assert_close(model.run(ids).log_probs(), theirs, atol=1e-4, rtol=0)


def test_a_padded_batch_equals_its_rows_alone(both: tuple[Any, Model]) -> None:
    _, model = both
    rows = prompts((5, tiny.LENGTH, 17))
    together = model.run(Batch.of(rows), some_edits(model)).log_probs()
    for index, row in enumerate(rows):
        alone = model.run(torch.tensor([row.ids]), some_edits(model)).log_probs()[0]
        torch.testing.assert_close(together[index, -len(row) :], alone, atol=2e-5, rtol=0)


def test_every_stream_reads_the_same_through_hooks(both: tuple[Any, Model]) -> None:
    _, model = both
    batch = Batch.of(prompts())
    sites = [Site(1, stream) for stream in STREAMS if stream not in ("ln1_out", "ln2_out")]
    ours = model.run(batch, some_edits(model), read=sites)
    theirs = through_hooks(model).run(batch, some_edits(model), read=sites)
    for site in sites:
        torch.testing.assert_close(ours[site][batch.mask], theirs[site][batch.mask], atol=2e-5, rtol=2e-5)
    assert [fired.touched for fired in ours.fired] == [fired.touched for fired in theirs.fired]


def test_cached_generation_equals_one_uncached_pass(both: tuple[Any, Model]) -> None:
    _, model = both
    said = model.generate(prompts(), some_edits(model), max_new_tokens=9, samples=2, seed=1)
    rows, tails = paired_rows(said)
    log_p = model.run(Batch.of(rows, tails), some_edits(model)).log_probs()
    for index, completion in enumerate(said.rows):
        n = len(completion.ids)
        chosen = log_p[index, -n - 1 : -1].gather(-1, torch.tensor(completion.ids)[:, None])[:, 0]
        torch.testing.assert_close(chosen, torch.tensor(completion.log_prob), atol=1e-4, rtol=0)


def test_generation_through_hooks_draws_the_same_tokens(both: tuple[Any, Model]) -> None:
    _, model = both
    mine = model.generate(prompts(), some_edits(model), max_new_tokens=8, samples=2, seed=2)
    theirs = through_hooks(model).generate(prompts(), some_edits(model), max_new_tokens=8, samples=2, seed=2)
    assert [row.ids for row in mine.rows] == [row.ids for row in theirs.rows]
    assert mine.fired == theirs.fired


def test_rows_with_their_own_edits_equal_runs_of_their_own(llama: Model) -> None:
    rows = prompts(prefix=12)
    sets = [some_edits(llama), [], some_edits(llama)[:1]]
    together = llama.generate(rows, per_row(sets), max_new_tokens=9, samples=3, seed=1)
    for index, (row, edits) in enumerate(zip(rows, sets, strict=True)):
        alone = llama.generate([row], edits, max_new_tokens=9, samples=3, seed=1)
        assert [r.ids for r, _ in together.of(index)] == [r.ids for r in alone.rows]


def test_chunks_and_samples_do_not_change_what_is_drawn(llama: Model) -> None:
    rows = prompts(prefix=12)
    whole = llama.generate(rows, some_edits(llama), max_new_tokens=6, samples=3, seed=7)
    tiny_memory = llama.generate(rows, some_edits(llama), max_new_tokens=6, samples=3, seed=7, memory_gb=1e-6)
    one = llama.generate(rows, some_edits(llama), max_new_tokens=6, samples=1, seed=7)
    assert [row.ids for row in whole.rows] == [row.ids for row in tiny_memory.rows]
    assert [whole.of(index)[0][0].ids for index in range(3)] == [row.ids for row in one.rows]
    assert whole.fired == tiny_memory.fired


def test_rows_with_equal_prompts_share_the_blocks_below_their_edits(
    llama: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = {layer: torch.randn(llama.d_model, generator=generator) for layer in range(llama.n_layers)}
    edits: list[list[Any]] = [[Add(Site(layer, "resid_post"), vector)] for layer, vector in vectors.items()] + [[]]
    edits.append([*edits[1], BlockPaths(z=CLEAN).at(2)])
    questions = prompts((20, 23, 20, 31), prefix=12)
    rows, each = [prompt for _ in edits for prompt in questions], [edit for edit in edits for _ in questions]
    entered: dict[int, int] = {}
    block = Engine.block

    def counted(self: Engine, layer: int, x: Tensor, shared: Any) -> Tensor:
        entered[layer] = entered.get(layer, 0) + x.shape[0] * (x.shape[1] > 1)
        return block(self, layer, x, shared)

    for chosen in (range(len(edits) - 1), range(len(edits))):
        ids = [edit * len(questions) + row for edit in chosen for row in range(len(questions))]
        entered.clear()
        monkeypatch.setattr(Engine, "block", counted)
        joint = llama.generate([rows[i] for i in ids], per_row([each[i] for i in ids]), max_new_tokens=6, seed=1)
        monkeypatch.setattr(Engine, "block", block)
        if len(chosen) < len(edits):
            groups = len(chosen)  # whose shared prefix runs once for each
            assert entered[0] == groups + 2 * len(questions)  # once for those edited there, once for all others
            assert entered[llama.n_layers - 1] == groups + groups * len(questions)
        for row, (completion, fired) in enumerate(zip(joint.rows, ids, strict=True)):
            alone = llama.generate([rows[fired]], each[fired], max_new_tokens=6, seed=1).rows[0]
            assert (completion.prompt, completion.ids) == (row, alone.ids)
            torch.testing.assert_close(completion.log_prob, alone.log_prob, rtol=0, atol=1e-5)


def test_a_cache_that_keeps_rows_equals_one_taken_of_them_and_holds_no_others() -> None:
    cache, rows, step = Cache(reserve=3), torch.tensor([0, 2]), torch.arange(4.0)[:, None, None, None]
    for one in (cache, cache.world("base")):
        one.advance(torch.arange(2).expand(4, -1))
        one.append(0, step.expand(-1, 1, 2, 5), -step.expand(-1, 1, 2, 5))
    taken = cache.take(rows)
    cache.keep(rows)
    for kept, wanted in ((cache, taken), (cache.world("base"), taken.world("base"))):
        assert kept.keys[0].shape == (2, 1, 5, 5)  # room for three tokens more is left
        assert kept.advance(torch.tensor([[2], [2]])).tolist() == wanted.advance(torch.tensor([[2], [2]])).tolist()
        new = torch.full((2, 1, 1, 5), 7.0)
        for own, other in zip(kept.append(0, new, new), wanted.append(0, new, new), strict=True):
            torch.testing.assert_close(own, other, rtol=0, atol=0)
        assert kept.keys[0][:, 0, 0, 0].tolist() == [0, 2]


def test_an_edit_at_a_prompts_end_is_not_lost_in_the_shared_prefix(llama: Model) -> None:
    common = prompts((30,))[0].ids
    rows = [Prompt(common[:14]), Prompt(common[:30])]  # the first prompt is a prefix of the second
    edit = Add(Site(0, "resid_post"), direction(llama, scale=30.0), positions=Positions(prompt=-3, generated="none"))
    together = llama.generate(rows, [edit], max_new_tokens=8, seed=1)
    alone = [llama.generate([row], [edit], max_new_tokens=8, seed=1).rows[0].ids for row in rows]
    assert [row.ids for row in together.rows] == alone
    assert together.fired[0].touched == 2


def test_scale_zero_is_bit_identical_and_scale_one_is_not(llama: Model) -> None:
    batch = Batch.of(prompts())
    edit = Add(Site(1, "resid_post"), direction(llama))
    base = llama.run(batch).final
    assert torch.equal(llama.run(batch, [scaled(edit, 0.0)]).final, base)
    assert not torch.allclose(llama.run(batch, [edit]).final, base, atol=1e-2)


def test_two_edits_equal_their_sum(llama: Model) -> None:
    batch, site = Batch.of(prompts()), Site(0, "resid_post")
    a, b = direction(llama, 1), direction(llama, 2)
    one = llama.run(batch, [Add(site, 2 * a + b)]).final
    two = llama.run(batch, [Add(site, a, scale=2.0), Add(site, b)]).final
    torch.testing.assert_close(one, two, atol=1e-5, rtol=0)


def test_edits_apply_in_order_and_reads_see_the_result(llama: Model) -> None:
    batch, site = Batch.of(prompts()), Site(1, "resid_post")
    double = Custom(site, lambda value, tokens: 2 * value)
    add = Add(site, direction(llama))
    base = llama.run(batch, read=[site])[site]
    one = llama.run(batch, [add, double], read=[site])[site]
    other = llama.run(batch, [double, add], read=[site])[site]
    torch.testing.assert_close(one[batch.mask], (2 * (base + add.direction))[batch.mask])
    torch.testing.assert_close(other[batch.mask], (2 * base + add.direction)[batch.mask])


def custom_twice(value: Tensor, tokens: Tokens) -> Tensor:
    return 2 * value


def test_a_named_function_is_known_by_its_source_and_a_lambda_by_nothing() -> None:
    site = Site(0, "resid_post")
    assert Custom(site, custom_twice) == Custom(site, custom_twice)
    assert Custom(site, lambda value, tokens: value) != Custom(site, lambda value, tokens: value)


def test_patching_every_position_with_a_run_gives_that_run(llama: Model) -> None:
    clean, other = Batch.of(prompts()), Batch.of([*reversed(prompts())])
    site = Site(1, "resid_post")
    source = llama.run(clean, [Add(Site(0, "mlp_out"), direction(llama))], read=[site])
    patched = llama.run(clean, [Patch(site, source[site])])
    assert torch.equal(patched.final[clean.mask], source.final[clean.mask])
    half = Patch(site, source[site], positions=Positions(prompt=range(-2, 0)))
    mixed = llama.run(clean, [half], read=[site])
    assert torch.equal(mixed[site][:, -2:], source[site][:, -2:])
    assert torch.equal(mixed[site][0, -4], llama.run(clean, read=[site])[site][0, -4])
    with pytest.raises(UserError, match="patch the same rows"):
        llama.run(other, [Patch(site, source[site][:, 1:])])


def test_positions_select_what_they_say() -> None:
    ids = torch.tensor([[0, 0, 5, 6, 7, 8, 9], [4, 5, 6, 7, 8, 9, 5]])
    position = torch.tensor([[-2, -1, 0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5, 6]])
    tokens = Tokens(ids, position, torch.tensor([3, 4]), torch.arange(2), lambda i: f" {i}")

    def where(positions: Positions) -> list[list[int]]:
        return [row.nonzero()[:, 0].tolist() for row in positions.mask(tokens)]

    assert where(Positions()) == [[2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5, 6]]
    assert where(Positions(prompt=-1, generated="none")) == [[4], [3]]
    assert where(Positions(prompt=0, generated=0)) == [[2, 5], [0, 4]]
    assert where(Positions(prompt="none", generated=range(1, 9))) == [[6], [5, 6]]
    assert where(Positions(prompt=(0, -1), generated=at("9"))) == [[2, 4, 6], [0, 3, 5]]
    assert where(Positions(prompt=at("5"), generated="none")) == [[2], [1]]


def test_counts_are_the_positions_touched(llama: Model) -> None:
    batch = Batch.of(prompts())
    first = Add(Site(0, "resid_post"), direction(llama), positions=Positions(prompt=0, generated="none"))
    far = Add(Site(0, "resid_post"), direction(llama), positions=Positions(prompt=max(LENGTHS) - 1, generated="none"))
    fired = llama.run(batch, [first, far, Add(Site(2, "mlp_out"), direction(llama))]).fired
    assert [f.touched for f in fired] == [3, LENGTHS.count(max(LENGTHS)), sum(LENGTHS)]
    assert [f.untouched for f in fired] == [0, 3 - LENGTHS.count(max(LENGTHS)), 0]
    later = Add(Site(0, "resid_post"), direction(llama), positions=Positions(prompt="none", generated=4))
    with pytest.raises(UserError, match="touched no token in any of its 3 rows"):
        llama.run(batch, [first, later])  # no row has a completion


def test_an_edit_that_is_never_reached_is_an_error(llama: Model) -> None:
    class Nowhere(Add):
        @property
        def sites(self) -> tuple[Site, ...]:
            return (Site(1, "resid_mid"), Site(0, "q"))

        def apply(self, site: Site, value: Tensor, tokens: Tokens) -> Tensor:
            return value

    editor = Editor([Nowhere(Site(0, "q"), direction(llama))], n_rows=3, n_layers=3)
    with torch.no_grad():
        llama.path.forward(
            llama.tokens(torch.tensor([[5]]), torch.tensor([[0]]), torch.tensor([1]), torch.tensor([0])),
            tap=editor,
            sites=editor.sites,
            stop=1,
        )
    with pytest.raises(UserError, match="never fired"):
        editor.fired()


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ([Add(Site(9, "resid_post"), torch.ones(48))], "blocks 0 to 2"),
        ([Add(Site(0, "resid_post"), torch.ones(5))], "direction of shape"),
        (per_row([[]]), "one sequence of edits"),
    ],
)
def test_edits_that_do_not_fit_are_refused(llama: Model, edits: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        llama.run(Batch.of(prompts()), edits)


def test_a_foreign_hook_takes_part(llama: Model) -> None:
    batch = Batch.of(prompts())
    delta = direction(llama)
    plain = llama.run(batch, [Add(Site(1, "resid_post"), delta)]).final
    with llama.hooked.hooks(fwd_hooks=[("blocks.1.hook_resid_post", lambda value, hook: value + delta)]):
        foreign = llama.run(batch)
        assert not isinstance(llama.path, Engine)
        with pytest.raises(UserError, match="no clean hook point"):
            llama.run(batch, read=[Site(1, "ln1_out")])
    torch.testing.assert_close(foreign.final[batch.mask], plain[batch.mask], atol=2e-5, rtol=0)
    assert torch.equal(llama.run(batch).final, Model.of(llama.hooked).run(batch).final)


def test_gradients_through_a_shared_cache_equal_plain_ones(llama: Model) -> None:
    row = prompts((24,))[0]
    v = direction(llama).requires_grad_()
    edit = [Add(Site(0, "resid_post"), v)]
    whole = llama.forward(Batch.of([row]), Editor(edit, n_rows=1, n_layers=3))
    whole[:, 16:].pow(2).sum().backward()
    expected, v.grad = v.grad, None
    path: Any = llama.path
    cache = path.new_cache(grad=True)
    one = torch.tensor([24]), torch.tensor([0])
    for start, stop in ((0, 16), (16, 24)):
        position = torch.arange(start, stop)[None]
        editor = Editor(edit, n_rows=1, n_layers=3)
        tokens = llama.tokens(torch.tensor([row.ids[start:stop]]), position, *one)
        final = path.forward(tokens, tap=editor, sites=editor.sites, cache=cache)
    final.pow(2).sum().backward()
    torch.testing.assert_close(v.grad, expected, rtol=1e-4, atol=1e-4)


def test_the_embedded_model_says_what_hugging_face_says(model: Model) -> None:
    from transformers import AutoModelForCausalLM

    from interp.backend.embedded import embedded_folder

    hf: Any = AutoModelForCausalLM.from_pretrained(embedded_folder("smollm2-135m-instruct"), local_files_only=True)
    asked = [model.prompt("How many legs have two cats?"), model.prompt("Name a colour.", system="Be brief.")]
    for prompt, said in zip(asked, model.generate(asked, max_new_tokens=12, temperature=0).rows, strict=True):
        ids = torch.tensor([prompt.ids])
        theirs = hf.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
        assert list(said.ids) == theirs[0, len(prompt) :].tolist()


def test_logits_by_columns_equal_the_whole_product(monkeypatch: pytest.MonkeyPatch, llama: Model) -> None:
    monkeypatch.setattr("interp.backend.weights.UNEMBEDDED", 7)  # does not divide the vocabulary
    normed = torch.randn(2, 3, llama.d_model)
    with torch.no_grad():
        llama.hooked.unembed.b_U.normal_()
        ours = unembed(llama.hooked, normed)
        assert torch.allclose(ours, llama.hooked.unembed(normed), atol=1e-5)
        with llama.hooked.hooks([("unembed.hook_out", lambda value, hook: value + 1)]):
            assert torch.allclose(unembed(llama.hooked, normed), ours + 1, atol=1e-5)
        llama.hooked.unembed.b_U.zero_()


def test_rows_are_drawn_alike_in_any_company() -> None:
    logits, u = 3 * torch.randn(11, 50), torch.rand(11)
    for temperature in (0.0, 0.7, 1.0):
        together = draw(logits, temperature, u)
        alone = [draw(logits[row : row + 1], temperature, u[row : row + 1]) for row in range(11)]
        for whole, parts in zip(together, zip(*alone, strict=True), strict=True):
            assert torch.equal(whole, torch.cat(parts))


def test_runs_in_inference_leave_no_graph(llama: Model) -> None:
    trace = llama.run(Batch.of(prompts()), [Add(Site(0, "resid_post"), direction(llama).requires_grad_())])
    assert not trace.final.requires_grad
    assert not any(point.fwd_hooks for point in llama.hooked.hook_dict.values())
