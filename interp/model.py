"""A model with its tokenizer: run, generate and score under edits. Nothing stays hooked."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.arguments import check_items, check_kind
from interp.backend.engine import Engine
from interp.backend.fingerprint import fingerprint, head_digest
from interp.backend.foreign import head_survey, survey
from interp.backend.hook_path import HookPath, path_of
from interp.backend.lineage import lineage
from interp.backend.weights import Hooked, device_of, dtype_of, refuse_other_dtype, rows_of, runs_functionally, unembed
from interp.batch import Batch, as_batch
from interp.chat import Turns, render
from interp.completions import Completions
from interp.editor import Editor
from interp.edits import Edits
from interp.errors import UserError
from interp.fired import refuse_untouched
from interp.generate import Sampling, generate
from interp.placed_edits import refuse_outside
from interp.positions import Positions, Tokens
from interp.prompts import Prompt
from interp.readouts import Readout
from interp.scoring import PREDICTING, score
from interp.selection import is_collection
from interp.sites import Site
from interp.token_ids import checked_ids
from interp.token_texts import TokenTexts
from interp.trace import Trace as Trace

if TYPE_CHECKING:
    import pandas as pd


class Model:
    """A HookedTransformer, its tokenizer and its end tokens.

    Nothing is kept between calls: each computes with the weights, settings and hooks that the object has then. Hooks,
    replaced methods and modules of other classes run too, through the object's own forward pass, which is slower; code
    on the model as a whole is refused.

    Args:
        hooked: the weights; the object itself is kept.
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
        check_kind("a model", hooked, Hooked, "load_model(...), or a HookedTransformer")
        self.hooked: Any = hooked
        self.tokenizer: Any = hooked.tokenizer if tokenizer is None else tokenizer
        self.name = name or str(self.cfg.model_name)
        self.architecture = architecture or str(
            self.cfg.original_architecture or getattr(self.cfg, "architecture", None)
        )
        eos = getattr(self.tokenizer, "eos_token_id", None)
        self.stop_ids: tuple[int, ...] = tuple(stop_ids) if stop_ids is not None else (() if eos is None else (eos,))
        self._texts = TokenTexts(self.tokenizer)

    @classmethod
    def of(cls, model: Model | Hooked) -> Model:
        """Take a Model as it is, wrap a bare HookedTransformer or TransformerBridge."""
        return model if isinstance(model, Model) else cls(model)

    @property
    def path(self) -> Engine | HookPath:
        """The engine, or the model's own hooks where foreign code or an unusual architecture asks for them.

        Made anew at every access, with the weights as they are: take it once a call.

        Raises:
            UserError: code is on the model as a whole, dropout is on, or weights and config differ in dtype.
        """
        refuse_other_dtype(self.hooked)
        about = survey(self.hooked)
        if about.whole:  # it may change the logits after they are computed
            raise UserError("what this model computes cannot be followed", given=about.whole, works="hook a block")
        if about.foreign or not runs_functionally(self.hooked, about.kinds):
            return path_of(self.hooked, caches=not about.foreign)
        return Engine(self.hooked)

    @property
    def cfg(self) -> Any:
        """Settings of the wrapped object as it is now."""
        return self.hooked.cfg

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
    def n_tokens(self) -> int:
        """Rows of the embedding: tokens that can be fed."""
        return rows_of(self.hooked)

    @property
    def n_ctx(self) -> int:
        """Longest row, tokens."""
        return int(self.cfg.n_ctx)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return dtype_of(self.hooked)

    @property
    def device(self) -> torch.device:
        """Of the weights."""
        return device_of(self.hooked)

    @property
    def fingerprint(self) -> str:
        """Identity of everything in this model that can change a number, as it is now; what recalls results uses it.

        It reads all weights (0.2 s for the embedded model): take it once a call. See `interp.backend.fingerprint`.
        """
        return fingerprint(self.hooked, self.tokenizer, self.stop_ids)

    @property
    def lineage(self) -> str:
        """Identity of the base model, whatever dtype it was loaded in and however it was tuned; vectors fit by it.

        Models with different weights share it: never recall results by it.
        """
        return lineage(self.hooked)

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
        if self.tokenizer is None:
            works = "Prompt(ids), or Model(hooked, tokenizer=...)"
            raise UserError("this model has no tokenizer to make a prompt of text", given=self.name, works=works)
        return render(self.tokenizer, text, system=system)

    def tokens(
        self,
        ids: Int[Tensor, "batch pos"],
        position: Int[Tensor, "batch pos"],
        prompt_len: Int[Tensor, " batch"],
        rows: Int[Tensor, " batch"],
        weight: Int[Tensor, " batch"] | None = None,
        members: Bool[Tensor, "batch row"] | None = None,
    ) -> Tokens:
        """The tokens of one pass, with this model's tokenizer to name them."""
        return Tokens(ids, position, prompt_len, rows, self.texts.exact, weight=weight, members=members)

    def check(self, batch: Batch) -> None:
        """Refuse tokens that have no row in the embedding, and rows longer than the context."""
        batch.check(tokens=self.n_tokens, context=self.n_ctx)

    def run(self, batch: Batch | Tensor, edits: Edits = (), read: Sequence[Site] = ()) -> Trace:
        """One pass over whole rows, without gradient.

        Args:
            batch: left-padded rows, or [batch, pos] token ids without padding.
            edits: one sequence for all rows, or `per_row([...])`.
            read: sites to keep, after their edits.

        Raises:
            UserError: an edit never fired or touched no token, a site, a token or a position does not exist, or it is
                no batch.
        """
        batch = as_batch(batch)
        check_items("read", read, lambda site: isinstance(site, Site), '[Site(1, "resid_post")]')
        refuse_outside(edits, batch.prompt_len.tolist())
        editor = Editor(edits, n_rows=len(batch), n_layers=self.n_layers, read=read)
        with torch.no_grad():
            final = self.forward(batch, editor)
        values = {site: parts[0] for site, parts in editor.values.items()}
        fired = tuple(editor.fired())
        refuse_untouched(fired)
        return Trace(final, values, fired, batch, self, head_survey(self.hooked), head_digest(self.hooked))

    def forward(self, batch: Batch, editor: Editor) -> Float[Tensor, "batch pos d_model"]:
        """One pass over whole rows, differentiable; returns resid_post of the last block."""
        self.check(batch)
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
        whole: bool = True,
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
            whole: False where these prompts are a part of a call, whose edits may touch none of them.

        Raises:
            UserError: an edit touched no token, as with `generated=5` where all completions ended before.
        """
        how = Sampling(max_new_tokens, temperature, samples, seed, keys, memory_gb)
        if not whole:
            return generate(self, prompts, edits, how)
        check_items("prompts", prompts, lambda one: isinstance(one, Prompt), "[model.prompt(text)]")
        refuse_outside(edits, [len(prompt.ids) for prompt in prompts])
        completions = generate(self, prompts, edits, how)
        refuse_untouched(completions.fired)
        return completions

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
        """Final norm, unembedding and soft cap: logits of any positions; refused where hooks may look at whole rows."""
        if reason := head_survey(self.hooked):
            works = "run(...).log_probs() and generate unembed whole rows; here, remove it"
            raise UserError("selected positions cannot be unembedded under foreign code", given=reason, works=works)
        return self.logits(resid)

    def logits(self, final: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n vocab"]:
        """The same of whole rows, as the model's own forward pass has them; hooks take part."""
        normed = self.hooked.ln_final(final) if self.cfg.normalization_type is not None else final
        logits = unembed(self.hooked, normed)
        cap = self.cfg.output_logits_soft_cap
        return logits if cap <= 0 else cap * torch.tanh(logits / cap)

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Text of each row, special tokens left out; token numbers in angle brackets without a tokenizer."""
        check_items("rows", rows, is_collection, "rows of token ids, [[1, 2], [3]]")
        return [self.texts.decode(checked_ids(row) if len(row) else ()) for row in rows]

    def prompt_text(self, prompt: Prompt) -> str:
        """A prompt as the model gets it: its tokens as text, special tokens included; empty without a tokenizer."""
        check_kind("a prompt", prompt, Prompt, "model.prompt(text)")
        return "" if self.tokenizer is None else self.tokenizer.decode(list(prompt.ids), skip_special_tokens=False)

    def token_text(self, token: int) -> str:
        """Text of one token; its number in angle brackets without a tokenizer."""
        return self.texts.shown(checked_ids(token)[0])

    @property
    def texts(self) -> TokenTexts:
        """Texts of tokens, remembered for as long as the tokenizer is the same object."""
        if self._texts.tokenizer is not self.tokenizer:
            self._texts = TokenTexts(self.tokenizer)
        return self._texts

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
