"""Options of the methods, beside torchdiffeq's."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torchdiffeq
from compat_cases import BACKWARD, F64, FORWARD, Net, NetPair, as_rows, forced, pair, start, start_pair

from ude.compat import odeint, odeint_adjoint
from ude.methods import BDF, RK4, Kvaerno5, Rodas5P, Tsit5
from ude.solve import Eager

BOTH = (odeint, torchdiffeq.odeint)


class Attempts:
    """A vector field that writes down the steps that are tried: start, length and what became of them."""

    def __init__(self, func):
        self.func, self.begun, self.decided = func, [], []

    def __call__(self, t, y):
        return self.func(t, y)

    def callback_step(self, t, y, dt):
        self.begun.append((float(t), float(dt)))

    def callback_accept_step(self, t, y, dt):
        self.decided.append(True)

    def callback_reject_step(self, t, y, dt):
        self.decided.append(False)


def rough(t, y):
    """A force that switches quickly, so that steps are rejected."""
    return torch.stack([y[..., 1], -y[..., 0] + torch.tanh(40.0 * torch.sin(3.0 * t))], -1)


def attempts(func, y0, t, **options):
    """The attempts of both libraries."""
    ours, theirs = Attempts(func), Attempts(func)
    for module, watched in zip(BOTH, (ours, theirs), strict=True):
        module(watched, y0, t, rtol=1e-5, atol=1e-6, **options)
    return ours, theirs


LONG = {"forward": torch.tensor([0.0, 6.0], dtype=F64), "backward": torch.tensor([4.0, -2.0], dtype=F64)}


@pytest.mark.parametrize("direction", LONG)
@pytest.mark.parametrize(
    "options",
    [
        {"first_step": 0.2},
        {"first_step": torch.tensor(0.01)},
        {"safety": 0.6},
        {"ifactor": 1.5, "dfactor": 0.7},
        {"max_step": 0.05},
        {"max_step": torch.tensor(0.15), "first_step": 1.0},
        {"min_step": 0.04},
        {"norm": lambda y: y.abs().max(), "first_step": 0.1},
    ],
    ids=lambda options: " ".join(options),
)
def test_an_option_changes_the_steps_as_in_torchdiffeq(options, direction):
    plain, _ = attempts(rough, start(), LONG[direction])
    ours, theirs = attempts(rough, start(), LONG[direction], options=options)
    assert ours.begun != plain.begun
    # Far from the end, where ours stops and theirs steps over it, the attempts are the same.
    assert len(ours.begun) > 30
    assert ours.decided[:25] == theirs.decided[:25]
    for mine, other in zip(ours.begun[:25], theirs.begun[:25], strict=True):
        assert mine == pytest.approx(other, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("direction", LONG)
@pytest.mark.parametrize("names", [["step_t"], ["jump_t"], ["step_t", "jump_t"]], ids=" ".join)
def test_steps_end_at_the_given_times(names, direction):
    # In no order, and not all of them within the interval.
    stops = dict(zip(names, (torch.tensor([3.0, 0.5, 40.0]), torch.tensor([-17.0, 1.25])), strict=False))
    for watched in attempts(forced, start(), LONG[direction], options=stops):
        begun = [t for t, _ in watched.begun]
        inside = [
            float(x) for times in stops.values() for x in times if LONG[direction].min() < x < LONG[direction].max()
        ]
        for stop in inside:
            # After a jump ours begins one unit of rounding later.
            assert min(abs(t - stop) for t in begun) <= 4e-16 * max(abs(stop), 1.0)
    ours, theirs = (module(forced, start(), LONG[direction], rtol=1e-9, options=stops) for module in BOTH)
    torch.testing.assert_close(ours, theirs, rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("direction", LONG)
def test_a_jump_that_is_announced_costs_no_rejected_steps(direction):
    jumps = torch.tensor([1.0, 2.5], dtype=F64)

    def switched(t, y):
        return -y + torch.where((t >= 1.0) & (t < 2.5), 5.0, 0.0)

    t, y0 = LONG[direction], torch.ones(2, dtype=F64)
    ours, theirs = attempts(switched, y0, t, options={"jump_t": jumps})
    unaware, _ = attempts(switched, y0, t)
    assert ours.decided.count(False) <= theirs.decided.count(False) + 1
    assert ours.decided.count(False) + 4 <= unaware.decided.count(False)
    tight = {"rtol": 1e-9, "atol": 1e-11, "options": {"jump_t": jumps}}
    got = odeint(switched, y0, t, **tight)[-1]
    # y' = -y + u piece by piece: y(t1) = u + (y(t0) - u) exp(-(t1 - t0)).
    y = y0
    ends = [float(t[0]), *([1.0, 2.5] if t[1] > t[0] else [2.5, 1.0]), float(t[1])]
    for a, b in pairwise(ends):
        u = 5.0 if 1.0 < 0.5 * (a + b) < 2.5 else 0.0
        y = u + (y - u) * torch.exp(torch.tensor(a - b, dtype=F64))
    torch.testing.assert_close(got, y, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("side", ["before", "after"])
def test_a_jump_belongs_to_one_side_whichever_the_field_says(side):
    # At the time of the jump itself the field may have either value.
    seen = []

    def switched(t, y):
        seen.append(float(t))
        return torch.where(t >= 1.0 if side == "after" else t > 1.0, -10.0 * y, y)

    t = torch.tensor([0.0, 2.0], dtype=F64)
    got = odeint(switched, torch.ones(1, dtype=F64), t, options={"jump_t": torch.tensor([1.0])})
    torch.testing.assert_close(got[-1], torch.exp(torch.tensor([-9.0], dtype=F64)), rtol=1e-5, atol=0.0)
    assert len(seen) < 700


def test_a_norm_gets_the_scaled_error_in_the_form_of_the_state():
    shapes = []

    def norm(state):
        shapes.append(tuple(part.shape for part in state) if isinstance(state, tuple) else state.shape)
        return max(part.abs().max() for part in state)

    calls = [0, 0]
    for i, module in enumerate(BOTH):

        def counted(t, y, i=i):
            calls[i] += 1
            return pair(t, y)

        module(counted, start_pair(), FORWARD, rtol=1e-6, options={"norm": norm})
    assert set(shapes) == {((2, 2), (1,))}
    assert abs(calls[0] - calls[1]) <= 12
    shapes.clear()
    odeint(forced, start(), FORWARD, options={"norm": lambda y: norm((y,))})
    assert set(shapes) == {((2, 2),)}


def test_a_norm_may_leave_parts_out():
    # The fast second part is not looked at: the steps are those of the first one alone.
    def slow_and_fast(t, state):
        slow, _ = state
        return -slow, torch.cos(50.0 * t).reshape(1)

    y0 = (torch.ones(1, dtype=F64), torch.zeros(1, dtype=F64))
    counts = []
    for norm in (lambda state: state[0].abs().max(), lambda state: state[1].abs().max()):
        watched = Attempts(slow_and_fast)
        odeint(watched, y0, torch.tensor([0.0, 1.0], dtype=F64), options={"norm": norm})
        counts.append(len(watched.begun))
    assert counts[0] < 0.6 * counts[1]


def test_a_norm_that_is_not_a_number_shrinks_the_step():
    # A part that leaves its domain must not be hidden by the other one.
    def field(t, state):
        a, b = state
        return -torch.sqrt(a), -b

    y0 = (torch.ones(1, dtype=F64), torch.full((1,), 1e6, dtype=F64))
    a, b = odeint(field, y0, torch.tensor([0.0, 1.5], dtype=F64), rtol=1e-6, options={"first_step": 1.49})
    torch.testing.assert_close(a[-1], torch.tensor([0.0625], dtype=F64), rtol=1e-4, atol=0.0)
    torch.testing.assert_close(b[-1], 1e6 * torch.exp(torch.tensor([-1.5], dtype=F64)), rtol=1e-4, atol=0.0)


def test_steps_of_the_least_length_are_taken_whatever_their_error():
    ours, theirs = attempts(rough, start(), LONG["forward"], options={"min_step": 0.2})
    assert len(ours.decided) == len(ours.begun)
    assert ours.decided[:20] == theirs.decided[:20]
    shortest = [accepted for (_, dt), accepted in zip(ours.begun, ours.decided, strict=True) if dt <= 0.2]
    assert len(shortest) > 10
    assert all(shortest)
    assert all(dt >= 0.2 - 1e-12 for _, dt in ours.begun[:-1])


@pytest.mark.parametrize("t", [FORWARD, BACKWARD], ids=["forward", "backward"])
@pytest.mark.parametrize("interp", ["linear", "cubic"])
@pytest.mark.parametrize("state", ["tensor", "tuple"])
def test_a_grid_of_one_s_own(t, interp, state):
    seen = []

    def constructor(func, y0, t):
        seen.append((y0.shape, t.clone(), func(t[0], y0).shape))
        inner = torch.linspace(0.1, 0.9, 23, dtype=F64) ** 2
        return torch.cat([t[:1], t[0] + inner * (t[-1] - t[0]), t[-1:]])

    options = {"grid_constructor": constructor, "interp": interp}
    field, y0 = (forced, start()) if state == "tensor" else (pair, start_pair())
    ours, theirs = (as_rows(module(field, y0, t, method="rk4", options=options)) for module in BOTH)
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-14)
    (shape, times, out), (other_shape, other_times, other_out) = seen
    assert (shape, out) == (other_shape, other_out)
    assert torch.equal(times, other_times)


@pytest.mark.parametrize("t", [FORWARD, BACKWARD], ids=["forward", "backward"])
@pytest.mark.parametrize("method", ["euler", "midpoint", "heun2", "heun3", "rk4"])
@pytest.mark.parametrize("perturb", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
def test_the_field_is_evaluated_at_torchdiffeq_s_times(method, perturb, dtype, t):
    times = [[], []]
    for module, seen in zip(BOTH, times, strict=True):

        def field(t, y, seen=seen):
            seen.append(float(t))
            return forced(t, y)

        module(field, start().to(dtype), t.to(dtype), method=method, options={"perturb": perturb})
    assert len(times[0]) == len(times[1])
    # Next to the ends of a step exactly, elsewhere to rounding.
    torch.testing.assert_close(torch.tensor(times[0]), torch.tensor(times[1]), rtol=1e-6, atol=0.0)
    if perturb:
        ends = {float(x) for x in t.to(dtype)}
        assert not ends & set(times[0])
        starts = times[0][:: len(times[0]) // (len(t) - 1)]
        assert starts == times[1][:: len(times[0]) // (len(t) - 1)]


def test_perturb_keeps_a_jump_at_a_grid_point_out_of_the_step_before():
    def switched(t, y):
        return torch.where(t < 1.0, torch.zeros_like(y), torch.ones_like(y))

    t = torch.tensor([0.0, 1.0, 2.0], dtype=F64)
    for module in BOTH:
        ys = module(switched, torch.zeros(1, dtype=F64), t, method="rk4", options={"perturb": True})
        assert ys.flatten().tolist() == [0.0, 0.0, 1.0]
        assert module(switched, torch.zeros(1, dtype=F64), t, method="rk4")[1] > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_the_dtype_of_time_is_accepted(dtype):
    ours, theirs = (module(forced, start(), FORWARD, rtol=1e-8, options={"dtype": dtype}) for module in BOTH)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_a_step_size_may_be_a_tensor():
    for step_size in (torch.tensor(0.07, dtype=F64), torch.tensor(0.07)):
        ours, theirs = (
            module(forced, start(), FORWARD, method="heun2", options={"step_size": step_size}) for module in BOTH
        )
        torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-14)


def test_scipy_s_least_step_is_followed():
    options = {"solver": "LSODA", "min_step": 0.5}
    ours, theirs = (
        module(forced, start(), FORWARD, rtol=1e-9, method="scipy_solver", options=options) for module in BOTH
    )
    torch.testing.assert_close(ours, theirs, rtol=0.0, atol=0.0)


def test_scipy_s_longest_step_is_followed():
    calls = []
    for max_step in (float("inf"), 0.01):
        calls.append(0)

        def counted(t, y):
            calls[-1] += 1
            return forced(t, y)

        odeint(counted, start(), FORWARD, method="scipy_solver", options={"solver": "RK45", "max_step": max_step})
    assert calls[1] > 2 * calls[0]


@pytest.mark.slow
@pytest.mark.parametrize("state", ["tensor", "tuple"])
def test_a_compiled_engine_gives_the_same_and_is_compiled_once(state, caplog):
    model, y0 = (Net(), start(grad=True)) if state == "tensor" else (NetPair(), start_pair(grad=True))
    parts = (y0,) if state == "tensor" else y0
    results = []
    caplog.set_level("INFO", logger="ude")
    for engine in ("eager", "compiled", "compiled"):
        rows = as_rows(odeint(model, y0, FORWARD, rtol=1e-6, atol=1e-8, options={"engine": engine}))
        gradients = torch.autograd.grad(torch.sin(rows).sum(), [*parts, *model.parameters()])
        results.append((rows.detach(), gradients))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-9, atol=1e-11)
    assert sum("Compiling the steps" in record.getMessage() for record in caplog.records) == 1


def test_a_compiled_engine_refuses_what_it_cannot_do():
    for engine in ("compiled", "loop"):
        with pytest.raises(ValueError, match="Compiled steps cannot call callback_step"):
            odeint(Attempts(forced), start(), FORWARD, options={"engine": engine})
        with pytest.raises(ValueError, match="eager"):
            odeint(forced, start(), FORWARD, options={"engine": engine, "jump_t": torch.tensor([0.5])})


def test_the_backward_solve_does_not_inherit_the_engine():
    engines = []

    class Seen(Eager):
        def advance(self, task, point, attempts):
            engines.append(torch.is_grad_enabled())
            return Eager.advance(self, task, point, attempts)

    y0 = start(grad=True)
    ys = odeint_adjoint(Net(), y0, FORWARD, options={"engine": Seen()})
    count = len(engines)
    assert count > 0
    ys.sum().backward()
    assert len(engines) == count


@pytest.mark.parametrize("method", [Tsit5(), Rodas5P(), Kvaerno5(), BDF()], ids=str)
@pytest.mark.parametrize("state", ["tensor", "tuple"])
def test_a_method_of_this_library_may_stand_for_a_name(method, state):
    field, y0 = (forced, start()) if state == "tensor" else (pair, start_pair())
    watched, options = Attempts(field), {"jump_t": torch.tensor([0.7])}
    ours = as_rows(odeint(watched, y0, FORWARD, rtol=1e-9, atol=1e-11, method=method, options=options))
    assert len(watched.begun) == len(watched.decided) > 0
    theirs = as_rows(torchdiffeq.odeint(field, y0, FORWARD, rtol=1e-9, atol=1e-11))
    torch.testing.assert_close(ours, theirs, rtol=0.0, atol=1e-6)


def test_a_method_that_measures_its_error_itself_takes_no_norm():
    with pytest.raises(ValueError, match="BDF measures its error itself"):
        odeint(forced, start(), FORWARD, method=BDF(), options={"norm": lambda y: y.abs().max()})


def test_a_stiff_problem_is_solved_by_a_stiff_method_with_gradients():
    # Robertson's reactions; reference at t = 40 from Hairer & Wanner (1996), section IV.10.
    rates = torch.tensor([0.04, 1e4, 3e7], dtype=F64, requires_grad=True)

    def robertson(t, y):
        a, b, c = rates[0] * y[0], rates[1] * y[1] * y[2], rates[2] * y[1] ** 2
        return torch.stack([-a + b, a - b - c, c])

    y0, t = torch.tensor([1.0, 0.0, 0.0], dtype=F64), torch.tensor([0.0, 40.0], dtype=F64)
    ys = odeint(robertson, y0, t, rtol=1e-7, atol=1e-10, method=Rodas5P())
    torch.testing.assert_close(ys[-1, 0], torch.tensor(0.7158270688, dtype=F64), rtol=1e-6, atol=0.0)
    (got,) = torch.autograd.grad(ys[-1, 0], rates)
    h, values = 1e-4, []
    for shift in (h, -h):

        def shifted(t, y, shift=shift):
            return robertson(t, y) + shift * torch.stack([-y[0], y[0], 0 * y[0]])

        with torch.no_grad():
            values.append(odeint(shifted, y0, t, rtol=1e-9, atol=1e-12, method=Rodas5P())[-1, 0])
    torch.testing.assert_close(got[0], (values[0] - values[1]) / (2 * h), rtol=1e-4, atol=0.0)


def test_a_method_that_linearises_cannot_make_the_backward_solve():
    with pytest.raises(ValueError, match="Rodas5P differentiates what it solves"):
        odeint_adjoint(Net(), start(), FORWARD, method=Rodas5P())
    ys = odeint_adjoint(Net(), start(grad=True), FORWARD, method=Rodas5P(), adjoint_method="dopri5")
    ys.sum().backward()
    assert odeint_adjoint(Net(), start(), FORWARD, method=Tsit5()).requires_grad


def test_a_method_without_control_must_be_named():
    with pytest.raises(ValueError, match="no error estimate"):
        odeint(forced, start(), FORWARD, method=RK4())
