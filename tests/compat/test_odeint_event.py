"""Solves that end at an event, and the gradient of its time."""

from __future__ import annotations

import math

import pytest
import torch
import torchdiffeq
from compat_cases import F64
from torch import nn

import ude.compat
from ude.compat import OdeintError, odeint, odeint_event
from ude.problems import SolveError

BOTH = (ude.compat, torchdiffeq)
METHODS = {
    "dopri5": {"rtol": 1e-9, "atol": 1e-10},
    "dopri8": {"method": "dopri8", "rtol": 1e-10, "atol": 1e-12},
    "rk4": {"method": "rk4", "options": {"step_size": 0.013}, "atol": 1e-10},
    "rk4 cubic": {"method": "rk4", "options": {"step_size": 0.013, "interp": "cubic"}, "atol": 1e-10},
    "implicit_adams": {"method": "implicit_adams", "options": {"step_size": 0.013}, "rtol": 1e-10, "atol": 1e-10},
}


class Fall(nn.Module):
    """A ball in air, height and velocity a tuple."""

    def __init__(self):
        super().__init__()
        self.gravity = nn.Parameter(torch.tensor([9.81], dtype=F64))
        self.drag = nn.Parameter(torch.tensor([0.1], dtype=F64))

    def forward(self, t, state):
        velocity = state[1]
        return velocity, -self.gravity - self.drag * velocity * (1 + 0.1 * torch.sin(t))


def landing(t, state):
    return state[0]


def land(module, interface, *, reverse, **options):
    """Time and states of the landing, and their gradients."""
    ball = Fall()
    height = torch.tensor([3.0], dtype=F64, requires_grad=True)
    velocity = torch.tensor([-2.0 if reverse else 2.0], dtype=F64, requires_grad=True)
    t0 = torch.tensor([0.3], dtype=F64, requires_grad=True)
    t, state = module.odeint_event(
        ball,
        (height, velocity),
        t0,
        event_fn=landing,
        reverse_time=reverse,
        odeint_interface=getattr(module, interface),
        **options,
    )
    loss = 2.0 * t.sum() + torch.sin(state[1][-1]).sum() + state[0].sum()
    return [t, *state], torch.autograd.grad(loss, [height, velocity, t0, *ball.parameters()])


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("interface", ["odeint", "odeint_adjoint"])
@pytest.mark.parametrize("name", METHODS)
def test_the_time_of_an_event_and_its_gradients_agree_with_torchdiffeq(name, interface, reverse):
    (ours, got), (theirs, expected) = (land(module, interface, reverse=reverse, **METHODS[name]) for module in BOTH)
    assert [part.shape for part in ours] == [part.shape for part in theirs]
    # torchdiffeq's root is within atol, and its dopri8 interpolates with order 4.
    torch.testing.assert_close(ours, theirs, rtol=0.0, atol=1e-6 if name == "dopri8" else 1e-8)
    for i, (mine, other) in enumerate(zip(got, expected, strict=True)):
        # Where the start moves, the slope at the event counts: that of the field here, that of the line there.
        torch.testing.assert_close(mine, other, rtol=0.03 if (name, i) == ("rk4", 2) else 1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["dopri5", "rk4 cubic"])
def test_gradients_of_an_event_agree_with_finite_differences(name):
    def loss(height, gravity, t0):
        ball = Fall()
        ball.gravity = nn.Parameter(gravity.detach())
        del ball.gravity
        ball.gravity = gravity
        t, (_, velocity) = odeint_event(
            ball, (height, torch.tensor([2.0], dtype=F64)), t0, event_fn=landing, **METHODS[name]
        )
        return 2.0 * t.sum() + torch.sin(velocity[-1]).sum()

    values = [torch.tensor([x], dtype=F64) for x in (3.0, 9.81, 0.3)]
    inputs = [x.clone().requires_grad_() for x in values]
    got = torch.autograd.grad(loss(*inputs), inputs)
    h = 1e-5
    for i, gradient in enumerate(got):
        shifted = [[x + (h * sign if i == j else 0.0) for j, x in enumerate(values)] for sign in (1.0, -1.0)]
        difference = (loss(*shifted[0]) - loss(*shifted[1])) / (2 * h)
        torch.testing.assert_close(gradient.sum(), difference.detach(), rtol=1e-5, atol=1e-5)


def test_what_the_event_closes_over_has_a_gradient():
    # Free fall to the level b: t = sqrt(2 (h - b) / g). torchdiffeq leaves the gradient of b out.
    level = torch.tensor(1.0, dtype=F64, requires_grad=True)
    y0 = torch.tensor([3.0, 0.0], dtype=F64)
    t, ys = odeint_event(
        lambda t, y: torch.stack([y[1], torch.full_like(y[1], -9.81)]),
        y0,
        torch.zeros(1, dtype=F64),
        event_fn=lambda t, y: y[0] - level,
    )
    expected = torch.sqrt(2 * (y0[0] - level) / 9.81)
    torch.testing.assert_close(t, expected, rtol=1e-9, atol=0.0)
    (got,) = torch.autograd.grad(t, level, retain_graph=True)
    (slope,) = torch.autograd.grad(expected, level)
    torch.testing.assert_close(got, slope, rtol=1e-7, atol=0.0)
    # At the event the height is the level.
    torch.testing.assert_close(torch.autograd.grad(ys[-1, 0], level)[0], torch.tensor(1.0, dtype=F64))


