"""The same forward pass through the HookedTransformer's own hook points.

Used where somebody else's code is on the model, or where the engine does not compute the architecture.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import HookedTransformer
from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache
from transformer_lens.model_bridge import TransformerBridge

from interp.backend.passes import Tap
from interp.backend.weights import Hooked, device_of
from interp.errors import UserError
from interp.positions import Tokens
from interp.sites import Site

HOOKS = {
    "resid_pre": "hook_resid_pre",
    "q": "attn.hook_q",
    "k": "attn.hook_k",
    "v": "attn.hook_v",
    "z": "attn.hook_z",
    "attn_out": "hook_attn_out",
    "resid_mid": "hook_resid_mid",
    "ln2_out": "ln2.hook_normalized",
    "mlp_post": "mlp.hook_post",
    "mlp_out": "hook_mlp_out",
    "resid_post": "hook_resid_post",
}
"""Our streams as TransformerLens names them. ln1_out has none that fires once; ln2's fires before its gain."""


def hook_name(site: Site) -> str:
    """The hook point of a site, for `hooked.run_with_hooks(fwd_hooks=[(hook_name(site), f)])`.

    Raises:
        UserError: TransformerLens has no hook point that sees this value once.
    """
    if site.stream in ("ln1_out", "ln2_out"):
        works = "ln1 fires three times a block and ln2's hook comes before its gain; remove foreign hooks to read it"
        raise UserError("TransformerLens has no clean hook point here", given=str(site), works=works)
    return f"blocks.{site.layer}.{HOOKS[site.stream]}"


class HookCache:
    """TransformerLens' key-value cache behind the interface of `Cache`."""

    def __init__(self, hooked: HookedTransformer, inner: TransformerLensKeyValueCache | None = None) -> None:
        self.hooked, self.inner = hooked, inner

    def start(self, batch: int) -> TransformerLensKeyValueCache:
        """The inner cache, made for `batch` rows on first use."""
        if self.inner is None:
            self.inner = TransformerLensKeyValueCache.init_cache(self.hooked.cfg, device_of(self.hooked), batch)
        return self.inner

    def take(self, rows: Int[Tensor, " some"], *, reserve: int | None = None) -> HookCache:  # noqa: ARG002 - as Cache
        """A cache of some of the rows, each as often as it is named."""
        theirs_all = self.start(len(rows))
        new = TransformerLensKeyValueCache.init_cache(self.hooked.cfg, device_of(self.hooked), len(rows))
        for mine, theirs in zip(new.entries, theirs_all.entries, strict=True):
            mine.past_keys, mine.past_values = theirs.past_keys[rows], theirs.past_values[rows]
        new.previous_attention_mask = theirs_all.previous_attention_mask[rows]
        return HookCache(self.hooked, new)

    def keep(self, rows: Int[Tensor, " some"]) -> None:
        """Let the other rows go, one layer after the other."""
        inner = self.start(len(rows))
        for entry in inner.entries:
            entry.past_keys, entry.past_values = entry.past_keys[rows], entry.past_values[rows]
        inner.previous_attention_mask = inner.previous_attention_mask[rows]


class HookPath:
    """Runs `HookedTransformer.forward` with our taps hooked on for one call.

    Args:
        hooked: any HookedTransformer or bridge; its own hooks stay and fire first.
        caches: whether later tokens may be run alone, with the keys and values of earlier ones. Somebody else's hook
            may look at positions of the row, so a model that has one runs whole rows at every step.
    """

    def __init__(self, hooked: Hooked, *, caches: bool = True) -> None:
        self.hooked: Any = hooked
        self.caches = caches
        self.n_layers = hooked.cfg.n_layers
        self.device = device_of(hooked)

    def new_cache(self, *, reserve: int = 0, grad: bool = False) -> HookCache:  # noqa: ARG002 - as Engine
        """An empty cache."""
        return HookCache(self.hooked)

    def forward(
        self,
        tokens: Tokens,
        *,
        tap: Tap,
        sites: set[Site],
        cache: HookCache | None = None,
        resid: Float[Tensor, "batch pos d_model"] | None = None,
        start: int = 0,
        stop: int | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """As `Engine.forward`; `resid`, `start` and `stop` are not available through hooks."""
        if resid is not None or start or stop is not None:
            raise UserError("this model runs through its own hooks, whole", works="remove foreign hooks to resume")
        mask = (tokens.position >= 0).int()
        hooks = [(hook_name(site), partial(_visit, site=site, tap=tap, tokens=tokens)) for site in sites]
        final: list[Tensor] = []
        hooks.append((f"blocks.{self.n_layers - 1}.hook_resid_post", partial(_keep, into=final)))
        with self.hooked.hooks(fwd_hooks=hooks):  # pyright: ignore[reportArgumentType]
            self._run(tokens, mask, cache)
        return final[0]

    def _run(self, tokens: Tokens, mask: Tensor, cache: HookCache | None) -> None:
        """One forward pass up to the last block."""
        self.hooked(
            tokens.ids,
            return_type=None,
            attention_mask=mask,
            past_kv_cache=None if cache is None else cache.start(len(mask)),
            prepend_bos=False,
            padding_side="left",
            stop_at_layer=self.n_layers,
        )


class BridgePath(HookPath):
    """Runs a TransformerBridge, which lets Hugging Face's own model compute; without a cache."""

    def __init__(self, hooked: Hooked) -> None:
        super().__init__(hooked, caches=False)

    def _run(self, tokens: Tokens, mask: Tensor, cache: HookCache | None) -> None:
        del cache
        self.hooked(tokens.ids, attention_mask=mask, position_ids=tokens.position.clamp(min=0))


def path_of(hooked: Hooked, *, caches: bool = True) -> HookPath:
    """The way through a model's own hooks; arguments as for `HookPath`."""
    return BridgePath(hooked) if isinstance(hooked, TransformerBridge) else HookPath(hooked, caches=caches)


def _visit(value: Tensor, hook: Any, *, site: Site, tap: Tap, tokens: Tokens) -> Tensor:  # noqa: ARG001 - TransformerLens passes it
    return tap(site, value, tokens)


def _keep(value: Tensor, hook: Any, *, into: list[Tensor]) -> Tensor:  # noqa: ARG001
    into.append(value)
    return value
