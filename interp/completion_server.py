"""Completions of a server that speaks OpenAI's protocol (vLLM, SGLang, llama.cpp) and serves a baked checkpoint."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from interp.bare_model import takes_model
from interp.completion_cache import Request
from interp.completion_sources import Said
from interp.digest import digest
from interp.errors import UserError
from interp.identity import identity_of
from interp.model import Model
from interp.sampling import stream_seed

AT_ONCE = 32
"""Requests on the way at the same time; servers batch them."""
TIMEOUT = 600.0
"""Seconds that one completion may take."""

# Engines take these from the checkpoint or have defaults of their own: nothing may trim what is sampled.
_PLAIN = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "repeat_penalty": 1.0, "return_token_ids": True}


@dataclass(frozen=True)
class ServerSource:
    """Completes the prompts that have the edits which are inside the served checkpoint.

    Random streams are the server's: equal seeds give equal completions where it says so, but a steered and an unsteered
    completion are paired by problem only.

    Attributes:
        url: address of the API, such as http://localhost:8000/v1; a key, if one is asked for, is in OPENAI_API_KEY.
        edits: digests of the edits; () = the model as it is.
    """

    url: str
    edits: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Not the address: the same checkpoint may be served anywhere."""
        return digest("server", self.edits)

    @takes_model
    def answers(self, model: Model, request: Request) -> list[int]:  # noqa: ARG002 - as every source
        """Rows whose edits are those of the served checkpoint."""
        every = request.row_edits()
        return [row for row, edits in enumerate(every) if tuple(identity_of(edit) for edit in edits) == self.edits]

    @takes_model
    def say(self, model: Model, request: Request) -> list[list[Said]]:
        """Ask for each sample, with a seed of its own.

        Raises:
            UserError: the server cannot be reached or refuses.
        """
        names = request.prompt_keys()
        asked = [
            (prompt.ids, stream_seed(request.seed, name, sample) % 2**31)
            for prompt, name in zip(request.prompts, names, strict=True)
            for sample in range(request.samples)
        ]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            said = list(pool.map(lambda one: self._ask(model, request, *one), asked))
        return [said[start : start + request.samples] for start in range(0, len(said), request.samples)]

    def _ask(self, model: Model, request: Request, ids: tuple[int, ...], seed: int) -> Said:
        try:
            reply = self._client.completions.create(
                model=self._served,
                prompt=list(ids),
                max_tokens=request.max_new_tokens,
                temperature=request.temperature,
                top_p=1.0,
                seed=seed,
                logprobs=0,
                extra_body={**_PLAIN, "stop_token_ids": list(model.stop_ids)},
            )
        except self._openai.OpenAIError as error:
            raise self._refused(error) from None
        one = reply.choices[0]
        told = getattr(one, "token_ids", None)  # vLLM's
        log_prob = getattr(one.logprobs, "token_logprobs", None)
        tokens = None if told is None else tuple(map(int, told))
        known = None if not log_prob or None in log_prob else tuple(map(float, log_prob))
        return Said(one.text, one.finish_reason == "stop", tokens, known)

    @cached_property
    def _openai(self) -> Any:
        try:
            import openai
        except ImportError:
            works = "pip install 'small-vectors[server]'"
            raise UserError("completions from a server need the library openai", works=works) from None
        return openai

    @cached_property
    def _client(self) -> Any:
        key = os.environ.get("OPENAI_API_KEY", "none")
        return self._openai.OpenAI(base_url=self.url, api_key=key, timeout=TIMEOUT, max_retries=4)

    @cached_property
    def _served(self) -> str:
        """The one model of the server, or its first."""
        try:
            models = self._client.models.list().data
        except self._openai.OpenAIError as error:
            raise self._refused(error) from None
        if not models:
            raise UserError("this server serves no model", given=self.url)
        return models[0].id

    def _refused(self, error: Exception) -> UserError:
        reason = " ".join(str(error).split())[:200]
        works = "give the address of its API, such as http://localhost:8000/v1"
        return UserError(f"the server gives no completions: {reason}", given=self.url, works=works)
