"""Continuous adjoints against backpropagation through the steps, at tight tolerances."""

import math
import warnings

import pytest
import torch

import ude
from ude import ODEProblem, solve
from ude._checks import UdeWarning
from ude.solve import Backsolve, Direct, Forward, Gauss, Interpolating

TIGHT = {"rtol": 1e-10, "atol": 1e-11, "method": ude.Vern7()}
REVERSE = [Backsolve(), Interpolating(), Gauss(), Backsolve(control_parameters=True), Gauss(nodes=6)]


def pendulum(t, y, p):
    return torch.stack([y[..., 1], -p["g"] * torch.sin(y[..., 0]) - p["c"] * y[..., 1] + 0.1 * torch.sin(t).squeeze()])


def parameters():
    return {name: torch.tensor(v, dtype=torch.float64, requires_grad=True) for name, v in (("g", 2.0), ("c", 0.3))}


def gradients(adjoint, loss_of, inputs):
    return torch.autograd.grad(loss_of(adjoint), inputs)


def assert_alike(ours, theirs, rtol=1e-7):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=1e-9)


@pytest.mark.parametrize("adjoint", [*REVERSE, Forward()], ids=str)
def test_parameters_and_initial_states_get_the_gradient_of_backpropagation(adjoint):
    p, y0 = parameters(), torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    weights = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(6, 2)

    def loss(kind):
        problem = ODEProblem(pendulum, y0, (0.0, 4.0), p=p)
        times = [0.0, 0.5, 0.5, 1.7, 3.0, 3.5]  # the start, one twice, none at the end
        return (solve(problem, save_at=times, adjoint=kind, **TIGHT).ys * weights).sum()

    inputs = [y0, p["g"], p["c"]]
    assert_alike(gradients(adjoint, loss, inputs), gradients(Direct(), loss, inputs))
    torch.testing.assert_close(loss(adjoint), loss(Direct()))


@pytest.mark.parametrize("adjoint", REVERSE[:3], ids=str)
def test_a_network_in_a_batch_gets_one_gradient_for_all_samples(adjoint):
    torch.manual_seed(0)
    network = ude.MLP(2, 2, width=8).double()
    y0 = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)

    def loss(kind):
        problem = ODEProblem(lambda t, y: network(y) * torch.cos(t), y0, (0.0, 2.0), batched=True)
        return solve(problem, save_at=[1.0, 2.0], adjoint=kind, **TIGHT).ys.square().mean()

    inputs = [y0, *network.parameters()]
    assert_alike(gradients(adjoint, loss, inputs), gradients(Direct(), loss, inputs), rtol=1e-6)


def test_samples_with_their_own_times_are_for_gauss():
    rate = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    ends = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    times = torch.stack([ends / 2, ends])

    def loss(kind):
        y0 = torch.ones(3, 1, dtype=torch.float64)
        problem = ODEProblem(lambda t, y: -rate * y + t, y0, (0.0, ends), batched=True)
        return solve(problem, save_at=times, adjoint=kind, **TIGHT).ys.square().sum()

    assert_alike(gradients(Gauss(), loss, [rate]), gradients(Direct(), loss, [rate]))
    with pytest.raises(ValueError, match="must share `t0` and `save_at`"):
        loss(Interpolating())


@pytest.mark.parametrize("adjoint", REVERSE[:3], ids=str)
def test_times_get_gradients_too(adjoint):
    t0 = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    times = torch.tensor([0.9, 1.6], dtype=torch.float64, requires_grad=True)
    y0 = torch.tensor([1.0, 0.5], dtype=torch.float64)

    def loss(kind):
        problem = ODEProblem(lambda t, y: torch.sin(t) * y.flip(-1), y0, (t0, 2.0))
        return (solve(problem, save_at=times, adjoint=kind, **TIGHT).ys * torch.tensor([[1.0, 2.0], [3.0, -1.0]])).sum()

    assert_alike(gradients(adjoint, loss, [t0, times]), gradients(Direct(), loss, [t0, times]))


@pytest.mark.parametrize("adjoint", [Gauss(), Interpolating(), Backsolve(), Forward()], ids=str)
def test_all_steps_and_decreasing_times_work(adjoint):
    p = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)

    def loss(kind):
        problem = ODEProblem(lambda t, y, p: p * y * t, torch.ones(1, dtype=torch.float64), (1.0, 0.0), p=p)
        return solve(problem, adjoint=kind, **TIGHT).ys[-1].sum()

    assert float(loss(adjoint).detach()) == pytest.approx(math.exp(-0.25), rel=1e-9)
    assert_alike(gradients(adjoint, loss, [p]), [torch.tensor(-0.5 * math.exp(-0.25), dtype=torch.float64)])


@pytest.mark.parametrize("adjoint", [Gauss(), Interpolating(), Backsolve()], ids=str)
def test_a_parameter_behind_a_computation_outside_of_the_field_gets_its_gradient(adjoint):
    log_rate = torch.tensor(-0.5, dtype=torch.float64, requires_grad=True)

    def loss(kind):
        rate = log_rate.exp()
        problem = ODEProblem(lambda t, y: -rate * y, torch.ones(2, dtype=torch.float64), (0.0, 1.0))
        return solve(problem, save_at=[1.0], adjoint=kind, **TIGHT).ys.sum()

    assert_alike(gradients(adjoint, loss, [log_rate]), gradients(Direct(), loss, [log_rate]))


