"""Gradients of the eager engine, direct and checkpointed, against finite differences and hand-written steps."""

from __future__ import annotations

import pytest
import torch

import ude
from ude.methods import RK4, Dopri8, Heun, Tsit5
from ude.problems import ODEProblem

F64 = torch.float64


def pendulum(t, y, p):
    return torch.stack([y[..., 1], -p[0] * torch.sin(y[..., 0]) + p[1] * torch.cos(t.squeeze(-1) if t.ndim else t)], -1)


def fixed(y0, p, t_span=(0.0, 1.0), save_at=(0.0, 0.25, 0.4, 1.0), method=None, **options):
    problem = ODEProblem(pendulum, y0, t_span, p=p)
    method = Tsit5() if method is None else method
    return ude.solve(problem, method, save_at=save_at, dt=0.2, controller=ude.FixedStep(), **options)


@pytest.mark.parametrize("method", [Tsit5(), RK4(), Dopri8()], ids=str)
@pytest.mark.parametrize("adjoint", [ude.Direct(), ude.Checkpointed()], ids=str)
def test_gradcheck_in_state_parameters_and_times(method, adjoint):
    y0 = torch.tensor([0.5, -0.3], dtype=F64, requires_grad=True)
    p = torch.tensor([2.0, 0.7], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y0, p: fixed(y0, p, method=method, adjoint=adjoint).ys, (y0, p))


@pytest.mark.parametrize("adjoint", [ude.Direct(), ude.Checkpointed()], ids=str)
def test_gradient_in_save_at_is_the_slope_of_the_solution(adjoint):
    y0, p = torch.tensor([0.5, -0.3], dtype=F64), torch.tensor([2.0, 0.7], dtype=F64)
    ts = torch.tensor([0.0, 0.25, 0.4, 1.0], dtype=F64, requires_grad=True)
    problem = ODEProblem(pendulum, y0, (0.0, 1.0), p=p)
    ys = ude.solve(problem, Tsit5(), save_at=ts, rtol=1e-9, atol=1e-10, adjoint=adjoint).ys
    (slope,) = torch.autograd.grad(ys[:, 1].sum(), [ts])
    expected = torch.stack([pendulum(t, y, p)[1] for t, y in zip(ts.detach(), ys.detach(), strict=True)])
    # The interpolant has order 4: its derivative is good to some 1e-7 at these steps.
    torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("save_at", [[0.3, 0.9], [1.2], None], ids=["inside", "end", "every step"])
def test_gradient_in_the_ends_of_the_interval(save_at):
    p = torch.tensor([2.0, 0.7], dtype=F64)
    y0 = torch.tensor([0.5, -0.3], dtype=F64)
    t0, t1 = torch.tensor(0.1, dtype=F64, requires_grad=True), torch.tensor(1.2, dtype=F64, requires_grad=True)

    def last(t0, t1):
        times = save_at if save_at != [1.2] else t1.unsqueeze(0)
        problem = ODEProblem(pendulum, y0, (t0, t1), p=p)
        return ude.solve(problem, Tsit5(), save_at=times, rtol=1e-10, atol=1e-11).ys[-1, 0]

    gradient = torch.autograd.grad(last(t0, t1), [t0, t1], allow_unused=True)
    h = 1e-4
    with torch.no_grad():
        differences = [
            (last(t0 + h, t1) - last(t0 - h, t1)) / (2 * h),
            (last(t0, t1 + h) - last(t0, t1 - h)) / (2 * h),
        ]
    for got, expected in zip(gradient, differences, strict=True):
        # Central differences of step 1e-4 leave 1e-8 of truncation and 1e-6 of solver tolerance over the step.
        torch.testing.assert_close(torch.zeros((), dtype=F64) if got is None else got, expected, rtol=1e-4, atol=1e-5)


def test_adaptive_gradient_agrees_with_finite_differences():
    p = torch.tensor([2.0, 0.7], dtype=F64, requires_grad=True)
    y0 = torch.tensor([0.5, -0.3], dtype=F64)

    def loss(p):
        problem = ODEProblem(pendulum, y0, (0.0, 3.0), p=p)
        return ude.solve(problem, Tsit5(), save_at=[1.0, 3.0], rtol=1e-11, atol=1e-12).ys.square().sum()

    (gradient,) = torch.autograd.grad(loss(p), [p])
    h = 1e-5
    with torch.no_grad():
        steps = h * torch.eye(2, dtype=F64)
        differences = torch.stack([(loss(p + e) - loss(p - e)) / (2 * h) for e in steps])
    # Truncation h^2 = 1e-10, tolerance over step 1e-6.
    torch.testing.assert_close(gradient, differences, rtol=1e-6, atol=1e-6)


