"""A dry run is of the model, vectors and task that were named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from transformers import AutoConfig

from interp import completion_sources, context, load_model
from interp.cli import app
from interp.errors import UserError
from interp.planned_model import planned, shape_of
from interp.profiles import PROFILES
from tests.interp import tiny

HOME = PROFILES["smollm2-135m-instruct"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("planned")
    tiny.folder(root / "model")
    np.save(root / "v.npy", np.random.default_rng(0).normal(size=(3, 48)).astype("float32"))
    lines = [json.dumps({"problem": f"{'1 + ' * index}1", "answer": str(index + 1)}) for index in range(6)]
    (root / "task.jsonl").write_text("\n".join(lines))
    return root


def plan(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["paper", *map(str, arguments), "--dry-run"], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.output


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_shape_follows_from_the_config(family: str) -> None:
    made: Any = tiny.model(family)
    shape = shape_of(made.config)
    hooked = load_model(made, tokenizer=tiny.tokenizer())
    assert (shape.layers, shape.d_model, shape.d_head) == (hooked.n_layers, hooked.d_model, hooked.cfg.d_head)
    assert (shape.heads, shape.kv_heads) == (hooked.cfg.n_heads, hooked.cfg.n_key_value_heads or hooked.cfg.n_heads)
    matrices = sum(one.numel() for name, one in made.named_parameters() if one.ndim == 2 and "wpe" not in name)
    assert shape.parameters == pytest.approx(matrices, rel=0.03)


def test_the_shape_of_the_embedded_model() -> None:
    from interp.backend.embedded import embedded_folder

    assert shape_of(AutoConfig.from_pretrained(embedded_folder(HOME.model))) == HOME.shape


def test_a_profile_stays_as_it_is_where_nothing_else_is_named() -> None:
    assert planned(HOME, None, None) is HOME and planned(HOME, HOME.model, HOME.task) is HOME


def test_another_model_task_or_set_changes_the_plan(place: Path) -> None:
    profile = planned(HOME, str(place / "model"), str(place / "task.jsonl"))
    assert (profile.shape.layers, profile.shape.d_model, profile.problems) == (3, 48, 6)
    assert (profile.length, profile.longest) == (512, 512) and not profile.recorded
    plans = [
        plan("1", "5", "--scale", "smoke", *more)
        for more in (
            (),
            ("--model", place / "model"),
            ("--model", place / "model", "--task", place / "task.jsonl"),
            ("--model", place / "model", "--vectors", place / "v.npy", "--n", 2),
        )
    ]
    assert len({text.partition("\nall")[0] for text in plans}) == len(plans)
    assert "on model (3 blocks, 83.9 k parameters), task.jsonl: completions of 512 tokens" in plans[2]


def test_a_plan_of_vectors_or_a_model_that_do_not_fit_is_refused(place: Path) -> None:
    with pytest.raises(UserError, match=r"do not fit the model .*d_model 48"):
        plan("1", "--vectors", place / "v.npy")
    with pytest.raises(UserError, match="no such model"):
        plan("1", "--model", "smollm3")
    (place / "other").mkdir(exist_ok=True)
    with pytest.raises(UserError, match="cannot be read"):
        plan("1", "--model", place / "other")


def test_the_plan_of_a_folder_counts_what_a_run_of_it_asks(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"completions": 0}
    complete = completion_sources.complete_from

    def counting(sources: Any, model: Any, request: Any, *rest: Any, **options: Any) -> Any:
        asked["completions"] += len(request.prompts) * request.samples
        return complete(sources, model, request, *rest, **options)

    monkeypatch.setattr(completion_sources, "complete_from", counting)
    task = tmp_path / "short.py"
    task.write_text(
        "from interp.tasks import Task, Problem\nfrom interp.grading import Regex\n"
        "P = [Problem(f'{s}{i}', f'{i}+1', '7', split=s) for s in ('train', 'validation', 'test') for i in range(6)]\n"
        "TASK = Task('short', lambda: P, scorer=Regex('([0-9a-z])'), max_new_tokens=3)\n"
    )
    named = ("--model", str(place / "model"), "--vectors", str(place / "v.npy"), "--task", f"{task}:TASK")
    line = plan("1", "--scale", "smoke", *named).splitlines()[1].split()
    run = ["run", "accuracy-by-layer", "--scale", "smoke", "--out", str(tmp_path / "runs"), *named]
    done = CliRunner().invoke(app, run, standalone_mode=False)
    assert done.exception is None, done.exception
    assert context.Context is not None and line[2] == "4"
    assert asked["completions"] / 1.6 <= int(line[3]) <= asked["completions"] * 1.6, (line, asked)
