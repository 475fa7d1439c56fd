"""The user's functions of an event, as functions of `(batch,)` and `(batch, state)`, with what they return checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from ude.solve.events.event import arguments
from ude.solve.events.section import FlatCondition
from ude.solve.flatten import Layout


@dataclass(frozen=True, slots=True)
class Calls:
    """How the user's functions are called.

    Args:
        layout: Between the user's state and `(batch, state)`.
        p: The user's parameters.
    """

    layout: Layout
    p: Any

    def scalar(self, name: str, function: Callable[..., Any]) -> FlatCondition:
        """Return a function with one number per sample; a `ValueError` if it is another one."""

        def flat(t: Tensor, y: Tensor) -> Tensor:
            value = function(*arguments(self.layout.time(t), self.layout.unflatten(y), self.p))
            if not isinstance(value, Tensor) or value.numel() != len(t):
                got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(
                    f"`{name}` must return a tensor with one number per sample, {len(t)} in all, got {got}."
                )
            return value.reshape(len(t))

        return flat

    def vector(self, name: str, function: Callable[..., Any]) -> FlatCondition:
        """Return a function with a row of residuals per sample; a `ValueError` if it is another one."""

        def flat(t: Tensor, y: Tensor) -> Tensor:
            value = function(*arguments(self.layout.time(t), self.layout.unflatten(y), self.p))
            if value.ndim == 0 or (self.layout.batched and value.shape[0] != len(t)):
                raise ValueError(
                    f"`{name}` must return residuals of shape (residuals,), or (batch, residuals) with `batched=True`, "
                    f"got {tuple(value.shape)}."
                )
            return value.reshape(len(t), -1)

        return flat

    def state(self, affect: Callable[..., Any], t: Tensor, y: Tensor, number: int) -> Tensor:
        """Return the state after the event of this number; a `ValueError` if it is not like the one before."""
        given = self.layout.unflatten(y)
        after = affect(*arguments(self.layout.time(t), given, self.p))
        wanted, got = _description(given), _description(after)
        if wanted != got:
            raise ValueError(
                f"`events[{number}].affect` must return a state like the one it gets, {wanted}, got {got}."
            )
        return self.layout.flatten(after)


def _description(state: Any) -> str:
    leaves, spec = pytree.tree_flatten(state)
    kinds = ", ".join(f"{tuple(x.shape)} {x.dtype}" if isinstance(x, Tensor) else type(x).__name__ for x in leaves)
    return kinds if isinstance(state, Tensor) else f"{kinds} in {pytree.treespec_pprint(spec)}"
