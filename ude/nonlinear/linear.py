r"""Linear systems $(I - s J)\, x = b$, one per sample: what every implicit method solves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ude._typing import FlatField
from ude.ad import JacobianProduct, Linearisation, linearise


class LinearSystem(Protocol):
    """A system whose matrix is known; as many right-hand sides as you like."""

    def solve(self, b: Tensor) -> Tensor:
        r"""Return $x = (I - s J)^{-1} b$, shape `(batch, n)`, as a function of s, J and b on the autograd graph.

        A sample whose system could not be solved is NaN or infinite, so that its step shrinks.
        """
        ...

    def solve_transposed(self, b: Tensor) -> Tensor:
        r"""Return $(I - s J)^{-H} b$, which is what reverse mode asks for; no gradient is promised."""
        ...


@runtime_checkable
class LinearSolver(Protocol):
    """How linear systems are solved: a frozen value.

    Two calls, so that a method may keep a Jacobian while its step, and with it s, changes:
    `at = solver.linearise(f, t, y)` and `system = solver.prepare(at.jacobian, scale)`.
    """

    def linearise(self, f: FlatField, t: Tensor, y: Tensor, *, rate: bool = True) -> Linearisation:
        """Return value, Jacobian (a matrix or its products, whatever the solver needs) and rate in time."""
        ...

    def prepare(self, jacobian: Tensor | JacobianProduct, scale: Tensor) -> LinearSystem:
        """Return the system for a scale s of shape `(batch,)`, real or complex; at s = 0 it is the identity."""
        ...


@dataclass(frozen=True, slots=True)
class LU:
    """Dense factorisation with partial pivoting, batched: exact, $O(n^3)$ per step and $O(n^2)$ per right-hand side.

    Systems of one and two equations are inverted in closed form, which is faster and fuses under the compiler.

    Example:
        >>> jacobian = torch.tensor([[[-1.0, 2.0], [0.0, -3.0]]])
        >>> LU().prepare(jacobian, torch.tensor([1.0])).solve(torch.tensor([[2.0, 4.0]]))
        tensor([[2., 1.]])
    """

    def linearise(self, f: FlatField, t: Tensor, y: Tensor, *, rate: bool = True) -> Linearisation:
        """Return value, Jacobian matrix and rate."""
        return linearise(f, t, y, rate=rate)

    def prepare(self, jacobian: Tensor | JacobianProduct, scale: Tensor) -> LinearSystem:
        """Factorise; the pivots are constants for the gradient.

        Raises:
            ValueError: If the Jacobian is no matrix.
        """
        if not isinstance(jacobian, Tensor):
            raise ValueError(
                "Expected a Jacobian matrix, got its products only. Use `GMRES()`, or `linearise` of `LU`."
            )
        n = jacobian.shape[-1]
        matrix = torch.eye(n, dtype=jacobian.dtype, device=jacobian.device) - scale[:, None, None] * jacobian
        if n <= 2:
            return _Inverted(_small_inverse(matrix))
        # The variant that does not look for zero pivots: they lead to infinite numbers, which the loop sees.
        factors, pivots, _ = torch.linalg.lu_factor_ex(matrix)
        return _Factorised(factors, pivots)


@dataclass(frozen=True, slots=True)
class _Factorised:
    factors: Tensor
    pivots: Tensor

    def solve(self, b: Tensor) -> Tensor:
        factors, column = _promoted(self.factors, b)
        return torch.linalg.lu_solve(factors, self.pivots, column).squeeze(-1)

    def solve_transposed(self, b: Tensor) -> Tensor:
        factors, column = _promoted(self.factors, b)
        return torch.linalg.lu_solve(factors, self.pivots, column, adjoint=True).squeeze(-1)


@dataclass(frozen=True, slots=True)
class _Inverted:
    """One or two equations, by the inverse matrix."""

    inverse: Tensor

    def solve(self, b: Tensor) -> Tensor:
        inverse, column = _promoted(self.inverse, b)
        return (inverse @ column).squeeze(-1)

    def solve_transposed(self, b: Tensor) -> Tensor:
        inverse, column = _promoted(self.inverse, b)
        return (inverse.mH @ column).squeeze(-1)


def _promoted(matrix: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return a matrix and a column in the number format of both: either may be complex alone."""
    dtype = torch.promote_types(matrix.dtype, b.dtype)
    return matrix.to(dtype), b.to(dtype).unsqueeze(-1)


def _small_inverse(matrix: Tensor) -> Tensor:
    if matrix.shape[-1] == 1:
        return 1.0 / matrix
    (p, q), (r, s) = (row.unbind(-1) for row in matrix.unbind(-2))
    adjugate = torch.stack([s, -q, -r, p], -1)
    return (adjugate / (p * s - q * r).unsqueeze(-1)).unflatten(-1, (2, 2))
