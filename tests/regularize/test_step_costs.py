"""Costs from the error and stiffness estimates of the steps."""

import itertools
import math

import pytest
import torch
import torchdiffeq

import ude
from ude.compat.names import ADAPTIVE
from ude.regularize import ErrorEstimate, StiffnessEstimate

F64 = torch.float64
TOLERANCES = {"rtol": 1e-6, "atol": 1e-8}


def field(t, y):
    return torch.stack([y[..., 1], -torch.sin(3.0 * y[..., 0]) + 0.3 * torch.cos(2.0 * t.flatten())], -1)


def starts(batch):
    return torch.linspace(0.2, 1.5, 2 * batch, dtype=F64).reshape(batch, 2)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.net = ude.MLP(2, 2, width=8, depth=1, generator=generator)

    def forward(self, t, y):
        return 3.0 * self.net(y) * torch.cos(t)


def independent_error_ratio(f, t, dt, y, tableau, rtol, atol):
    """Return the error ratio of one step, written out by hand."""
    stages = []
    for row, c in zip(tableau.a, tableau.c, strict=True):
        argument = y + dt * sum((a * k for a, k in zip(row, stages, strict=False)), torch.zeros_like(y))
        stages.append(f(t + c * dt, argument))
    y1 = y + dt * sum(b * k for b, k in zip(tableau.b, stages, strict=True))
    error = dt * sum(b * k for b, k in zip(tableau.b_err, stages, strict=True))
    ratio = (error / (atol + rtol * torch.maximum(y.abs(), y1.abs()))).square().mean().sqrt()
    return ratio, error.square().mean().sqrt()


@pytest.mark.parametrize("method", [ude.Tsit5(), ude.Dopri5(), ude.BS3(), ude.Vern7()], ids=str)
def test_every_error_is_that_of_a_step_written_out_by_hand(method):
    f = lambda t, y: torch.stack([y[1], -torch.sin(3.0 * y[0]) + 0.3 * torch.cos(2.0 * t)])  # noqa: E731
    solution = ude.solve(ude.ODEProblem(f, starts(1)[0], (0.0, 3.0)), method, **TOLERANCES)
    steps, kept = solution.steps, solution.steps.accepted
    by_hand = [
        independent_error_ratio(f, t, dt, solution(t), method.tableau, TOLERANCES["rtol"], TOLERANCES["atol"])
        for t, dt in zip(steps.t[kept], steps.dt[kept], strict=True)
    ]
    ratios, raw = map(torch.stack, zip(*by_hand, strict=True))
    # The estimate cancels leading digits of its stages.
    torch.testing.assert_close(steps.error[kept], ratios, rtol=1e-6, atol=0.0)
    lengths = steps.dt[kept]
    torch.testing.assert_close(ErrorEstimate()(solution), (ratios * lengths).mean(), rtol=1e-6, atol=0.0)
    torch.testing.assert_close(ErrorEstimate(reduce="sum")(solution), (ratios * lengths).sum(), rtol=1e-6, atol=0.0)
    torch.testing.assert_close(ErrorEstimate(power=2)(solution), (ratios**2 * lengths).mean(), rtol=1e-6, atol=0.0)
    torch.testing.assert_close(ErrorEstimate(scale="raw")(solution), (raw * lengths).mean(), rtol=1e-6, atol=0.0)


def test_every_error_is_that_of_torchdiffeq_on_the_same_steps():
    seen = []
    f = lambda t, y: torch.stack([y[1], -torch.sin(3.0 * y[0])])  # noqa: E731
    f.callback_step = lambda t0, y0, dt: seen.append((t0, y0, dt))
    torchdiffeq.odeint(f, starts(1)[0], torch.tensor([0.0, 3.0], dtype=F64), method="dopri5", rtol=1e-6, atol=1e-8)
    assert len(seen) > 10
    for (t0, y0, dt), (t1, _, following) in itertools.pairwise(seen):
        factor = following / dt
        if t1 == t0 or not 1.0 < factor < 10.0:
            continue  # a step that was rejected, or a length that was kept within bounds
        # Its choice of the next length, 0.9 e^(-1/5) times this one, tells its error ratio.
        theirs = (0.9 / factor) ** 5
        options = {"dt": float(dt), "max_steps": 1, "throw": False, **TOLERANCES}
        ours = ude.solve(ude.ODEProblem(f, y0, (float(t0), float(t0) + 9.0)), ADAPTIVE["dopri5"], **options)
        torch.testing.assert_close(ours.steps.error[0], theirs, rtol=1e-7, atol=0.0)


