"""Trade computation for memory in reverse mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils import checkpoint as _checkpoint


def checkpoint(f: Callable[..., Any], *args: Any) -> Any:
    """Evaluate `f(*args)`, forgetting its intermediate values; the backward pass computes them again.

    `f` must take the same path when it runs again. Gradients flow to `args` and to tensors that `f` closes over.

    Example:
        >>> import torch
        >>> x = torch.tensor(2.0, requires_grad=True)
        >>> checkpoint(lambda x: x.sin().exp(), x).backward()
        >>> bool(torch.isclose(x.grad, x.cos() * x.sin().exp()))
        True
    """
    return _checkpoint.checkpoint(f, *args, use_reentrant=False)
