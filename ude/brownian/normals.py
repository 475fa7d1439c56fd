"""Normal numbers that are functions of a counter: any of them can be had by itself, in any order, again and again."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Of SplitMix64, as signed numbers: tensors have no unsigned arithmetic of 64 bits, and products wrap around alike.
STEP = 0x9E3779B97F4A7C15 - 2**64
FIRST = 0xBF58476D1CE4E5B9 - 2**64
SECOND = 0x94D049BB133111EB - 2**64
LOW = 0xFFFFFFFF


def hashed(key: Tensor, counter: Tensor) -> Tensor:
    """Return 64 bits for every counter, whole numbers of the broadcast shape.

    Args:
        key: Which sequence, an integer tensor.
        counter: Which of its numbers, an integer tensor.

    Reference:
        Steele, Lea & Flood (2014), Fast splittable pseudorandom number generators, OOPSLA: the generator SplitMix64.
    """
    x = key + counter * STEP
    x = (x ^ _shifted(x, 30)) * FIRST
    x = (x ^ _shifted(x, 27)) * SECOND
    return x ^ _shifted(x, 31)


def normal_pairs(key: Tensor, counter: Tensor) -> tuple[Tensor, Tensor]:
    """Return two independent standard normal numbers for every counter, in double precision.

    Each uniform number behind them has 32 bits, so that none is larger than 6.7.

    Args:
        key: Which sequence, an integer tensor.
        counter: Which of its numbers, an integer tensor.

    Reference:
        Box & Muller (1958), A note on the generation of random normal deviates, Ann. Math. Stat. 29(2), 610-611.
    """
    bits = hashed(key, counter)
    radius = torch.sqrt(-2.0 * torch.log(((bits & LOW).double() + 0.5) * 2.0**-32))
    angle = _shifted(bits, 32).double() * (2.0 * math.pi * 2.0**-32)
    return radius * torch.cos(angle), radius * torch.sin(angle)


def _shifted(x: Tensor, places: int) -> Tensor:
    """Return bits moved to the right, zeros coming in from the left."""
    return (x >> places) & ((1 << (64 - places)) - 1)
