"""Keys and values of the tokens already seen, with their absolute positions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

Slot = int | tuple[int, str]
"""A block, or one of the worlds that a block with patched paths keeps beside."""


class Cache:
    """Rotated keys and values of every slot, [batch, kv_head, pos, d_head], and the absolute position of each token.

    A token at position -1 is padding and never attended to. With `grad`, tensors are concatenated so that autograd
    can follow; without, they are written into storage reserved ahead.
    """

    def __init__(self, *, reserve: int = 0, grad: bool = False) -> None:
        self.keys: dict[Slot, Tensor] = {}
        self.values: dict[Slot, Tensor] = {}
        self.position: Int[Tensor, "batch pos"] | None = None
        self.length = 0
        self.worlds: dict[str, Cache] = {}
        self._reserve, self._grad = reserve, grad

    def world(self, name: str) -> Cache:
        """The cache of the same rows in another world, such as without edits; `take` takes it along."""
        return self.worlds.setdefault(name, Cache(reserve=self._reserve, grad=self._grad))

    def append(
        self, slot: Slot, k: Float[Tensor, "batch head new d_head"], v: Float[Tensor, "batch head new d_head"]
    ) -> tuple[Float[Tensor, "batch head pos d_head"], Float[Tensor, "batch head pos d_head"]]:
        """Add new keys and values to a slot; returns all of them. Call `advance` once a pass, before."""
        self.keys[slot] = self._write(self.keys.get(slot), k)
        self.values[slot] = self._write(self.values.get(slot), v)
        return self.keys[slot][:, :, : self.length], self.values[slot][:, :, : self.length]

    def _write(self, old: Tensor | None, new: Tensor) -> Tensor:
        before = self.length - new.shape[2]
        if self._grad:
            return new if old is None else torch.cat([old[:, :, :before], new], 2)
        if old is None or old.shape[2] < self.length:
            grown = new.new_empty(new.shape[0], new.shape[1], self.length + self._reserve, new.shape[3])
            if old is not None:
                grown[:, :, :before] = old[:, :, :before]
            old = grown
        old[:, :, before : self.length] = new
        return old

    def advance(self, position: Int[Tensor, "batch new"]) -> Int[Tensor, "batch pos"]:
        """Record the absolute positions of the new tokens (-1 or less = padding); returns those of all slots."""
        self.position = position if self.position is None else torch.cat([self.position, position], 1)
        self.length = self.position.shape[1]
        return self.position

    def take(self, rows: Int[Tensor, " some"], *, reserve: int | None = None) -> Cache:
        """A cache of some of the rows, each as often as it is named."""
        new = Cache(reserve=self._reserve if reserve is None else reserve, grad=self._grad)
        new.keys = {slot: new._room([t[rows, :, : self.length]]) for slot, t in self.keys.items()}
        new.values = {slot: new._room([t[rows, :, : self.length]]) for slot, t in self.values.items()}
        new.position = None if self.position is None else self.position[rows]
        new.length = self.length
        new.worlds = {name: world.take(rows, reserve=reserve) for name, world in self.worlds.items()}
        return new

    def keep(self, rows: Int[Tensor, " some"]) -> None:
        """Let the other rows go, one slot after the other, so that old and new never stand whole beside each other."""
        for held in (self.keys, self.values):
            for slot in held:
                held[slot] = held[slot][rows]
        self.position = None if self.position is None else self.position[rows]
        for world in self.worlds.values():
            world.keep(rows)

    def back(self, tokens: int) -> Cache:
        """Forget the last tokens in place; what comes next is written over them."""
        self.length -= tokens
        self.position = None if self.position is None else self.position[:, : self.length]
        for world in self.worlds.values():
            world.back(tokens)
        return self

    def graft(self, trunk: Cache, rows: Int[Tensor, " batch"], *, below: int) -> None:
        """Take over the blocks below `below` of a cache of fewer rows; a pass over the other blocks comes next."""
        for slot in [slot for slot in trunk.keys if isinstance(slot, int) and slot < below]:
            for ours, theirs in ((self.keys, trunk.keys), (self.values, trunk.values)):
                ours[slot] = theirs[slot][rows, :, : trunk.length]

    @staticmethod
    def join(parts: Sequence[Cache], *, reserve: int) -> Cache:
        """One cache of all rows of caches of the same length, which are emptied on the way."""
        new = Cache(reserve=reserve)
        new.position = torch.cat([part.position for part in parts if part.position is not None])
        new.length = parts[0].length
        for slot in list(parts[0].keys):
            for into, held in ((new.keys, [p.keys for p in parts]), (new.values, [p.values for p in parts])):
                into[slot] = new._room([one.pop(slot)[:, :, : new.length] for one in held])
        return new

    def _room(self, old: Sequence[Tensor]) -> Tensor:
        if self._grad:
            return torch.cat(list(old))
        rows, heads, length, d_head = sum(map(len, old)), *old[0].shape[1:]
        grown = old[0].new_empty(rows, heads, length + self._reserve, d_head)
        torch.cat(list(old), out=grown[:, :, :length])
        return grown
