"""How large a scaled error is: torchdiffeq's defaults."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def root_mean_square(x: Tensor) -> Tensor:
    r"""Return $\sqrt{\operatorname{mean}_i |x_i|^2}$, the norm of one tensor."""
    return x.abs().square().mean().sqrt()


def mixed_norm(parts: Sequence[Tensor]) -> Tensor:
    """Return the largest root mean square among several tensors, the norm of a tuple; NaN if one is."""
    sizes = [root_mean_square(part) for part in parts if part.numel()]
    return torch.stack(sizes).amax() if sizes else torch.zeros(())
