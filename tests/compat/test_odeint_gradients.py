"""Gradients of states, parameters and times beside torchdiffeq's own and finite differences."""

from __future__ import annotations

import pytest
import torch
import torchdiffeq
from compat_cases import BACKWARD, F64, FORWARD, Net, NetPair, as_rows, start, start_pair

from ude.compat import odeint, odeint_adjoint

TIMES = {"forward": FORWARD, "backward": BACKWARD}
BOTH = {"odeint": (odeint, torchdiffeq.odeint), "adjoint": (odeint_adjoint, torchdiffeq.odeint_adjoint)}
OPTIONS = {
    "dopri5": None,
    "rk4": {"step_size": 0.07},
    "euler": None,
    "heun3": {"step_size": 0.07, "interp": "cubic"},
    "implicit_adams": {"step_size": 0.05},
}


def gradients(solver, model, y0, t, **options):
    """Of a loss that weighs every output differently, in the initial state, the times and the parameters."""
    t = t.clone().requires_grad_()
    parts = (y0,) if isinstance(y0, torch.Tensor) else y0
    rows = as_rows(solver(model, y0, t, **options))
    weights = torch.linspace(0.5, 1.5, rows.numel(), dtype=F64).reshape(rows.shape)
    loss = (weights * torch.sin(rows)).sum()
    return torch.autograd.grad(loss, [*parts, t, *model.parameters()])


@pytest.mark.parametrize("direction", TIMES)
@pytest.mark.parametrize("method", OPTIONS)
@pytest.mark.parametrize("which", BOTH)
def test_gradients_agree_with_torchdiffeq(which, method, direction):
    model, t = Net(), TIMES[direction]
    options = {"method": method, "options": OPTIONS[method], "rtol": 1e-9, "atol": 1e-11}
    ours, theirs = (gradients(solver, model, start(grad=True), t, **options) for solver in BOTH[which])
    # Methods on a grid do the same operations; dopri5 interpolates, so that its slope in time has one order less.
    close = {"rtol": 1e-5, "atol": 1e-5} if method == "dopri5" else {"rtol": 1e-10, "atol": 1e-12}
    torch.testing.assert_close(ours, theirs, **close)


@pytest.mark.parametrize("direction", TIMES)
@pytest.mark.parametrize("method", ["dopri5", "rk4"])
@pytest.mark.parametrize("which", BOTH)
def test_gradients_of_a_tuple_state_agree_with_torchdiffeq(which, method, direction):
    model, t = NetPair(), TIMES[direction]
    options = {"method": method, "options": OPTIONS[method], "rtol": 1e-9, "atol": 1e-11}
    ours, theirs = (gradients(solver, model, start_pair(grad=True), t, **options) for solver in BOTH[which])
    close = {"rtol": 1e-5, "atol": 1e-5} if method == "dopri5" else {"rtol": 1e-10, "atol": 1e-12}
    torch.testing.assert_close(ours, theirs, **close)


@pytest.mark.parametrize("method", ["dopri5", "tsit5", "bosh3"])
@pytest.mark.parametrize("solver", [odeint, odeint_adjoint], ids=["odeint", "adjoint"])
def test_gradients_agree_with_finite_differences(solver, method):
    model = Net()
    tolerance = {"rtol": 1e-6, "atol": 1e-8} if method == "bosh3" else {"rtol": 1e-10, "atol": 1e-12}
    inputs = [start(grad=True), FORWARD.clone().requires_grad_(), model.layers[0].weight]

    def loss(tolerances=tolerance):
        ys = solver(model, inputs[0], inputs[1], method=method, **tolerances)
        return torch.sin(ys).sum()

    got = torch.autograd.grad(loss(), inputs)
    h = 1e-4
    fine = {"rtol": 1e-12, "atol": 1e-13, "method": "dopri8"}
    for x, gradient in zip(inputs, got, strict=True):
        for i in range(min(3, x.numel())):
            index = torch.unravel_index(torch.tensor(i * (x.numel() - 1) // 2), x.shape)
            values = []
            for sign in (1.0, -1.0):
                with torch.no_grad():
                    x[index] += sign * h
                    values.append(torch.sin(odeint(model, inputs[0].detach(), inputs[1].detach(), **fine)).sum())
                    x[index] -= sign * h
            difference = (values[0] - values[1]) / (2 * h)
            # Central differences of h = 1e-4 leave 1e-8; bosh3 is as good as its tolerance.
            rtol = 1e-3 if method == "bosh3" else 1e-5
            torch.testing.assert_close(gradient[index], difference, rtol=rtol, atol=rtol * 1e-1)


def test_fixed_steps_pass_gradcheck_in_state_and_times():
    t = torch.tensor([0.0, 0.25, 0.4, 1.0], dtype=F64, requires_grad=True)
    model = Net()
    for options in (None, {"step_size": 0.3}, {"step_size": 0.3, "interp": "cubic"}):

        def solve(y0, t, options=options):
            return odeint(model, y0, t, method="rk4", options=options)

        assert torch.autograd.gradcheck(solve, (start(grad=True), t))


def test_second_derivatives_pass_through_odeint():
    def solve(y0, rate):
        return odeint(lambda t, y: -rate * y**2, y0, FORWARD[:3], method="rk4", options={"step_size": 0.1})

    y0 = torch.tensor([1.0, 0.5], dtype=F64, requires_grad=True)
    assert torch.autograd.gradgradcheck(solve, (y0, torch.tensor(0.7, dtype=F64, requires_grad=True)))


def test_without_gradients_nothing_is_recorded():
    model = Net()
    with torch.no_grad():
        assert not odeint(model, start(grad=True), FORWARD).requires_grad
        assert not odeint_adjoint(model, start(grad=True), FORWARD).requires_grad


def test_a_complex_state_has_torchdiffeq_s_gradients():
    rate = torch.tensor(0.3, dtype=F64, requires_grad=True)

    def rotation(t, z):
        return (1j - rate) * z

    results = []
    # The adjoint of torchdiffeq 0.2.5 cannot mix a complex state with real parameters.
    for solver in (torchdiffeq.odeint, odeint, odeint_adjoint):
        z0 = torch.tensor([1.0 + 0.5j, -0.3j], dtype=torch.complex128, requires_grad=True)
        extra = {"adjoint_params": (rate,)} if solver is odeint_adjoint else {}
        t = FORWARD.clone().requires_grad_()
        zs = solver(rotation, z0, t, rtol=1e-10, atol=1e-12, **extra)
        loss = (zs.real**2).sum() + (zs.imag * torch.arange(2)).sum()
        results.append(torch.autograd.grad(loss, [z0, rate, t]))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-6, atol=1e-6)
