from __future__ import annotations

import copy
import math

import pytest
import torch

from ude.methods import RK4, Euler, Heun, Midpoint, Tsit5
from ude.models import MLP, DenseField, Hypersolver, Integrator, NeuralODE, ResidualNetwork
from ude.problems import ODEProblem
from ude.solve import FixedStep, solve


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=1, dtype=torch.float64):
    return torch.randn(shape, dtype=torch.float64, generator=seeded(seed)).to(dtype)


def growth(t, y):
    # y(0) = 1: y = exp(sin t).
    return y * torch.cos(t)


def leading_residual(order):
    """Of a method of the given order on growth: what the series of the solution has next, minus that of the method."""

    def euler(t, dt, y, dy):
        return y * (torch.cos(t) ** 2 - torch.sin(t)) / 2

    def midpoint(t, dt, y, dy):
        # y'''/6 - (f_tt + 2 f_ty f + f_yy f^2) / 8, the second term being what the midpoint rule makes of it.
        c, s = torch.cos(t), torch.sin(t)
        third = y * (c**3 - 3 * s * c - c)
        return third / 6 - y * (-c - 2 * s * c) / 8

    return {1: euler, 2: midpoint}[order]


def observed_order(method, steps=(16, 32, 64, 128)):
    y0, errors = torch.ones(1, dtype=torch.float64), []
    for n in steps:
        solution = solve(ODEProblem(growth, y0, (0.0, 2.0)), method, save_at=[2.0], dt=2.0 / n, controller=FixedStep())
        errors.append(abs(float(solution.ys[-1]) - math.exp(math.sin(2.0))))
    return math.log2(errors[-2] / errors[-1])


@pytest.mark.parametrize("base", [Euler(), Midpoint()], ids=str)
def test_the_leading_residual_gains_an_order(base):
    assert observed_order(base) == pytest.approx(base.order, abs=0.1)
    assert observed_order(Hypersolver(leading_residual(base.order), base)) == pytest.approx(base.order + 1, abs=0.1)


@pytest.mark.parametrize("base", [Euler(), Heun(), RK4(), Tsit5()], ids=str)
def test_the_full_residual_makes_every_step_exact(base):
    # y' = -2 y: the residual of a step of any length is known.
    def exact(t, dt, y, dy):
        step = base.step(lambda t, y: -2 * y, t[:, 0], dt[:, 0], y, base.init(lambda t, y: -2 * y, t[:, 0], y)).y1
        return (torch.exp(-2 * dt) * y - step) / dt ** (base.order + 1)

    y0, method = randn(3, 2), Hypersolver(exact, base)
    problem = ODEProblem(lambda t, y: -2 * y, y0, (0.0, 1.0), batched=True)
    solution = solve(problem, method, save_at=[0.5, 1.0], dt=0.25, controller=FixedStep())
    for i, t in enumerate((0.5, 1.0)):
        torch.testing.assert_close(solution.ys[i], y0 * math.exp(-2 * t), rtol=1e-12, atol=1e-12)
    end = solve(problem, method, save_at=[1.0], dt=0.25, controller=FixedStep())
    assert end.stats.nfe.tolist() == [4 * len(base.tableau.b)] * 3


def test_states_between_steps_have_the_order_of_the_cubic():
    y0, errors = torch.ones(1, dtype=torch.float64), []
    for n in (16, 32, 64):
        solution = solve(
            ODEProblem(growth, y0, (0.0, 2.0)),
            Hypersolver(leading_residual(2), Midpoint()),
            dt=2.0 / n,
            controller=FixedStep(),
        )
        ts = torch.linspace(0.01, 1.99, 57, dtype=torch.float64)
        errors.append(float((solution(ts)[:, 0] - torch.exp(torch.sin(ts))).abs().max()))
    assert math.log2(errors[1] / errors[2]) == pytest.approx(3.0, abs=0.2)


@pytest.mark.parametrize("batched", [False, True])
def test_a_mini_batch_may_be_one_state_or_many(batched):
    correction = ResidualNetwork(MLP(8, 3, width=4, generator=seeded()))
    field, y0 = DenseField((3, 5, 3), generator=seeded(2)), randn(4, 3)
    alone = NeuralODE(field, integrator=Integrator(method=Hypersolver(correction), dt=0.25, controller=FixedStep()))
    method = Hypersolver(correction, features=None if batched else 3)
    model = NeuralODE(field, integrator=Integrator(method=method, dt=0.25, controller=FixedStep(), batched=batched))
    expected = torch.stack([alone(y) for y in y0])
    torch.testing.assert_close(model(y0), expected, rtol=0, atol=1e-13)


