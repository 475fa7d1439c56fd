"""Smoothed derivatives against closed forms."""

import torch

from ude import problems
from ude.fit.smoothing import smooth


def wave(times, noise=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ys = torch.stack([times.sin(), 1e6 * (2 * times).cos()], dim=1)
    amplitude = torch.tensor([1.0, 1e6], dtype=torch.float64)
    return ys + noise * amplitude * torch.randn(ys.shape, generator=generator, dtype=torch.float64)


def relative_error(curves):
    exact = torch.stack([curves.ts.cos(), -2e6 * (2 * curves.ts).sin()], dim=2)
    scale = torch.tensor([1.0, 2e6], dtype=torch.float64)
    error = (curves.derivatives - exact).abs() / scale
    return error.masked_fill(~curves.is_inside, 0.0)


def test_derivatives_of_clean_data_are_accurate_whatever_their_magnitude():
    t = torch.linspace(0, 6, 61, dtype=torch.float64)
    error = relative_error(smooth(problems.Trajectories.from_arrays(t, wave(t))))
    assert error.mean() < 2e-3  # second-order boundary error of a natural spline, spacing 0.1
    assert error.max() < 0.1


def test_derivatives_of_noisy_irregular_data_are_much_better_than_differences():
    generator = torch.Generator().manual_seed(1)
    t = (6 * torch.rand(80, generator=generator, dtype=torch.float64)).sort().values
    data = problems.Trajectories.from_arrays(t, wave(t, noise=0.02))
    error = relative_error(smooth(data))
    differences = (data.ys[0].diff(dim=0) / t.diff()[:, None])[:, 0]
    midpoint = (t[1:] + t[:-1]) / 2
    assert error[..., 0].square().mean().sqrt() < 0.1
    assert (differences - midpoint.cos()).square().mean().sqrt() > 1.0  # what the noise does without smoothing


def test_missing_values_only_cost_accuracy_and_unobserved_states_stay_nan():
    t = torch.linspace(0, 6, 61, dtype=torch.float64)
    ys = torch.cat([wave(t), torch.full((61, 1), torch.nan, dtype=torch.float64)], dim=1)
    ys[::3, 0] = torch.nan
    ys[:10, 1] = torch.nan
    curves = smooth(problems.Trajectories.from_arrays(t, ys))
    assert curves.ys[..., 2].isnan().all()
    assert not curves.is_inside[0, 0, 0]
    assert not curves.is_inside[0, 0, 1]
    assert curves.is_inside[0, -1, 1]
    exact = torch.stack([curves.ts.sin(), 1e6 * (2 * curves.ts).cos()], dim=2)
    error = (curves.ys[..., :2] - exact) / torch.tensor([1.0, 1e6], dtype=torch.float64)
    assert error[curves.is_inside[..., :2]].abs().max() < 0.02  # spacing up to 0.2, boundary error


def test_a_handful_of_points_is_interpolated_and_repeated_times_are_averaged():
    t = torch.tensor([0.0, 1.0, 1.0, 3.0], dtype=torch.float64)
    y = torch.tensor([0.0, 1.0, 3.0, 6.0], dtype=torch.float64)[:, None]  # 2 t on average
    curves = smooth(problems.Trajectories.from_arrays(t, y), points=7)
    torch.testing.assert_close(curves.derivatives, torch.full_like(curves.derivatives, 2.0))
