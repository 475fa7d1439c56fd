"""The user's state and vector field on one side, `(batch, state)` on the other."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ude._checks import floating
from ude._typing import State, VectorField
from ude.ad import Linearisation, is_tensor, time_derivative


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a state of any shape, or a pytree of such, is laid out as `(batch, state)`.

    Args:
        shapes: Shape of every leaf, without the batch axis.
        spec: Structure of the pytree; None for a single tensor.
        batched: The first axis of every leaf is the batch; otherwise there is a batch of one.
        jacobian: The user's Jacobian of the vector field; None to have it differentiated. It is here rather than
            with the vector field because compiled functions are kept by their layout.
    """

    shapes: tuple[tuple[int, ...], ...]
    spec: pytree.TreeSpec | None
    batched: bool
    jacobian: Callable[..., Tensor] | None = None

    @classmethod
    def of(cls, y0: State, *, batched: bool, jacobian: Callable[..., Tensor] | None = None) -> Layout:
        """Return the layout of `y0`, having checked its leaves.

        Raises:
            ValueError: If a leaf is no floating-point tensor, the leaves do not fit together, or a Jacobian is given
                for a state that is no single real tensor.
        """
        leaves, spec = pytree.tree_flatten(y0)
        if not leaves or not all(isinstance(leaf, Tensor) for leaf in leaves):
            raise ValueError(
                f"`y0` must be a tensor or a nested tuple, list or dict of tensors, got {type(y0).__name__}. "
                "Convert numbers and arrays with `torch.tensor`."
            )
        for leaf in leaves:
            floating("y0", leaf)
        if len({(leaf.dtype, leaf.device) for leaf in leaves}) > 1:
            kinds = sorted({f"{leaf.dtype} on {leaf.device}" for leaf in leaves})
            raise ValueError(f"All tensors in `y0` must have one dtype and device, got {', '.join(kinds)}.")
        if batched and (any(leaf.ndim == 0 for leaf in leaves) or len({leaf.shape[0] for leaf in leaves}) > 1):
            raise ValueError(
                "With `batched=True` every tensor in `y0` needs the same first axis, the batch, got shapes "
                f"{[tuple(leaf.shape) for leaf in leaves]}."
            )
        if jacobian is not None and (not isinstance(y0, Tensor) or y0.is_complex()):
            got = f"dtype {y0.dtype}" if isinstance(y0, Tensor) else type(y0).__name__
            raise ValueError(
                f"`jacobian` needs a state that is one real tensor, got {got}. Put the state into one tensor, or leave "
                "`jacobian` out: it is then computed."
            )
        return cls(
            shapes=tuple(tuple(leaf.shape[batched:]) for leaf in leaves),
            spec=None if isinstance(y0, Tensor) else spec,
            batched=batched,
            jacobian=jacobian,
        )

    def flatten(self, y: State, lead: int = 0) -> Tensor:
        """Return `y`, with `lead` axes before the state's own, as `(*lead, batch, state)`."""
        leaves = [y] if self.spec is None else pytree.tree_leaves(y, is_leaf=is_tensor)
        rows = [
            leaf.reshape(*leaf.shape[: lead + self.batched], *[1] * (not self.batched), math.prod(shape))
            for leaf, shape in zip(leaves, self.shapes, strict=True)
        ]
        return rows[0] if len(rows) == 1 else torch.cat(rows, dim=-1)

    def unflatten(self, y: Tensor) -> State:
        """Return `y` of shape `(*lead, batch, state)` as a state with leading axes `lead`."""
        lead = y.shape[:-1] if self.batched else y.shape[:-2]
        if self.spec is None:
            return y.reshape((*lead, *self.shapes[0]))
        leaves = y.split([math.prod(shape) for shape in self.shapes], dim=-1)
        return pytree.tree_unflatten(
            [leaf.reshape((*lead, *shape)) for leaf, shape in zip(leaves, self.shapes, strict=True)], self.spec
        )

    def time(self, t: Tensor) -> Tensor:
        """Return `t` of shape `(batch,)` as the vector field is to see it."""
        if not self.batched:
            return t.reshape(())
        rank = max(map(len, self.shapes))
        return t.reshape(-1, *[1] * rank) if rank else t

    def bind(self, vector_field: VectorField, p: Any, arrange: Callable[[Tensor], Tensor] | None = None) -> BoundField:
        """Return the vector field as methods see it.

        Args:
            vector_field: The user's function.
            p: The user's parameters; handed on unless None.
            arrange: Applied to every value, to choose its place in memory.
        """
        kind = BoundField if self.jacobian is None else BoundFieldWithJacobian
        return kind(self, vector_field, () if p is None else (p,), arrange)

    def check_derivative(self, derivative: State, y: Tensor) -> None:
        """Raise unless a derivative is like the state `y`, which is flat."""
        lead = tuple(y.shape[:1]) if self.batched else ()
        leaves = [derivative]
        if self.spec is not None:
            leaves, spec = pytree.tree_flatten(derivative, is_leaf=is_tensor)
            if spec != self.spec:
                raise ValueError(f"The vector field must return the structure of `y0`, {self.spec}, got {spec}.")
        for leaf, shape in zip(leaves, self.shapes, strict=True):
            if not is_tensor(leaf) or leaf.shape != (*lead, *shape) or leaf.dtype != y.dtype:
                got = f"{tuple(leaf.shape)}, {leaf.dtype}" if is_tensor(leaf) else type(leaf).__name__
                raise ValueError(
                    f"The vector field must return a tensor with the shape and dtype of the state, "
                    f"{(*lead, *shape)}, {y.dtype}, got {got}. A different dtype usually comes from a constant or a "
                    "module in another precision; a different shape from broadcasting."
                )


