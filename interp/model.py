"""A model with its tokenizer: run, generate and score under edits. Nothing stays hooked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from html import escape
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.backend.engine import Engine
from interp.backend.fingerprint import fingerprint
from interp.backend.hook_path import HookPath, path_of
from interp.backend.weights import Hooked, device_of, hooks_present, runs_functionally, unembed
from interp.batch import Batch
from interp.chat import Turns, render
from interp.completions import Completions
from interp.editor import Editor, Fired
from interp.edits import Edits
from interp.errors import UserError
from interp.generate import Sampling, generate
from interp.positions import Positions, Tokens
from interp.prompts import Prompt
from interp.readouts import Readout
from interp.scoring import PREDICTING, score
from interp.sites import Site

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Trace:
    """What a run left.

    Attributes:
        final: resid_post of the last block after its edits, [batch, pos, d_model].
        values: the sites that were read, after their edits.
        fired: how often each edit touched a token.
        batch: what was run.
        model: what ran it.
    """

    final: Float[Tensor, "batch pos d_model"]
    values: dict[Site, Tensor]
    fired: tuple[Fired, ...]
    batch: Batch
    model: Model = field(repr=False)

    def __getitem__(self, site: Site) -> Tensor:
        if site not in self.values:
            raise UserError("this site was not read", given=str(site), works=f"run(..., read=[{site!r}])")
        return self.values[site]

    def log_probs(self, at: Bool[Tensor, "batch pos"] | None = None) -> Float[Tensor, "*n vocab"]:
        """Next-token log-probabilities, nats, float32.

        Args:
            at: positions to unembed, giving [n, vocab]; all of them, giving [batch, pos, vocab], if None. The
                vocabulary is large: ask for the positions that you need.
        """
        resid = self.final if at is None else self.final[at]
        with torch.no_grad():
            return self.model.unembed(resid).float().log_softmax(-1)


class Model:
    """A HookedTransformer, its tokenizer and its end tokens.

    Args:
        hooked: the weights; kept as they are.
        tokenizer: its own if None.
        name: shown in figures; the config's if None.
        architecture: Hugging Face class name; the config's if None.
        stop_ids: tokens that end a completion; the tokenizer's eos if None.
    """

    def __init__(
        self,
        hooked: Hooked,
        *,
        tokenizer: Any = None,
        name: str | None = None,
        architecture: str | None = None,
        stop_ids: Sequence[int] | None = None,
    ) -> None:
        self.hooked: Any = hooked
        self.cfg: Any = hooked.cfg
        self.tokenizer: Any = hooked.tokenizer if tokenizer is None else tokenizer
        self.name = name or str(self.cfg.model_name)
        self.architecture = architecture or str(
            self.cfg.original_architecture or getattr(self.cfg, "architecture", None)
        )
        eos = getattr(self.tokenizer, "eos_token_id", None)
        self.stop_ids: tuple[int, ...] = tuple(stop_ids) if stop_ids is not None else (() if eos is None else (eos,))
        self._engine = Engine(hooked) if runs_functionally(hooked) else None
        self._text = lru_cache(maxsize=None)(self._decode_one)

    @classmethod
    def of(cls, model: Model | Hooked) -> Model:
        """Take a Model as it is, wrap a bare HookedTransformer or TransformerBridge."""
        return model if isinstance(model, Model) else cls(model)

    @property
    def path(self) -> Engine | HookPath:
        """The engine, or the model's own hooks where foreign hooks or an unusual architecture ask for them."""
        if self._engine is None or hooks_present(self.hooked):
            return path_of(self.hooked)
        return self._engine

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return int(self.cfg.n_layers)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(self.cfg.d_model)

    @property
    def d_vocab(self) -> int:
        """Size of the vocabulary."""
        return int(self.cfg.d_vocab)

    @property
    def n_ctx(self) -> int:
        """Longest row, tokens."""
        return int(self.cfg.n_ctx)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.cfg.dtype

    @property
    def device(self) -> torch.device:
        """Of the weights."""
        return device_of(self.hooked)

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the weights, whatever dtype they were loaded in."""
        return fingerprint(self.hooked)

    @property
    def bytes_per_token(self) -> int:
        """Keys and values of one token in all blocks, bytes."""
        heads = self.cfg.n_key_value_heads or self.cfg.n_heads
        return 2 * self.n_layers * heads * self.cfg.d_head * self.dtype.itemsize

    def memory_bytes(self, gigabytes: float | None) -> float:
        """What a batch may hold, bytes."""
        if gigabytes is not None:
            return gigabytes * 1e9
        return 0.6 * torch.cuda.mem_get_info(self.device)[0] if self.device.type == "cuda" else 4e9

    def prompt(self, text: Turns, system: str | None = None) -> Prompt:
        """Render a user message, or turns, with the chat template and tokenise it, once.

        Args:
            text: the user's message, or turns `[{"role": "user", "content": "..."}, ...]`.
            system: system message; none, and no default of the template's, if None (see `interp.chat.render`).
        """
        return render(self.tokenizer, text, system=system)

    def tokens(
        self,
        ids: Int[Tensor, "batch pos"],
        position: Int[Tensor, "batch pos"],
        prompt_len: Int[Tensor, " batch"],
        rows: Int[Tensor, " batch"],
        weight: Int[Tensor, " batch"] | None = None,
    ) -> Tokens:
        """The tokens of one pass, with this model's tokenizer to name them."""
        return Tokens(ids, position, prompt_len, rows, self._text, weight=weight)

    def run(self, batch: Batch | Tensor, edits: Edits = (), read: Sequence[Site] = ()) -> Trace:
        """One pass over whole rows, without gradient.

        Args:
            batch: left-padded rows, or [batch, pos] token ids without padding.
            edits: one sequence for all rows, or `per_row([...])`.
            read: sites to keep, after their edits.

        Raises:
            UserError: an edit never fired, or a site does not exist.
        """
        batch = batch if isinstance(batch, Batch) else Batch.unpadded(batch)
        editor = Editor(edits, n_rows=len(batch), n_layers=self.n_layers, read=read)
        with torch.no_grad():
            final = self.forward(batch, editor)
        values = {site: parts[0] for site, parts in editor.values.items()}
        return Trace(final, values, tuple(editor.fired()), batch, self)

    def forward(self, batch: Batch, editor: Editor) -> Float[Tensor, "batch pos d_model"]:
        """One pass over whole rows, differentiable; returns resid_post of the last block."""
        rows = torch.arange(len(batch), device=self.device)
        ids, position, prompt_len = (t.to(self.device) for t in (batch.ids, batch.position, batch.prompt_len))
        tokens = self.tokens(ids, position, prompt_len, rows)
        return editor.run(self.path, tokens)

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
    ) -> Completions:
        """Sample completions under edits, with a random stream for each (seed, problem, sample).

        Args:
            prompts: tokenised prompts.
            edits: one sequence for all prompts, or `per_row([...])` with one for each.
            max_new_tokens: a completion that has not ended by then is cut.
            temperature: 0 = greedy.
            samples: completions of each prompt.
            seed: equal seeds give equal draws, whatever the edits.
            keys: name of each prompt's problem, by which streams are paired; the prompt's digest if None.
            memory_gb: bound of what a batch may hold.
        """
        return generate(self, prompts, edits, Sampling(max_new_tokens, temperature, samples, seed, keys, memory_gb))

    def score(
        self,
        batch: Batch | Tensor,
        edits: Edits = (),
        readouts: Sequence[str | Readout] = ("kl",),
        *,
        at: Positions = PREDICTING,
    ) -> pd.DataFrame:
        """What edits change in the next-token distributions, a row for each position; see `interp.scoring.score`.

        Args:
            batch: prompts with what was said after them.
            edits: one sequence for all rows, or `per_row([...])`.
            readouts: names or readouts.
            at: where to read; by default where completions are predicted.
        """
        return score(self, batch, edits, readouts, at=at)

    def unembed(self, resid: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n vocab"]:
        """Final norm, unembedding and soft cap: logits, in the model's dtype."""
        normed = self.hooked.ln_final(resid) if self.cfg.normalization_type is not None else resid
        logits = unembed(self.hooked, normed)
        cap = self.cfg.output_logits_soft_cap
        return logits if cap <= 0 else cap * torch.tanh(logits / cap)

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Text of each row, special tokens left out."""
        return [self.tokenizer.decode(list(row), skip_special_tokens=True) for row in rows]

    def prompt_text(self, prompt: Prompt) -> str:
        """A prompt as the model gets it: its tokens as text, special tokens included."""
        return self.tokenizer.decode(list(prompt.ids), skip_special_tokens=False)

    def token_text(self, token: int) -> str:
        """Text of one token."""
        return self._text(token)

    def _decode_one(self, token: int) -> str:
        return self.tokenizer.decode([token])

    def __repr__(self) -> str:
        return f"Model({self.name}: {self.n_layers} blocks, d_model {self.d_model}, {self.dtype}, {self.device})"

    def _repr_html_(self) -> str:
        facts = {
            "architecture": self.architecture,
            "blocks": self.n_layers,
            "d_model": self.d_model,
            "query heads, key and value heads": f"{self.cfg.n_heads}, {self.cfg.n_key_value_heads or self.cfg.n_heads}",
            "vocabulary": self.d_vocab,
            "context, tokens": self.n_ctx,
            "weights": f"{self.dtype}, {self.device}",
            "fingerprint": self.fingerprint,
        }
        rows = "".join(f"<tr><th>{name}</th><td>{escape(str(value))}</td></tr>" for name, value in facts.items())
        return f"<table><caption>{escape(self.name)}</caption>{rows}</table>"