@pytest.mark.parametrize("name", ["dopri5", "rk4"])
def test_the_first_of_several_events_ends_the_solve(name):
    # sin t falls to -0.5 at 7 pi / 6, rises to 0.9 at asin 0.9 first.
    def event(t, y):
        return torch.stack([y[0] + 0.5, y[0] - 0.9])

    y0 = torch.tensor([0.0, 1.0], dtype=F64)
    for module in BOTH:
        t, ys = module.odeint_event(
            lambda t, y: torch.stack([y[1], -y[0]]),
            y0,
            torch.tensor(0.0, dtype=F64),
            event_fn=event,
            **METHODS[name],
        )
        # rk4 looks for the event on a line over a step of 0.013.
        assert float(t) == pytest.approx(math.asin(0.9), abs=1e-4 if name == "rk4" else 1e-8)
        assert ys.shape == (2, 2)
        assert torch.equal(ys[0], y0)


@pytest.mark.parametrize("name", ["dopri5", "rk4"])
def test_an_event_at_the_start_ends_the_solve_there(name):
    y0 = torch.tensor([0.0, 1.0], dtype=F64)
    for module in BOTH[: 1 if name == "rk4" else 2]:  # torchdiffeq's fixed methods go on to the next one
        t, ys = module.odeint(
            lambda t, y: torch.stack([y[1], -y[0]]),
            y0,
            torch.tensor([0.5, 1.0], dtype=F64),
            event_fn=lambda t, y: y[0],
            **METHODS[name],
        )
        assert t == 0.5
        assert torch.equal(ys, torch.stack([y0, y0]))


@pytest.mark.parametrize("interface", ["odeint", "odeint_adjoint"])
def test_without_odeint_event_the_time_counts_as_given(interface):
    gradients = []
    for module in BOTH:
        y0 = torch.tensor([3.0, 0.5], dtype=F64, requires_grad=True)
        extra = {"adjoint_params": ()} if interface == "odeint_adjoint" else {}
        t, ys = getattr(module, interface)(
            lambda t, y: torch.stack([y[1], -9.81 + 0.0 * y[1]]),
            y0,
            torch.tensor([0.0, 1.0], dtype=F64),
            event_fn=lambda t, y: y[0],
            **extra,
        )
        gradients.append(torch.autograd.grad(ys[-1].sum(), y0)[0])
        # y = (h + v t - g t^2 / 2, v - g t) at fixed t.
        torch.testing.assert_close(
            gradients[-1], torch.stack([t.new_tensor(1.0), 1 + t.detach()]), rtol=1e-6, atol=1e-7
        )
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-7)


def test_an_event_that_one_step_jumps_over_is_seen():
    # Two zeros, 0.2 apart, within one step of some length: the end of the step tells nothing.
    t, _ = odeint(
        lambda t, y: torch.ones_like(y),
        torch.zeros(1, dtype=F64),
        torch.tensor([0.0, 1.0], dtype=F64),
        event_fn=lambda t, y: (y - 5.0).abs() - 0.4,
        options={"first_step": 5.5},
    )
    assert float(t) == pytest.approx(4.6, abs=1e-9)


@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_an_event_that_never_comes_is_said_to_be_missing(method, monkeypatch):
    monkeypatch.setattr(ude.compat.fixed, "MOST_STEPS", 200)
    options = {"step_size": 0.01} if method == "rk4" else None
    with pytest.raises(SolveError, match=r"No event was met|maximum number of iterations 200") as caught:
        odeint(
            lambda t, y: torch.ones_like(y),
            torch.ones(1, dtype=F64),
            torch.tensor([0.0, 1.0], dtype=F64),
            method=method,
            options=options,
            event_fn=lambda t, y: y + 1.0,
        )
    assert isinstance(caught.value, OdeintError)


def test_max_num_steps_holds_until_the_event():
    for module in BOTH:
        with pytest.raises(AssertionError, match="max_num_steps exceeded"):
            module.odeint(
                lambda t, y: torch.stack([y[1], -y[0]]),
                torch.tensor([0.0, 1.0], dtype=F64),
                torch.tensor([0.0, 1.0], dtype=F64),
                event_fn=lambda t, y: t - 100.0,
                options={"max_num_steps": 20},
            )


def test_a_fixed_method_needs_to_know_its_step():
    for module in BOTH:
        with pytest.raises(AssertionError, match="step_size"):
            module.odeint(
                lambda t, y: -y,
                torch.ones(1),
                torch.tensor([0.0, 1.0]),
                method="rk4",
                event_fn=lambda t, y: y - 0.5,
            )


def test_scipy_cannot_look_for_events():
    with pytest.raises(ValueError, match="cannot look for events"):
        odeint(
            lambda t, y: -y,
            torch.ones(1),
            torch.tensor([0.0, 1.0]),
            method="scipy_solver",
            event_fn=lambda t, y: y - 0.5,
        )


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
@pytest.mark.parametrize("time", [torch.float32, F64], ids=str)
def test_an_event_in_single_precision(dtype, time):
    t, ys = odeint_event(
        lambda t, y: -y,
        torch.ones(2, dtype=dtype),
        torch.tensor(0.0, dtype=time),
        event_fn=lambda t, y: y[0] - 0.5,
        rtol=1e-5,
        atol=1e-6,
    )
    assert t.dtype == time
    assert ys.dtype == dtype
    assert float(t) == pytest.approx(math.log(2.0), abs=1e-4)


def test_a_jump_announced_is_respected_on_the_way_to_an_event():
    def switched(t, y):
        return torch.where(t < 1.0, 1.0, 3.0) * torch.ones_like(y)

    t, _ = odeint(
        switched,
        torch.zeros(1, dtype=F64),
        torch.tensor([0.0, 1.0], dtype=F64),
        event_fn=lambda t, y: y - 2.5,
        options={"jump_t": torch.tensor([1.0])},
    )
    assert float(t) == pytest.approx(1.5, abs=1e-12)