def test_training_on_residuals_beats_the_base_method_on_other_trajectories():
    field, net = DenseField((2, 16, 2), generator=seeded(3)), ResidualNetwork(MLP(6, 2, width=16, generator=seeded()))
    with torch.no_grad():
        for weight in field.parameters():
            weight.mul_(2.0)
    ts = torch.linspace(0, 1, 6, dtype=torch.float64)
    accurate = NeuralODE(field, integrator=Integrator(rtol=1e-9, atol=1e-9))
    hyper = Hypersolver(net, features=2)
    with torch.no_grad():
        seen, unseen = (accurate.solve(randn(128, 2, seed=seed), save_at=ts).ys for seed in (4, 5))
    optimizer = torch.optim.Adam(hyper.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        hyper.residual_loss(field, ts, seen).backward()
        optimizer.step()
    assert all(p.grad is None for p in field.parameters())
    errors = []
    for method in (Euler(), hyper):
        coarse = NeuralODE(field, integrator=Integrator(method=method, dt=0.2, controller=FixedStep()))
        with torch.no_grad():
            errors.append(float((coarse(unseen[0]) - unseen[-1]).abs().mean()))
    assert errors[1] < 0.3 * errors[0]


def test_residuals_are_those_of_the_definition():
    y, ts = randn(3, 4, 2), torch.tensor([0.0, 0.5, 0.8]).double()
    hyper = Hypersolver(lambda t, dt, y, dy: torch.zeros_like(y))
    expected = []
    for i in range(2):
        h = ts[i + 1] - ts[i]
        expected.append(((y[i + 1] - y[i] - h * growth(ts[i], y[i])) / h**2).square().mean())
    torch.testing.assert_close(hyper.residual_loss(growth, ts, y), torch.stack(expected).mean())


def test_gradients_are_those_of_finite_differences():
    net = ResidualNetwork(MLP(6, 2, width=3, depth=1, generator=seeded()))
    names, values = zip(*net.named_parameters(), strict=True)
    y0, ts = randn(3, 2), torch.linspace(0, 1, 3, dtype=torch.float64)

    def hypersolver(*values):
        correction = lambda *x: torch.func.functional_call(net, dict(zip(names, values, strict=True)), x)  # noqa: E731
        return Hypersolver(correction, Heun())

    def end(y0, *values):
        problem = ODEProblem(growth, y0, (0.0, 1.0), batched=True)
        return solve(problem, hypersolver(*values), save_at=ts, dt=0.25, controller=FixedStep()).ys

    def loss(*values):
        return hypersolver(*values).residual_loss(growth, ts, randn(3, 3, 2, seed=6))

    inputs = [x.requires_grad_() for x in (y0, *(v.detach() for v in values))]
    assert torch.autograd.gradcheck(end, inputs)
    assert torch.autograd.gradcheck(loss, inputs[1:])


def test_single_precision_and_a_state_dict():
    make = lambda seed: Hypersolver(ResidualNetwork(MLP(6, 2, generator=seeded(seed), dtype=torch.float32)))  # noqa: E731
    first, second, y0 = make(0), make(1), randn(3, 2, dtype=torch.float32)

    def run(method):
        problem = ODEProblem(growth, y0, (0.0, 1.0), batched=True)
        return solve(problem, method, save_at=[1.0], dt=0.5, controller=FixedStep()).ys

    assert run(first).dtype == torch.float32
    assert not torch.equal(run(first), run(second))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert torch.equal(run(first), run(second))


def test_wrong_arguments_are_refused():
    zero = lambda t, dt, y, dy: torch.zeros_like(y)  # noqa: E731
    with pytest.raises(ValueError, match="explicit Runge-Kutta method"):
        Hypersolver(zero, "euler")
    with pytest.raises(ValueError, match="must be a module or function"):
        Hypersolver(None)
    with pytest.raises(ValueError, match="at least 1"):
        Hypersolver(zero, features=0)
    problem = ODEProblem(growth, randn(3, 2), (0.0, 1.0))
    with pytest.raises(ValueError, match="does not divide into samples"):
        solve(problem, Hypersolver(zero, features=4), dt=0.5)
    with pytest.raises(ValueError, match="must return what looks like"):
        solve(problem, Hypersolver(lambda t, dt, y, dy: y[:, :1], features=2), dt=0.5)
    with pytest.raises(ValueError, match="needs their length"):
        solve(problem, Hypersolver(zero, features=2))
    with pytest.raises(ValueError, match="at least 2 times"):
        Hypersolver(zero).residual_loss(growth, torch.zeros(1), randn(1, 2))
