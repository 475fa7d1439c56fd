"""Times far from zero with a state in single precision, and the continuous solution."""

from __future__ import annotations

import pytest
import torch
import torchdiffeq
from compat_cases import BACKWARD, F64, FORWARD, forced, pair, start, start_pair

from ude.compat import odeint, odeint_dense, odeint_event

F32 = torch.float32
YEAR = 2024.0


def seasons(t, y):
    """Explicit in time, with the period of a year."""
    return torch.stack([y[..., 1], -y[..., 0] + torch.sin(2 * torch.pi * (t - YEAR))], -1)


@pytest.mark.parametrize("time", [F32, F64], ids=str)
@pytest.mark.parametrize("ends", [(0.0, 4.0), (3.0, -1.0)], ids=["forward", "backward"])
def test_calendar_years_do_not_cost_the_digits_of_single_precision(ends, time):
    t = (YEAR + torch.linspace(*ends, 9, dtype=F64)).to(time)
    results = [module(seasons, start().to(F32), t, rtol=1e-5, atol=1e-6) for module in (odeint, torchdiffeq.odeint)]
    exact = torchdiffeq.odeint(seasons, start(), t.double(), rtol=1e-10, atol=1e-12)
    errors = [float((ys - exact).abs().max()) for ys in results]
    # The field itself sees time with a resolution of 1.2e-4 years.
    assert errors[0] < 2 * errors[1] + 1e-4
    assert results[0].dtype == F32


def test_steps_and_events_are_told_in_the_user_s_time():
    class Watched:
        def __init__(self):
            self.seen = []

        def __call__(self, t, y):
            return seasons(t, y)

        def callback_step(self, t, y, dt):
            self.seen.append(float(t))

    t = YEAR + torch.tensor([0.0, 2.0], dtype=F64)
    watched = Watched()
    odeint(watched, start().to(F32), t, rtol=1e-4, options={"step_t": torch.tensor([YEAR + 0.75])})
    assert watched.seen[0] == YEAR
    assert YEAR + 0.75 in watched.seen
    event, ys = odeint_event(
        lambda t, y: torch.ones_like(y),
        torch.zeros(1, dtype=F32),
        torch.tensor(YEAR, dtype=F64),
        event_fn=lambda t, y: y - 0.3,
        rtol=1e-5,
        atol=1e-6,
    )
    assert float(event) == pytest.approx(YEAR + 0.3, abs=1e-6)
    torch.testing.assert_close(ys[-1], torch.full((1,), 0.3))


def test_gradients_of_times_far_from_zero():
    results = []
    for dtype in (F32, F64):
        t = (YEAR + torch.tensor([0.0, 0.5, 1.5], dtype=F64)).requires_grad_()
        y0 = start().to(dtype).requires_grad_()
        ys = odeint(lambda t, y: -y * torch.ones_like(t), y0, t, rtol=1e-6, atol=1e-7)
        results.append([x.double() for x in torch.autograd.grad(torch.sin(ys).sum(), [y0, t])])
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)


def test_an_error_says_how_its_times_are_counted():
    with pytest.raises(AssertionError, match=r"underflow in dt.*t counts from t\[0\] = 2024"):
        odeint(lambda t, y: y * y, torch.ones(1), torch.tensor([YEAR, YEAR + 2.0]))


@pytest.mark.parametrize("t", [FORWARD, BACKWARD], ids=["forward", "backward"])
@pytest.mark.parametrize("state", ["tensor", "tuple"])
def test_the_continuous_solution_agrees_with_the_saved_one(t, state):
    field, y0 = (forced, start()) if state == "tensor" else (pair, start_pair())
    dense = odeint_dense(field, y0, t[0], t[-1], rtol=1e-9, atol=1e-11)
    saved = odeint(field, y0, t, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(dense(t), saved, rtol=0.0, atol=1e-12)
    torch.testing.assert_close(dense(t[2]), saved[2] if state == "tensor" else tuple(p[2] for p in saved))


def test_the_continuous_solution_agrees_with_torchdiffeq():
    ends = torch.tensor(0.0, dtype=F64), torch.tensor(2.0, dtype=F64)
    ours, theirs = (
        module(forced, start(), *ends, rtol=1e-9, atol=1e-11) for module in (odeint_dense, torchdiffeq.odeint_dense)
    )
    for time in (0.1, 0.77, 1.9):
        now = torch.tensor(time, dtype=F64)
        torch.testing.assert_close(ours(now), theirs(now), rtol=0.0, atol=1e-7)


def test_the_continuous_solution_is_differentiable_and_keeps_the_user_s_time():
    y0 = start().to(F32).requires_grad_()
    dense = odeint_dense(lambda t, y: -y, y0, torch.tensor(YEAR, dtype=F64), torch.tensor(YEAR + 1, dtype=F64))
    value = dense(torch.tensor(YEAR + 0.5, dtype=F64))
    torch.testing.assert_close(value, y0 * 0.60653066, rtol=1e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad(value.sum(), y0)
    torch.testing.assert_close(gradient, torch.full((2, 2), 0.60653066), rtol=1e-5, atol=1e-6)


def test_a_method_on_a_grid_has_no_continuous_solution():
    with pytest.raises(ValueError, match="A continuous solution needs one of"):
        odeint_dense(forced, start(), 0.0, 1.0, method="rk4")
