"""Completions side by side, each token coloured by how much the intervention mattered there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch

from interp.active_edits import active_now
from interp.arguments import check_items
from interp.arguments import shown as described
from interp.backend.weights import Hooked
from interp.bare_model import takes_model
from interp.batch import Batch
from interp.chat import Turns
from interp.edits import Edit, Intervention
from interp.errors import UserError
from interp.markup import text
from interp.model import Model
from interp.numbers import shown
from interp.prompts import Prompt

_CSS = "font-family:monospace;white-space:pre-wrap"


@dataclass(frozen=True)
class Said:
    """What a model said under one intervention.

    Attributes:
        name: the intervention's.
        tokens: text of each generated token.
        kl: KL(edited || base) of the distribution that each token was drawn from, nats; 0 for the base itself.
        ended: the model ended by itself.
        text: the completion without special tokens.
        on: what was on: blocks, stream and positions; "no edit" for the base.
    """

    name: str
    tokens: tuple[str, ...]
    kl: tuple[float, ...]
    ended: bool
    text: str
    on: str = ""


@dataclass(frozen=True)
class Comparison:
    """Completions of one prompt under several interventions; a table in a notebook.

    Attributes:
        prompt: what was asked.
        said: a completion for each intervention.
        rendered: the whole prompt as the model gets it, special tokens included.
    """

    prompt: str
    said: tuple[Said, ...]
    rendered: str = ""

    def __getitem__(self, name: str) -> Said:
        return next(one for one in self.said if one.name == name)

    def html(self) -> str:
        """The table as HTML, every text escaped."""
        top = max((value for one in self.said for value in one.kl), default=0.0)
        rows = "".join(
            f"<tr><th>{text(one.name)}</th><td style='{_CSS};text-align:left'>{_spans(one, top)}</td></tr>"
            for one in self.said
        )
        head = f"<p style='{_CSS}'>{text(self.prompt)}</p>"
        note = f"<p>Colour: KL(edited || base) at each token, nats; full colour = {shown(top, '.2f')}.</p>"
        whole = (
            f"<details><summary>The prompt as the model gets it</summary><p style='{_CSS}'>{text(self.rendered)}</p>"
        )
        asked = f"{whole}</details>" if self.rendered else ""
        on = "".join(f"<p>{text(line)}</p>" for line in self.on())
        return f"<div>{head}{asked}<table>{rows}</table>{on}{note}</div>"

    def on(self) -> list[str]:
        """Return what was on, a line per intervention."""
        return [f"{one.name}: {one.on}" for one in self.said if one.on not in ("", "no edit")]

    def _repr_html_(self) -> str:
        return self.html()

    def __str__(self) -> str:
        return "\n".join(f"{one.name}: {one.text}" for one in self.said)


@takes_model
def compare(
    model: Model | Hooked,
    prompt: Turns | Prompt,
    interventions: Mapping[str, Intervention | Sequence[Edit] | None],
    *,
    system: str | None = None,
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    seed: int = 0,
) -> Comparison:
    """Complete a prompt under each intervention and measure, token by token, what it changed.

    Args:
        model: a Model or a bare HookedTransformer.
        prompt: the user's message, turns of role and content, or a prompt that is tokenised already.
        interventions: by name; None is the model as it is.
        system: system message; none, and no default of the chat template's, if None (see `interp.chat.render`). The
            page shows the whole prompt. A prompt that is tokenised already has its own.
        max_new_tokens: where a completion is cut.
        temperature: 0 = greedy; otherwise all interventions share one random stream.
        seed: of that stream.

    Raises:
        UserError: an edit of an intervention touched no token, or the prompt cannot be rendered or has a system
            message already.
    """
    if not isinstance(cast("object", interventions), Mapping):
        raise UserError("interventions are named", given=described(interventions), works='{"base": None, "v": v}')
    model = Model.of(model)
    if isinstance(prompt, Prompt) and system is not None:
        raise UserError("a tokenised prompt has its system message inside", given=system, works="give the text instead")
    rendered = prompt if isinstance(prompt, Prompt) else model.prompt(prompt, system)
    said: list[Said] = []
    for name, intervention in interventions.items():
        edits = edits_of(intervention)
        made = model.generate(
            [rendered], edits, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed, keys=["compare"]
        )
        row, whole = made.rows[0], made.texts[0]
        kl = _kl(model, Batch.of([rendered], [row.ids], device=model.device), edits)
        tokens = tuple(map(model.token_text, row.ids))
        said.append(Said(name, tokens, kl, row.ended, whole, active_now(edits)))
    return Comparison(_shown(model, prompt), tuple(said), model.prompt_text(rendered))


def _shown(model: Model, prompt: Turns | Prompt) -> str:
    """What was asked, as text: of a tokenised prompt the problem, where it knows its parts."""
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, Prompt):
        return model.decode([prompt.ids[slice(*prompt.spans.get("problem", (0, len(prompt))))]])[0]
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)


def edits_of(intervention: Any) -> tuple[Edit, ...]:
    """The edits of an Intervention, of a sequence of edits, or of None."""
    if intervention is None:
        return ()
    if isinstance(intervention, Intervention):
        return tuple(intervention.edits())
    fits = lambda one: hasattr(one, "sites") or hasattr(one, "at")  # noqa: E731
    check_items("an intervention", intervention, fits, "steering vectors, [Add(site, v)] or None")
    return tuple(intervention)


def _kl(model: Model, batch: Batch, edits: tuple[Edit, ...]) -> tuple[float, ...]:
    """KL(edited || base) where each generated token was predicted, nats."""
    predicts = (batch.position >= batch.prompt_len[:, None] - 1)[:, :-1]
    at = torch.cat([predicts, torch.zeros_like(predicts[:, :1])], 1)  # the last token predicts nothing that was said
    if not edits:
        return (0.0,) * int(at.sum())
    base, edited = model.run(batch).log_probs(at), model.run(batch, edits).log_probs(at)
    kl = (edited.exp() * (edited - base)).sum(-1).clamp(min=0.0)
    return tuple(float(value) for value in kl)


def _spans(said: Said, top: float) -> str:
    spans: list[str] = []
    for token, value in zip(said.tokens, said.kl, strict=True):
        share = value / top if top > 0 else 0.0
        style = f"background:rgba(242,142,43,{share:.2f})"
        nats = shown(value, ".3f")
        spans.append(f'<bdi style="{style}" title="{nats} nats">{text(token)}</bdi>')
    return "".join(spans)
