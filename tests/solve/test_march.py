"""Constant steps made in one go are those made one by one."""

from __future__ import annotations

import importlib
import itertools

import pytest
import torch

import ude
from ude.problems import Status

engines = importlib.import_module("ude.solve.engines")  # `ude.solve` is a function as well
F64 = torch.float64
METHODS = [ude.Euler(), ude.Tsit5(), ude.Rodas5P(), ude.Kvaerno3(), ude.BDF()]
OPTIONS = {
    "steps": {"dt": 0.15},
    "stops": {"dt": 0.12, "stop_at": [0.323, 0.5]},
    "times": {"dt": 0.15, "save_at": [0.3, 0.35], "dense": False},
    "checkpointed": {"dt": 0.15, "save_at": [0.3, 0.35], "adjoint": ude.Checkpointed()},
}


@pytest.fixture
def one_by_one(monkeypatch):
    """Return a function that solves without marching."""

    def solve(*args, **kwargs):
        with monkeypatch.context() as patch:
            patch.setattr(engines, "march", lambda *_: None)
            return ude.solve(*args, **kwargs)

    return solve


@pytest.fixture
def marches(monkeypatch):
    """Return the list that gets True for every march, False for every one that was called off."""
    made = []

    def counted(*args, march=engines.march):
        result = march(*args)
        made.append(isinstance(result, tuple))
        return result

    monkeypatch.setattr(engines, "march", counted)
    return made


def forced_van_der_pol(t, y, p):
    x, v = y.unbind(-1)
    return torch.stack([p * v, (1 - x**2) * v - x + torch.sin(t).reshape(x.shape)], -1)


def problem_of(dtype=F64, batched=False, span=(0.0, 0.73)):
    y0 = torch.tensor([[2.0, 0.1], [1.0, 0.3]] if batched else [2.0, 0.1], dtype=dtype, requires_grad=True)
    p = torch.tensor(1.1, dtype=dtype, requires_grad=True)
    return ude.ODEProblem(forced_van_der_pol, y0, span, p=p, batched=batched)


def assert_same(marched, expected):
    assert torch.equal(marched.ts, expected.ts)
    assert torch.equal(marched.ys, expected.ys)
    for name in marched.steps.__slots__:
        assert torch.equal(getattr(marched.steps, name), getattr(expected.steps, name)), name
    assert torch.equal(marched.stats.nfe, expected.stats.nfe)
    assert torch.equal(marched.status, expected.status)


@pytest.mark.parametrize("batched", [False, True], ids=["single", "batch"])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_values_and_records_are_those_of_single_steps_bit_for_bit(method, batched, one_by_one, marches):
    directions = ((0.0, 0.73), (1.0, 0.28))
    for dtype, span, options in itertools.product((torch.float32, F64), directions, OPTIONS.values()):
        if "save_at" in options and span[1] < span[0]:
            options = options | {"save_at": options["save_at"][::-1]}
        options = options | {"controller": ude.FixedStep()}
        with torch.no_grad():
            marched = ude.solve(problem_of(dtype, batched, span), method, **options)
            expected = one_by_one(problem_of(dtype, batched, span), method, **options)
        assert_same(marched, expected)
    assert all(marches)


def test_a_long_march_is_made_in_pieces_and_ends_where_single_steps_end(one_by_one, marches):
    # 0.003 is no sum of powers of two: its multiples are those of adding it up, in single precision by 1e-5 off.
    options = {"dt": 0.003, "save_at": [0.9, 1.0], "dense": False}
    problem = problem_of(torch.float32, span=(0.0, 1.0))
    with torch.no_grad():
        assert_same(ude.solve(problem, ude.Euler(), **options), one_by_one(problem, ude.Euler(), **options))
    assert marches == [True] * 3  # of at most 128 steps


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("method", METHODS[:3], ids=str)
def test_gradients_are_those_of_single_steps(method, options, monkeypatch, marches):
    # Of the states alone: error ratios, which subtract numbers of nearly the same size, multiply the rounding.
    def gradient():
        problem = problem_of()
        loss = ude.solve(problem, method, controller=ude.FixedStep(), **options).ys.square().sum()
        return torch.autograd.grad(loss, (problem.y0, problem.p))

    found = gradient()
    assert all(marches)
    monkeypatch.setattr(engines, "march", lambda *_: None)
    for one, expected in zip(found, gradient(), strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-12, atol=1e-12)


