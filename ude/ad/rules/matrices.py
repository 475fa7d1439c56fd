r"""Functions of matrices: with $A = A_0 + N$, N nilpotent, series in N of as many terms as the order has."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ude.ad.rules.kinds import is_lifted, joined, pinned
from ude.ad.rules.table import register, register_names


def inv(A: Any) -> Any:
    r"""Return $A^{-1} = A_0^{-1} \sum_n (-N A_0^{-1})^n$."""
    inverse = torch.linalg.inv(A.value)
    step = A.nilpotent() @ inverse
    result = A.constant(torch.eye(A.shape[-1], dtype=A.dtype, device=A.device).expand(A.shape))
    for _ in range(A.order):
        result = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device) - step @ result
    return pinned(inverse @ result, inverse)


def solve(A: Any, B: Any, *, left: bool = True) -> Any:
    r"""Return x with $A x = b$ from $x = A_0^{-1} (b - N x)$."""
    if not left:
        return solve(A.mT, B.mT).mT
    if not is_lifted(A):
        return joined(lambda b: torch.linalg.solve(A, b), B)
    vector = B.ndim == 1 or (A.ndim - 1 == B.ndim and tuple(B.shape) == tuple(A.shape[:-1]))
    b = B.unsqueeze(-1) if vector else B
    result = _fixed_point(A, b, A.nilpotent(), lambda rest: torch.linalg.solve(A.value, rest))
    return result.squeeze(-1) if vector else result


def solve_triangular(A: Any, B: Any, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Any:
    """Solve with a triangular matrix, of which only that triangle is looked at."""
    options = {"upper": upper, "left": True, "unitriangular": unitriangular}
    if not left:
        return solve_triangular(A.mT, B.mT, upper=not upper, unitriangular=unitriangular).mT
    if not is_lifted(A):
        return joined(lambda b: torch.linalg.solve_triangular(A, b, **options), B)
    offset = 1 if unitriangular else 0
    rest = A.nilpotent()
    nilpotent = rest.triu(offset) if upper else rest.tril(-offset)
    return _fixed_point(A, B, nilpotent, lambda b: torch.linalg.solve_triangular(A.value, b, **options))


def _fixed_point(A: Any, b: Any, nilpotent: Any, solve_value: Any) -> Any:
    result = joined(solve_value, b)
    for _ in range(A.order):
        result = joined(solve_value, b - nilpotent @ result)
    return result


def cholesky_solve(B: Any, L: Any, upper: bool = False) -> Any:
    """Solve with the Cholesky factor of a matrix."""
    low = L.mH if upper else L
    half = torch.linalg.solve_triangular(low, B, upper=False)
    return torch.linalg.solve_triangular(low.mH, half, upper=True)


def slogdet(A: Any) -> Any:
    r"""Return the sign and $\log|\det A_0| + \sum_n \frac{(-1)^{n+1}}{n} \operatorname{tr} (A_0^{-1} N)^n$."""
    if A.is_complex():
        raise NotImplementedError(
            "Expected a real matrix: the sign of a complex determinant has derivatives of its own."
        )
    found = torch.linalg.slogdet(A.value)
    return type(found)((found.sign.detach(), _log_series(A).plus(found.logabsdet)))


def _log_series(A: Any) -> Any:
    """Return the derivatives of the logarithm of the determinant, with a value of zero."""
    step = torch.linalg.inv(A.value) @ A.nilpotent()
    power, total = step, _trace(step)
    for n in range(2, A.order + 1):
        power = power @ step
        total = total.plus(_trace(power), (-1.0) ** (n + 1) / n)
    return total


def _trace(A: Any) -> Any:
    return A.diagonal(0, -2, -1).sum(-1)


def logdet(A: Any) -> Any:
    """Return the logarithm of the determinant."""
    return _log_series(A).plus(torch.logdet(A.value))


def det(A: Any) -> Any:
    """Return the determinant; up to 3 by 3 without dividing, so that singular matrices do no harm."""
    size = A.shape[-1]
    if size > 3:
        return torch.exp(_log_series(A)) * torch.linalg.det(A.value)
    rows = [[A[..., i, j] for j in range(size)] for i in range(size)]
    if size == 0:
        return A.constant(torch.linalg.det(A.value))
    return pinned(_expanded(rows), torch.linalg.det(A.value))


def _expanded(rows: list[list[Any]]) -> Any:
    """Return a determinant by expansion along the first row."""
    if len(rows) == 1:
        return rows[0][0]
    total = None
    for j, entry in enumerate(rows[0]):
        minor = [row[:j] + row[j + 1 :] for row in rows[1:]]
        term = entry * _expanded(minor)
        total = term if total is None else (total - term if j % 2 else total + term)
    return total


def cholesky(A: Any, *, upper: bool = False) -> Any:
    r"""Return L with $A = L L^H$: $L = L_0 (1 + X)$ with $X + X^H = E - X X^H$, $E = L_0^{-1} N L_0^{-H}$."""
    low = torch.linalg.cholesky(A.value)
    nilpotent = A.nilpotent().tril()
    # Only the lower triangle is looked at.
    symmetric = nilpotent + nilpotent.tril(-1).mH
    half = joined(lambda b: torch.linalg.solve_triangular(low, b, upper=False), symmetric)
    error = joined(lambda b: torch.linalg.solve_triangular(low, b, upper=False), half.mH).mH
    X = _lower_half(error)
    for _ in range(A.order - 1):
        X = _lower_half(error - X @ X.mH)
    result = (low @ X).plus(low)
    return result.mH if upper else result


def _lower_half(S: Any) -> Any:
    return S.tril() - 0.5 * S.diagonal(0, -2, -1).diag_embed()


def matrix_power(A: Any, n: int) -> Any:
    """Return a power of a matrix by repeated squaring."""
    if n < 0:
        return matrix_power(inv(A), -n)
    if n == 0:
        return A.constant(torch.linalg.matrix_power(A.value, 0))
    result, square, rest = None, A, n
    while rest:
        if rest % 2:
            result = square if result is None else result @ square
        rest //= 2
        square = square @ square if rest else square
    return result


def matrix_exp(A: Any) -> Any:
    """Return the exponential of a matrix by scaling, a Taylor polynomial and squaring."""
    size = float(torch.linalg.matrix_norm(A.value.detach(), 1).max()) if A.numel() else 0.0
    squarings = max(0, int(torch.tensor(max(size, 1e-30)).log2().ceil().item()) + 2)
    x = A * 0.5**squarings
    one = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    # The polynomial of degree m misses |x|^(m-k) / (m-k)! in a derivative of order k; |x| is at most 1/4.
    degree = 12 + A.order
    result = x / degree + one
    for n in range(degree - 1, 0, -1):
        result = x @ result / n + one
    for _ in range(squarings):
        result = result @ result
    return pinned(result, torch.linalg.matrix_exp(A.value))


def multi_dot(tensors: Any) -> Any:
    """Multiply matrices one after the other."""
    result = tensors[0]
    for other in tensors[1:]:
        result = torch.matmul(result, other)
    return result


def pinv(A: Any, *args: Any, **kwargs: Any) -> Any:
    """Return the inverse of a matrix of full rank."""
    if args or kwargs:
        raise NotImplementedError("Expected no tolerances for the pseudo-inverse of jets, which must have full rank.")
    tall = A.shape[-2] >= A.shape[-1]
    if not bool((torch.linalg.matrix_rank(A.value) == min(A.shape[-2:])).all()):
        raise NotImplementedError("Expected a matrix of full rank: elsewhere the pseudo-inverse has no derivative.")
    return inv(A.mH @ A) @ A.mH if tall else A.mH @ inv(A @ A.mH)


def vander(x: Any, N: int | None = None, increasing: bool = True) -> Any:
    """Return the powers of numbers, along a new axis."""
    count = x.shape[-1] if N is None else N
    powers = [torch.ones_like(x.value) if n == 0 else x**n for n in range(count)]
    return torch.stack(powers if increasing else powers[::-1], -1)


def install() -> None:
    """Enter the rules of this file."""
    register_names(inv, "inv", "inverse", "linalg_inv")
    register_names(solve, "linalg_solve")
    register_names(solve_triangular, "linalg_solve_triangular", "solve_triangular")
    register(torch.linalg.solve, solve)
    register_names(cholesky, "linalg_cholesky")
    register(torch.linalg.cholesky, cholesky)
    for function in (torch.cholesky, Tensor.cholesky):
        register(function, lambda x, upper=False: cholesky(x, upper=upper))
    register_names(matrix_exp, "matrix_exp", "linalg_matrix_exp")
    register_names(matrix_power, "matrix_power", "linalg_matrix_power")
    register_names(multi_dot, "multi_dot", "linalg_multi_dot")
    register_names(lambda *matrices: multi_dot(matrices), "chain_matmul")
    register_names(pinv, "pinv", "pinverse", "linalg_pinv")
    register(torch.linalg.vander, vander)
    register(torch.vander, lambda x, N=None, increasing=False: vander(x, N, increasing))
    for handler in (slogdet, logdet, det, cholesky_solve):
        register_names(handler, handler.__name__, f"linalg_{handler.__name__}")
