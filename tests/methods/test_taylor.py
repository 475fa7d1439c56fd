"""The Taylor method: order, error estimate, dense output, cost, gradients, engines, and the regularizers it gives."""

import math

import pytest
import torch
from scipy.integrate import solve_ivp
from test_explicit_steps import growth, numbers, relative_errors, root_mean_square, slope_of
from torch import nn

import ude
from ude import ad
from ude.methods import Method, Taylor

F64 = torch.float64
ORDERS = (1, 2, 4, 6, 10)

# Steps over [0, 10] for which the error is asymptotic and stays above 1e-13.
STEPS = {1: (640, 1280, 2560), 2: (160, 320, 640, 1280), 4: (80, 160, 320), 6: (60, 80, 120, 160), 10: (24, 28, 32, 40)}


@pytest.mark.parametrize("order", ORDERS)
def test_converges_at_its_stated_order(order):
    steps = STEPS[order]
    slope = slope_of([root_mean_square(relative_errors(Taylor(order), n)[0]) for n in steps], steps)
    assert slope == pytest.approx(order, abs=0.15 if order < 10 else 0.3)


@pytest.mark.parametrize("order", ORDERS)
def test_the_error_estimate_shrinks_at_its_stated_order(order):
    # At high order the defect, of one order more, is the larger estimate of long steps.
    steps = STEPS[order] if order < 10 else (96, 112, 128, 144)
    slope = slope_of([root_mean_square(relative_errors(Taylor(order), n)[1]) for n in steps], steps)
    assert slope == pytest.approx(Taylor(order).error_order, abs=0.15)


@pytest.mark.parametrize("order", ORDERS)
def test_the_local_error_of_the_dense_output_has_the_stated_order(order):
    method = Taylor(order)
    starts = torch.arange(0.0, 10.0, 0.1, dtype=F64)
    theta = torch.rand(9, dtype=F64, generator=torch.Generator().manual_seed(1))
    lengths = {1: (0.05, 0.025), 2: (0.05, 0.025), 4: (0.1, 0.05), 6: (0.2, 0.1), 10: (0.4, 0.3)}[order]
    errors = []
    for length in lengths:
        dt, y = torch.full_like(starts, length), torch.exp(torch.sin(starts))[:, None]
        stages = torch.stack(method.step(growth, starts, dt, y, ()).stages)[..., 0]
        states = y[:, 0] + dt * torch.einsum("sj,sb->jb", method.dense_weights(theta), stages)
        errors.append((states / torch.exp(torch.sin(starts + theta[:, None] * length)) - 1).norm().item())
    slope = math.log(errors[0] / errors[1]) / math.log(lengths[0] / lengths[1])
    assert slope == pytest.approx(method.dense_order + 1, abs=0.25)


def test_the_dense_output_starts_at_the_state_and_ends_at_the_solution():
    method, t, dt, y = Taylor(5), numbers(0.3), numbers(0.4), numbers(2.0)[:, None]
    result = method.step(growth, t, dt, y, ())
    weights = method.dense_weights(numbers(0.0, 1.0))
    slopes = torch.einsum("st,sbd->tbd", weights, torch.stack(result.stages))
    assert torch.equal(slopes[0], torch.zeros_like(y))
    torch.testing.assert_close(y + 0.4 * slopes[1], result.y1, rtol=1e-15, atol=0.0)
    assert len(method.dense_stages(growth, t, dt, y, result)) == len(weights) == 5
    assert method.dense_weights(torch.rand(4, 3)).shape == (5, 4, 3)


def test_is_a_method_with_a_readable_name():
    assert isinstance(Taylor(4), Method)
    assert str(Taylor(4)) == "Taylor(4)"
    assert repr(Taylor(4)) == "Taylor(order=4)"
    assert Taylor(4) == Taylor(4) != Taylor(5)
    assert ude.Taylor is Taylor


@pytest.mark.parametrize("order", [0, -1, 2.0, True])
def test_refuses_an_order_that_is_none(order):
    with pytest.raises(ValueError, match="`order` must be an integer of at least 1"):
        Taylor(order)