def test_error_ratios_of_constant_steps_carry_their_gradient():
    problem = problem_of()

    def ratios(y0):
        return ude.solve(
            ude.ODEProblem(forced_van_der_pol, y0, (0.0, 0.5), p=problem.p),
            ude.Tsit5(),
            dt=0.1,
            controller=ude.FixedStep(),
            rtol=1e-2,
            atol=1e-2,
        ).steps.error

    assert torch.autograd.gradcheck(ratios, (problem.y0,), rtol=1e-5)


def leaves_its_domain(t, y):
    return -torch.sqrt(y - 0.5)


def test_what_leaves_its_domain_fails_at_the_step_where_it_did(one_by_one, marches):
    problem = ude.ODEProblem(leaves_its_domain, torch.tensor([1.0], dtype=F64), (0.0, 5.0))
    options = {"dt": 0.1, "controller": ude.FixedStep(), "throw": False}
    found, expected = ude.solve(problem, ude.RK4(), **options), one_by_one(problem, ude.RK4(), **options)
    assert marches == [False]
    assert found.status == expected.status == Status.NON_FINITE
    assert torch.equal(found.ys, expected.ys)
    assert torch.equal(found.steps.t, expected.steps.t)


def test_a_vector_field_that_raises_at_nan_is_not_shown_any():
    def field(t, y):
        if bool(y.isnan().any()):
            raise ArithmeticError("asked for the value at NaN")
        return leaves_its_domain(t, y)

    problem = ude.ODEProblem(field, torch.tensor([1.0], dtype=F64), (0.0, 5.0))
    with pytest.raises(ude.SolveError, match=r"stopped at t = 1\.3 .* infinite or NaN"):
        ude.solve(problem, ude.Euler(), dt=0.1)


def test_what_the_vector_field_raises_elsewhere_is_passed_on():
    def field(t, y):
        if float(t) > 0.45:
            raise ArithmeticError("no measurements after 0.45")
        return -y

    with pytest.raises(ArithmeticError, match="no measurements"):
        ude.solve(ude.ODEProblem(field, torch.ones(1, dtype=F64), (0.0, 1.0)), ude.Euler(), dt=0.1)


@pytest.mark.parametrize(
    "given",
    [
        {"controller": None},
        {"events": [ude.DiscreteEvent(condition=lambda t, y: y[..., 0] > 5.0)]},
        {"dt": 1e-17, "throw": False},
    ],
    ids=["control", "events", "no step at all"],
)
def test_other_solves_are_made_step_by_step(given, marches):
    options = {"dt": 0.1, "controller": ude.FixedStep()} | given
    ude.solve(ude.ODEProblem(lambda t, y: -y, torch.ones(2, dtype=F64), (1.0, 2.0)), ude.Tsit5(), **options)
    assert marches == [False]


@pytest.mark.parametrize(
    "span", [(0.0, torch.tensor([1.0, 0.5])), (torch.tensor([0.0, 0.1]), 1.0)], ids=["end", "start"]
)
def test_samples_with_other_times_go_their_own_way(span, marches):
    problem = ude.ODEProblem(lambda t, y: -y, torch.ones(2, 1, dtype=F64), span, batched=True)
    solution = ude.solve(problem, ude.RK4(), dt=0.1)
    assert not any(marches)
    lengths = torch.as_tensor(span[1], dtype=F64) - torch.as_tensor(span[0], dtype=F64)
    # RK4 with steps of 0.1 errs by 1e-7.
    torch.testing.assert_close(solution.ys[-1, :, 0], torch.exp(-lengths).expand(2), rtol=1e-6, atol=0.0)


def test_the_start_time_keeps_its_gradient():
    def end(t0):
        problem = ude.ODEProblem(lambda t, y: -t * y, torch.ones(1, dtype=F64), (t0, 1.0))
        return ude.solve(problem, ude.RK4(), dt=0.25).ys[-1]

    assert torch.autograd.gradcheck(end, torch.tensor(0.1, dtype=F64, requires_grad=True))
