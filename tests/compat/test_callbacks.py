"""Callbacks that a program attaches to its vector field."""

from __future__ import annotations

import warnings

import pytest
import torch
import torchdiffeq
from compat_cases import BACKWARD, F64, FORWARD, Net, NetPair, start, start_pair
from torch import nn

from ude.compat import odeint, odeint_adjoint

NAMES = ("callback_step", "callback_accept_step", "callback_reject_step")


class Listening(nn.Module):
    """Writes down what it is told."""

    def __init__(self, model, names=NAMES):
        super().__init__()
        self.model = model
        self.heard = []
        for name in names:
            setattr(self, name, lambda t, y, dt, name=name: self.heard.append((name, t, y, dt)))

    def forward(self, t, y):
        return self.model(t, y)


def rough(t, y):
    """Rejects steps: the force switches quickly."""
    return torch.stack([y[..., 1], -y[..., 0] + torch.tanh(40.0 * torch.sin(3.0 * t))], -1)


class Rough(nn.Module):
    def forward(self, t, y):
        return rough(t, y)


@pytest.mark.parametrize("ends", [(0.0, 4.0), (2.0, -2.0)], ids=["forward", "backward"])
def test_adaptive_steps_are_told_of_as_by_torchdiffeq(ends):
    ours, theirs = Listening(Rough()), Listening(Rough())
    for module, listening in ((odeint, ours), (torchdiffeq.odeint, theirs)):
        module(listening, start(), torch.tensor(ends, dtype=F64), rtol=1e-4, atol=1e-4)
    names = [[name for name, *_ in one.heard] for one in (ours, theirs)]
    # Every attempt is begun, then decided on.
    assert all(name == "callback_step" for name in names[0][::2])
    assert all(name != "callback_step" for name in names[0][1::2])
    # Far from the end, where ours stops and theirs steps over it, the attempts are the same.
    assert names[0][:30] == names[1][:30]
    assert {"callback_accept_step", "callback_reject_step"} < set(names[0][:30])
    for mine, other in zip(ours.heard[:30], theirs.heard[:30], strict=True):
        # Ratios of errors are rounded differently, so that the lengths agree to some digits.
        torch.testing.assert_close(mine[1:], other[1:], rtol=1e-6, atol=1e-7)
        assert mine[3] > 0


@pytest.mark.parametrize("method", ["rk4", "implicit_adams"])
def test_steps_on_a_grid_are_told_of_as_by_torchdiffeq(method):
    for t in (FORWARD, BACKWARD):
        ours, theirs = Listening(Net(), NAMES[:1]), Listening(Net(), NAMES[:1])
        odeint(ours, start(), t, method=method, options={"step_size": 0.07})
        torchdiffeq.odeint(theirs, start(), t, method=method, options={"step_size": 0.07})
        assert len(ours.heard) == len(theirs.heard) > 20
        for mine, other in zip(ours.heard, theirs.heard, strict=True):
            torch.testing.assert_close(mine[1:], other[1:], rtol=1e-12, atol=1e-13)


def test_a_callback_gets_a_tuple_if_the_state_is_one():
    for method in ("dopri5", "euler"):
        listening = Listening(NetPair(), NAMES[:1])
        odeint(listening, start_pair(), FORWARD, method=method)
        assert [part.shape for part in listening.heard[-1][2]] == [(2, 2), (1,)]


@pytest.mark.parametrize("method", ["rk4", "scipy_solver", "explicit_adams"])
def test_a_callback_that_will_not_be_called_is_warned_of(method):
    for module in (odeint, torchdiffeq.odeint):
        listening = Listening(Net(), NAMES[1:])
        with pytest.warns(UserWarning, match="does not support callbacks"):
            module(listening, start(), FORWARD, method=method)
        assert not listening.heard
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        odeint(Listening(Net()), start(), FORWARD)


def test_the_backward_solve_has_callbacks_of_its_own():
    heard = []
    for module in (odeint_adjoint, torchdiffeq.odeint_adjoint):
        listening = Listening(Net(), [*NAMES, *(f"{name}_adjoint" for name in NAMES)])
        y0 = start(grad=True)
        ys = module(listening, y0, FORWARD, rtol=1e-6, atol=1e-6)
        forward = len(listening.heard)
        assert not any(name.endswith("_adjoint") for name, *_ in listening.heard)
        ys.sum().backward()
        backward = listening.heard[forward:]
        assert backward
        assert all(name.endswith("_adjoint") for name, *_ in backward)
        # (g_t, y, a, *parameters), back from the last time to the first.
        assert [part.shape for part in backward[0][2]][:4] == [(), (2, 2), (2, 2), (8, 3)]
        assert backward[0][1] == FORWARD[-1]
        heard.append(backward)
    torch.testing.assert_close(heard[0][0][2], heard[1][0][2], rtol=1e-5, atol=1e-5)


def test_a_step_tried_outside_the_domain_is_told_of_once():
    listening = Listening(nn.Identity())
    listening.forward = lambda t, y: -torch.sqrt(y)
    y0 = torch.ones(1, dtype=F64, requires_grad=True)
    odeint(listening, y0, torch.tensor([0.0, 1.5], dtype=F64), options={"first_step": 1.49}, rtol=1e-6)
    names = [name for name, *_ in listening.heard]
    assert names[:3] == ["callback_step", "callback_reject_step", "callback_step"]
    assert names.count("callback_step") == len(names) / 2
