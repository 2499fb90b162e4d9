"""The loop: roll out, one update, write everything down, validate now and then, test at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from interp.backend.weights import Hooked
from interp.bare_model import takes_model
from interp.errors import UserError
from interp.given import describe_model, describe_task
from interp.model import Model
from interp.provenance import git_revision, machine, now, versions
from interp.store import SCHEMA, RunFolder, Store, run_key
from interp.tasks.task import Task
from vectors.train.curve import COLUMNS, write_curve
from vectors.train.evaluate import evaluate
from vectors.train.parameters import Parameters, median_norms, start
from vectors.train.passes import backward
from vectors.train.rollout import Rollout, batch_of, roll_out
from vectors.train.settings import TrainSettings
from vectors.train.signal import check_signal
from vectors.train.state import (
    STATE,
    Progress,
    drop_checkpoints,
    load_checkpoint,
    load_state,
    save_checkpoint,
    save_state,
)

VERSION = 2
"""Raised when the same settings would train other numbers."""

TESTED = {"T=1": 1.0, "greedy": 0.0}
"""Temperatures of the test, by name; 0 = greedy."""

NORM_PROMPTS = 32
"""Training prompts over which residual norms are measured."""

Say = Callable[[str], object]


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Attributes:
        parameters: those of the best checkpoint on validation.
        progress: the log and all checkpoints.
        meta: run.json: settings, model, task, scores.
        path: the run's folder.
    """

    parameters: Parameters
    progress: Progress
    meta: dict[str, Any]
    path: Path


@takes_model
def describe(model: Model, task: Task, settings: TrainSettings) -> dict[str, Any]:
    """The run.json of a training run before it starts."""
    meta: dict[str, Any] = {
        "schema": SCHEMA,
        "experiment": "train",
        "version": VERSION,
        "settings": settings.model_dump(mode="json"),
        "n": settings.steps,
        "seed": settings.seed,
        "model": describe_model(model),
        "vectors": None,
        "task": describe_task(task),
        "columns": COLUMNS,
        "figures": ["learning-curve"],
        "device": str(model.device),
        "machine": machine(),
        "versions": versions(),
        "git": git_revision(),
        "started": now(),
        "finished": None,
        "partial": True,
        "edits": [],
        "verdicts": [],
    }
    return {**meta, "key": run_key(meta)}


@takes_model
def train(
    model: Model | Hooked,
    task: Task,
    settings: TrainSettings,
    *,
    out: str | Path = "runs",
    resume: bool = True,
    say: Say = lambda _: None,
) -> Trained:
    """Train until `settings.steps`, continuing a run that was stopped.

    Args:
        model: frozen; it is changed only where all weights are trained.
        task: needs train and validation splits.
        settings: what is trained and how.
        out: folder of runs; this one goes into `out/train/<key>`.
        resume: continue where a run of the same settings stopped; else such a run is an error, and never overwritten.
        say: takes a line of text a step.

    Returns:
        The checkpoint that was best on validation, tested.

    Raises:
        UserError: the settings do not fit the model, the task lacks a split, or a run that was stopped is in the way.
    """
    model = Model.of(model)
    settings = settings.checked(model.n_layers)
    meta = describe(model, task, settings)
    folder = Store(Path(out)).folder(meta)
    with folder.lock(on_wait=lambda: say(f"another process trains {folder.path}; waiting for it")):
        record = folder.read()
        if record is not None and record.partial and (folder.path / STATE).is_file() and not resume:
            raise UserError("a run of these settings was stopped here", given=folder.path, works="add --resume")
        meta = meta if record is None else record.meta
        return _Run(model, task, settings, folder, meta, say).run()


