"""The gradient of the loss, with everything shared that rows have in common.

The prefix that all prompts share runs once, each prompt once, and only completions with an advantage run at all.
Prompts are handled in chunks whose graphs are freed one after another: a chunk sends its gradient to the prefix's
keys and values, and the sum goes through the prefix once at the end. Logits exist for a few rows at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.backend.engine import Engine
from interp.batch import Batch
from interp.editor import Editor
from interp.memory import halved
from interp.model import Model
from interp.prompts import Prompt, shared_prefix
from vectors.train.objective import policy_loss, token_log_probs
from vectors.train.parameters import Parameters
from vectors.train.rollout import Rollout

LOGIT_ROWS = 256
"""Positions that are unembedded at a time."""

CHUNK_ROWS = 32
"""Completions whose graphs exist at a time; a matrix product gains nothing from more."""


@dataclass(frozen=True)
class Chunk:
    """Some prompts with those of their completions that have an advantage.

    Attributes:
        prompts: indices into the rollout.
        rows: indices of completions.
    """

    prompts: tuple[int, ...]
    rows: tuple[int, ...]


def chunks(rollout: Rollout, most: int = CHUNK_ROWS) -> list[Chunk]:
    """Prompts with an advantage, about `most` completions at a time."""
    groups: dict[int, list[int]] = {}
    for index, (row, advantage) in enumerate(zip(rollout.rows, rollout.advantages.flatten().tolist(), strict=True)):
        if advantage != 0:
            groups.setdefault(row.prompt, []).append(index)
    made: list[Chunk] = []
    for prompt, rows in groups.items():
        if made and len(made[-1].rows) + len(rows) <= most:
            made[-1] = Chunk((*made[-1].prompts, prompt), (*made[-1].rows, *rows))
        else:
            made.append(Chunk((prompt,), tuple(rows)))
    return made


def backward(parameters: Parameters, rollout: Rollout) -> float:
    """Set the parameters' `grad` to the gradient of the loss; chunks that do not fit into memory are halved.

    Returns:
        The loss.
    """
    most = CHUNK_ROWS
    while True:
        try:
            return _backward(parameters, rollout, chunks(rollout, most))
        except (MemoryError, RuntimeError) as error:
            most = halved(most, "completions", error)
            for tensor in parameters.model.hooked.parameters() if parameters.settings.kind == "full" else ():
                tensor.grad = None
            for tensor in parameters.tensors.values():
                tensor.grad = None


def _backward(parameters: Parameters, rollout: Rollout, parts: list[Chunk]) -> float:
    if not parts:
        return 0.0
    model = parameters.model
    path = model.path
    if not isinstance(path, Engine):
        total = sum(_whole_rows(parameters, rollout, chunk) for chunk in parts)
        parameters.gather()
        return total
    sharing = _Sharing(parameters, rollout, path, parts)
    total = sum(sharing.chunk(chunk) for chunk in parts)
    sharing.finish()
    parameters.gather()
    return total


class _Sharing:
    """The passes of one step over the engine."""

    def __init__(self, parameters: Parameters, rollout: Rollout, engine: Engine, parts: Sequence[Chunk]) -> None:
        self.parameters, self.rollout, self.engine = parameters, rollout, engine
        self.model = parameters.model
        used = [rollout.prompts[prompt] for chunk in parts for prompt in chunk.prompts]
        self.length = min(shared_prefix(used), min(len(prompt.ids) for prompt in used) - 1)
        self.prefix = engine.new_cache(grad=True)
        if self.length:
            ids = torch.tensor([used[0].ids[: self.length]], device=engine.device)
            position = torch.arange(self.length, device=engine.device)[None]
            self._forward(ids, position, torch.tensor([len(used[0].ids)]), self.prefix)
        self.leaves = engine.new_cache(grad=True)
        self.leaves.position, self.leaves.length = self.prefix.position, self.prefix.length
        self.leaves.keys = {slot: _leaf(tensor) for slot, tensor in self.prefix.keys.items()}
        self.leaves.values = {slot: _leaf(tensor) for slot, tensor in self.prefix.values.items()}

    def chunk(self, chunk: Chunk) -> float:
        """Forward and backward of one chunk; returns its part of the loss."""
        last, cache = self._prompts([self.rollout.prompts[prompt] for prompt in chunk.prompts])
        rows = [self.rollout.rows[index] for index in chunk.rows]
        owner = torch.tensor([chunk.prompts.index(row.prompt) for row in rows], device=self.engine.device)
        lengths = [len(row.ids) for row in rows]
        states = last[owner][:, None]
        if max(lengths) > 1:
            states = torch.cat([states, self._completions(chunk, rows, owner, cache)], 1)
        targets = torch.tensor([token for row in rows for token in row.ids], device=self.engine.device)
        flat = states[_filled(lengths, states.shape[1]).to(states.device)]
        weights = torch.tensor(
            [
                self.rollout.advantages.flatten()[index]
                for index, n in zip(chunk.rows, lengths, strict=True)
                for _ in range(n)
            ]
        )
        return loss_of_states(self.parameters, flat, targets, weights, self.rollout.completions.n_tokens)

    def finish(self) -> None:
        """Send what the chunks left at the prefix's keys and values through the prefix."""
        whole = [*self.prefix.keys.values(), *self.prefix.values.values()]
        leaves = [*self.leaves.keys.values(), *self.leaves.values.values()]
        pairs = [(tensor, leaf.grad) for tensor, leaf in zip(whole, leaves, strict=True)]
        reached = [(tensor, grad) for tensor, grad in pairs if grad is not None]
        if reached:
            torch.autograd.backward([tensor for tensor, _ in reached], [grad for _, grad in reached])

    def _prompts(self, prompts: Sequence[Prompt]) -> tuple[Float[Tensor, "prompt d_model"], Any]:
        """Each prompt after the prefix, left-padded: the stream that leaves its last token, and its cache."""
        rest = [prompt.ids[self.length :] for prompt in prompts]
        width, device = max(map(len, rest)), self.engine.device
        ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rest], device=device)
        lengths = torch.tensor([len(prompt.ids) for prompt in prompts], device=device)
        position = torch.arange(width, device=device)[None] - width + lengths[:, None]
        position = torch.where(position < self.length, -1, position)
        cache = self.engine.new_cache(grad=True)
        if self.length:
            cache = self.leaves.take(torch.zeros(len(prompts), dtype=torch.long, device=device))
        return self._forward(ids, position, lengths, cache)[:, -1], cache

    def _completions(self, chunk: Chunk, rows: Sequence[Any], owner: Int[Tensor, " row"], cache: Any) -> Tensor:
        """Completions but their last token, right-padded: the stream that leaves each token."""
        first, device, below = self.parameters.first, self.engine.device, self.rollout.below
        width = max(len(row.ids) for row in rows) - 1
        inputs = [row.ids[:-1] for row in rows]
        ids = torch.tensor([list(row) + [0] * (width - len(row)) for row in inputs], device=device)
        lengths = torch.tensor([len(self.rollout.prompts[row.prompt].ids) for row in rows], device=device)
        place = torch.arange(width, device=device)[None]
        filled = _filled([len(row) for row in inputs], width).to(device)
        position = torch.where(filled, place + lengths[:, None], -1)
        resid = None
        if below is not None:
            for layer in range(first):  # nobody looks at these keys again
                del cache.keys[layer], cache.values[layer]
            resid = torch.zeros(len(rows), width, self.model.d_model, dtype=self.model.dtype, device=device)
            resid[filled] = torch.cat([below[index] for index in chunk.rows if len(below[index])])
        start = 0 if below is None else first
        return self._forward(ids, position, lengths, cache.take(owner), resid=resid, start=start)

    def _forward(
        self, ids: Tensor, position: Tensor, prompt_len: Tensor, cache: Any, resid: Tensor | None = None, start: int = 0
    ) -> Tensor:
        rows = torch.arange(len(ids), device=ids.device)
        editor = Editor(self.parameters.edits(), n_rows=len(ids), n_layers=self.model.n_layers)
        tokens = self.model.tokens(ids, position, prompt_len.to(ids.device), rows)
        return self.engine.forward(tokens, tap=editor, sites=editor.sites, cache=cache, resid=resid, start=start)


