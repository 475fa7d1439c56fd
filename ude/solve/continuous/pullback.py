"""Products with the transposed derivatives of a vector field."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ude import ad
from ude._typing import FlatField


@dataclass(frozen=True, slots=True)
class Pullback:
    r"""$a \mapsto (f,\; a^T f_t,\; a^T f_y,\; a^T f_p)$ of a vector field.

    Args:
        field: $f(t, y)$ with `t` of shape `(batch,)` and `y` of shape `(batch, state)`.
        parameters: The leaf tensors p.
    """

    field: FlatField
    parameters: tuple[Tensor, ...]

    def __call__(
        self, t: Tensor, y: Tensor, a: Tensor, *, parameters: bool = True
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Return f, $a^T f_y$ of shape `(batch, state)`, and one cotangent for every parameter.

        Raises:
            ValueError: If the field turns out to depend on a parameter that is not among those known.
        """
        wanted = self.parameters if parameters else ()
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            value = self.field(t.detach(), y)
            if not value.requires_grad:
                return value, torch.zeros_like(y), tuple(torch.zeros_like(p) for p in wanted)
            self._check_known(value, y)
            # What the field closes over may have been computed from the parameters: that graph is needed again.
            rows, *rest = ad.grad([value], [y, *wanted], [a.detach()], retain_graph=True)
        return value.detach(), rows, tuple(rest)

    def _check_known(self, value: Tensor, y: Tensor) -> None:
        known = {id(p) for p in self.parameters} | {id(y)}
        for leaf in ad.leaves(value):
            if id(leaf) not in known:
                raise ValueError(
                    f"The vector field depends on a tensor of shape {tuple(leaf.shape)} that requires a gradient and "
                    "was not met at the start of the solve: its gradient would be lost. Hand it over in the problem's "
                    "`p`, make it a parameter of a module that is the vector field, or use `adjoint=Direct()`."
                )


def find_parameters(vector_field: Any, p: Any, field: FlatField, t: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """Return the leaf tensors that a vector field can be differentiated by, in a fixed order.

    They are those in `p`, those of the module that it is (or is a method of), and those it is seen to depend on.
    """
    owner = vector_field if isinstance(vector_field, torch.nn.Module) else getattr(vector_field, "__self__", None)
    named: Iterable[Tensor] = owner.parameters() if isinstance(owner, torch.nn.Module) else ()
    given = [x for x in pytree.tree_leaves(p) if isinstance(x, Tensor) and x.requires_grad]
    with torch.enable_grad():
        start = y.detach().requires_grad_()
        seen = ad.leaves(field(t.detach(), start), *given)
    return _distinct([x for x in [*named, *seen] if x.requires_grad and x is not start])


def _distinct(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple({id(x): x for x in tensors}.values())