class _Run:
    """A run under way."""

    def __init__(
        self, model: Model, task: Task, settings: TrainSettings, folder: RunFolder, meta: Mapping[str, Any], say: Say
    ) -> None:
        self.model, self.task, self.settings, self.folder, self.say = model, task, settings, folder, say
        self.meta = dict(meta)
        self.problems = task.problems("train")
        self.validation = task.problems("validation")[: settings.validation]
        if "norms" not in self.meta:
            prompts = [task.prompt(model.tokenizer, problem) for problem in self.problems[:NORM_PROMPTS]]
            norms = median_norms(model, prompts, settings)
            self.meta["norms"] = {str(layer): norm for layer, norm in norms.items()}
        norms = {int(layer): float(norm) for layer, norm in self.meta["norms"].items()}
        self.parameters = start(model, settings, norms)
        self.meta["rates"] = dict(self.parameters.rates)
        self.optimizer = adamw(self.parameters)
        self.progress = load_state(folder.path, self.parameters, self.optimizer)
        folder.write_meta(self.meta)

    def run(self) -> Trained:
        """All steps that are left, then the test."""
        began, before = time.monotonic(), self.progress.step
        self.validate()  # a run may have been stopped between a step and its validation
        while self.progress.step < self.settings.steps:
            row = self.step()
            spent, done = time.monotonic() - began, self.progress.step - before
            left = spent / done * (self.settings.steps - self.progress.step)
            self.say(line(row, self.settings.steps, left))
            self.validate()
        return self.finish()

    def step(self) -> dict[str, Any]:
        """One rollout batch and one update; both are on disk when this returns."""
        began, step, settings = time.monotonic(), self.progress.step, self.settings
        problems = batch_of(self.problems, step, settings.prompts, settings.seed)
        rollout = roll_out(self.parameters, self.task, problems, step)
        sampled = time.monotonic() - began
        loss, gradient = update(self.parameters, self.optimizer, rollout, settings.warmth(step))
        numbers = {"loss": loss, "gradient_norm": gradient, "norm": self.parameters.norm()}
        seconds = {"seconds_sampling": sampled, "seconds": time.monotonic() - began}
        row = {"step": step + 1, **observe(rollout), **numbers, **seconds}
        self.progress.log.append(row)
        self.progress.step = step + 1
        save_state(self.folder.path, self.parameters, self.optimizer, self.progress)
        return row

    def validate(self) -> None:
        """Greedy accuracy on validation problems, every few steps and after the last; the best checkpoint is kept."""
        progress, step = self.progress, self.progress.step
        due = step > 0 and (step % self.settings.validate_every == 0 or step == self.settings.steps)
        if not due or any(row["step"] == step for row in progress.checkpoints):
            return
        with torch.no_grad():
            model, edits = self.parameters.sampler, self.parameters.edits()
        score = evaluate(model, edits, self.task, self.validation, temperature=0.0).summary()
        known = {row["step"]: row["accuracy"] for row in progress.checkpoints}
        better = progress.best is None or float(str(score["accuracy"])) > known[progress.best]
        if better:
            save_checkpoint(self.folder.path, self.parameters, step)
            progress.best = step
        progress.checkpoints.append({"step": step, **score})
        save_state(self.folder.path, self.parameters, self.optimizer, progress)
        drop_checkpoints(self.folder.path, but=progress.best)
        self.say(f"step {step}: greedy on {score['n']} validation problems {score['accuracy']:.3f}")
        write_curve(self.folder, self.meta, progress)

    def finish(self) -> Trained:
        """Test the best checkpoint, once.

        Raises:
            UserError: no step of the training had a signal, or the best checkpoint has not moved.
        """
        check_signal(self.progress.log, self.settings.reward)
        load_checkpoint(self.folder.path, self.parameters, self.progress.best or 0)
        if self.settings.kind != "full" and self.parameters.norm() == 0:
            given = f"step {self.progress.best}"
            raise UserError(
                "the best checkpoint has norm 0, so nothing was learnt", given=given, works="use more steps"
            )
        if self.meta["partial"]:
            scores = self.test() if self.settings.test != 0 else {}
            best = {"step": self.progress.best, "checkpoints": self.progress.checkpoints}
            self.meta |= {"scores": scores, "validation": best, "finished": now(), "partial": False}
            write_curve(self.folder, self.meta, self.progress)
            self.folder.write_meta(self.meta)
        return Trained(self.parameters, self.progress, self.meta, self.folder.path)

    def test(self) -> dict[str, Any]:
        """At temperature 1 and greedy, one completion a problem."""
        problems = self.task.problems("test")[: self.settings.test]
        with torch.no_grad():
            model, edits = self.parameters.sampler, self.parameters.edits()
        scores: dict[str, Any] = {}
        self.meta["answers"] = {}
        for name, temperature in TESTED.items():
            score = evaluate(model, edits, self.task, problems, temperature=temperature)
            scores[name], self.meta["answers"][name] = score.summary(), score.marks
            self.say(f"test, {name}: {scores[name]['accuracy']:.3f} of {len(problems)}")
        return scores


