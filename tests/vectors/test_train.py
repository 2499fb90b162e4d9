from __future__ import annotations

import itertools
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from interp.batch import Batch
from interp.cli.show import redraw, show
from interp.completions import paired_rows
from interp.editor import Editor
from interp.errors import UserError
from interp.grading import Grade
from interp.load import load_model
from interp.model import Model
from interp.tasks.task import Problem, Task
from tests.interp import tiny
from vectors.train.objective import advantages
from vectors.train.parameters import Parameters, start
from vectors.train.passes import backward
from vectors.train.result import install, rivals, set_name
from vectors.train.rollout import Rollout, batch_of, roll_out
from vectors.train.settings import (
    ADAPTER_RATE,
    ADAPTERS_RATE,
    APART_FACTOR,
    FULL_RATE,
    PLACES,
    TOGETHER_RATE,
    TrainSettings,
)
from vectors.train.state import STATE
from vectors.train.trainer import Trained, adamw, train, update


@dataclass(frozen=True)
class Short:
    """Right where the completion is short; boxed where it holds a vowel."""

    spec: str = "short"
    longest: int = 5

    def __call__(self, text: str, answer: str | None) -> Grade:
        return Grade(len(text) <= self.longest, any(letter in text for letter in "aeiou"), None)


def task(longest: int = 5, new_tokens: int = 7) -> Task:
    problems = [
        Problem(f"{split}-{index}", "x" * (1 + index % 4) + str(index), str(index), "t", split)
        for split in ("train", "validation", "test")
        for index in range(12)
    ]
    shown = (("1+1?", "2"),)
    scorer = Short(longest=longest)
    return Task("toy", lambda: problems, system="Add.", example=shown, scorer=scorer, max_new_tokens=new_tokens)


@contextmanager
def dying(after: int) -> Generator[None]:
    """Let the process die once it has graded so many completions."""
    grade, graded = Task.grade, itertools.count()

    def counted(self: Task, problem: Problem, text: str) -> Grade:
        if next(graded) >= after:
            raise KeyboardInterrupt
        return grade(self, problem, text)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Task, "grade", counted)
        yield


def toy_model(family: str = "llama", dtype: torch.dtype = torch.float64, **config: Any) -> Model:
    made: Any = tiny.model(family, config={"tie_word_embeddings": family == "qwen2", **config})
    model = load_model(made.to(dtype), tokenizer=tiny.tokenizer())
    # A fourth of all tokens end a completion, or a random model's completions would all be cut.
    return Model(model.hooked, tokenizer=model.tokenizer, architecture=model.architecture, stop_ids=range(65))


def chosen(**given: Any) -> TrainSettings:
    return TrainSettings.model_validate(given)


def moved(parameters: Parameters, size: float = 0.3) -> Parameters:
    """Away from zero, so that no gradient is zero by symmetry."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for tensor in parameters.tensors.values():
            tensor += size * torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
    return parameters


def first_rollout(parameters: Parameters, shown: Task) -> Rollout:
    settings = parameters.settings
    problems = batch_of(shown.problems("train"), 0, settings.prompts, settings.seed)
    return roll_out(parameters, shown, problems, 0)


def plain_loss(parameters: Parameters, rollout: Rollout) -> torch.Tensor:
    """Each completion by itself, through TransformerLens's own forward and hooks; every row, every logit."""
    model, settings = parameters.model, parameters.settings
    total, n = torch.zeros((), dtype=torch.float64), 0
    for row, advantage in zip(rollout.rows, rollout.advantages.flatten().tolist(), strict=True):
        prompt = rollout.prompts[row.prompt].ids
        ids = torch.tensor([[*prompt, *row.ids]])
        with model.hooked.hooks(fwd_hooks=plain_hooks(parameters)):
            logits = model.hooked(ids, prepend_bos=False)[0]
        log_p = (logits / settings.temperature).log_softmax(-1)
        picked = log_p[range(len(prompt) - 1, ids.shape[1] - 1), list(row.ids)]
        total = total + advantage * picked.sum()
        n += len(row.ids)
    return -total / n


def plain_hooks(parameters: Parameters) -> list[Any]:
    settings, tensors = parameters.settings, parameters.tensors
    if settings.kind == "full":
        return []
    if settings.kind in ("rank1", "lora"):
        kept: dict[int, torch.Tensor] = {}

        def reads(layer: int) -> Any:
            def read(value: torch.Tensor, hook: Any) -> None:
                kept[layer] = value @ tensors[f"a.{layer}"].T @ tensors[f"b.{layer}"]

            return read

        def writes(layer: int) -> Any:
            return lambda value, hook: value + kept[layer]

        read_hooks = [(f"blocks.{layer}.mlp.hook_post", reads(layer)) for layer in settings.layers]
        return read_hooks + [(f"blocks.{layer}.hook_mlp_out", writes(layer)) for layer in settings.layers]
    matrix = torch.stack(list(parameters.directions()))
    name = {"mlp_out": "hook_resid_post", "attn_out": "hook_attn_out"}[settings.place]

    def add(row: torch.Tensor) -> Any:
        return lambda value, hook: value + row

    return [(f"blocks.{layer}.{name}", add(row)) for layer, row in zip(settings.layers, matrix, strict=True)]


def equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """To 1e-5 of the largest entry: sampling, whose states below the vector are used again, attends in float32."""
    return bool(((one - other).abs().max() <= 1e-5 * other.abs().max()).item())


def gradients(parameters: Parameters) -> dict[str, torch.Tensor]:
    return {name: tensor.grad for name, tensor in parameters.tensors.items() if tensor.grad is not None}


KINDS: dict[str, dict[str, Any]] = {
    "all layers": {},
    "first block": {"layers": (0,)},
    "middle block": {"layers": (1,)},
    "last block": {"layers": (2,)},
    "two blocks": {"layers": (1, 2)},
    "attention": {"layers": (1,), "place": "attn_out"},
    "matrix of rank 2": {"rank": 2},
    "rank-1 adapter": {"kind": "rank1", "layers": (1,)},
    "LoRA": {"kind": "lora", "rank": 2},
    "all weights": {"kind": "full"},
    "another temperature": {"temperature": 0.7},
}


TIED = "qwen2"


@pytest.mark.parametrize(
    ("name", "family"), [*((name, "llama") for name in KINDS), ("all layers", TIED), ("all weights", TIED)]
)
def test_loss_and_gradient_equal_plain_autograd(name: str, family: str) -> None:
    model, shown = toy_model(family), task()
    settings = chosen(prompts=5, samples=4, **KINDS[name]).checked(model.n_layers)
    norms = dict.fromkeys(range(3), 1.0)
    parameters = start(model, settings, norms)
    if settings.kind != "full":
        moved(parameters)
    rollout = first_rollout(parameters, shown)
    rollout.advantages[3] = 0  # a group without advantage: counts in N only
    assert len({len(row.ids) for row in rollout.rows}) > 2

    loss = backward(parameters, rollout)
    ours = {key: value.clone() for key, value in gradients(parameters).items()}
    for tensor in parameters.tensors.values():
        tensor.grad = None
    if settings.kind == "full" and family == TIED:
        model.hooked.unembed.W_U.grad = None
    plain = plain_loss(parameters, rollout)
    plain.backward()
    parameters.gather()
    theirs = gradients(parameters)
    assert loss == pytest.approx(plain.item(), rel=1e-5)
    assert set(ours) == set(theirs) == set(parameters.tensors)
    for key, value in theirs.items():
        assert equal(ours[key], value), key


@pytest.mark.parametrize("place", PLACES)
def test_a_vector_at_any_place_has_the_gradient_of_whole_rows(place: str) -> None:
    model, shown = toy_model(), task()
    settings = TrainSettings.model_validate({"prompts": 4, "samples": 4, "layers": (1,), "place": place}).checked(3)
    parameters = moved(start(model, settings, {1: 1.0}))
    rollout = first_rollout(parameters, shown)
    loss = backward(parameters, rollout)
    ours = parameters.tensors["s.1"].grad
    parameters.tensors["s.1"].grad = None
    batch = Batch.of(*paired_rows(rollout.completions))
    final = model.forward(batch, Editor(parameters.edits(), n_rows=len(batch), n_layers=3))
    log_p = model.unembed(final[:, :-1]).log_softmax(-1).gather(-1, batch.ids[:, 1:, None])[..., 0]
    weight = rollout.advantages.flatten()[:, None] * batch.in_completion[:, 1:]
    plain = -(weight * log_p).sum() / rollout.completions.n_tokens
    plain.backward()
    assert ours is not None
    assert loss == pytest.approx(plain.item(), rel=1e-5)
    assert equal(ours, gradients(parameters)["s.1"])


def test_a_model_with_foreign_hooks_trains_through_them() -> None:
    model, shown = toy_model(), task()
    parameters = moved(start(model, TrainSettings(prompts=4, samples=4, layers=(1,)).checked(3), {1: 1.0}))
    point = model.hooked.hook_dict["blocks.0.hook_resid_post"]
    stronger: Any = lambda value, hook: 1.3 * value  # noqa: E731
    point.add_hook(stronger)
    rollout = first_rollout(parameters, shown)
    assert rollout.below is None
    loss = backward(parameters, rollout)
    ours = gradients(parameters)["s.1"].clone()
    parameters.tensors["s.1"].grad = None
    plain = plain_loss(parameters, rollout)
    plain.backward()
    assert loss == pytest.approx(plain.item(), rel=1e-5)
    assert equal(ours, gradients(parameters)["s.1"])


