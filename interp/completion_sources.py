"""Completions made elsewhere: by a server that speaks OpenAI's protocol, or read from a file.

Whoever wrote the tokens, log-probabilities and entropies are ours: the tokens are run once through the model under the
same edits, which costs one pass and no decoding, and shows whether the other side has the same model and vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from interp.bare_model import takes_model
from interp.batch import Batch
from interp.completion_cache import Request, complete, fired_in
from interp.completions import Completion, Completions
from interp.distributions import blocks, entropy, log_probs
from interp.editor import Editor
from interp.edits import Edits, per_row
from interp.errors import UserError
from interp.fired import Fired, refuse_untouched, summed
from interp.identity import identity_of
from interp.model import Model
from interp.prompts import Prompt

ROWS = 32
"""Rows that are scored together."""
MOST_NATS = 0.25
"""By how much the other side's log-probability of a token may differ from ours, mean over tokens. bfloat16 moves it by
about 0.02 and 4-bit weights by 0.1 to 0.2; a vector that is missing or another one, by more."""


@dataclass(frozen=True)
class Said:
    """One completion as the other side gives it.

    Attributes:
        text: decoded.
        ended: whether it ended by itself; None = not told.
        ids: its tokens; None where only the text is known, which is then tokenised.
        log_prob: of each token at temperature 1, nats; None = not told.
    """

    text: str
    ended: bool | None = None
    ids: tuple[int, ...] | None = None
    log_prob: tuple[float, ...] | None = None


@runtime_checkable
class Source(Protocol):
    """Something that completes some of the prompts of a request."""

    @property
    def digest(self) -> str:
        """What of it can change a number: part of a run's key."""
        ...

    def answers(self, model: Model, request: Request) -> list[int]:
        """Rows of the request that it completes."""
        ...

    def say(self, model: Model, request: Request) -> list[list[Said]]:
        """`samples` completions of each prompt."""
        ...


@takes_model
def complete_from(
    sources: Sequence[Source], model: Model, request: Request, folder: Path, *, memory_gb: float | None = None
) -> Completions:
    """As `complete`, each prompt by the first source that has it, the others by the model itself.

    Args:
        sources: in this order.
        model: what the sources stand in for.
        request: what to complete.
        folder: where completions are kept, those of a source in a folder of its own.
        memory_gb: bound of what a batch may hold.
    """
    if not sources:
        return complete(model, request, folder, memory_gb=memory_gb)
    left, parts = list(range(len(request.prompts))), dict[int, tuple[Completions, int]]()
    fired: list[Fired] = []
    for source in [*sources, None]:
        asked = request.only(left)
        found = range(len(left)) if source is None else source.answers(model, asked)
        rows = [left[place] for place in found]
        if not rows:
            continue
        inner, place = (model, folder) if source is None else (Elsewhere(model, source), folder / identity_of(source))
        made = complete(inner, request.only(rows), place, memory_gb=memory_gb)
        parts |= {row: (made, index) for index, row in enumerate(rows)}
        fired += made.fired
        left = [row for row in left if row not in parts]
    return _merged(request.prompts, parts, fired)


def _merged(
    prompts: tuple[Prompt, ...], parts: dict[int, tuple[Completions, int]], fired: Sequence[Fired]
) -> Completions:
    place = {(id(made), index): prompt for prompt, (made, index) in parts.items()}
    every = {id(made): made for made, _ in parts.values()}.values()
    found = [(replace(row, prompt=place[id(made), row.prompt]), text) for made in every for row, text in made]
    found.sort(key=lambda one: (one[0].prompt, one[0].sample))
    return Completions(prompts, tuple(row for row, _ in found), tuple(text for _, text in found), summed(fired))


class Elsewhere(Model):
    """A model that lets somebody else write.

    Args:
        model: whose weights and tokenizer it shares.
        source: what completes.
    """

    @takes_model
    def __init__(self, model: Model, source: Source) -> None:
        self.__dict__.update(model.__dict__)
        self.source = source

    def generate(
        self,
        prompts: Sequence[Prompt],
        edits: Edits = (),
        *,
        max_new_tokens: int = 64,
        temperature: float = 1.0,
        samples: int = 1,
        seed: int = 0,
        keys: Sequence[str] | None = None,
        memory_gb: float | None = None,
        whole: bool = True,
    ) -> Completions:
        """As `Model.generate`, by the source.

        Raises:
            UserError: the source's log-probabilities are not those of this model under these edits, or an edit touched
                no token.
        """
        del memory_gb
        named = None if keys is None else tuple(keys)
        request = Request(tuple(prompts), edits, max_new_tokens, temperature, samples, seed, named)
        completions = scored(self, request, self.source.say(self, request))
        if whole:
            refuse_untouched(completions.fired)
        return completions


