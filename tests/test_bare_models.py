"""Everything that takes a model takes a bare HookedTransformer."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import experiments
import interp
import sae
import vectors
from experiments.openers import mean_first
from experiments.vocabulary import token_texts
from interp import Add, Batch, Context, Forced, PatchSweep, Site, compare
from interp.bare_model import MARK
from interp.completion_cache import Request, complete
from interp.lens import CentredLens, CosineLens
from interp.model import Model
from interp.scoring import score
from interp.testing import tiny_model, tiny_task, tiny_vectors
from vectors.fit import check_fit
from vectors.train.evaluate import evaluate

OWN_WAY = {
    "interp.bare_model.wrapped": "is the mechanism",
    "interp.experiment.Experiment.run": "loads names too",
    "interp.model.Model.of": "is the mechanism",
    "vectors.bake.bake": "reads files, and refuses any model in memory",
    "interp.completion_cache.fired_in": "is called by `complete`",
    "interp.trace.Trace.__init__": "is made by Model.run",
    "interp.whole_rows.WholeRows.__init__": "is made by `complete`",
    "sae.attribute.Read.__init__": "is made by Attributor",
}
"""Public functions that take bare models by other means, and why."""
SKIPPED = ("interp.cli", "interp.testing", "interp.backend", "sae.command", "vectors.train.command")
"""Command lines, whose models are names; what a plugin's tests call; what knows nothing of Models."""


def _modules() -> Iterator[str]:
    for package in (interp, vectors, sae, experiments):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.startswith(SKIPPED) and not found.name.endswith("__main__"):
                yield found.name


def _takers() -> Iterator[tuple[str, Any]]:
    """Public functions, methods and classes of all packages that have a parameter `model` which is no name."""
    for name in _modules():
        for label, value in vars(importlib.import_module(name)).items():
            if getattr(value, "__module__", None) != name or label.startswith("_"):
                continue
            for key, one in _functions(label, value):
                known = inspect.signature(one).parameters
                if "model" in known and "str" not in str(known["model"].annotation):
                    yield f"{name}.{key}", one


def _functions(label: str, value: Any) -> list[tuple[str, Any]]:
    """A function, or the constructor and the public methods of a class."""
    if inspect.isfunction(value):
        return [(label, value)]
    if not inspect.isclass(value) or getattr(value, "_is_protocol", False):
        return []
    members = {key: getattr(one, "__func__", one) for key, one in vars(value).items()}
    public = {key: one for key, one in members.items() if key == "__init__" or not key.startswith("_")}
    return [(f"{label}.{key}", one) for key, one in public.items() if inspect.isfunction(one)]


@pytest.mark.slow
def test_every_public_taker_of_a_model_wraps_bare_ones() -> None:
    takers = dict(_takers())
    assert len(takers) > 70
    bare = sorted(name for name, one in takers.items() if not hasattr(one, MARK) and name not in OWN_WAY)
    assert not bare, f"these take a Model and no HookedTransformer: {', '.join(bare)}"
    assert not set(OWN_WAY) - set(takers) - {"interp.bare_model.wrapped"}


def test_bare_models_give_what_wrapped_ones_give(tmp_path: Path) -> None:
    model = tiny_model()
    bare: Any = Model(model.hooked, tokenizer=model.tokenizer).hooked
    bare.tokenizer = model.tokenizer
    batch = Batch.of([model.prompt("2 + 2?"), model.prompt("3?")])
    edits = [Add(Site(1, "resid_post"), torch.ones(model.d_model))]
    v, task = tiny_vectors(model, tmp_path), tiny_task()
    request = Request((model.prompt("2 + 2?"),), edits, 3, 0.0, 1, 0)
    one = Batch.unpadded(torch.tensor([[5, 6, 7, 8]]))
    other = Batch.unpadded(torch.tensor([[5, 9, 7, 8]]))
    calls: dict[str, Any] = {
        "score": lambda m: score(m, batch, edits, ["kl"])["kl"].tolist(),
        "forced": lambda m: Forced(m, batch).steered(edits)[0].tolist(),
        "sweep": lambda m: PatchSweep(m, one, other).final().tolist(),
        "centred lens": lambda m: CentredLens.of(m).scores(torch.ones(1, model.d_model)).tolist(),
        "cosine lens": lambda m: CosineLens.of(m).scores(torch.ones(1, model.d_model)).tolist(),
        "compare": lambda m: [said.tokens for said in compare(m, "2?", {"v": v}, max_new_tokens=2).said],
        "complete": lambda m: complete(m, request, tmp_path / str(type(m).__name__)).texts,
        "context": lambda m: Context(m, v, task).model.d_model,
        "fit": lambda m: check_fit(v, m),
        "vectors": lambda m: vectors.load_vectors(tmp_path / "tiny.npy", model=m, trained="together").digest,
        "words": lambda m: token_texts(m)[:20],
        "evaluate": lambda m: evaluate(m, v.edits(), task, task.problems()[:2], temperature=0.0),
        "positional and by name": lambda m: score(model=m, batch=batch, edits=(), readouts=["kl"])["kl"].tolist(),
    }
    for name, call in calls.items():
        assert repr(call(bare)) == repr(call(model)), name
    assert callable(mean_first)


def test_a_bare_model_cannot_be_baked_and_says_so(tmp_path: Path) -> None:
    from vectors.bake import bake

    model = tiny_model()
    with pytest.raises(interp.UserError, match="from files, not from a model in memory"):
        bake(tiny_vectors(model, tmp_path), model.hooked, tmp_path / "out")