def test_advantage_is_the_distance_from_the_mean_of_the_others() -> None:
    found = advantages(torch.tensor([[1.0, 1.0, -1.0, -1.0], [1.0, -1.0, -1.0, -1.0], [1.0, 1.0, 1.0, 1.0]]))
    by_hand = [[4 / 3, 4 / 3, -4 / 3, -4 / 3], [2.0, -2 / 3, -2 / 3, -2 / 3], [0.0, 0.0, 0.0, 0.0]]
    assert torch.allclose(found, torch.tensor(by_hand))


SMALL: dict[str, Any] = {
    "prompts": 4,
    "samples": 3,
    "steps": 5,
    "validate_every": 2,
    "validation": 6,
    "test": 6,
    "rate": 0.05,
}


def test_an_update_moves_the_probability_of_what_was_rewarded() -> None:
    model, shown = toy_model(), task()
    parameters = start(model, chosen(**{**SMALL, "layers": (1,)}).checked(3), {1: 1.0})
    rollout = first_rollout(parameters, shown)
    optimizer = adamw(parameters)
    before = plain_loss(parameters, rollout).item()
    loss, gradient = update(parameters, optimizer, rollout, 0.01)
    after = plain_loss(parameters, rollout).item()
    assert loss == pytest.approx(before)
    # To first order the loss falls by what Adam's first step, rate * sign(gradient), takes from it.
    assert before - after > 0
    assert gradient > 0
    assert parameters.tensors["s.1"].abs().max().item() == pytest.approx(0.05 * 0.01, rel=1e-3)


def test_training_raises_the_reward_and_a_random_reward_does_not_know_what_is_right() -> None:
    model, shown = toy_model(dtype=torch.float32), task(longest=3)
    settings = chosen(**{**SMALL, "prompts": 8, "samples": 8}).checked(3)
    parameters = start(model, settings, {})
    optimizer = adamw(parameters)
    rewards: list[float] = []
    for step in range(12):
        rollout = roll_out(parameters, shown, batch_of(shown.problems("train"), step, 8, 0), step)
        rewards.append(float(rollout.rewards.mean()))
        update(parameters, optimizer, rollout, 1.0)
    assert sum(rewards[-4:]) / 4 > sum(rewards[:4]) / 4 + 0.3
    coin = start(model, settings.model_copy(update={"reward": "random", "samples": 64}), {})
    rollout = first_rollout(coin, shown)
    right = torch.tensor([bool(grade.right) for grade in rollout.grades], dtype=torch.float64)
    assert abs(float(rollout.rewards.mean())) < 0.2
    assert abs(float(torch.corrcoef(torch.stack([right, rollout.rewards.flatten()]))[0, 1])) < 0.15


def test_format_reward_asks_for_a_box_and_an_end_only() -> None:
    model, shown = toy_model(dtype=torch.float32), task(longest=0)
    parameters = start(model, chosen(**{**SMALL, "samples": 64}, reward="format").checked(3), {})
    rollout = first_rollout(parameters, shown)
    for row, grade, value in zip(rollout.rows, rollout.grades, rollout.rewards.flatten().tolist(), strict=True):
        assert value == (1.0 if grade.boxed and row.ended else -1.0)
    assert len(set(rollout.rewards.flatten().tolist())) == 2


def same(one: Trained, other: Trained) -> None:
    assert one.progress.step == other.progress.step
    timeless = [
        [{key: value for key, value in row.items() if not key.startswith("seconds")} for row in run.progress.log]
        for run in (one, other)
    ]
    assert timeless[0] == timeless[1]
    assert one.progress.checkpoints == other.progress.checkpoints
    assert one.meta["scores"] == other.meta["scores"]
    for name, tensor in one.parameters.tensors.items():
        assert torch.equal(tensor, other.parameters.tensors[name])


@pytest.mark.parametrize("kind", [{}, {"kind": "lora", "rank": 2}])
def test_a_run_that_dies_in_the_middle_of_a_step_resumes_bit_for_bit(tmp_path: Path, kind: dict[str, Any]) -> None:
    model = toy_model(dtype=torch.float32)
    settings = chosen(**SMALL, **kind)
    whole = train(model, task(), settings, out=tmp_path / "whole")
    # Two steps of 12 completions, a validation of 6, then death while the third step's completions are graded.
    with dying(after=12 + 12 + 6 + 5):
        train(model, task(), settings, out=tmp_path / "cut")
    assert len(list(tmp_path.glob(f"cut/train/*/{STATE}"))) == 1
    # Death during a validation: the step before it is kept, the validation is not skipped.
    with dying(after=12 + 12 + 3):
        train(model, task(), settings, out=tmp_path / "cut")
    with pytest.raises(UserError, match="add --resume"):
        train(model, task(), settings, out=tmp_path / "cut", resume=False)
    same(whole, train(model, task(), settings, out=tmp_path / "cut"))
    same(whole, train(model, task(), settings, out=tmp_path / "cut"))  # finished: recalled