def loss_of_states(
    parameters: Parameters,
    states: Float[Tensor, "n d_model"],
    targets: Int[Tensor, " n"],
    weights: Float[Tensor, " n"],
    n_tokens: int,
) -> float:
    """Loss of targets given the streams that predict them; runs its backward pass, a few rows of logits at a time.

    Args:
        parameters: get the gradient.
        states: resid_post of the last block.
        targets: the token that followed.
        weights: advantage of each token's completion.
        n_tokens: N of the step.
    """
    leaf, total = states.detach().requires_grad_(states.requires_grad), 0.0
    for start in range(0, len(targets), LOGIT_ROWS):
        part = slice(start, start + LOGIT_ROWS)
        logits = parameters.model.unembed(leaf[part])
        log_probs = token_log_probs(logits, targets[part], parameters.settings.temperature)
        loss = policy_loss(log_probs, weights[part].to(log_probs), n_tokens)
        loss.backward()
        total += float(loss.detach())
    if leaf.grad is not None:
        states.backward(leaf.grad)
    return total


def _whole_rows(parameters: Parameters, rollout: Rollout, chunk: Chunk) -> float:
    """Nothing shared: for models that run through their own hooks."""
    model: Model = parameters.model
    rows = [rollout.rows[index] for index in chunk.rows]
    batch = Batch.of([rollout.prompts[row.prompt] for row in rows], [row.ids for row in rows], device=model.device)
    editor = Editor(parameters.edits(), n_rows=len(rows), n_layers=model.n_layers)
    final = model.forward(batch, editor)
    predicts = torch.zeros_like(batch.mask)
    predicts[:, :-1] = batch.in_completion[:, 1:]
    n = batch.in_completion.sum(1)
    weights = rollout.advantages.flatten()[list(chunk.rows)].to(n.device).repeat_interleave(n)
    targets = batch.ids[batch.in_completion]
    return loss_of_states(parameters, final[predicts], targets, weights, rollout.completions.n_tokens)


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_(tensor.requires_grad)


def _filled(lengths: Sequence[int], width: int) -> Tensor:
    """True at the first `lengths[i]` places of row i."""
    return torch.arange(width)[None] < torch.tensor(list(lengths))[:, None]