def adamw(parameters: Parameters) -> torch.optim.AdamW:
    """AdamW as in arXiv:2509.06608 app. A, a group for each tensor, which has its own rate."""
    groups = [{"params": [tensor], "lr": parameters.rates[name]} for name, tensor in parameters.tensors.items()]
    return torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.0)


def update(
    parameters: Parameters, optimizer: torch.optim.AdamW, rollout: Rollout, warmth: float
) -> tuple[float, float]:
    """One step of AdamW on the RLOO loss.

    Args:
        parameters: are changed.
        optimizer: of these parameters.
        rollout: sampled under these parameters.
        warmth: share of the full rate, 0 to 1.

    Returns:
        The loss, and the norm of the gradient before it is clipped.

    Raises:
        UserError: the gradient is not finite.
    """
    for name, group in zip(parameters.tensors, optimizer.param_groups, strict=True):
        group["lr"] = parameters.rates[name] * warmth
    optimizer.zero_grad(set_to_none=True)
    loss = backward(parameters, rollout)
    for tensor in parameters.tensors.values():
        if tensor.grad is None:  # no group with an advantage: AdamW's moments still decay
            tensor.grad = torch.zeros_like(tensor)
    gradient = float(torch.nn.utils.clip_grad_norm_(parameters.tensors.values(), parameters.settings.clip))
    if not gradient < float("inf"):
        raise UserError("the gradient is not finite", given=gradient, works="use a smaller --rate")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss, gradient


def observe(rollout: Rollout) -> dict[str, Any]:
    """What a step's completions were like; shares from 0 to 1, lengths in tokens, entropy in nats."""
    rows, n = rollout.rows, len(rollout.rows)
    entropy = [value for row in rows for value in row.entropy]
    return {
        "reward": float(rollout.rewards.mean()),
        "right": sum(bool(grade.right) for grade in rollout.grades) / n,
        "boxed": sum(grade.boxed for grade in rollout.grades) / n,
        "ended": sum(row.ended for row in rows) / n,
        "tokens": rollout.completions.n_tokens / n,
        "entropy": sum(entropy) / len(entropy),
        "groups": float((rollout.advantages != 0).any(1).double().mean()),
        "generated": rollout.completions.n_tokens,
    }


def line(row: Mapping[str, Any], steps: int, left: float) -> str:
    """Progress of one step, in one line.

    Args:
        row: of the log.
        steps: of the whole run.
        left: seconds.
    """
    speed = row["generated"] / row["seconds"]
    return (
        f"step {row['step']}/{steps}  reward {row['reward']:+z.2f} right {row['right']:.2f}  boxed {row['boxed']:.2f}  "
        f"ended {row['ended']:.2f}  length {row['tokens']:.1f}  entropy {row['entropy']:.2f}  norm {row['norm']:.2f}  "
        f"gradient {row['gradient_norm']:.2g}  {row['seconds']:.0f} s  {speed:.0f} tokens/s  {left / 60:.0f} min left"
    )
