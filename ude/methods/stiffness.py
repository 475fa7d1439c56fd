"""The estimate of stiffness that two stages at one time give."""

from __future__ import annotations

import torch
from torch import Tensor


def rate(change: Tensor, distance: Tensor) -> Tensor:
    r"""Return $\|\Delta k\| / \|\Delta g\|$ per sample, zero where either vanishes, with gradient zero there."""
    squares = [(x * x.conj()).real.sum(-1) for x in (change, distance)]
    usable = torch.minimum(*squares) > torch.finfo(squares[0].dtype).tiny
    numerator, denominator = (torch.where(usable, square, 1.0) for square in squares)
    return torch.where(usable, (numerator / denominator).sqrt(), 0.0)