def test_one_is_euler_and_two_is_the_second_order_series():
    t, dt, y = numbers(0.3), numbers(0.1), numbers(2.0)[:, None]
    torch.testing.assert_close(Taylor(1).step(growth, t, dt, y, ()).y1, ude.Euler().step(growth, t, dt, y, ()).y1)
    slope = math.cos(0.3) * 2.0
    curve = (math.cos(0.3) ** 2 - math.sin(0.3)) * 2.0
    assert Taylor(2).step(growth, t, dt, y, ()).y1.item() == pytest.approx(2.0 + 0.1 * slope + 0.005 * curve, rel=1e-15)


def test_each_sample_has_its_own_time_and_step():
    method, t, dt = Taylor(5), numbers(0.0, 1.0, 2.0), numbers(0.1, -0.2, 0.0)
    y = torch.rand(3, 2, dtype=F64)
    together = method.step(growth, t, dt, y, ())
    for i in range(3):
        one = slice(i, i + 1)
        alone = method.step(growth, t[one], dt[one], y[one], ())
        torch.testing.assert_close(together.y1[one], alone.y1, rtol=1e-15, atol=0.0)
    assert torch.equal(together.y1[2], y[2])
    assert torch.equal(together.error[2], torch.zeros(2, dtype=F64))


def test_a_backward_step_is_a_forward_step_of_the_reversed_field():
    t, dt, y = numbers(0.7), numbers(0.2), numbers(2.0)[:, None]
    backward = Taylor(5).step(growth, t, -dt, y, ())
    forward = Taylor(5).step(lambda t, y: -growth(-t, y), -t, dt, y, ())
    torch.testing.assert_close(backward.y1, forward.y1, rtol=1e-15, atol=0.0)


@pytest.mark.parametrize("dtype", [torch.float32, F64, torch.complex64, torch.complex128], ids=str)
def test_keeps_the_type_of_the_state_whatever_the_type_of_time(dtype):
    result = Taylor(3).step(lambda t, y: -y, numbers(0.3), numbers(0.1), torch.ones(1, 2, dtype=dtype), ())
    assert {tensor.dtype for tensor in (result.y1, result.error, *result.stages)} == {dtype}


# In the loop


def pendulum(t, y):
    angle, speed = y.unbind(-1)
    return torch.stack([speed, -torch.sin(angle) + 0.3 * torch.cos(t.squeeze(-1) if t.ndim else t)], -1)


@pytest.mark.parametrize(("order", "rtol"), [(4, 1e-6), (8, 1e-8), (12, 1e-11)])
def test_agrees_with_scipy_at_the_tolerance(order, rtol):
    def f(t, y):
        return [y[1], -math.sin(y[0]) + 0.3 * math.cos(t)]

    ts = torch.linspace(0.0, 10.0, 21, dtype=F64)
    reference = solve_ivp(f, (0.0, 10.0), [1.0, 0.0], method="DOP853", t_eval=ts.numpy(), rtol=1e-13, atol=1e-13).y.T
    problem = ude.ODEProblem(pendulum, numbers(1.0, 0.0), (0.0, 10.0))
    solution = ude.solve(problem, Taylor(order), save_at=ts, rtol=rtol, atol=rtol)
    torch.testing.assert_close(solution.ys, torch.from_numpy(reference), rtol=0.0, atol=100 * rtol)
    between = torch.linspace(0.0, 10.0, 101, dtype=F64)
    dense = ude.solve(problem, ude.Vern7(), save_at=between, rtol=1e-12, atol=1e-12).ys
    torch.testing.assert_close(solution(between), dense, rtol=0.0, atol=100 * rtol)
    steps = solution.steps
    assert (steps.error[steps.accepted] <= 1).all()


def test_counts_a_pass_for_every_order_and_one_for_the_end():
    calls = []

    def f(t, y):
        calls.append(t)
        return pendulum(t, y)

    solution = ude.solve(ude.ODEProblem(f, numbers(1.0, 0.0), (0.0, 3.0)), Taylor(5))
    attempts = len(solution.steps.t)
    assert solution.stats.nfe == 2 + 6 * attempts  # two evaluations find the first step
    assert len(calls) == 2 + 2 * attempts


