"""A patch sweep equals one plain pass for each patch, however it is cut into passes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from interp import patching
from interp.batch import Batch
from interp.distributions import kl, log_probs
from interp.edits import Add, AddAdaptive, Custom, Edit, Patch
from interp.errors import UserError
from interp.load import load_model
from interp.model import Model
from interp.patching import HEADS, Node, PatchSweep
from interp.positions import Positions, Tokens
from interp.screening import screen
from interp.sites import STREAMS, Site
from tests.interp import tiny

LENGTH = 12
"""Longer than every sliding window of the tiny models."""


@pytest.fixture(scope="module", params=["llama", "qwen3", "gemma2", "gpt2"])
def model(request: pytest.FixtureRequest) -> Model:
    return load_model(tiny.model(request.param), tokenizer=tiny.tokenizer())


@pytest.fixture(scope="module")
def llama() -> Model:
    return load_model(tiny.model("llama"), tokenizer=tiny.tokenizer())


def pair(first: int) -> tuple[Batch, Batch]:
    """Two rows that differ at token `first` and at the last but one."""
    into = tiny.token_ids(1, LENGTH)
    source = into.clone()
    source[0, [first, LENGTH - 2]] = torch.tensor([tiny.VOCABULARY - 1, tiny.VOCABULARY - 2])
    return Batch.unpadded(into), Batch.unpadded(source)


def plain(sweep: PatchSweep, node: Node, edits: tuple[Edit, ...] = ()) -> Tensor:
    """One whole pass for one patch."""
    positions = Positions() if node.position is None else Positions(prompt=node.position)
    values = sweep.source[node.site]
    patch: Edit = Patch(node.site, values, positions)
    if node.head is not None:
        head = node.head

        def put(value: Tensor, tokens: Tokens) -> Tensor:
            value = value.clone()
            value[:, :, head] = values[:, :, head]
            return value

        patch = Custom(node.site, put, positions)
    return sweep.model.run(sweep.into.batch, [*edits, patch]).final[:, -1]


def assert_equals_plain(sweep: PatchSweep, nodes: tuple[Node, ...], edits: tuple[Edit, ...] = ()) -> None:
    expected = torch.cat([plain(sweep, node, edits) for node in nodes])
    torch.testing.assert_close(sweep.final(nodes), expected, rtol=1e-4, atol=1e-4)
    assert float((expected - sweep.base).abs().max()) > 0.1


def test_every_stream_equals_one_pass_for_each_patch(model: Model) -> None:
    sweep = PatchSweep(model, *pair(4), streams=STREAMS)
    nodes = tuple(node for node in sweep.nodes if node.position in (4, LENGTH - 3, LENGTH - 1) and not node.head)
    assert_equals_plain(sweep, nodes)


def test_all_positions_and_all_heads_at_once(model: Model) -> None:
    sweep = PatchSweep(model, *pair(3), streams=STREAMS)
    heads = [Node(Site(layer, "z"), None, head) for layer in range(3) for head in range(model.cfg.n_heads)]
    assert_equals_plain(sweep, (*(Node(site, None) for site in sweep.sites), *heads))


def test_nothing_before_the_first_difference_is_run(llama: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = PatchSweep(llama, *pair(7))
    before = tuple(node for node in sweep.nodes if node.position is not None and node.position < 7)
    assert len(before) == 21
    ran: list[int] = []
    run = patching.run_branches
    monkeypatch.setattr(patching, "run_branches", lambda e, t, some: ran.append(len(some)) or run(e, t, some))
    assert torch.equal(sweep.final(before), sweep.base.repeat(21, 1))
    assert ran == []
    sweep.final()
    assert ran == [2 + 2 * 5]  # the two changed tokens at block 0, what they reached at blocks 1 and 2


def test_the_results_do_not_depend_on_the_memory(llama: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = PatchSweep(llama, *pair(0), streams=("resid_pre", "z"))
    whole = sweep.final()
    passes: list[int] = []
    run = patching.run_branches

    def counted(engine: patching.Engine, trunk: patching.Trunk, some: list[patching.Branch]) -> Tensor:
        passes.append(len(some))
        if len(some) > 4:
            raise MemoryError
        return run(engine, trunk, some)

    monkeypatch.setattr(patching, "run_branches", counted)
    with pytest.warns(UserWarning, match="out of memory"):
        halves = sweep.final()
    torch.testing.assert_close(halves, whole, rtol=1e-5, atol=1e-5)
    few = PatchSweep(llama, *pair(0), streams=("resid_pre", "z"), memory_gb=2e-5)
    passes.clear()
    torch.testing.assert_close(few.final(), whole, rtol=1e-5, atol=1e-5)
    assert len(passes) > 20
    assert max(passes) <= 4


EDITS: tuple[tuple[Edit, ...], ...] = (
    (Add(Site(1, "resid_post"), torch.randn(48, generator=torch.Generator().manual_seed(0))),),
    (Add(Site(0, "mlp_out"), torch.ones(48), positions=Positions(prompt=(2, -1))),),
    (AddAdaptive(2, torch.ones(80), torch.ones(48)),),
)


@pytest.mark.parametrize("edits", EDITS)
def test_edits_of_the_patched_run_stay_on(llama: Model, edits: tuple[Edit, ...]) -> None:
    into, source = pair(4)
    sweep = PatchSweep(llama, into, source, streams=("resid_pre", "resid_post"), into_edits=edits, source_edits=edits)
    torch.testing.assert_close(sweep.base, llama.run(into, edits).final[:, -1], rtol=1e-4, atol=1e-4)
    assert_equals_plain(sweep, sweep.nodes[::3], edits)


def test_a_steered_run_is_a_source_and_all_of_it_gives_the_steered_run(llama: Model) -> None:
    into, _ = pair(0)
    sweep = PatchSweep(llama, into, into, streams=("resid_post",), source_edits=EDITS[0])
    steered = llama.run(into, EDITS[0]).final[:, -1]
    below, at = (Node(Site(layer, "resid_post"), None) for layer in (0, 1))
    torch.testing.assert_close(sweep.final([at]), steered, rtol=1e-4, atol=1e-4)
    assert torch.equal(sweep.final([below]), sweep.base)


def test_scores_are_the_readouts_of_a_plain_pass(llama: Model) -> None:
    sweep = PatchSweep(llama, *pair(5))
    frame: Any = sweep.score(readouts=["kl", "tv"])
    node = sweep.nodes[2 * LENGTH + LENGTH - 2]
    base, patched = (log_probs(llama, x) for x in (sweep.base, plain(sweep, node)))
    row = frame.iloc[2 * LENGTH + LENGTH - 2]
    assert (row["layer"], row["position"], row["stream"]) == (2, LENGTH - 2, "resid_pre")
    assert row["kl"] == pytest.approx(float(kl(patched, base)), rel=1e-3)
    assert row["kl"] > 1e-3
    assert frame[frame["position"] < 5]["kl"].max() < 1e-6


def towards(source: Tensor, into: Tensor) -> patching.Metric:
    """Log-odds of one answer against another."""
    return lambda log_p: log_p[:, int(source)] - log_p[:, int(into)]


def test_attribution_is_the_derivative_of_the_patch(llama: Model) -> None:
    into, source = pair(5)
    metric = towards(torch.tensor(7), torch.tensor(9))
    near = PatchSweep(llama, into, source, streams=("resid_post", "z"))
    for site, own in near.own.items():
        if site in near.source:
            near.source[site] = own + 1e-3 * (near.source[site] - own)
    exact, estimate = near.effects(metric), near.attributions(metric)
    torch.testing.assert_close(estimate, exact, rtol=0.05, atol=2e-5)
    assert float(exact.abs().max()) > 5e-4


def test_a_screen_patches_the_top_and_a_sample(llama: Model) -> None:
    sweep = PatchSweep(llama, *pair(0), streams=("resid_post",))
    metric = towards(torch.tensor(7), torch.tensor(9))
    found = screen(sweep, metric, top=4, sample=12, seed=1)
    exact, estimate = sweep.effects(metric), sweep.attributions(metric)
    frame: Any = found.frame
    top = set(estimate.abs().topk(4).indices.tolist())
    assert set(frame.index[frame["chosen"] == "top"]) == top
    assert (frame["chosen"] == "sample").sum() == 12
    measured = frame["effect"].notna()
    assert measured.sum() == 16
    for index in frame.index[measured]:
        assert frame["effect"][index] == pytest.approx(float(exact[index]), abs=1e-4)
    assert found.n == 12
    every = screen(sweep, metric, top=0, sample=len(sweep.nodes))
    correlation: Any = spearmanr(exact, estimate)
    assert every.rank_correlation == pytest.approx(correlation.statistic, abs=1e-6)
    assert every.rank_correlation > 0.2


def test_mistakes_are_one_line(llama: Model) -> None:
    into, source = pair(0)
    with pytest.raises(UserError, match="rows of equal length"):
        PatchSweep(llama, into, Batch.unpadded(tiny.token_ids(1, LENGTH + 1)))
    with pytest.raises(UserError, match="cannot stay on"):
        PatchSweep(llama, into, source, into_edits=[Patch(Site(0, "resid_pre"), torch.zeros(1, LENGTH, 48))])
    sweep = PatchSweep(llama, into, source)
    for node, message in (
        (Node(Site(0, "z"), 0), "not kept"),
        (Node(Site(0, "resid_pre"), LENGTH), "positions 0 to 11"),
        (Node(Site(0, "resid_pre"), 0, head=1), "no such head"),
    ):
        with pytest.raises(UserError, match=message):
            sweep.final([node])
    llama.hooked.add_hook("blocks.0.hook_resid_post", lambda tensor, hook: tensor)
    with pytest.raises(UserError, match="its own hooks"):
        PatchSweep(llama, into, source)
    llama.hooked.reset_hooks()


def test_heads_are_the_streams_with_heads(llama: Model) -> None:
    run = llama.run(pair(0)[0], read=[Site(0, stream) for stream in STREAMS])
    assert {site.stream for site, value in run.values.items() if value.ndim == 4} == set(HEADS)
