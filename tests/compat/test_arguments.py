"""What a call accepts, warns of and refuses, with the types of error that torchdiffeq raises."""

from __future__ import annotations

import warnings

import pytest
import torch
import torchdiffeq
from compat_cases import F64, FORWARD, as_rows, forced, pair, start, start_pair

from ude.compat import ArgumentError, OdeintError, odeint, odeint_adjoint
from ude.problems import SolveError, Status

WRONG = {
    "method": (lambda f: f(forced, start(), FORWARD, method="rk45"), ValueError, "Invalid method"),
    "a list as time": (lambda f: f(forced, start(), [0.0, 1.0]), AssertionError, "must be a torch.Tensor"),
    "integer times": (lambda f: f(forced, start(), torch.arange(3)), TypeError, "floating point"),
    "times of two dimensions": (lambda f: f(forced, start(), FORWARD[None]), AssertionError, "one dimensional"),
    "repeated times": (lambda f: f(forced, start(), FORWARD[[0, 1, 1]]), AssertionError, "strictly increasing"),
    "times that turn back": (lambda f: f(forced, start(), FORWARD[[0, 2, 1]]), AssertionError, "strictly increasing"),
    "a list as state": (lambda f: f(pair, list(start_pair()), FORWARD), AssertionError, "tuple"),
    "tolerances of a wrong number": (lambda f: f(pair, start_pair(), FORWARD, rtol=(1e-3,)), AssertionError, "length"),
    "a tolerance with gradient": (
        lambda f: f(forced, start(), FORWARD, rtol=torch.tensor(1e-3, requires_grad=True)),
        AssertionError,
        "cannot require grad",
    ),
    "two grids": (
        lambda f: f(forced, start(), FORWARD, method="rk4", options={"step_size": 0.1, "grid_constructor": max}),
        ValueError,
        "mutually exclusive",
    ),
    "interpolation": (
        lambda f: f(forced, start(), FORWARD, method="rk4", options={"interp": "quintic"}),
        ValueError,
        "Unknown interpolation",
    ),
    "a grid with other ends": (
        lambda f: f(forced, start(), FORWARD, method="rk4", options={"grid_constructor": lambda f, y0, t: t[1:]}),
        AssertionError,
        "",
    ),
    "a time in both lists": (
        lambda f: f(forced, start(), FORWARD, options={"step_t": FORWARD[1:3], "jump_t": FORWARD[2:4]}),
        ValueError,
        "repeated",
    ),
    "event with many times": (
        lambda f: f(forced, start(), FORWARD, event_fn=lambda t, y: y.sum()),
        ValueError,
        "len(t) == 2",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_argument_raises_what_torchdiffeq_raises(what):
    call, error, words = WRONG[what]
    for module in (odeint, torchdiffeq.odeint):
        with pytest.raises(error) as caught:
            call(module)
        assert words in str(caught.value)


@pytest.mark.parametrize("what", sorted(set(WRONG) - {"integer times"}))
def test_a_wrong_argument_is_a_value_error_as_everywhere_in_this_library(what):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        WRONG[what][0](odeint)
    assert isinstance(caught.value, ArgumentError)


def test_the_adjoint_needs_to_know_its_parameters():
    for module in (odeint_adjoint, torchdiffeq.odeint_adjoint):
        with pytest.raises(ValueError, match="func must be an instance of"):
            module(forced, start(), FORWARD)
        assert module(forced, start(), FORWARD, adjoint_params=()).shape == (5, 2, 2)


def test_the_adjoint_cannot_guess_the_options_of_another_method():
    for module in (odeint_adjoint, torchdiffeq.odeint_adjoint):
        with pytest.raises(ValueError, match="cannot infer"):
            module(
                forced,
                start(),
                FORWARD,
                method="rk4",
                options={"step_size": 0.1},
                adjoint_method="dopri5",
                adjoint_params=(),
            )


@pytest.mark.parametrize("name", ["seminrom", 3])
def test_an_adjoint_norm_of_no_known_name_is_refused(name):
    with pytest.raises(ValueError, match="seminorm"):
        odeint_adjoint(forced, start(), FORWARD, adjoint_params=(), adjoint_options={"norm": name})


@pytest.mark.parametrize(
    ("method", "options"),
    [("dopri5", {"step_size": 0.1, "eps": 1}), ("rk4", {"first_step": 0.1}), ("scipy_solver", {"safety": 0.5})],
)
def test_an_option_that_a_method_does_not_have_is_warned_of(method, options):
    for module in (odeint, torchdiffeq.odeint):
        with pytest.warns(UserWarning, match="Unexpected arguments") as caught:
            module(forced, start(), FORWARD, method=method, options=options)
        assert all(name in str(caught[0].message) for name in options)
    with pytest.warns(UserWarning, match="It has the options .*norm"):
        odeint(forced, start(), FORWARD, method=method, options=options)


def test_options_that_a_method_has_are_not_warned_of_and_left_as_they_were():
    options = {"norm": lambda x: x.abs().max(), "safety": 0.8, "dtype": F64}
    given = dict(options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        odeint(forced, start(), FORWARD, options=options)
        odeint(forced, start(), FORWARD, method="rk4", options={"norm": max, "step_size": 0.1})
        odeint(forced, start(), FORWARD, method="scipy_solver", options={"norm": max, "eps": 0.1})
    assert options == given


def test_a_dtype_of_time_that_is_none_is_refused():
    with pytest.raises(ValueError, match="floating-point dtype"):
        odeint(forced, start(), FORWARD, options={"dtype": torch.int64})


def test_a_solve_that_fails_is_caught_as_torchdiffeq_s_assertion():
    def explode(t, y):
        return y * y

    t = torch.tensor([0.0, 0.5, 2.0], dtype=F64)
    for module in (odeint, torchdiffeq.odeint):
        with pytest.raises(AssertionError, match="underflow in dt"):
            module(explode, torch.ones(2, dtype=F64), t)
    with pytest.raises(SolveError, match=r"stopped at t = 1\b") as caught:
        odeint(explode, torch.ones(2, dtype=F64), t)
    assert isinstance(caught.value, OdeintError)
    # What was reached is not lost: y(0.5) = 1 / (1 - 0.5).
    torch.testing.assert_close(caught.value.solution.ys[1], torch.full((2,), 2.0, dtype=F64), rtol=1e-5, atol=0.0)


def test_an_initial_state_that_is_not_finite_is_named():
    y0 = torch.tensor([1.0, float("nan")])
    for module in (odeint, torchdiffeq.odeint):
        with pytest.raises(AssertionError, match=r"non-finite values in state `y`|underflow in dt"):
            module(lambda t, y: -y, y0, torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_a_derivative_of_a_wrong_form_is_named(method):
    with pytest.raises(ValueError, match=r"broadcasts to the state, \(2, 2\), got \(3,\)"):
        odeint(lambda t, y: torch.ones(3, dtype=F64), start(), FORWARD, method=method)
    with pytest.raises(ValueError, match="a tensor for a tensor state, got tuple"):
        odeint(lambda t, y: (y, y), start(), FORWARD, method=method)
    with pytest.raises(ValueError, match=r"\[\(2, 2\), \(1,\)\], got \[\(2, 2\)\]"):
        odeint(lambda t, y: (y[0],), start_pair(), FORWARD, method=method)
    with pytest.raises(ValueError, match=r"got \[\(2, 2\), 'float'\]"):
        odeint(lambda t, y: (y[0], 1.0), start_pair(), FORWARD, method=method)


def test_max_num_steps_counts_between_two_output_times():
    calls = []

    def field(t, y):
        calls.append(t)
        return forced(t, y)

    t = torch.linspace(0.0, 2.0, 21, dtype=F64)
    odeint(field, start(), t, rtol=1e-9)
    attempts = (len(calls) - 2) // 6
    # More than 21 steps in all, at most two or three between any two of the times.
    assert attempts > 21
    for module in (odeint, torchdiffeq.odeint):
        module(forced, start(), t, rtol=1e-9, options={"max_num_steps": 4})
        with pytest.raises(AssertionError, match="max_num_steps exceeded"):
            module(forced, start(), t, rtol=1e-9, options={"max_num_steps": 1})
    with pytest.raises(AssertionError, match="max_num_steps exceeded") as caught:
        odeint(forced, start(), t[[0, -1]], rtol=1e-9, options={"max_num_steps": 5})
    assert caught.value.solution.status == Status.MAX_STEPS


def test_a_fixed_method_that_diverges_returns_numbers_that_are_not_finite():
    y0, t = torch.full((2,), 5.0, dtype=F64), torch.linspace(0.0, 10.0, 11, dtype=F64)
    for module in (odeint, torchdiffeq.odeint):
        ys = module(lambda t, y: y**3, y0, t, method="euler")
        assert ys[:3].isfinite().all()
        assert not ys[-1].isfinite().any()


@pytest.mark.parametrize(
    "tolerance", [{"rtol": (1e-3, 1e-8)}, {"atol": (torch.tensor([1e-2, 1e-8, 1e-8, 1e-8]), 1e-8)}]
)
def test_a_tolerance_per_tensor_of_a_tuple_is_followed(tolerance):
    fixed = {"rtol": 1e-9, "atol": 1e-9} | tolerance
    calls = [0, 0]

    def counted(which):
        def field(t, y):
            calls[which] += 1
            return pair(t, y)

        return field

    ours = odeint(counted(0), start_pair(), FORWARD, **fixed)
    theirs = torchdiffeq.odeint(counted(1), start_pair(), FORWARD, **fixed)
    torch.testing.assert_close(as_rows(ours), as_rows(theirs), rtol=0.0, atol=1e-5)
    assert abs(calls[0] - calls[1]) <= 12


def test_a_tolerance_per_component_is_followed():
    # The second component is a fast oscillation that a loose tolerance steps over.
    def field(t, y):
        return torch.stack([-y[0], torch.cos(40.0 * t)])

    y0, t = torch.tensor([1.0, 0.0], dtype=F64), torch.tensor([0.0, 1.0], dtype=F64)
    calls = []
    for atol in ([1e-8, 1e-8], [1e-8, 1e3]):
        calls.append(0)

        def counted(t, y):
            calls[-1] += 1
            return field(t, y)

        odeint(counted, y0, t, rtol=0.0, atol=torch.tensor(atol, dtype=F64))
    assert calls[1] < 0.5 * calls[0]
