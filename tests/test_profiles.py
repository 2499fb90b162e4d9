"""The profiles of the paper's models, whole, on tiny random models of their family and depth."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from figures import paper
from figures.report import write_paper
from interp.backend.engine import Engine
from interp.cli.paper import SAE_EXPERIMENTS
from interp.cli.plan import subject
from interp.cli.suite import Given, Shared
from interp.load import load_model
from interp.profiles import PROFILES, Profile
from interp.store import RunRecord
from tests.interp import tiny
from tests.sae import toys as saes
from vectors import AdaptiveVectors, Card, load_vectors

FAMILY = {"qwen2.5-math-7b": "qwen2", "llama-3.1-8b-instruct": "llama"}
NARROW = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "use_sliding_window": False,
    "sliding_window": None,
    "max_position_embeddings": 1024,
}
ELSEWHERE = ("path-patching", "feature-correctness")
"""Experiments that also run blocks by other means than `Engine.forward`."""
TASK = """
from interp.grading import Regex
from interp.tasks.task import Problem, Task

COUNTS = {"train": 12, "validation": 8, "test": 12}
PROBLEMS = [
    Problem(f"{split}-{index}", f"{index}+{index % 3}?", "7", split=split)
    for split, count in COUNTS.items()
    for index in range(count)
]
TASK = Task("tiny", lambda: PROBLEMS, scorer=Regex("([0-9a-z])"), max_new_tokens=6)
"""


@dataclasses.dataclass
class Counted:
    """Tokens that went through the blocks, in units of passes through all of them."""

    decoded: float = 0.0
    forced: float = 0.0


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    seen, forward = Counted(), Engine.forward

    def spy(self: Engine, tokens: Any, **given: Any) -> Any:
        stop = self.n_layers if given.get("stop") is None else given["stop"]
        share = (stop - given.get("start", 0)) / self.n_layers
        size = float((tokens.position >= 0).sum()) * share
        if tokens.ids.shape[1] == 1:
            seen.decoded += size
        else:
            seen.forced += size
        return forward(self, tokens, **given)

    monkeypatch.setattr(Engine, "forward", spy)
    return seen


@pytest.fixture(scope="module", params=FAMILY)
def given(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[dict[str, Any]]:
    """Model, vectors in the authors' layout, adapters, autoencoder and task, as files."""
    profile: Profile = PROFILES[request.param]
    here = tmp_path_factory.mktemp(request.param)
    depth, family = profile.shape.layers, FAMILY[request.param]
    made = tiny.model(family, config={**NARROW, "num_hidden_layers": depth})
    made.save_pretrained(here / "model")
    tiny.tokenizer().save_pretrained(here / "model")
    model = load_model(here / "model")
    assert (model.architecture, model.n_layers) == (type(made).__name__, depth)
    np.save(here / "vectors.npy", np.random.default_rng(0).normal(size=(depth, 32)).astype(np.float32))
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(depth, 48, generator=generator), torch.randn(depth, 32, generator=generator)
    card = Card(name="adapters", d_model=32, n_layers=depth, trained="together", kind="rank1", site="mlp_out")
    AdaptiveVectors(a, b, (0.1,) * depth, tuple(range(depth)), card).save(here / "adapters")
    layer = 2 * depth // 3
    saes.folder(here / "sae", model, load_vectors(here / "vectors.npy", model=model), layer=layer)
    (here / "tiny_task.py").write_text(TASK)
    yield {"profile": profile, "here": here, "task": f"{here / 'tiny_task.py'}:TASK"}


@pytest.mark.slow
def test_a_profile_runs_whole_and_costs_what_its_plan_says(
    given: dict[str, Any], tmp_path: Path, counted: Counted
) -> None:
    here, profile = given["here"], given["profile"]
    asked = Given(str(here / "model"), str(here / "vectors.npy"), tmp_path, "smoke", given["task"])
    shared = Shared(dataclasses.replace(asked, special={"adaptive-scaling": str(here / "adapters.safetensors")}))
    prompts = [shared.task.prompt(shared.model.tokenizer, problem) for problem in shared.task.problems("test")]
    mean = round(sum(map(len, prompts)) / len(prompts))
    about = dataclasses.replace(profile, prompt=mean, length=shared.task.max_new_tokens)
    made, settings = dict[str, Any](), dict[str, object]()
    for entry in paper.manifest():
        settings = {"sae": str(here / "sae")} if entry.experiment in SAE_EXPERIMENTS else {}
        shared.given = dataclasses.replace(shared.given, out=tmp_path / entry.key)  # so that nothing is shared
        counted.decoded = counted.forced = 0.0
        run = shared.run(entry.experiment, {**entry.settings, **settings}, progress=False)
        made[entry.key] = RunRecord.read(run.record.path)
        assert entry.work is not None
        planned = entry.work(run.experiment, subject(about, about.length, run.experiment.prefers, profile.shape.layers))
        # a completion's first token comes from the pass over its prompt, and a few end early
        assert planned.decoded / 3 < counted.decoded < 1.1 * planned.decoded, entry.key
        assert counted.forced < 1.5 * planned.forced, entry.key
        if entry.experiment not in ELSEWHERE:
            assert counted.forced > planned.forced / 5, entry.key
    page = write_paper(paper.manifest(), made, {}, tmp_path, scale="smoke").read_text(encoding="utf-8")
    drawn = sum(len(entry.figures) for entry in paper.manifest())
    # a vocabulary of bytes has no token of another script and no words, and the vectors no other set beside them
    lacking = ["logit-lens-scripts", "adaptive-scaling-words", "adaptive-scaling-tokens", "vector-geometry-sets"]
    assert re.findall(r"The figure (\S+) cannot be drawn", page) == lacking
    assert page.count('class="plot"') == drawn - len(lacking)
