"""Attached derivatives against recorded ones."""

import pytest
import torch

from ude import ad


def test_an_attached_pullback_is_what_backward_uses():
    a = torch.randn(3, dtype=torch.float64, requires_grad=True)
    b = torch.randn(3, dtype=torch.float64, requires_grad=True)
    product = ad.attach((a * b).detach(), [a, b], lambda cotangent: [cotangent * b.detach(), cotangent * a.detach()])
    expected = ad.grad((a * b).sin().sum(), [a, b])
    for ours, recorded in zip(ad.grad(product.sin().sum(), [a, b]), expected, strict=True):
        torch.testing.assert_close(ours, recorded, rtol=0, atol=0)


def test_second_derivatives_are_refused_rather_than_wrong():
    x = torch.tensor(3.0, requires_grad=True)
    y = ad.attach(x.detach() ** 2, [x], lambda cotangent: [2 * x.detach() * cotangent])
    (first,) = ad.grad(y * y, [x], create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative"):
        first.backward()
