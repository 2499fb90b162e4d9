"""(6) One RLOO step on vectors of all blocks, against TRL's trainer on the biases that are the same vectors."""

from __future__ import annotations

import random
import tempfile
import time
from importlib import import_module
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, TrainerCallback

from benchmarks.bench import MODEL, Bench
from benchmarks.measure import Line, Peak, differ, line, seconds
from interp import Model
from interp.backend.embedded import folder_of
from vectors.train.parameters import Parameters, start
from vectors.train.passes import backward
from vectors.train.rollout import Rollout, roll_out
from vectors.train.settings import TrainSettings

TOLERANCE = 1e-3
"""1 - cosine of the two gradients, and the share by which their norms differ."""


def rloo(bench: Bench) -> list[Line]:
    """Roll out, loss, gradient, AdamW; rewards are coins, so that most groups have an advantage on both sides."""
    settings = TrainSettings(reward="random", prompts=bench.size(4, 1), samples=4, steps=bench.rounds + 1)
    settings = settings.checked(bench.model.n_layers)
    ours = _Ours(bench, settings)
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(bench, settings, folder)
        note = _same_gradient(ours, trainer)
        clock: Any = _Turns(ours)
        trainer.add_callback(clock)
        trainer.train()
    setting = f"{settings.prompts} prompts x {settings.samples} completions, at most {bench.task.max_new_tokens} tokens"
    names = ("small-vectors", "TRL RLOOTrainer")
    return [
        line("RLOO step", setting, name, clock.taken[1:], index, clock.peaks[index], "" if index == 0 else note)
        for index, name in enumerate(names)
    ]


class _Ours:
    """Our step, one after another."""

    def __init__(self, bench: Bench, settings: TrainSettings) -> None:
        self.bench, self.settings, self.done = bench, settings, 0
        held = bench.model  # which never ends a completion; both sides do here
        model = Model(held.hooked, tokenizer=held.tokenizer, name=held.name)
        self.parameters: Parameters = start(model, settings, {})
        rate = next(iter(self.parameters.rates.values()))
        self.optimizer = torch.optim.AdamW(self.parameters.tensors.values(), lr=rate, weight_decay=0.0)
        self.problems = bench.task.problems("train")

    def roll_out(self) -> Rollout:
        size = self.settings.prompts
        problems = self.problems[self.done * size : (self.done + 1) * size]
        return roll_out(self.parameters, self.bench.task, problems, self.done)

    def step(self) -> None:
        self.optimizer.zero_grad()
        backward(self.parameters, self.roll_out())
        torch.nn.utils.clip_grad_norm_(self.parameters.tensors.values(), self.settings.clip)
        self.optimizer.step()
        self.done += 1


class _Turns(TrainerCallback):
    """Times each of TRL's steps, and one of ours after it."""

    def __init__(self, ours: _Ours) -> None:
        self.ours = ours
        self.taken: list[tuple[float, float]] = []
        self.peaks = (float("nan"), float("nan"))

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._start, self._peak = time.perf_counter(), Peak().__enter__()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        theirs = time.perf_counter() - self._start
        self._peak.__exit__()
        with Peak() as peak:
            own = seconds(self.ours.step)
        self.peaks = (peak.megabytes, self._peak.megabytes) if not self.taken else self.peaks
        self.taken.append((own, theirs))


def _trainer(bench: Bench, settings: TrainSettings, folder: str) -> Any:
    """TRL's trainer with nothing beside the step: no reference model, no logs, no checkpoints."""
    trl: Any = import_module("trl")
    config = AutoConfig.from_pretrained(folder_of(MODEL), mlp_bias=True)
    policy: Any = AutoModelForCausalLM.from_pretrained(folder_of(MODEL), config=config)
    for name, weight in policy.named_parameters():
        weight.requires_grad_(name.endswith("down_proj.bias"))
        if name.endswith(("gate_proj.bias", "up_proj.bias", "down_proj.bias")):
            weight.data.zero_()
    rows = settings.prompts * settings.samples
    coin = random.Random(0)
    arguments = trl.RLOOConfig(
        output_dir=folder,
        use_cpu=True,
        bf16=False,
        beta=0.0,
        num_generations=settings.samples,
        per_device_train_batch_size=rows,
        max_completion_length=bench.task.max_new_tokens,
        temperature=settings.temperature,
        learning_rate=1e-2,
        max_grad_norm=settings.clip,
        max_steps=settings.steps,
        gradient_checkpointing=False,
        logging_steps=1000,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    prompts = [bench.task.prompt(bench.model.tokenizer, one).text for one in bench.task.problems("train")[:256]]
    return trl.RLOOTrainer(
        model=policy,
        reward_funcs=lambda completions, **_: [coin.choice((-1.0, 1.0)) for _ in completions],
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=bench.model.tokenizer,
    )


def _same_gradient(ours: _Ours, trainer: Any) -> str:
    """Both losses on the same completions and advantages; TRL's is a mean over completions, ours over tokens."""
    rollout = ours.roll_out()
    sign = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(ours.settings.samples // 2)
    rollout = Rollout(
        rollout.problems,
        rollout.completions,
        rollout.grades,
        rollout.rewards,
        sign.expand_as(rollout.advantages).clone(),
        rollout.below,
    )
    backward(ours.parameters, rollout)
    mine = torch.stack([tensor.grad for tensor in ours.parameters.tensors.values() if tensor.grad is not None])
    policy = trainer.model
    inputs = _inputs(rollout)
    ids, mask = (torch.cat([inputs[f"prompt_{x}"], inputs[f"completion_{x}"]], 1) for x in ("ids", "mask"))
    with torch.no_grad():
        kept = inputs["completion_mask"]
        log_probs = trainer._get_per_token_logps_and_entropies(policy, ids, mask, kept.shape[1])[0]
        inputs["old_logps"] = (log_probs * kept).sum(1)
    trainer._compute_loss(policy, inputs).backward()
    layers = policy.model.layers
    theirs = torch.stack([layer.mlp.down_proj.bias.grad for layer in layers]) * len(rollout.rows)
    theirs = theirs / rollout.completions.n_tokens
    policy.zero_grad()
    cosine = float(torch.nn.functional.cosine_similarity(mine.flatten(), theirs.flatten(), dim=0))
    size = float(mine.norm() / theirs.norm())
    if not (1 - cosine < TOLERANCE and abs(1 - size) < TOLERANCE):
        raise differ("gradients", f"cosine {cosine:.4f}, norms {size:.4f}")
    return f"gradients on the same completions: 1 - cosine {abs(1 - cosine):.0e}"


def _inputs(rollout: Rollout) -> dict[str, Tensor]:
    """A rollout as TRL's loss takes it."""
    prompts = [list(rollout.prompts[row.prompt].ids) for row in rollout.rows]
    said = [list(row.ids) for row in rollout.rows]
    wide, long = max(map(len, prompts)), max(map(len, said))
    left = [[0] * (wide - len(row)) for row in prompts]
    right = [[0] * (long - len(row)) for row in said]
    return {
        "prompt_ids": torch.tensor([pad + row for pad, row in zip(left, prompts, strict=True)]),
        "prompt_mask": torch.tensor([pad + [1] * len(row) for pad, row in zip(left, prompts, strict=True)]),
        "completion_ids": torch.tensor([row + pad for pad, row in zip(right, said, strict=True)]),
        "completion_mask": torch.tensor([[1] * len(row) + pad for pad, row in zip(right, said, strict=True)]),
        "advantages": rollout.advantages.flatten().float(),
    }