@pytest.mark.parametrize("engine", ["eager", pytest.param("compiled", marks=pytest.mark.slow), "loop"])
def test_gradients_are_those_of_finite_differences_with_the_steps_held(engine):
    cost = (
        ErrorEstimate() + 1e3 * ErrorEstimate("raw", "sum") + 1e-3 * (StiffnessEstimate("mean") + StiffnessEstimate())
    )
    net = Net()
    ts = torch.linspace(0.0, 1.0, 3, dtype=F64)
    weight = net.net.weights[0]
    lengths = 8

    def value():
        # Constant steps hold the lengths; an error estimate is made nevertheless.
        problem = ude.ODEProblem(net, starts(3), (0.0, 1.0), batched=True)
        options = {"dt": 1.0 / lengths, "controller": ude.FixedStep(), "save_at": ts, **TOLERANCES}
        return cost(ude.solve(problem, ude.Tsit5(), engine=engine, **options))

    (gradient,) = torch.autograd.grad(value(), weight)
    step, moves = 1e-3, {-2: 1.0, -1: -8.0, 1: 8.0, 2: -1.0}
    slope = torch.zeros((), dtype=F64)
    with torch.no_grad():
        for move, factor in moves.items():
            weight[0, 0] += move * step
            slope += factor * value() / (12.0 * step)
            weight[0, 0] -= move * step
    torch.testing.assert_close(gradient[0, 0], slope, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("rate", [0.5, 4.0, 30.0])
@pytest.mark.parametrize("method", [ude.Tsit5(), ude.Dopri5(), ude.Dopri8(), ude.Vern7(), ude.Rodas5P()], ids=str)
def test_the_stiffness_of_decay_is_its_rate(method, rate):
    decay = ude.ODEProblem(lambda t, y: -rate * y, torch.ones(3, dtype=F64), (0.0, 1.0))
    solution = ude.solve(decay, method, **TOLERANCES)
    for reduce in ("mean", "max"):
        assert StiffnessEstimate(reduce)(solution).item() == pytest.approx(rate, rel=1e-6)
    steps = int(solution.stats.accepted)
    assert StiffnessEstimate("sum")(solution).item() == pytest.approx(steps * rate, rel=1e-6)


def test_a_batch_is_the_mean_over_its_samples():
    alone = [
        ude.solve(ude.ODEProblem(field, y0.unsqueeze(0), (0.0, 3.0), batched=True), ude.Tsit5(), **TOLERANCES)
        for y0 in starts(3)
    ]
    together = ude.solve(ude.ODEProblem(field, starts(3), (0.0, 3.0), batched=True), ude.Tsit5(), **TOLERANCES)
    assert len({int(one.stats.accepted) for one in alone}) > 1
    for reduce in ("mean", "sum", "max"):
        for cost in (ErrorEstimate(reduce=reduce), ErrorEstimate("raw", reduce), StiffnessEstimate(reduce)):
            torch.testing.assert_close(
                cost(together), torch.stack([cost(one) for one in alone]).mean(), rtol=1e-9, atol=0.0
            )


def test_a_cost_leaves_the_solve_as_it_is_and_costs_no_evaluation():
    net, calls = Net(), []
    net.register_forward_hook(lambda *_: calls.append(1))
    problem = ude.ODEProblem(net, starts(2), (0.0, 2.0))
    solution = ude.solve(problem, ude.Tsit5(), **TOLERANCES)
    before = len(calls)
    (ErrorEstimate()(solution) + ErrorEstimate("raw")(solution) + StiffnessEstimate()(solution)).backward()
    assert len(calls) == before == int(solution.stats.nfe)
    again = ude.solve(problem, ude.Tsit5(), **TOLERANCES)
    assert torch.equal(again.steps.dt, solution.steps.dt)


def test_rejected_steps_that_leave_the_domain_do_not_spoil_the_gradient():
    rate = torch.tensor(1.0, dtype=F64, requires_grad=True)
    problem = ude.ODEProblem(lambda t, y: -rate * torch.sqrt(y), torch.ones(1, dtype=F64), (0.0, 1.5))
    solution = ude.solve(problem, ude.Tsit5(), dt=40.0, **TOLERANCES)
    assert int(solution.stats.rejected) > 0
    (ErrorEstimate()(solution) + StiffnessEstimate()(solution)).backward()
    assert rate.grad is not None
    assert rate.grad.isfinite()


def test_weights_and_sums_are_what_they_say():
    solution = ude.solve(ude.ODEProblem(field, starts(2), (0.0, 2.0)), ude.Tsit5(), **TOLERANCES)
    error, stiffness = ErrorEstimate(), StiffnessEstimate()
    both = 2.0 * error + stiffness * 0.5 + error
    assert both(solution).item() == pytest.approx(3.0 * error(solution).item() + 0.5 * stiffness(solution).item())
    assert sum([error, stiffness])(solution).item() == (error + stiffness)(solution).item()
    assert repr(2.0 * (error + stiffness)).startswith("2.0 * (ErrorEstimate(")
    with pytest.raises(TypeError):
        error + 1.0


def test_checkpoints_give_the_same_cost_and_gradient():
    net = Net()
    gradients = []
    for adjoint in (ude.Direct(), ude.Checkpointed()):
        problem = ude.ODEProblem(net, starts(2), (0.0, 2.0))
        solution = ude.solve(problem, ude.Tsit5(), adjoint=adjoint, save_at=[2.0], **TOLERANCES)
        cost = ErrorEstimate()(solution) + StiffnessEstimate()(solution)
        gradients.append(torch.autograd.grad(cost, net.net.weights[0])[0])
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


class TestErrors:
    def test_a_method_without_an_estimate_is_refused(self):
        problem = ude.ODEProblem(field, starts(2), (0.0, 1.0))
        rk4 = ude.solve(problem, ude.RK4(), dt=0.1)
        with pytest.raises(ValueError, match=r"error estimate, got those of RK4.*TaylorEnergy"):
            ErrorEstimate()(rk4)
        with pytest.raises(ValueError, match=r"stiffness estimate, got those of RK4.*JacobianFrobenius"):
            StiffnessEstimate()(rk4)
        theirs = ude.solve(problem, ude.TorchDiffEq("dopri5"), save_at=[1.0])
        with pytest.raises(ValueError, match="error estimate"):
            ErrorEstimate()(theirs)

    def test_steps_of_a_continuous_adjoint_are_refused(self):
        solution = ude.solve(
            ude.ODEProblem(Net(), starts(2), (0.0, 1.0)), ude.Tsit5(), adjoint=ude.Gauss(), save_at=[1.0]
        )
        for cost in (ErrorEstimate(), StiffnessEstimate()):
            with pytest.raises(ValueError, match=r"carry no gradient.*Checkpointed"):
                cost(solution)

    def test_raw_errors_need_stages(self):
        problem = ude.ODEProblem(Net(), starts(2), (0.0, 1.0))
        with pytest.raises(ValueError, match="dense=True"):
            ErrorEstimate("raw")(ude.solve(problem, ude.Tsit5(), dense=False))
        with pytest.raises(ValueError, match="explicit Runge-Kutta"):
            ErrorEstimate("raw")(ude.solve(problem, ude.Rodas5P()))

    def test_bad_arguments_are_refused(self):
        for bad in ({"scale": "relative"}, {"reduce": "min"}, {"power": 0}):
            with pytest.raises(ValueError, match=next(iter(bad))):
                ErrorEstimate(**bad)
        with pytest.raises(ValueError, match="reduce"):
            StiffnessEstimate("median")

    def test_a_cost_that_is_not_finite_is_refused(self):
        solution = ude.solve(
            ude.ODEProblem(lambda t, y: y**2, torch.ones(1, dtype=F64), (0.0, 0.9)), ude.Tsit5(), **TOLERANCES
        )
        with pytest.raises(ValueError, match=r"is inf.*Lower the order"):
            (math.inf * ErrorEstimate())(solution)

    def test_a_trajectory_that_was_not_finished_has_no_cost(self):
        problem = ude.ODEProblem(lambda t, y: y**2, torch.tensor([[0.5], [1.0]], dtype=F64), (0.0, 1.5), batched=True)
        solution = ude.solve(problem, ude.Tsit5(), throw=False)
        with pytest.raises(ValueError, match=r"Samples \[1\] of this solution failed"):
            ErrorEstimate()(solution)

    def test_what_is_no_solution_is_refused(self):
        solution = ude.solve(ude.ODEProblem(field, starts(2), (0.0, 1.0)), ude.Tsit5())
        with pytest.raises(TypeError, match=r"`Solution`.*got Steps"):
            ErrorEstimate()(solution.steps)