@takes_model
def scored(model: Model, request: Request, said: Sequence[Sequence[Said]]) -> Completions:
    """Completions from what somebody said: tokens, with the log-probabilities and entropies of this model.

    Args:
        model: what the completions are of.
        request: what was asked.
        said: completions of each prompt.

    Raises:
        UserError: the log-probabilities that came along are not those of this model under these edits.
    """
    flat = [(prompt, one) for prompt, samples in enumerate(said) for one in samples]
    tails = [_tokens(model, request, one) for _, one in flat]
    every, rows = request.row_edits(), list[Completion]()
    apart: list[float] = []
    counted = [0] * len(said)
    for start in range(0, len(flat), ROWS):
        some = flat[start : start + ROWS]
        own = tails[start : start + ROWS]
        # As in generation, the last token is never fed.
        batch = Batch.of([request.prompts[prompt] for prompt, _ in some], [ids[:-1] for ids, _ in own])
        final = _final(model, batch, per_row([every[prompt] for prompt, _ in some]))
        for (prompt, one), (ids, ended), resid in zip(some, own, final, strict=True):
            at_one, log_p, spread = _read(model, resid[-len(ids) :], ids, request.temperature)
            if one.log_prob is not None and len(one.log_prob) == len(ids):
                apart += [abs(a - b) for a, b in zip(one.log_prob, at_one, strict=True)]
            rows.append(Completion(prompt, counted[prompt], ids, ended, tuple(log_p), tuple(spread)))
            counted[prompt] += 1
    if apart and sum(apart) / len(apart) > MOST_NATS:
        given = f"log-probabilities differ by {sum(apart) / len(apart):.2f} nats a token"
        works = "serve the checkpoint that `interp vectors bake` wrote for these vectors"
        raise UserError("these completions come from other weights or other vectors", given=given, works=works)
    samples = [[(row, "") for row in rows if row.prompt == prompt] for prompt in range(len(said))]
    fired = fired_in(model, request, samples, range(len(said)))
    return Completions(request.prompts, tuple(rows), tuple(model.decode([row.ids for row in rows])), fired)


def _final(model: Model, batch: Batch, edits: Edits) -> torch.Tensor:
    """The last stream of a part of a request; an edit may touch none of these rows."""
    editor = Editor(edits, n_rows=len(batch), n_layers=model.n_layers)
    with torch.no_grad():
        final = model.forward(batch, editor)
    editor.fired()  # an edit whose site is never reached is an error
    return final


def _tokens(model: Model, request: Request, one: Said) -> tuple[tuple[int, ...], bool]:
    """Tokens with the end token where the completion ended, and whether it did."""
    ids = one.ids
    if ids is None:
        ids = tuple(model.tokenizer.encode(one.text, add_special_tokens=False))
    ended = bool(ids) and ids[-1] in model.stop_ids
    told = ended if one.ended is None else one.ended
    if told and not ended:
        if not model.stop_ids:
            raise UserError("this model has no end token, so no completion of it can have ended", given=model.name)
        ids, ended = (*ids, _end(model)), True
    return ids[: request.max_new_tokens] or (_end(model),), ended and len(ids) <= request.max_new_tokens


def _end(model: Model) -> int:
    own = getattr(model.tokenizer, "eos_token_id", None)
    return own if own in model.stop_ids else model.stop_ids[0]


def _read(
    model: Model, resid: torch.Tensor, ids: Sequence[int], temperature: float
) -> tuple[list[float], list[float], list[float]]:
    """Of each token the log-probability at temperature 1 and at the request's, and the entropy at the request's."""
    at_one: list[float] = []
    log_prob: list[float] = []
    spread: list[float] = []
    target = torch.tensor(ids, device=resid.device)
    for some in blocks(resid, model.d_vocab):
        plain = log_probs(model, resid[some])
        warm = plain if temperature in (0, 1) else (plain / temperature).log_softmax(-1)
        index = target[some, None]
        at_one += plain.gather(-1, index)[:, 0].tolist()
        log_prob += warm.gather(-1, index)[:, 0].tolist()
        spread += entropy(warm.clamp(min=-1e4)).tolist()
    return at_one, log_prob, spread