PIECES = {
    "jump in time": (lambda t, y: torch.where(t < 1, torch.zeros_like(y), y), math.e),
    "kink in time": (lambda t, y: torch.relu(t - 1) + 0 * y, 1.5),
    # y = 1 + 0.3 t up to 1.5, from there y - 1.5 = (exp(3 s) - 1) / 10 with s = 2 - 5 / 3
    "kink in the state": (lambda t, y: 0.3 + 3 * torch.relu(y - 1.5), 1.5 + (math.e - 1) / 10),
}


@pytest.mark.parametrize("engine", ["eager", pytest.param("compiled", marks=pytest.mark.slow)])
@pytest.mark.parametrize("order", [3, 4, 8])
@pytest.mark.parametrize("piece", PIECES)
def test_sees_a_kink_or_a_jump_that_a_step_goes_over(piece, order, engine):
    # The series knows one piece of the field; the last term alone gives 2.43 for e and 0.494 for 0.5.
    f, exact = PIECES[piece]
    problem = ude.ODEProblem(f, numbers(1.0), (0.0, 2.0))
    solution = ude.solve(problem, Taylor(order), rtol=1e-8, atol=1e-8, save_at=[2.0], engine=engine)
    assert solution.ys.item() == pytest.approx(exact, rel=1e-6)  # a jump costs some steps with an error like rtol each


@pytest.mark.parametrize("order", [1, 4, 8])
def test_the_error_estimate_is_the_larger_of_the_last_term_and_the_defect_at_the_end(order):
    method, t, dt = Taylor(order), numbers(0.0), numbers(0.6)
    y = numbers(2.0)[:, None]
    smooth = method.step(lambda t, y: -y, t, dt, y, ())
    assert smooth.error.item() == pytest.approx(2.0 * (-0.6) ** order / math.factorial(order), rel=1e-14)
    jump = method.step(lambda t, y: torch.where(t[:, None] < 0.5, 0 * y, 5 * torch.ones_like(y)), t, dt, y, ())
    assert torch.equal(jump.y1, y)
    assert jump.error.item() == pytest.approx(0.6 * 5, rel=1e-15)


def test_a_smooth_problem_takes_the_steps_that_the_last_term_asks_for():
    def lotka_volterra(t, y):
        prey, predator = y.unbind(-1)
        return torch.stack([1.3 * prey - 0.9 * prey * predator, 0.8 * prey * predator - 1.8 * predator], -1)

    problem = ude.ODEProblem(lotka_volterra, numbers(0.44, 4.6), (0.0, 10.0))
    for order, steps in ((6, 196), (8, 94), (12, 45)):  # accepted with the last term as the only estimate
        solution = ude.solve(problem, Taylor(order), rtol=1e-8, atol=1e-8)
        assert solution.steps.accepted.sum() == pytest.approx(steps, rel=0.1)


def test_a_number_that_is_not_finite_at_the_end_is_an_error_that_is_not_finite():
    step = Taylor(2).step(lambda t, y: y.log(), numbers(0.0), numbers(4.0), numbers(0.5)[:, None], ())
    assert step.y1 < 0
    assert step.error.isnan()


class Field(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 2)).double()
        self.rate = nn.Parameter(torch.tensor(0.7, dtype=F64))

    def forward(self, t, y):
        return self.net(torch.cat([y, torch.sin(t).expand(*y.shape[:-1], 1)], -1)) - self.rate * y


