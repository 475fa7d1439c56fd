"""Derivatives against closed forms and finite differences in float64."""

import pytest
import torch

from ude import ad


def quadratic(x):
    A = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, -1.0]], dtype=x.dtype)
    return (A @ x) ** 2


@pytest.fixture
def x():
    return torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)


def test_jacobian_has_the_same_value_by_columns_and_by_rows(x):
    A = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, -1.0]], dtype=x.dtype)
    exact = 2 * (A @ x)[:, None] * A
    torch.testing.assert_close(ad.jacobian(quadratic, x), exact, rtol=1e-14, atol=1e-14)  # rounding only
    tall = ad.jacobian(lambda z: torch.cat([quadratic(z)] * 3), x)
    torch.testing.assert_close(tall, torch.cat([exact] * 3), rtol=1e-14, atol=1e-14)


def test_jvp_and_vjp_are_transposes_of_each_other(x):
    v, w = torch.randn(3, dtype=x.dtype), torch.randn(2, dtype=x.dtype)
    _, tangent = ad.jvp(quadratic, (x,), (v,))
    _, pullback = ad.vjp(quadratic, x)
    torch.testing.assert_close(w @ tangent, pullback(w)[0] @ v, rtol=1e-13, atol=1e-13)


def test_hvp_matches_a_finite_difference_of_the_gradient(x):
    def f(z):
        return (z.sin() * z.flip(0).exp()).sum()

    v, step = torch.randn(3, dtype=x.dtype), 1e-5
    gradient = torch.func.grad(f)
    difference = (gradient(x + step * v) - gradient(x - step * v)) / (2 * step)
    torch.testing.assert_close(ad.hvp(f, x, v), difference, rtol=1e-8, atol=1e-8)  # O(step^2) = 1e-10


def test_grad_gives_zeros_for_an_input_that_does_not_matter(x):
    a, b = x.clone().requires_grad_(), torch.ones(2, dtype=x.dtype, requires_grad=True)
    gradient_a, gradient_b = ad.grad(a.sum(), [a, b])
    assert gradient_a.tolist() == [1.0, 1.0, 1.0]
    assert gradient_b.tolist() == [0.0, 0.0]


def test_checkpoint_gives_the_gradient_of_closed_over_tensors_too(x):
    w = torch.tensor(1.5, dtype=x.dtype, requires_grad=True)
    a = x.clone().requires_grad_()

    def f(z):
        return (w * z).tanh().sum()

    plain = ad.grad(f(a), [a, w])
    recomputed = ad.grad(ad.checkpoint(f, a), [a, w])
    assert all(torch.equal(p, r) for p, r in zip(plain, recomputed, strict=True))
