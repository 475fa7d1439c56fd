r"""Linear systems by Krylov spaces: products with the matrix are all that is needed.

Reference: Saad & Schultz (1986), GMRES: a generalized minimal residual algorithm for solving nonsymmetric linear
systems, SIAM J. Sci. Stat. Comput. 7, 856-869.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from ude._checks import positive
from ude._typing import FlatField
from ude.ad import JacobianProduct, Linearisation, implicit, jacobian_product, time_derivative
from ude.ad.recording import is_transformed
from ude.nonlinear.linear import LinearSystem

Product: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class GMRES:
    r"""Restarted GMRES, every sample with its own Krylov space: for states too large for their Jacobian matrix.

    Memory is `restart + 1` states per sample. One iteration takes one product with the Jacobian, two evaluations'
    worth of work, and there is no preconditioner: a clustered spectrum helps. Eagerly it stops when all samples have
    converged; compiled, it always makes `max_iterations` iterations, which are written out one by one.

    The gradient is that of the solution, by a transposed system, not that of the iterations; it exists once.

    Args:
        rtol: Norm of the residual, relative to that of the right-hand side, at which a sample has converged. Below 10
            units of rounding of the dtype it counts as these.
        restart: Dimension of the Krylov space.
        max_iterations: Most iterations; a sample that has not converged by then is NaN, so that its step shrinks.

    Raises:
        ValueError: If an option is not positive.

    Example:
        >>> jacobian = torch.tensor([[[-1.0, 2.0], [0.0, -3.0]]])
        >>> GMRES().prepare(jacobian, torch.tensor([1.0])).solve(torch.tensor([[2.0, 4.0]]))
        tensor([[2., 1.]])
    """

    rtol: float = 1e-10
    restart: int = 30
    max_iterations: int = 300

    def __post_init__(self) -> None:
        for name in self.__slots__:
            positive(name, getattr(self, name))

    def linearise(self, f: FlatField, t: Tensor, y: Tensor, *, rate: bool = True) -> Linearisation:
        """Return value, products with the Jacobian, and rate; the value is NaN where no rate is asked for."""
        value, slope = time_derivative(f, t, y) if rate else (torch.full_like(y, torch.nan), None)
        return Linearisation(value, jacobian_product(f, t, y), slope)

    def prepare(self, jacobian: Tensor | JacobianProduct, scale: Tensor) -> LinearSystem:
        """Return the system; nothing is computed yet."""
        products = JacobianProduct.of(jacobian) if isinstance(jacobian, Tensor) else jacobian
        return _KrylovSystem(self, products, scale.unsqueeze(-1))


@dataclass(frozen=True, slots=True)
class _KrylovSystem:
    solver: GMRES
    jacobian: JacobianProduct
    scale: Tensor

    def solve(self, b: Tensor) -> Tensor:
        b = b.to(torch.promote_types(b.dtype, self.scale.dtype))
        with torch.no_grad():
            x = _minimise(lambda v: v - self.scale * _split(self.jacobian.forward, v), b, self.solver)
        if not torch.is_grad_enabled():
            return x
        residual = x - self.scale * _split(self.jacobian.forward, x) - b
        return implicit(x, residual, self.solve_transposed)

    def solve_transposed(self, b: Tensor) -> Tensor:
        b = b.to(torch.promote_types(b.dtype, self.scale.dtype))
        scale = self.scale.conj()
        with torch.no_grad():
            return _minimise(lambda v: v - scale * _split(self.jacobian.transposed, v), b, self.solver)


def _split(product: Product, v: Tensor) -> Tensor:
    """Apply a real matrix to a real or complex vector."""
    return torch.complex(product(v.real), product(v.imag)) if v.is_complex() else product(v)


def _minimise(product: Product, b: Tensor, solver: GMRES) -> Tensor:
    """Solve for one right-hand side; complex numbers count as pairs of real ones."""
    if b.is_complex():
        shape = (*b.shape, 2)

        def pairs(v: Tensor) -> Tensor:
            whole = product(torch.view_as_complex(v.reshape(shape).contiguous()))
            return torch.view_as_real(whole.resolve_conj()).flatten(-2)

        flat = _restarted(pairs, torch.view_as_real(b.resolve_conj()).flatten(-2), solver)
        return torch.view_as_complex(flat.reshape(shape).contiguous())
    return _restarted(product, b, solver)


def _restarted(product: Product, b: Tensor, solver: GMRES) -> Tensor:
    """Improve the solution by one Krylov space after the other."""
    goal = max(solver.rtol, 10 * torch.finfo(b.dtype).eps) * torch.linalg.vector_norm(b, dim=-1)
    looks = not is_transformed()
    x, residual, left = torch.zeros_like(b), b, solver.max_iterations
    while left > 0:
        count = min(left, solver.restart, b.shape[-1])
        x = x + _correction(product, residual, goal, count, looks=looks)
        residual = b - product(x)
        left -= count
        if looks and not bool((torch.linalg.vector_norm(residual, dim=-1) > goal).any()):
            break
    # Rounding in the residual itself: a factor for what the recurrence has promised.
    converged = torch.linalg.vector_norm(residual, dim=-1) <= 10 * goal
    return torch.where(converged.unsqueeze(-1), x, torch.nan)


def _correction(product: Product, residual: Tensor, goal: Tensor, count: int, *, looks: bool) -> Tensor:
    r"""Return the vector of the Krylov space of `count` dimensions that leaves the smallest residual, per sample.

    The Hessenberg matrix of the Arnoldi process is turned into a triangular one by plane rotations as it grows. A
    sample that has converged gets unit columns and a zero right-hand side from there on.
    """
    length = torch.linalg.vector_norm(residual, dim=-1)
    basis = [residual / torch.where(length > 0, length, 1.0).unsqueeze(-1)]
    columns: list[list[Tensor]] = []
    rotations: list[tuple[Tensor, Tensor]] = []
    target, rest = [], length
    for k in range(count):
        active = rest.abs() > goal
        if looks and not bool(active.any()):
            break
        following, column = _orthogonalised(product(basis[k]), basis)
        for i, (c, s) in enumerate(rotations):
            column[i], column[i + 1] = c * column[i] + s * column[i + 1], c * column[i + 1] - s * column[i]
        diagonal, below = column[k], column[k + 1]
        radius = torch.hypot(diagonal, below)
        usable = active & (radius > 0)
        safe = torch.where(usable, radius, 1.0)
        c, s = torch.where(usable, diagonal / safe, 1.0), torch.where(usable, below / safe, 0.0)
        columns.append([torch.where(usable, x, 0.0) for x in column[:k]] + [safe])
        rotations.append((c, s))
        target.append(torch.where(usable, c * rest, 0.0))
        rest = torch.where(usable, -s * rest, rest)
        basis.append(following)
    if not columns:
        return torch.zeros_like(residual)
    return _combine(basis, columns, target)


def _orthogonalised(w: Tensor, basis: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Return a unit vector orthogonal to the basis (zero where there is none), and the coefficients of w."""
    space = torch.stack(basis, 1)
    total = torch.zeros_like(space[..., 0])
    # Twice is enough to be orthogonal to rounding.
    for _ in range(2):
        part = (space @ w.unsqueeze(-1)).squeeze(-1)
        w = w - (part.unsqueeze(-2) @ space).squeeze(-2)
        total = total + part
    length = torch.linalg.vector_norm(w, dim=-1)
    return w / torch.where(length > 0, length, 1.0).unsqueeze(-1), [*total.unbind(-1), length]


def _combine(basis: list[Tensor], columns: list[list[Tensor]], target: list[Tensor]) -> Tensor:
    """Solve the triangular system from the last row up, and add up the basis vectors."""
    weights: list[Tensor] = [target[0]] * len(columns)
    for i in reversed(range(len(columns))):
        known = target[i]
        for j in range(i + 1, len(columns)):
            known = known - columns[j][i] * weights[j]
        weights[i] = known / columns[i][i]
    return torch.einsum("kbn,kb->bn", torch.stack(basis[: len(columns)]), torch.stack(weights))
