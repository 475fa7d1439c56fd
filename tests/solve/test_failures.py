"""What goes wrong is said, per sample, and nothing is lost."""

from __future__ import annotations

import pytest
import torch

import ude
from ude.methods import RK4, Euler, Tsit5
from ude.problems import ODEProblem, SolveError, Status

F64 = torch.float64


def explode(t, y):
    return y * y


def test_a_singularity_is_named_with_sample_time_step_and_remedy():
    y0 = torch.tensor([[0.1], [2.0]], dtype=F64)
    problem = ODEProblem(explode, y0, (0.0, 1.0), batched=True)
    with pytest.raises(
        SolveError, match=r"(?s)Sample 1 of 2 stopped at t = 0\.5.*step.*error ratio.*stiffness"
    ) as caught:
        ude.solve(problem, Tsit5(), save_at=[0.25, 0.75])
    solution = caught.value.solution
    assert solution.status.tolist()[0] == Status.SUCCESS
    assert solution.status.tolist()[1] in (Status.STEP_TOO_SMALL, Status.NON_FINITE)
    # y = y0 / (1 - y0 t): the sound sample is finished, the other is kept up to its failure.
    torch.testing.assert_close(solution.ys[1, 0], 0.1 / (1 - 0.075 * torch.ones(1, dtype=F64)), rtol=1e-5, atol=0.0)
    torch.testing.assert_close(solution.ys[0, 1], torch.tensor([4.0], dtype=F64), rtol=1e-4, atol=0.0)
    assert solution.ys[1, 1].isnan().all()


def test_without_throw_the_status_tells():
    problem = ODEProblem(explode, torch.tensor([2.0], dtype=F64), (0.0, 1.0))
    solution = ude.solve(problem, Tsit5(), save_at=[0.25, 0.75], throw=False)
    assert not solution.success
    assert solution.ys[1].isnan().all()
    with pytest.raises(ValueError, match="Solve over a longer"):
        solution(0.9)


def test_too_many_steps():
    problem = ODEProblem(lambda t, y: -1e5 * (y - torch.cos(t)), torch.ones(1, dtype=F64), (0.0, 1.0))
    with pytest.raises(SolveError, match=r"(?s)max_steps.*stiff.*Rodas5P") as caught:
        ude.solve(problem, Tsit5(), max_steps=50)
    solution = caught.value.solution
    assert solution.status == Status.MAX_STEPS
    assert solution.stats.accepted + solution.stats.rejected == 50


@pytest.mark.parametrize("method", [Tsit5(), RK4()], ids=str)
def test_a_vector_field_without_a_value_is_not_finite(method):
    problem = ODEProblem(lambda t, y: torch.log(y - t), torch.ones(1, dtype=F64) * 0.5, (0.0, 1.0))
    options = {} if method.error_order else {"dt": 0.01}
    solution = ude.solve(problem, method, save_at=[1.0], throw=False, **options)
    assert solution.status == Status.NON_FINITE
    assert ude.solve(problem, method, throw=False, **options).ys.isfinite().all()


@pytest.mark.parametrize("sick", ["state", "field"])
def test_an_initial_state_or_slope_that_is_not_finite(sick):
    y0 = torch.tensor([[1.0], [torch.nan if sick == "state" else -1.0]], dtype=F64)
    problem = ODEProblem(lambda t, y: -torch.sqrt(y) if sick == "field" else -y, y0, (0.0, 0.5), batched=True)
    solution = ude.solve(problem, Tsit5(), save_at=[0.5], throw=False)
    assert solution.status.tolist() == [Status.SUCCESS, Status.NON_FINITE]
    with pytest.raises(SolveError, match="before its first step"):
        ude.solve(problem, Tsit5(), save_at=[0.5])


