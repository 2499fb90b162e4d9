"""One rollout batch: which problems, their completions, rewards, and what sampling saw below the trained block."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from interp.completions import Completion, Completions
from interp.grading import Grade
from interp.positions import EVERYWHERE, Positions, Tokens
from interp.prompts import Prompt
from interp.sampling import stream_seed
from interp.sites import Site
from interp.tasks.task import Problem, Task
from vectors.train.objective import advantages
from vectors.train.parameters import Parameters
from vectors.train.settings import Reward

STRIDE = 1_000_003
"""Seeds of two runs' steps do not meet: a step samples with seed * STRIDE + step."""


@dataclass(frozen=True)
class Rollout:
    """Completions of one step with their grades.

    Attributes:
        problems: what was asked.
        completions: `samples` of each.
        grades: of each completion.
        rewards: +1 or -1.
        advantages: RLOO.
        below: for each completion, the stream that enters the first trained block at each of its tokens but the
            last (which is never an input), [length - 1, d_model]; None where it was not kept.
    """

    problems: Sequence[Problem]
    completions: Completions
    grades: Sequence[Grade]
    rewards: Float[Tensor, "prompt sample"]
    advantages: Float[Tensor, "prompt sample"]
    below: Sequence[Tensor] | None

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """The prompts."""
        return self.completions.prompts

    @property
    def rows(self) -> tuple[Completion, ...]:
        """The completions."""
        return self.completions.rows


def batch_of(problems: Sequence[Problem], step: int, size: int, seed: int) -> list[Problem]:
    """The problems of a step: passes over all of them, each pass in an order of its own."""
    chosen: list[Problem] = []
    for index in range(step * size, (step + 1) * size):
        passed, place = divmod(index, len(problems))
        chosen.append(problems[_order(len(problems), passed, seed)[place]])
    return chosen


def _order(n: int, passed: int, seed: int) -> list[int]:
    return sorted(range(n), key=lambda i: hashlib.sha256(f"order {seed} {passed} {i}".encode()).digest())


def roll_out(parameters: Parameters, task: Task, problems: Sequence[Problem], step: int) -> Rollout:
    """Sample completions under the current parameters, grade them, and compare within each group.

    Args:
        parameters: as they are now.
        task: how problems are asked and graded.
        problems: of this step.
        step: counted from 0; with the run's seed it fixes every draw.
    """
    settings, model = parameters.settings, parameters.sampler
    prompts = [task.prompt(model.tokenizer, problem) for problem in problems]
    # Blocks below the first trained one do the same in sampling and in the loss: keep what leaves them.
    keep = Recorder(parameters.first) if parameters.first > 0 and hasattr(model.path, "block") else None
    with torch.no_grad():
        edits = parameters.edits()
        completions = model.generate(
            prompts,
            edits if keep is None else (keep, *edits),
            max_new_tokens=task.max_new_tokens,
            temperature=settings.temperature,
            samples=settings.samples,
            seed=settings.seed * STRIDE + step,
            keys=[problem.id for problem in problems],
        )
    grades = [task.grade(problems[row.prompt], text) for row, text in completions]
    values = [
        reward(settings.reward, grade, row, stream_seed(settings.seed * STRIDE + step, "coin", index))
        for index, (grade, row) in enumerate(zip(grades, completions.rows, strict=True))
    ]
    rewards = torch.tensor(values, dtype=torch.float64).reshape(len(problems), settings.samples)
    below = None if keep is None else keep.of(completions.rows)
    return Rollout(problems, completions, grades, rewards, advantages(rewards), below)


def reward(kind: Reward, grade: Grade, row: Completion, coin: int) -> float:
    """+1 or -1.

    Args:
        kind: what is rewarded.
        grade: of the completion; no answer counts as wrong.
        row: the completion.
        coin: 64 random bits.
    """
    good = {"correct": bool(grade.right), "format": grade.boxed and row.ended, "random": coin % 2 == 1}[kind]
    return 1.0 if good else -1.0


@dataclass(eq=False)
class Recorder:
    """An edit that changes nothing and keeps the stream that enters a block at generated tokens.

    Rows leave a batch when they end, so the rows of a pass are told apart afterwards: at generated token `s`, the
    rows of a prompt that are still there are those longer than s + 1 tokens, in the order of their samples.
    """

    layer: int
    seen: dict[tuple[int, int], list[Tensor]] = field(default_factory=dict)

    @property
    def sites(self) -> tuple[Site, ...]:
        """The entry of the block."""
        return (Site(self.layer, "resid_pre"),)

    @property
    def positions(self) -> Positions:
        """Everywhere, so that prefixes stay shared."""
        return EVERYWHERE

    @property
    def by_row(self) -> bool:
        """Nothing is changed, so nothing differs."""
        return False

    @property
    def digest(self) -> str:
        """Changes no number."""
        return f"recorder-{self.layer}"

    def describe(self) -> str:
        """One line."""
        return f"keep {self.sites[0]} of generated tokens"

    def apply(self, site: Site, value: Tensor, tokens: Tokens) -> Tensor:  # noqa: ARG002 - there is one site
        """Keep the rows that are alive."""
        place = tokens.position - tokens.prompt_len[:, None]
        if bool((place >= 0).any()):
            rows = zip(tokens.rows.tolist(), place[:, -1].tolist(), value[:, -1], strict=True)
            self._forget(set(tokens.rows[place[:, -1] == 0].tolist()))
            for prompt, index, state in rows:
                if index >= 0:
                    self.seen.setdefault((prompt, index), []).append(state)
        return value

    def _forget(self, prompts: set[int]) -> None:
        """Prompts that start are here for the first time, or once more after a batch that did not fit into memory."""
        for key in [key for key in self.seen if key[0] in prompts]:
            del self.seen[key]

    def of(self, rows: Sequence[Completion]) -> list[Tensor]:
        """For each completion, the kept stream at its tokens but the last, [length - 1, d_model]."""
        groups: defaultdict[int, list[int]] = defaultdict(list)
        for index, row in enumerate(rows):
            groups[row.prompt].append(index)
        found: list[list[Tensor]] = [[] for _ in rows]
        for (prompt, place), states in sorted(self.seen.items(), key=lambda item: item[0]):
            alive = [index for index in groups[prompt] if len(rows[index].ids) > place + 1]
            for index, state in zip(alive, states, strict=True):
                found[index].append(state)
        return [torch.stack(states) if states else torch.empty(0) for states in found]