@dataclass(frozen=True, slots=True)
class BoundField:
    """A vector field as methods see it: `f(t, y)` with `t` of shape `(batch,)` and `y` of shape `(batch, state)`.

    Args:
        layout: Between the user's state and `(batch, state)`.
        vector_field: The user's function.
        arguments: What it takes besides time and state.
        arrange: Applied to every value.
    """

    layout: Layout
    vector_field: VectorField
    arguments: tuple[Any, ...]
    arrange: Callable[[Tensor], Tensor] | None

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the derivative of the state, having checked what the user's function returned."""
        layout = self.layout
        derivative = self.vector_field(layout.time(t), layout.unflatten(y), *self.arguments)
        layout.check_derivative(derivative, y)
        flat = layout.flatten(derivative)
        return flat if self.arrange is None else self.arrange(flat)

    def check_jacobian(self, t: Tensor, y: Tensor) -> None:
        """Raise unless the user's Jacobian, if there is one, has the right shape and dtype."""


@dataclass(frozen=True, slots=True)
class BoundFieldWithJacobian(BoundField):
    """One that knows its Jacobian."""

    def check_jacobian(self, t: Tensor, y: Tensor) -> None:
        """Raise unless the user's Jacobian has the right shape and dtype."""
        with torch.no_grad():
            self._matrix(t, y)

    def linearise(self, t: Tensor, y: Tensor, *, rate: bool) -> Linearisation:
        """Return value and rate, if asked for, and the user's Jacobian.

        Who does not want the rate is after the Jacobian alone: the value, which would cost an evaluation, is then NaN.

        Raises:
            ValueError: If the Jacobian has the wrong shape or dtype.
        """
        value, slope = time_derivative(self, t, y) if rate else (torch.full_like(y, torch.nan), None)
        return Linearisation(value, self._matrix(t, y), slope)

    def _matrix(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the user's Jacobian as `(batch, n, n)`."""
        layout, n = self.layout, y.shape[-1]
        assert layout.jacobian is not None  # else this would be a `BoundField`
        matrix = layout.jacobian(layout.time(t), layout.unflatten(y), *self.arguments)
        shape = (*(y.shape[:1] if layout.batched else ()), *layout.shapes[0], *layout.shapes[0])
        if not isinstance(matrix, Tensor) or matrix.shape != shape or matrix.dtype != y.dtype:
            got = f"{tuple(matrix.shape)}, {matrix.dtype}" if isinstance(matrix, Tensor) else type(matrix).__name__
            raise ValueError(
                f"`jacobian` must return a tensor of shape {tuple(shape)}, {y.dtype}, entry [..., i, j] being the "
                f"derivative of component i by component j, got {got}. Stack its rows along the second axis from the "
                "end and expand constants to the batch, or leave `jacobian` out: it is then computed."
            )
        return matrix.reshape(len(y), n, n)


def broadcast_tolerance(name: str, value: float | State, layout: Layout, y0: State, like: Tensor) -> Tensor:
    """Return a tolerance as a tensor of shape `()` or `(batch, state)`, having checked it.

    Args:
        name: Name of the argument.
        value: A number, a tensor that broadcasts to `y0`, or such in the structure of `y0`.
        layout: Layout of `y0`.
        y0: The initial state.
        like: A real tensor of the dtype and device wanted.
    """
    smallest = torch.finfo(like.dtype).tiny
    if isinstance(value, int | float):
        if not 0 <= value < float("inf"):
            raise ValueError(f"`{name}` must be a finite number that is not negative, got {value}.")
        # A positive floor keeps 0 / 0 out of the error ratio where state and tolerance vanish.
        return like.new_full((), max(value, smallest if name == "atol" else 0.0))
    try:
        spread: Callable[[Any, Tensor], Tensor] = lambda y, v: torch.as_tensor(v).to(like).expand(y.shape)  # noqa: E731
        flat = layout.flatten(pytree.tree_map(spread, y0, value))
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(f"`{name}` must be a number or broadcast to the shape of `y0`: {error}") from error
    if not bool((flat >= 0).all() & flat.isfinite().all()):
        raise ValueError(f"`{name}` must be finite and not negative in every entry.")
    return flat.detach().clamp(min=smallest if name == "atol" else 0.0)
