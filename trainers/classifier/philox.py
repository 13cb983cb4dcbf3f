"""Random bits of a counter: Philox4x32-7, in tensor operations on integers that give the same bits on every device.

J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011: seven rounds are the fewest that pass all
tests of BigCrush. A number depends on the key and on its
counter alone, so it does not matter in which order, in which company or how far ahead the numbers are computed, and a
captured step computes new ones whenever its counter has moved.

Words of 32 bits are held in int64: a product of two of them wraps to its low 64 bits, whose halves are what a round
needs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

NUM_ROUNDS = 7
FACTORS = 0xD2511F53, 0xCD9E8D57
INCREMENTS = 0x9E3779B9, 0xBB67AE85
WORD = 0xFFFFFFFF

UNITS = 8
"""Units that share a counter: each of its four words gives two of them 16 bits."""
LEVELS = 1 << 16
"""Probabilities are multiples of 1 / LEVELS."""

RoundKeys = Sequence[tuple[Tensor | int, Tensor | int]]


def round_keys(seed: int, rounds: int = NUM_ROUNDS) -> list[tuple[int, int]]:
    """The two words of each round's key for a seed in [0, 2**64)."""
    words = seed & WORD, seed >> 32
    return [
        ((words[0] + number * INCREMENTS[0]) & WORD, (words[1] + number * INCREMENTS[1]) & WORD)
        for number in range(rounds)
    ]


def philox(c0: Tensor, c1: Tensor, c2: Tensor, c3: Tensor, keys: RoundKeys) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four words of each counter (c0, c1, c2, c3), whose shapes broadcast; all of them int64 below 2**32."""
    for first, second in keys:
        low, high = c0 * FACTORS[0], c2 * FACTORS[1]
        # What is above 32 bits in c1 and c3 is cut off with the result of which they become a part.
        c0, c1, c2, c3 = ((high >> 32) ^ c1 ^ first) & WORD, high, ((low >> 32) ^ c3 ^ second) & WORD, low
    return c0, c1 & WORD, c2, c3 & WORD


def threshold(dropout: float) -> int:
    """A unit is kept if its 16 bits are below this; at least 1, so that a unit can be kept."""
    return max(1, round((1 - dropout) * LEVELS))


def scale(dropout: float) -> float:
    """What a kept unit is multiplied with, so that its mean stays what it was."""
    return LEVELS / threshold(dropout)


def kept(
    c0: Tensor, c1: Tensor, c2: Tensor, c3: Tensor, keys: RoundKeys, limit: Tensor | int, units_last: bool
) -> Tensor:
    """Whether each of the UNITS units of each counter is kept, bool; ``limit`` is :func:`threshold`.

    The units are a new last dimension, or the one before the last.
    """
    above = limit * LEVELS
    halves = [half for word in philox(c0, c1, c2, c3, keys) for half in ((word & (LEVELS - 1)) < limit, word < above)]
    return torch.stack(halves, -1 if units_last else -2)
