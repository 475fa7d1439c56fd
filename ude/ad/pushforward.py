"""Forward mode along many directions in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from ude.ad.algebra.cache import directions as algebra_of
from ude.ad.jet import Jet
from ude.ad.operators.result import as_jet


def pushforward(
    f: Callable[..., Tensor], primals: Sequence[Tensor], directions: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    r"""Return $f(x_1, x_2, \dots)$ and $\sum_i (\partial f / \partial x_i)\, v_{ir}$ for R directions at once.

    One pass of the kernel with R slots.

    Args:
        f: Function of tensors, whose first argument has the batch as its first axis.
        primals: Its arguments.
        directions: $v_i$, of shape `(R, *x_i.shape)`, or with axes of length 1 where they do not vary.

    Returns:
        The value, and the derivatives of shape `(R, *value.shape)`.

    Example:
        >>> import torch
        >>> x, k = torch.tensor([[2.0]]), torch.tensor(3.0)
        >>> value, slopes = pushforward(lambda x, k: k * x, [x, k], [torch.zeros(1, 1, 1), torch.ones(1)])
        >>> slopes
        tensor([[[2.]]])
    """
    algebra = algebra_of(len(directions[0]), 1, collapsed=False)
    jets = [Jet(algebra, x, v) for x, v in zip(primals, directions, strict=True)]
    result = as_jet(f(*jets), algebra, primals[0])
    return result.value, result.dense()