def test_a_finished_or_failed_sample_leaves_no_nan_in_the_gradient_of_the_others():
    rate = torch.tensor(1.0, dtype=F64, requires_grad=True)
    y0 = torch.tensor([[0.1], [2.0]], dtype=F64, requires_grad=True)
    problem = ODEProblem(lambda t, y: rate * y * y, y0, (0.0, 1.0), batched=True)
    solution = ude.solve(problem, Tsit5(), save_at=[1.0], throw=False)
    gradient = torch.autograd.grad(solution.ys[0, 0].sum(), [rate, y0])
    assert all(g.isfinite().all() for g in gradient)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"save_at": [0.5, 2.0]}, r"must lie in \[t0, t1\] = \[0, 1\], got 2"),
        ({"save_at": [0.5, 0.2]}, "without turning back"),
        ({"save_at": torch.zeros(2, 2)}, "must have shape"),
        ({"save_at": [float("nan")]}, "must lie in"),
        ({"rtol": -1.0}, "`rtol` must be a finite number"),
        ({"atol": torch.ones(3)}, "`atol` must be a number or broadcast"),
        ({"dt": -0.1}, "`dt` must be a positive"),
        ({"engine": "turbo"}, "`engine` must be one of"),
        ({"max_steps": 0}, "`max_steps` must be a positive"),
        ({"controller": ude.FixedStep()}, "give `dt`"),
        ({"method": Euler()}, "give `dt`"),
        ({"method": Euler(), "controller": ude.PI(), "dt": 0.1}, "no error estimate"),
    ],
)
def test_bad_arguments_are_named(change, message):
    problem = ODEProblem(lambda t, y: -y, torch.ones(2), (0.0, 1.0))
    with pytest.raises(ValueError, match=message):
        ude.solve(problem, **change)


@pytest.mark.parametrize(
    ("y0", "message"),
    [
        (torch.ones(2, dtype=torch.int64), "floating-point"),
        (1.0, "must be a tensor"),
        ((torch.ones(1), torch.ones(1, dtype=F64)), "one dtype"),
    ],
)
def test_bad_states_are_named(y0, message):
    with pytest.raises(ValueError, match=message):
        ude.solve(ODEProblem(lambda t, y: y, y0, (0.0, 1.0)))


@pytest.mark.parametrize(
    "field",
    [lambda t, y: y.double(), lambda t, y: y[:1], lambda t, y: y.sum(), lambda t, y: 1.0],
    ids=["dtype", "shape", "scalar", "number"],
)
def test_a_vector_field_of_another_shape_or_dtype_is_refused(field):
    with pytest.raises(ValueError, match="must return a tensor with the shape and dtype"):
        ude.solve(ODEProblem(field, torch.ones(2), (0.0, 1.0)))


def test_the_interpolant_knows_its_interval():
    solution = ude.solve(ODEProblem(lambda t, y: -y, torch.ones(2), (0.0, 1.0)))
    with pytest.raises(ValueError, match=r"known for t in \[0, 1\], got t = 1.5"):
        solution(1.5)
    with pytest.raises(ValueError, match="dense=True"):
        ude.solve(ODEProblem(lambda t, y: -y, torch.ones(2), (0.0, 1.0)), dense=False)(0.5)


def test_progress_is_shown_on_request(capsys):
    ude.solve(ODEProblem(lambda t, y: -y, torch.ones(2), (0.0, 1.0)), progress=True)
    assert "t = 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"events": ude.SteadyState()}, "`events` must be a list"),
        ({"adjoint": "gauss"}, "`adjoint` must be an object"),
        ({"adjoint": ude.Gauss}, "`adjoint` must be an object"),
        ({"method": "tsit5"}, "`method` must be a method object"),
        ({"method": ude.Tsit5}, "`method` must be a method object"),
    ],
    ids=str,
)
def test_arguments_of_the_wrong_kind_are_named(options, message):
    problem = ude.ODEProblem(lambda t, y: -y, torch.ones(2), (0.0, 1.0))
    with pytest.raises(ValueError, match=message):
        ude.solve(problem, **options)


def test_a_problem_of_another_kind_is_sent_to_its_own_door():
    with pytest.raises(ValueError, match="is for `solve_steady_state`"):
        ude.solve(ude.SteadyStateProblem(lambda t, y: -y, torch.ones(2)))