def solved(method, engine="eager", adjoint=None, batched=True):
    field = Field()
    y0 = torch.randn(4, 2, dtype=F64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    problem = ude.ODEProblem(field, y0, (0.0, 2.0), batched=batched)
    options = {"rtol": 1e-9, "atol": 1e-9, "save_at": [0.7, 2.0], "engine": engine, "adjoint": adjoint or ude.Direct()}
    solution = ude.solve(problem, method, **options)
    return solution, torch.autograd.grad(solution.ys.square().sum(), [y0, *field.parameters()])


@pytest.mark.parametrize("adjoint", [ude.Direct(), ude.Checkpointed()], ids=str)
@pytest.mark.parametrize("batched", [False, True], ids=["one", "batched"])
def test_gradients_are_those_of_another_method(adjoint, batched):
    expected, reference = solved(ude.Vern7(), batched=batched)
    solution, gradients = solved(Taylor(7), adjoint=adjoint, batched=batched)
    torch.testing.assert_close(solution.ys, expected.ys, rtol=1e-7, atol=1e-7)
    for mine, theirs in zip(gradients, reference, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("batched", [False, True], ids=["one", "batched"])
def test_the_compiled_engine_agrees_with_the_eager_one(batched):
    expected, reference = solved(Taylor(4), batched=batched)
    solution, gradients = solved(Taylor(4), engine="compiled", batched=batched)
    torch.testing.assert_close(solution.ys, expected.ys, rtol=1e-12, atol=1e-12)
    for mine, theirs in zip(gradients, reference, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


def test_gradient_of_a_step_is_that_of_finite_differences():
    t, dt = numbers(0.2, 0.4), numbers(0.3, -0.1)
    y, rate = torch.rand(2, 2, dtype=F64).requires_grad_(), numbers(0.7).requires_grad_()

    def step(t, dt, y, rate):
        result = Taylor(4).step(lambda t, y: torch.sin(rate * y * t[:, None]), t, dt, y, ())
        return result.y1, result.error

    assert torch.autograd.gradcheck(step, (t.requires_grad_(), dt.requires_grad_(), y, rate))
    assert torch.autograd.gradgradcheck(step, (t, dt, y, rate))


def test_solves_a_pytree_and_a_universal_differential_equation():
    def f(t, state):
        return {"x": state["v"], "v": -torch.sin(state["x"])}

    y0 = {"x": numbers(1.0), "v": numbers(0.0)}
    options = {"rtol": 1e-9, "atol": 1e-9, "save_at": [2.0]}
    expected = ude.solve(ude.ODEProblem(f, y0, (0.0, 2.0)), ude.Vern7(), **options).ys
    result = ude.solve(ude.ODEProblem(f, y0, (0.0, 2.0)), Taylor(8), **options).ys
    torch.testing.assert_close(result["x"], expected["x"], rtol=1e-7, atol=1e-8)

    def known(t, y):
        return torch.stack([1.3 * y[..., 0], -1.8 * y[..., 1]], -1)

    torch.manual_seed(0)
    model = ude.UDE(known=known, unknown=ude.MLP(2, 2, width=8)).double()
    problem = ude.ODEProblem(model, numbers(0.44, 4.6), (0.0, 1.0))
    options["save_at"] = [1.0]
    torch.testing.assert_close(
        ude.solve(problem, Taylor(6), **options).ys, ude.solve(problem, ude.Vern7(), **options).ys, rtol=1e-7, atol=1e-7
    )


# Regularizers


def test_a_step_holds_all_derivatives_at_its_start():
    # The integrands of R_1, ..., R_p at the start of a step, without further evaluations.
    field, order = Field(), 5
    t, dt = numbers(0.3, 0.8, 1.1), numbers(0.2, 0.1, -0.3)
    y = torch.randn(3, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    method = Taylor(order)
    step = method.step(lambda t, y: field(t[:, None], y), t, dt, y, ())
    squares = torch.stack([x.square().mean(-1) for x in method.derivatives(step.stages, dt)])
    series = ad.ode_series(lambda t, y: field(t[:, None], y), t, y, order)
    torch.testing.assert_close(squares, ad.mean_square_derivatives(series)[1:], rtol=1e-12, atol=1e-12)


def test_the_error_in_the_steps_of_a_solution_is_mostly_the_last_derivative():
    field, order, atol = Field(), 4, 1e-6
    y0 = torch.randn(1, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    solution = ude.solve(ude.ODEProblem(field, y0, (0.0, 2.0)), Taylor(order), rtol=0.0, atol=atol)
    steps = solution.steps
    integrand = (steps.error * atol * math.factorial(order) / steps.dt**order) ** 2
    starts = torch.cat([y0.unsqueeze(0), solution.ys[1:]])[(steps.accepted.cumsum(0) - steps.accepted.long())]
    for i in range(len(steps.t)):
        series = ad.ode_series(field, steps.t[i], starts[i], order)
        expected = ad.mean_square_derivatives(series)[order].mean()
        # The defect takes the place of components that are near zero.
        assert expected * (1 - 1e-9) <= integrand[i] <= expected * 1.05
