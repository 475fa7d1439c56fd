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


def test_products_take_pytrees_and_return_them(x):
    # f(a, b) = a^2 sum(b): both products in closed form.
    def f(p):
        return {"y": p["a"] ** 2 * p["b"][0].sum()}

    p, v = {"a": x, "b": (x + 1,)}, {"a": torch.ones_like(x), "b": (2 * torch.ones_like(x),)}
    value, tangent = ad.jvp(f, (p,), (v,))
    torch.testing.assert_close(value["y"], x**2 * (x + 1).sum())
    torch.testing.assert_close(tangent["y"], 2 * x * (x + 1).sum() + 6 * x**2)
    (cotangents,) = ad.vjp(f, p)[1]({"y": torch.ones_like(x)})
    torch.testing.assert_close(cotangents["a"], 2 * x * (x + 1).sum())
    torch.testing.assert_close(cotangents["b"][0], (x**2).sum().expand(3))


def test_hvp_takes_pytrees(x):
    # f = sum(a^3) sum(b): Hessian blocks 6 diag(a) sum(b), 3 a^2 1^T and 0.
    product = ad.hvp(lambda p: (p[0] ** 3).sum() * p[1].sum(), (x, x + 1), (torch.ones_like(x), torch.ones_like(x)))
    torch.testing.assert_close(product[0], 6 * x * (x + 1).sum() + 9 * x**2)
    torch.testing.assert_close(product[1], (3 * x**2).sum().expand(3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: ad.jvp(torch.sin, x, x), r"`primals` must be a tuple .* got Tensor.*\(primal,\)"),
        (lambda x: ad.jvp(torch.sin, (x,), [x]), r"`tangents` must be a tuple .* got list.*\(tangent,\)"),
        (lambda x: ad.jvp(torch.sin, (x,), (x, x)), r"structure of `primals`, \(\*,\), got \(\*, \*\)"),
        (lambda x: ad.jvp(torch.sin, (x,), (x[:2],)), r"`tangents\[0\]` must have the shape \(3,\).*got \(2,\).*vmap"),
        (lambda x: ad.jvp(torch.sin, (x,), (x.float(),)), r"dtype torch.float64 .* got torch.float32.*\.to\("),
        (lambda x: ad.jvp(torch.sin, (x,), (1.0,)), r"`tangents\[0\]` must be a tensor, got float"),
        (lambda x: ad.jvp(lambda p: p["a"], ({"a": x.long()},), ({"a": x},)), r"`primals\[0\]\['a'\]`.*torch.int64"),
        (lambda x: ad.vjp(torch.sin, x.long()), r"`primals\[0\]` must hold floating-point .*torch.int64"),
        (lambda x: ad.vjp(torch.pow, x, 2), r"`primals\[1\]` must be a tensor, got int. Close over"),
        (lambda x: ad.vjp(torch.sin, x)[1](x[:2]), r"`cotangent` must have the shape \(3,\).*got \(2,\)"),
        (lambda x: ad.vjp(torch.sin, x)[1](x.float()), r"`cotangent` must have the dtype torch.float64"),
        (lambda x: ad.vjp(torch.sin, x)[1]((x,)), r"`cotangent` must have the structure .*, \*, got \(\*,\)"),
        (lambda x: ad.hvp(torch.sum, x, x[:2]), r"`v` must have the shape \(3,\).*got \(2,\)"),
        (lambda x: ad.hvp(torch.sum, x.long(), x), r"`x` must hold floating-point .*torch.int64"),
        (lambda x: ad.hvp(torch.sin, x, x), r"must be a scalar tensor, got shape \(3,\)"),
        (lambda x: ad.jacobian(torch.sin, x.long()), r"`x` must hold floating-point .*torch.int64"),
        (lambda x: ad.jacobian(torch.sin, (x,)), r"`x` must be one tensor, got tuple"),
        (lambda x: ad.jacobian(torch.sin, x * 1j), r"`x` must be real, got torch.complex128.*view_as_real"),
        (lambda x: ad.jacobian(lambda x: (x, x), x), r"`f\(x\)` must be one tensor, got tuple"),
        (lambda x: ad.jacobian(lambda x: x > 0, x), r"`f\(x\)` must hold floating-point .*torch.bool"),
        (lambda x: ad.jacobian(torch.sin, x, mode="forward"), r"`mode` must be Mode.FORWARD.*got 'forward'"),
        (lambda x: ad.jacobian(torch.sin, x, chunk_size=0), r"`chunk_size` must be a positive integer .*got 0"),
        (lambda x: ad.jacobian(lambda x: torch.dropout(x, 0.5, True), x), r"draws random numbers.*Mode.REVERSE"),
    ],
)
def test_a_wrong_argument_is_named_with_what_to_do(x, call, message):
    with pytest.raises(ValueError, match=message):
        call(x)
