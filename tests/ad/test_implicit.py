"""The implicit function theorem as one node of autograd."""

import pytest
import torch

from ude.ad import implicit

F64 = torch.float64


def root(p):
    """The solution of z^3 + z = p, by Newton's method on constants."""
    z = torch.zeros_like(p.detach())
    for _ in range(60):
        z = z - (z**3 + z - p.detach()) / (3 * z**2 + 1)
    return implicit(z, z**3 + z - p, lambda w: w / (3 * z**2 + 1))


def linear(matrix, b):
    """The solution of a linear system, with the matrix and the right-hand side as parameters."""
    z = torch.linalg.solve(matrix.detach(), b.detach())
    return implicit(z, matrix @ z - b, lambda w: torch.linalg.solve(matrix.detach().mT, w))


def test_its_gradient_is_that_of_the_root():
    p = torch.tensor([0.3, -2.0, 10.0], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(root, (p,))


def test_its_gradient_is_that_of_a_linear_solve():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(3, 3, dtype=F64, generator=generator).requires_grad_()
    b = torch.randn(3, dtype=F64, generator=generator).requires_grad_()
    assert torch.autograd.gradcheck(linear, (matrix, b))
    got = torch.autograd.grad(linear(matrix, b).sum(), (matrix, b))
    expected = torch.autograd.grad(torch.linalg.solve(matrix, b).sum(), (matrix, b))
    for x, y in zip(got, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-13)


def test_a_second_derivative_raises():
    p = torch.tensor([0.3], dtype=F64, requires_grad=True)
    # The other term has a second derivative: without an error, that of the root would be lost in silence.
    (slope,) = torch.autograd.grad((root(p) + p**3).sum(), p, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiated once"):
        torch.autograd.grad(slope.sum(), p)


def test_an_attached_solution_is_refused():
    p = torch.tensor([4.0], requires_grad=True)
    with pytest.raises(ValueError, match="detached"):
        implicit(p.sqrt(), p.sqrt() ** 2 - p, lambda w: w)


def test_compiles_into_one_graph():
    p = torch.tensor([0.3, -2.0], dtype=F64, requires_grad=True)

    def short(p):
        z = torch.zeros_like(p.detach())
        for _ in range(9):
            z = z - (z**3 + z - p.detach()) / (3 * z**2 + 1)
        return implicit(z, z**3 + z - p, lambda w: w / (3 * z**2 + 1))

    compiled = torch.compile(short, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(p), root(p), rtol=1e-14, atol=0.0)
    (got,), (expected,) = (torch.autograd.grad(f(p).sum(), p) for f in (compiled, root))
    torch.testing.assert_close(got, expected, rtol=1e-13, atol=0.0)
