"""Shares of six paths in a vector's effect: every coalition of paths sees the vector, the others do not.

The worth of a coalition is what it recovers, E_t[D(steered, base) - D(steered, patched)] with D = KL by default: 0 for
none of the paths, D(steered, base) for all of them. Paths interact, so three numbers stand for each: its worth alone,
what it adds as the last one, and its Shapley value, the mean of what it adds over all orders of joining; Shapley values
sum to the whole. Pairs: the Shapley interaction index, the mean over coalitions of the others of what the two add
together beyond what each adds (Grabisch & Roubens 1999). No torch here.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations
from math import factorial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp.paths import CLEAN, FOLLOW, STEERED, BlockPaths

Array = NDArray[Any]

PLAYERS = ("q", "k", "v", "attn-to-mlp", "resid-to-mlp", "resid")
"""The paths; attn-to-mlp is in where the MLP hears the patched heads, out where it hears those of the clean run."""
ATTENTION = PLAYERS[:4]
"""The paths through attention."""
COALITIONS = tuple(range(2 ** len(PLAYERS)))
"""Bit i of a coalition = player i is in."""
PAIRS = tuple(combinations(range(len(PLAYERS)), 2))
"""Pairs of players."""


def coalition_patch(coalition: int) -> BlockPaths:
    """The patch in which exactly the players of a coalition see the vector."""
    q, k, v, to_mlp, read, resid = (bool(coalition >> player & 1) for player in range(len(PLAYERS)))
    q, k, v, read, resid = (STEERED if one else CLEAN for one in (q, k, v, read, resid))
    return BlockPaths(q=q, k=k, v=v, attn_to_mlp=FOLLOW if to_mlp else CLEAN, resid_to_mlp=read, resid=resid)


def coalition_name(coalition: int) -> str:
    """The players that are in, such as "q+resid"; "none" for none."""
    return "+".join(name for player, name in enumerate(PLAYERS) if coalition >> player & 1) or "none"


@cache
def contrasts(players: int = len(PLAYERS)) -> dict[str, Array]:
    """Weights over coalitions, [player or pair, coalition], that turn worths into each statistic.

    Every statistic is linear in the worths, so it may be taken problem by problem and averaged.
    """
    count = 2**players
    alone, last, shapley = (np.zeros((players, count)) for _ in range(3))
    pairs = tuple(combinations(range(players), 2))
    interaction = np.zeros((len(pairs), count))
    for player in range(players):
        bit = 1 << player
        alone[player, [bit, 0]] = 1, -1
        last[player, [count - 1, count - 1 - bit]] = 1, -1
        for others in (c for c in range(count) if not c & bit):
            size = others.bit_count()
            weight = factorial(size) * factorial(players - size - 1) / factorial(players)
            shapley[player, [others | bit, others]] += weight, -weight
    for index, (one, two) in enumerate(pairs):
        a, b = 1 << one, 1 << two
        for others in (c for c in range(count) if not c & (a | b)):
            size = others.bit_count()
            weight = factorial(size) * factorial(players - size - 2) / factorial(players - 1)
            interaction[index, [others | a | b, others]] += weight
            interaction[index, [others | a, others | b]] -= weight
    return {"alone": alone, "last": last, "shapley": shapley, "interaction": interaction}