@pytest.mark.parametrize(
    ("settings", "rate"),
    [
        ({"layers": (1,)}, 2 * APART_FACTOR),
        ({"layers": (1,), "rank": 1}, TOGETHER_RATE),
        ({}, TOGETHER_RATE),
        ({"kind": "rank1", "layers": (1,)}, ADAPTER_RATE),
        ({"kind": "lora", "rank": 2}, ADAPTERS_RATE),
        ({"kind": "full"}, FULL_RATE),
        ({"kind": "lora", "rank": 2, "rate": 0.25}, 0.25),
    ],
)
def test_rates_follow_the_norm_alone_and_constants_together(settings: dict[str, Any], rate: float) -> None:
    parameters = start(toy_model(), chosen(**settings).checked(3), dict.fromkeys(range(3), 2.0))
    assert list(parameters.rates.values()) == pytest.approx([rate] * len(parameters.rates))


def test_a_training_run_is_shown_with_its_test_and_redrawn(tmp_path: Path) -> None:
    run = train(toy_model(dtype=torch.float32), task(), chosen(**SMALL), out=tmp_path)
    shown = CliRunner().invoke(show, [str(run.path)]).output
    assert "Test split: right answers in %" in shown and "gradient_norm" in shown and "We estimate" not in shown
    (run.path / "figure.html").unlink()
    assert CliRunner().invoke(redraw, [str(run.path)]).exit_code == 0 and (run.path / "figure.html").is_file()


def test_the_set_and_its_card_say_what_was_trained(tmp_path: Path) -> None:
    from vectors.load import load_vectors

    model, shown = toy_model(dtype=torch.float32), task()
    first = train(model, shown, chosen(**{**SMALL, "layers": (1,)}), out=tmp_path)
    second = train(model, shown, chosen(**{**SMALL, "layers": (1,), "rate": 0.1}), out=tmp_path)
    path = install(second, tmp_path / "toy", trials=rivals(second))
    assert path is not None
    assert path == tmp_path / "toy" / "single-layer" / "1@0.safetensors"
    loaded: Any = load_vectors(path, model=model)
    assert torch.equal(loaded.directions[0], second.parameters.tensors["s.1"].detach())
    assert loaded.card.trained == "apart"
    assert loaded.card.recipe["task"]["digest"] == shown.digest
    assert {row["rate"] for row in loaded.card.trials} == {0.05, 0.1}
    kept = [row for row in loaded.card.trials if row["kept"]]
    best = max(second.progress.checkpoints, key=lambda row: row["accuracy"])
    assert [(row["run"], row["updates"]) for row in kept] == [(second.meta["key"], best["step"])]
    assert loaded.card.scores["test"]["greedy"]["n"] == 6
    assert first.meta["key"] != second.meta["key"]


def test_the_set_that_ships_is_the_better_one_on_validation_and_lists_the_trials_of_both(tmp_path: Path) -> None:
    from vectors.load import load_vectors

    model = toy_model(dtype=torch.float32)
    runs = [
        train(model, task(), chosen(**{**SMALL, "layers": (1,), "rate": rate}), out=tmp_path) for rate in (0.05, 0.1)
    ]
    for run, accuracy in zip(runs, (0.4, 0.3), strict=True):
        for row in run.meta["validation"]["checkpoints"]:
            row["accuracy"] = accuracy
    better, worse = runs
    path = install(better, tmp_path / "toy")
    assert path is not None and install(worse, tmp_path / "toy") is None

    def shipped() -> Any:
        return load_vectors(path, model=model)

    assert torch.equal(shipped().directions[0], better.parameters.tensors["s.1"].detach())
    listed = [(row["run"], row["kept"]) for row in shipped().card.trials]
    assert {run for run, _ in listed} == {run.meta["key"] for run in runs}
    assert [run for run, kept in listed if kept] == [better.meta["key"]]
    for row in worse.meta["validation"]["checkpoints"]:
        row["accuracy"] = 0.5
    assert install(worse, tmp_path / "toy") == path
    assert torch.equal(shipped().directions[0], worse.parameters.tensors["s.1"].detach())
    assert len(shipped().card.trials) == len(listed)


def test_names_of_sets() -> None:
    named = {
        set_name(chosen(**settings).checked(3), 3)
        for settings in ({}, {"layers": (2,)}, {"reward": "random"}, {"kind": "lora", "rank": 4}, {"rank": 2})
    }
    assert named == {"all-layer", "single-layer/2", "all-layer-random-reward", "lora-r4", "all-layer-rank2"}
