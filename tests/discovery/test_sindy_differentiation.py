"""Derivatives of measurements agree with pysindy and SciPy, and are exact on polynomials."""

import numpy as np
import pysindy
import pytest
import torch
from scipy.signal import savgol_filter

from ude.discovery import FiniteDifference, SavitzkyGolay, SmoothingSpline


def times(spacing, count=30):
    t = np.linspace(0, 3, count)
    return t if spacing == "even" else np.sort(t + 0.04 * np.random.default_rng(0).uniform(-1, 1, count))


@pytest.mark.parametrize("spacing", ["even", "uneven"])
@pytest.mark.parametrize("order", [2, 4, 6])
def test_finite_differences_are_pysindys_also_at_the_ends(order, spacing):
    t = times(spacing)
    x = np.stack([np.sin(t), np.exp(-t)], axis=-1)
    smooth, slope = FiniteDifference(order=order)(torch.from_numpy(x), torch.from_numpy(t))
    assert torch.equal(smooth, torch.from_numpy(x))
    # Values of order one divided by steps of 0.1: rounding only.
    np.testing.assert_allclose(slope.numpy(), np.asarray(pysindy.FiniteDifference(order=order)(x, t)), atol=1e-11)


@pytest.mark.parametrize(
    ("method", "degree"),
    [
        (FiniteDifference(), 2),
        (FiniteDifference(order=4), 4),
        (SavitzkyGolay(window=7, degree=3), 3),
        (SmoothingSpline(smoothing=1e-14), 1),
    ],
    ids=str,
)
def test_polynomials_of_the_degree_are_differentiated_exactly(method, degree):
    t = torch.from_numpy(times("uneven"))
    x = torch.stack([t**k for k in range(degree + 1)], dim=-1)
    exact = torch.stack([k * t ** max(k - 1, 0) for k in range(degree + 1)], dim=-1)
    smooth, slope = method(x, t)
    torch.testing.assert_close(smooth, x, rtol=1e-9, atol=1e-9)
    # Values up to 81 over steps that may be as short as 0.02, and rounding 1e-16.
    torch.testing.assert_close(slope, exact, rtol=0, atol=1e-9)


def test_savitzky_golay_is_scipys_on_even_times():
    t = times("even")
    x = np.sin(t)[:, None] + 0.1 * np.random.default_rng(1).standard_normal((30, 1))
    smooth, slope = SavitzkyGolay(window=9, degree=3)(torch.from_numpy(x), torch.from_numpy(t))
    np.testing.assert_allclose(smooth.numpy(), savgol_filter(x, 9, 3, axis=0), atol=1e-12)
    expected = savgol_filter(x, 9, 3, deriv=1, delta=t[1], axis=0)
    np.testing.assert_allclose(slope.numpy(), expected, atol=1e-11)


def test_smoothing_lowers_the_error_of_noisy_slopes():
    t = torch.linspace(0, 3, 200, dtype=torch.float64)
    noise = torch.randn(200, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = t.sin().unsqueeze(-1) + 0.01 * noise
    raw, local, spline = (
        (method(x, t)[1][:, 0] - t.cos()).square().mean().sqrt()
        for method in (FiniteDifference(), SavitzkyGolay(window=31), SmoothingSpline())
    )
    assert local < raw / 5
    assert spline < raw / 5


@pytest.mark.parametrize("method", [FiniteDifference(order=4), SavitzkyGolay(window=5, degree=2)], ids=str)
def test_slopes_are_differentiable_in_values_and_times(method):
    t = torch.from_numpy(times("uneven", 9)).requires_grad_()
    x = torch.randn(9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(method, (x, t))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FiniteDifference(order=3), "2, 4, 6"),
        (lambda: SavitzkyGolay(window=4), "odd"),
        (lambda: SavitzkyGolay(window=3, degree=3), "greater than"),
        (lambda: FiniteDifference(order=4)(torch.zeros(4, 1), torch.arange(4.0)), "At least 5 times"),
        (lambda: SmoothingSpline()(torch.zeros(4, 1), torch.arange(4.0)), "at least 5 times"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