@pytest.mark.parametrize("adjoint", [Gauss(), Interpolating(), Backsolve()], ids=str)
def test_a_pytree_state_works(adjoint):
    k = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    start = {"x": torch.ones(2, dtype=torch.float64), "v": torch.zeros(2, dtype=torch.float64)}

    def loss(kind):
        problem = ODEProblem(lambda t, s: {"x": s["v"], "v": -k * s["x"]}, start, (0.0, 2.0))
        return solve(problem, save_at=[1.0, 2.0], adjoint=kind, **TIGHT).ys["x"].square().sum()

    assert_alike(gradients(adjoint, loss, [k]), gradients(Direct(), loss, [k]))


def test_a_small_loss_has_a_gradient_as_accurate_as_a_large_one():
    rate = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def gradient(scale):
        problem = ODEProblem(lambda t, y: -rate * y**2, torch.ones(1, dtype=torch.float64), (0.0, 1.0))
        ys = solve(problem, save_at=[1.0], adjoint=Gauss(), rtol=1e-8, atol=1e-8).ys
        return torch.autograd.grad(scale * ys.sum(), rate)[0] / scale

    torch.testing.assert_close(gradient(1e-9), gradient(1.0), rtol=1e-10, atol=0)


def test_gauss_goes_back_implicitly_after_a_stiff_solve():
    amplitude, rate = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.8, 1.2))

    def loss(kind):
        def field(t, y):
            return torch.stack([-1e4 * (y[0] - amplitude * torch.cos(y[1])), -rate * y[1] * y[0]])

        problem = ODEProblem(field, torch.tensor([0.0, 1.0], dtype=torch.float64), (0.0, 0.1))
        return solve(problem, ude.Rodas5P(), save_at=[0.1], adjoint=kind, rtol=1e-7, atol=1e-9).ys.sum()

    ours, theirs = (gradients(kind, loss, [amplitude, rate]) for kind in (Gauss(), Direct()))
    assert_alike(ours, theirs, rtol=1e-5)


def test_backsolve_warns_where_the_way_back_is_unstable():
    y0 = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    problem = ODEProblem(lambda t, y: -20.0 * (y - torch.cos(t)), y0, (0.0, 2.0))
    with pytest.warns(UdeWarning, match="tolerances away from the initial state"):
        solve(problem, save_at=[2.0], adjoint=Backsolve()).ys.sum().backward()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(problem, save_at=[2.0], adjoint=Gauss()).ys.sum().backward()


def test_a_parameter_first_met_on_the_way_is_an_error_not_a_zero():
    late = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    problem = ODEProblem(lambda t, y: -y * (late if t > 0.5 else 1.0), torch.ones(1, dtype=torch.float64), (0.0, 1.0))
    y0 = torch.ones(1, dtype=torch.float64, requires_grad=True)
    problem = ODEProblem(problem.vector_field, y0, (0.0, 1.0))
    ys = solve(problem, save_at=[1.0], adjoint=Gauss()).ys
    with pytest.raises(ValueError, match="was not met at the start of the solve"):
        ys.sum().backward()


def test_what_an_adjoint_cannot_do_is_refused():
    rate = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    y0 = torch.ones(1, dtype=torch.float64)
    problem = ODEProblem(lambda t, y: -rate * y, y0, (0.0, 1.0))
    with pytest.raises(ValueError, match="needs every parameter in the problem's `p`"):
        solve(problem, adjoint=Forward())
    with pytest.raises(ValueError, match="what events do to the gradient"):
        solve(problem, adjoint=Gauss(), events=[ude.PresetTimes([0.5])])
    with pytest.raises(ValueError, match="needs real states"):
        solve(ODEProblem(lambda t, y: 1j * rate * y, y0 + 0j, (0.0, 1.0)), adjoint=Gauss())
    with pytest.raises(ValueError, match="without its continuous extension"):
        solve(problem, adjoint=Gauss())(0.5)
    end = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    with pytest.raises(ValueError, match="`t1` among the times"):
        solve(ODEProblem(lambda t, y: -rate * y, y0, (0.0, end)), adjoint=Gauss())


@pytest.mark.parametrize("adjoint", [Gauss(), Forward()], ids=str)
def test_second_derivatives_raise(adjoint):
    rate = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    problem = ODEProblem(lambda t, y, p: -p * y, torch.ones(1, dtype=torch.float64), (0.0, 1.0), p=rate)
    loss = solve(problem, save_at=[1.0], adjoint=adjoint).ys.sum() + rate**2
    (first,) = torch.autograd.grad(loss, rate, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative"):
        torch.autograd.grad(first, rate)


def test_without_gradients_nothing_is_solved_twice():
    problem = ODEProblem(lambda t, y: -y, torch.ones(1, dtype=torch.float64), (0.0, 1.0))
    with torch.no_grad():
        solution = solve(problem, adjoint=Gauss(), save_at=[1.0])
    assert not solution.ys.requires_grad
    assert float(solution.ys[0, 0]) == pytest.approx(math.exp(-1.0), rel=1e-4)