def test_checkpointed_equals_direct_to_rounding():
    p = torch.tensor([2.0, 0.7], dtype=F64, requires_grad=True)
    y0 = torch.tensor([0.5, -0.3], dtype=F64, requires_grad=True)
    results = []
    for adjoint in (ude.Direct(), ude.Checkpointed()):
        problem = ODEProblem(pendulum, y0, (0.0, 5.0), p=p)
        solution = ude.solve(problem, Tsit5(), save_at=torch.linspace(0, 5, 11), rtol=1e-8, adjoint=adjoint)
        steps = solution.steps
        loss = solution.ys.square().sum() + (steps.error * steps.dt.abs()).sum() + steps.stiffness.sum()
        results.append((solution, torch.autograd.grad(loss, [p, y0])))
    (direct, expected), (checkpointed, got) = results
    # Products of matrices of other sizes round differently.
    torch.testing.assert_close(direct.ys, checkpointed.ys, rtol=1e-14, atol=1e-15)
    assert torch.equal(direct.steps.error, checkpointed.steps.error)
    for a, b in zip(got, expected, strict=True):
        # Sums in another order.
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def test_checkpointed_keeps_memory_like_the_root_of_the_number_of_steps():
    def saved(steps, adjoint):
        count = 0

        def pack(x):
            nonlocal count
            count += x.numel()
            return x

        y0 = torch.ones(50, dtype=F64, requires_grad=True)
        problem = ODEProblem(lambda t, y: -torch.sin(y), y0, (0.0, 1.0))
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            ude.solve(
                problem, RK4(), save_at=[1.0], dt=1.0 / steps, controller=ude.FixedStep(), adjoint=adjoint, dense=False
            )
        return count

    direct = saved(400, ude.Direct()) / saved(25, ude.Direct())
    rooted = saved(400, ude.Checkpointed()) / saved(25, ude.Checkpointed())
    # Sixteen times the steps: sixteen times the memory, or four times.
    assert direct == pytest.approx(16, rel=0.1)
    assert rooted == pytest.approx(4, rel=0.25)


def test_steps_carry_the_gradient_of_two_steps_written_by_hand():
    rate = torch.tensor(0.7, dtype=F64, requires_grad=True)
    y0 = torch.tensor([1.5], dtype=F64, requires_grad=True)
    rtol, atol, dt = 1e-1, 1e-1, 0.3
    problem = ODEProblem(lambda t, y: -rate * y * y, y0, (0.0, 0.6))
    options = {"dt": dt, "controller": ude.FixedStep(), "rtol": rtol, "atol": atol}
    steps = ude.solve(problem, Heun(), save_at=[0.6], **options).steps
    weights = torch.tensor([1.0, 2.0], dtype=F64)
    got = torch.autograd.grad((steps.error * weights).sum(), [rate, y0])

    y, errors = y0, []
    for _ in range(2):
        k1 = -rate * y * y
        k2 = -rate * (y + dt * k1) ** 2
        y1 = y + dt / 2 * (k1 + k2)
        errors.append(((y1 - (y + dt * k1)) / (atol + rtol * torch.maximum(y.abs(), y1.abs()))).abs())
        y = y1
    expected = torch.autograd.grad((torch.cat(errors) * weights).sum(), [rate, y0])
    torch.testing.assert_close(steps.error, torch.cat(errors), rtol=1e-12, atol=0.0)
    for a, b in zip(got, expected, strict=True):
        # The same formulas, rounded in another order.
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    assert not steps.t.requires_grad
    assert not steps.dt.requires_grad


def test_trial_steps_outside_the_domain_leave_no_nan_in_the_gradient():
    # A first step of 3 takes the root of a negative number; it is rejected, and must leave no trace.
    for batched in (False, True):
        rate = torch.tensor(1.0, dtype=F64, requires_grad=True)
        y0 = torch.tensor([[1.0], [4.0]] if batched else [1.0], dtype=F64, requires_grad=True)
        problem = ODEProblem(lambda t, y: -rate * torch.sqrt(y), y0, (0.0, 1.5), batched=batched)  # noqa: B023
        solution = ude.solve(problem, Tsit5(), save_at=[1.5], dt=1.49, rtol=1e-8, atol=1e-10)
        exact = (torch.sqrt(y0) - 0.75 * rate) ** 2
        torch.testing.assert_close(solution.ys[0], exact, rtol=1e-6, atol=1e-8)
        got = torch.autograd.grad(solution.ys.sum(), [rate, y0])
        for a, b in zip(got, torch.autograd.grad(exact.sum(), [rate, y0]), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_second_derivatives_pass_through_the_eager_engine():
    y0 = torch.tensor([0.5, -0.3], dtype=F64, requires_grad=True)
    p = torch.tensor([2.0, 0.7], dtype=F64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda y0, p: fixed(y0, p, save_at=[0.4, 1.0]).ys, (y0, p))
