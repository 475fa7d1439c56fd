"""Steps of stochastic Runge-Kutta methods: values, orders of convergence, estimates and gradients."""

from __future__ import annotations

import torch

from ude.methods.stochastic_steps import linear


def test_a_line_joins_the_ends_of_a_step_and_a_sample_that_stands_still_has_no_slope():
    y = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    y1 = y + torch.tensor([[1.0, -2.0], [0.0, 0.0]], dtype=torch.float64)
    dt = torch.tensor([0.5, 0.0], dtype=torch.float64)
    (rate,) = linear(y, dt, y1)
    torch.testing.assert_close(rate, torch.tensor([[2.0, -4.0], [0.0, 0.0]], dtype=torch.float64))
    assert all(x.isfinite().all() for x in torch.autograd.grad(rate.square().sum(), (y,)))
