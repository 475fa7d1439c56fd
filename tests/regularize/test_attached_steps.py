"""Costs attached to solves by unmodified torchdiffeq."""

import math
import textwrap
import warnings

import pytest
import torch
import torchdiffeq

import ude
from ude.regularize import (
    ErrorEstimate,
    JacobianFrobenius,
    KineticEnergy,
    Local,
    Steer,
    StiffnessEstimate,
    TaylorEnergy,
    attach,
)
from ude.regularize.reservoir import Reservoir

F64 = torch.float64
TIGHT = {"rtol": 1e-6, "atol": 1e-8}
FORWARD = torch.tensor([0.0, 0.4, 2.0], dtype=F64)
BACKWARD = torch.tensor([1.0, 0.3, -1.0], dtype=F64)
SOLVERS = [torchdiffeq.odeint, torchdiffeq.odeint_adjoint]
CALLBACKS = ("callback_step", "callback_accept_step", "callback_reject_step")


class Net(torch.nn.Module):
    def __init__(self, dtype=F64):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.net = ude.MLP(2, 2, width=8, depth=1, generator=generator, dtype=dtype)
        self.calls = 0

    def forward(self, t, y):
        self.calls += 1
        return 3.0 * self.net(y) * torch.cos(3.0 * t)


class Pair(torch.nn.Module):
    """A network and a running cost of another size, as a tuple."""

    def __init__(self):
        super().__init__()
        self.net = Net()

    def forward(self, t, state):
        y, cost = state
        return self.net(t, y), (y**2).sum().reshape(cost.shape)


def start(*, pair=False):
    y = torch.tensor([[1.0, 0.0], [0.4, -0.6]], dtype=F64)
    return (y, torch.zeros(1, dtype=F64)) if pair else y


def rough(t, y):
    """Rejects steps: the force switches quickly."""
    return torch.stack([y[..., 1], -y[..., 0] + torch.tanh(40.0 * torch.sin(3.0 * t))], -1)


def told(func, y0, t, **kwargs):
    """Return the steps that torchdiffeq tells of itself."""
    steps, tried = [], []
    func.callback_step = lambda t0, y, dt: tried.append((t0, y, dt))
    func.callback_accept_step = lambda t0, y, dt: steps.append((t0, y, dt, len(tried)))
    torchdiffeq.odeint(func, y0, t, **kwargs)
    del func.callback_step, func.callback_accept_step
    return steps, tried


class TestSteps:
    @pytest.mark.parametrize(("method", "precision"), [("dopri5", 1e-7), ("bosh3", 1e-9), ("dopri8", 1e-5)])
    @pytest.mark.parametrize("state", ["tensor", "tuple", "norm"])
    @pytest.mark.parametrize("t", [FORWARD, BACKWARD], ids=["forward", "backward"])
    def test_error_ratios_are_those_of_torchdiffeq(self, method, precision, state, t):
        # Estimates of order 8 cancel more digits than those of order 3; small ones are rounding of the states.
        func, y0 = (Pair(), start(pair=True)) if state == "tuple" else (Net(), start())
        options = {"norm": lambda y: y.abs().max()} if state == "norm" else {}
        solve = {"method": method, "options": options, **TIGHT}
        steps, tried = told(func, y0, t, **solve)
        direction = 1.0 if t[-1] > t[0] else -1.0
        compared = 0
        for t0, y, dt, number in steps[:-1]:
            factor = float((tried[number][2] / dt).detach())
            if not 1.001 < factor < 9.99:
                continue  # the length was kept within bounds, which tells little
            # One step, which ends beyond the only time that is asked for.
            times = torch.stack([t0, t0 + 0.5 * direction * dt])
            cost = ErrorEstimate()
            with attach(func, cost, samples=None, **solve) as regularized:
                torchdiffeq.odeint(func, y, times, method=method, options={**options, "first_step": dt}, **TIGHT)
            assert regularized.accepted == 1
            regularized.listener.solves[0].sign = int(direction)  # of a single step nobody knows it
            ratio = regularized.value() / dt
            order = {"dopri5": 5, "bosh3": 3, "dopri8": 8}[method]
            assert ratio.item() == pytest.approx((0.9 / factor) ** order, rel=precision, abs=1e-9)
            compared += 1
        assert compared >= 1

    @pytest.mark.parametrize("solver", SOLVERS)
    @pytest.mark.parametrize("pair", [False, True])
    @pytest.mark.parametrize("t", [FORWARD, BACKWARD], ids=["forward", "backward"])
    def test_all_steps_together_make_the_cost_of_solve(self, solver, pair, t):
        func, y0 = (Pair(), start(pair=True)) if pair else (Net(), start())
        solve = {"options": {"first_step": 0.01}, **TIGHT}
        steps, _ = told(func, y0, t, **solve)
        # The same steps by this library: to the start of the last one, which torchdiffeq takes beyond the last time.
        ends = torch.stack([t[0], steps[-1][0]])
        _, info = ude.compat.odeint(func, y0, ends, regularizer=ErrorEstimate(reduce="sum"), **solve)
        with attach(func, ErrorEstimate(reduce="sum"), samples=None, **solve) as regularized:
            solver(func, y0, t, **solve)
        last = regularized.listener.solves[0].last
        error = regularized.repeater.repeat(last, regularized.listener.solves[0], 1 if t[-1] > t[0] else -1).error
        # Steps of two libraries differ by the rounding of what chose their lengths.
        assert regularized.value().item() == pytest.approx((info.cost + error * last.dt).item(), rel=1e-6)
        assert regularized.accepted == info.accepted + 1 == len(steps)

    def test_reductions_are_those_of_the_steps(self):
        func = Net()
        values = {}
        for reduce in ("mean", "sum", "max"):
            with attach(func, ErrorEstimate(reduce=reduce), samples=None, **TIGHT) as regularized:
                torchdiffeq.odeint(func, start(), FORWARD, **TIGHT)
            values[reduce] = regularized.value().item()
            count = regularized.accepted
        assert values["sum"] == pytest.approx(count * values["mean"])
        assert values["mean"] < values["max"] < values["sum"]

    def test_stiffness_is_that_of_the_steps(self):
        decay = lambda t, y: -4.0 * y  # noqa: E731
        with attach(decay, StiffnessEstimate()) as regularized:
            torchdiffeq.odeint(decay, start(), FORWARD)
        assert regularized.value().item() == pytest.approx(4.0, rel=1e-6)

    def test_raw_errors_are_those_of_solve(self):
        func = Net()
        held = {"min_step": 0.25, "max_step": 0.25, "first_step": 0.25}
        t = torch.tensor([0.0, 1.0], dtype=F64)
        _, info = ude.compat.odeint(func, start(), t, regularizer=ErrorEstimate("raw"), options=held, **TIGHT)
        with attach(func, ErrorEstimate("raw"), samples=None, options=held, **TIGHT) as regularized:
            torchdiffeq.odeint(func, start(), t, options=held, **TIGHT)
        torch.testing.assert_close(regularized.value(), info.cost, rtol=1e-6, atol=0.0)

    def test_tolerances_may_be_one_per_tensor(self):
        func, y0 = Pair(), start(pair=True)
        for rtol, atol in [((1e-5, 1e-3), 1e-8), (1e-6, (torch.full((4,), 1e-6, dtype=F64), 1e-3))]:
            with attach(func, ErrorEstimate(), samples=None, rtol=rtol, atol=atol) as regularized:
                torchdiffeq.odeint(func, y0, FORWARD, rtol=rtol, atol=atol)
            assert regularized.value() > 0

    def test_a_step_that_ends_at_a_jump_does_not_feel_it(self):
        jumping = lambda t, y: torch.where(t < 0.7, -y, 5.0 * torch.ones_like(y))  # noqa: E731
        for t, jump in ((FORWARD, 0.7), (torch.tensor([2.0, 0.0], dtype=F64), 0.7)):
            options = {"jump_t": torch.tensor([jump], dtype=F64)}
            with attach(jumping, ErrorEstimate(), samples=None, options=options) as regularized:
                torchdiffeq.odeint(jumping, start(), t, options=options)
            assert regularized.value() > 0


COSTS = [
    ErrorEstimate(),
    StiffnessEstimate("sum"),
    1e2 * ErrorEstimate("raw", "sum") + 0.1 * KineticEnergy(),
    TaylorEnergy(3),
    JacobianFrobenius(generator=torch.Generator()),
]


class TestGradients:
    @pytest.mark.parametrize("cost", COSTS, ids=str)
    @pytest.mark.parametrize("pair", [False, True])
    def test_under_odeint_they_are_those_of_finite_differences_with_the_steps_held(self, cost, pair):
        func, y0 = (Pair(), start(pair=True)) if pair else (Net(), start())
        weight = next(func.parameters())
        held = {"min_step": 0.25, "max_step": 0.25, "first_step": 0.25}
        solve = {"options": held, **TIGHT}

        def value():
            if isinstance(cost, JacobianFrobenius):
                cost.generator.manual_seed(5)
            with attach(func, cost, samples=None, **solve) as regularized:
                torchdiffeq.odeint(func, y0, torch.tensor([1.0, 0.0], dtype=F64), **solve)
            return regularized.value()

        self._compare(value(), value, weight)

    @pytest.mark.parametrize("cost", COSTS, ids=str)
    def test_under_odeint_adjoint_they_take_the_states_as_constants(self, cost):
        func = Net()
        weight = next(func.parameters())
        with attach(func, cost, samples=3, generator=torch.Generator().manual_seed(0), **TIGHT) as regularized:
            ys = torchdiffeq.odeint_adjoint(func, start(), FORWARD, **TIGHT)

        def value():
            if isinstance(cost, JacobianFrobenius):
                cost.generator.manual_seed(5)
            return regularized.value()

        (ys.sum() + value()).backward()
        assert all(p.grad.isfinite().all() for p in func.parameters())
        self._compare(value(), value, weight)

    def _compare(self, cost, value, weight):
        (gradient,) = torch.autograd.grad(cost, weight)
        step, slope = 1e-4, 0.0
        with torch.no_grad():
            for move, factor in {-2: 1.0, -1: -8.0, 1: 8.0, 2: -1.0}.items():
                weight[0, 0] += move * step
                slope += factor * value().item() / (12.0 * step)
                weight[0, 0] -= move * step
        assert gradient[0, 0].item() == pytest.approx(slope, rel=1e-5)

    def test_detached_integrals_take_the_states_as_constants_under_odeint(self):
        func, gradients = Net(), []
        for solver, cost in zip(SOLVERS, (KineticEnergy(detach=True), KineticEnergy()), strict=True):
            with attach(func, cost, samples=None, **TIGHT) as regularized:
                solver(func, start(), FORWARD, **TIGHT)
            gradients.append(torch.autograd.grad(regularized.value(), list(func.parameters())))
        torch.testing.assert_close(*gradients)


class TestDraws:
    @pytest.mark.parametrize("cost", [ErrorEstimate(), ErrorEstimate(reduce="sum"), KineticEnergy()], ids=str)
    def test_they_are_unbiased(self, cost):
        func, generator = Net(), torch.Generator().manual_seed(0)
        with torch.no_grad():
            values = []
            for samples in [None, *[3] * 80]:
                with attach(func, cost, samples=samples, generator=generator, **TIGHT) as regularized:
                    torchdiffeq.odeint(func, start(), FORWARD, **TIGHT)
                values.append(regularized.value())
        draws = torch.stack(values[1:])
        error = draws.std() / math.sqrt(len(draws))
        assert error > 0
        assert abs(draws.mean() - values[0]) < 4.0 * error
        assert 4.0 * error < 0.4 * values[0]

    def test_a_reservoir_keeps_each_thing_as_often(self):
        generator = torch.Generator().manual_seed(0)
        counts = torch.zeros(10)
        for _ in range(2000):
            reservoir = Reservoir(3, generator)
            for thing in range(10):
                reservoir.offer(thing)
            assert len(set(reservoir.kept)) == 3
            counts[reservoir.kept] += 1
        # 600 each, with a standard deviation of sqrt(600 * 0.7) = 20.
        assert (counts - 600).abs().max() < 80

    def test_the_same_seed_draws_the_same_steps(self):
        func, values = Net(), []
        for _ in range(2):
            generator = torch.Generator().manual_seed(4)
            with attach(func, KineticEnergy(), samples=2, generator=generator) as regularized:
                torchdiffeq.odeint(func, start(), FORWARD)
            values.append(regularized.value())
        assert torch.equal(*values)


class TestIntegrals:
    @pytest.mark.parametrize("method", ["dopri5", "rk4", "euler", "implicit_adams", "adaptive_heun"])
    @pytest.mark.parametrize("t", [FORWARD, BACKWARD], ids=["forward", "backward"])
    @pytest.mark.parametrize("pair", [False, True])
    def test_they_are_the_sum_over_steps_from_their_starts(self, method, t, pair):
        func, y0 = (Pair(), start(pair=True)) if pair else (Net(), start())
        options = {"step_size": 0.1} if method in ("rk4", "euler", "implicit_adams") else {}
        seen = []
        name = "callback_step" if options else "callback_accept_step"
        setattr(func, name, lambda t0, y, dt: seen.append((t0, y, dt)))
        with warnings.catch_warnings(), attach(func, KineticEnergy(), samples=None, method=method) as regularized:
            warnings.filterwarnings("error", message=".*callbacks")
            torchdiffeq.odeint(func, y0, t, method=method, options=options, rtol=1e-3, atol=1e-3)
        terms = []
        for t0, y, dt in seen:
            slope = func(t0, y)
            terms.append(dt * torch.cat([x.flatten() for x in (slope if pair else [slope])]).square().mean())
        torch.testing.assert_close(regularized.value(), torch.stack(terms).sum())
        assert regularized.accepted == len(seen) > 3
        # The first node is where the solve starts, whatever torchdiffeq calls the time.
        assert seen[0][0] == t[0]

    def test_they_come_near_the_integral_on_a_fine_grid(self):
        func = Net()
        exact = ude.compat.odeint(func, start(), FORWARD, regularizer=TaylorEnergy(2, nodes="quadrature", samples=20))
        with attach(func, TaylorEnergy(2), samples=None, method="rk4") as regularized:
            torchdiffeq.odeint(func, start(), FORWARD, method="rk4", options={"step_size": 0.005})
        assert regularized.value().item() == pytest.approx(exact[1].cost.item(), rel=0.02)


class TestSolves:
    def test_several_solves_have_the_mean_of_their_costs(self):
        func, alone = Net(), []
        cost = ErrorEstimate() + KineticEnergy()
        starts = [(start(), FORWARD), (0.1 * start(), FORWARD), (start(), BACKWARD)]
        for y0, t in starts:
            with attach(func, cost, samples=None) as regularized:
                torchdiffeq.odeint(func, y0, t)
            alone.append(regularized.value())
        with attach(func, cost, samples=None) as regularized:
            for y0, t in starts:
                torchdiffeq.odeint(func, y0, t)
        torch.testing.assert_close(regularized.value(), torch.stack(alone).mean())

    def test_solves_that_go_on_count_as_one(self):
        func, options = Net(), {"step_size": 0.1}
        with attach(func, KineticEnergy(), samples=None, method="rk4") as whole:
            torchdiffeq.odeint(func, start(), FORWARD[[0, 2]], method="rk4", options=options)
        with attach(func, KineticEnergy(), samples=None, method="rk4") as parts:
            ys = torchdiffeq.odeint(func, start(), FORWARD[[0, 1]], method="rk4", options=options)
            torchdiffeq.odeint(func, ys[-1], FORWARD[[1, 2]], method="rk4", options=options)
        torch.testing.assert_close(parts.value(), whole.value())

    @pytest.mark.parametrize("method", ["dopri5", "dopri8", "bosh3", "rk4", "euler", "midpoint", "heun3"])
    def test_evaluations_are_counted(self, method):
        func = Net()
        with attach(func, KineticEnergy(), method=method, rtol=1e-5, atol=1e-5) as regularized:
            for t in (FORWARD, BACKWARD):
                torchdiffeq.odeint(func, start(), t, method=method, rtol=1e-5, atol=1e-5)
        assert regularized.nfe == func.calls
        first = {"first_step": 0.01}
        if method == "dopri5":
            func.calls = 0
            with attach(func, KineticEnergy(), options=first) as regularized:
                torchdiffeq.odeint(func, start(), FORWARD, options=first)
            assert regularized.nfe == func.calls

    def test_rejected_steps_are_counted_and_never_drawn(self):
        with attach(rough, ErrorEstimate(), samples=None, rtol=1e-4, atol=1e-4) as regularized:
            torchdiffeq.odeint(rough, start(), torch.tensor([0.0, 4.0], dtype=F64), rtol=1e-4, atol=1e-4)
        assert regularized.rejected > 5
        assert regularized.accepted > 5
        assert regularized.value() > 0

    def test_the_solve_is_what_it_was(self):
        func = Net()
        plain = torchdiffeq.odeint(func, start(), FORWARD)
        calls, func.calls = func.calls, 0
        with attach(func, ErrorEstimate()):
            ys = torchdiffeq.odeint(func, start(), FORWARD)
        assert torch.equal(plain, ys)
        assert func.calls == calls

    def test_solves_with_the_signature_of_this_library_do_as_well(self):
        func = Net()
        with attach(func, ErrorEstimate(), samples=None, **TIGHT) as regularized:
            _, info = ude.compat.odeint(func, start(), FORWARD, regularizer=ErrorEstimate(), **TIGHT)
        torch.testing.assert_close(regularized.value(), info.cost, rtol=1e-6, atol=0.0)
        assert (regularized.accepted, regularized.rejected) == (info.accepted, info.rejected)

    def test_single_precision_raises_no_false_alarm(self):
        func = Net(torch.float32)
        for tolerances in ({}, {"rtol": 1e-3, "atol": 1e-4}):
            for offset in (0.0, 100.0):
                with attach(func, ErrorEstimate(), samples=None, **tolerances) as regularized:
                    torchdiffeq.odeint(func, start().float(), FORWARD.float() + offset, **tolerances)
                assert regularized.value().dtype == torch.float32


class TestCallbacks:
    def test_they_are_removed_and_the_users_are_called_and_put_back(self):
        heard = []

        class Telling(Net):
            def callback_accept_step(self, t0, y0, dt):
                heard.append("class")

        func = Telling()
        own = lambda t0, y0, dt: heard.append("own")  # noqa: E731
        func.callback_step = own
        with attach(func, ErrorEstimate()) as regularized:
            torchdiffeq.odeint(func, start(), FORWARD)
        assert heard.count("own") == regularized.accepted + regularized.rejected
        assert heard.count("class") == regularized.accepted
        assert func.callback_step is own
        assert "callback_accept_step" not in vars(func)
        assert not hasattr(func, "callback_reject_step")

    def test_they_are_removed_after_an_error(self):
        with pytest.raises(KeyError), attach(rough, ErrorEstimate()):
            raise KeyError
        assert not any(hasattr(rough, name) for name in CALLBACKS)

    def test_a_second_cost_on_the_same_field_is_refused(self):
        func = Net()
        with attach(func, ErrorEstimate()):
            with pytest.raises(ValueError, match="attached to this `func` already"), attach(func, KineticEnergy()):
                pass
            assert hasattr(func, "callback_step")
        assert not hasattr(func, "callback_step")
        with attach(func, ErrorEstimate()), attach(rough, ErrorEstimate()):
            pass

    def test_what_takes_no_attributes_is_refused(self):
        with pytest.raises(TypeError, match="Wrap it"), attach(Net().forward, ErrorEstimate()):
            pass


class TestMistakes:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"rtol": 1e-4, "atol": 1e-6},
            {"rtol": 1e-8, "atol": 1e-10},
            {"method": "bosh3"},
            {"method": "dopri8"},
            {"options": {"norm": lambda y: 0.5 * y.abs().max()}},
            {"options": {"safety": 0.6}},
        ],
        ids=["looser", "tighter", "lower order", "higher order", "norm", "safety"],
    )
    def test_another_solve_than_announced_is_noticed(self, wrong):
        func = Net()
        with attach(func, ErrorEstimate(), samples=None, **{**TIGHT, **wrong}) as regularized:
            torchdiffeq.odeint(func, start(), FORWARD, **TIGHT)
        with pytest.raises(ValueError, match=r"must have had an error ratio of .* it is .* Give `attach`"):
            regularized.value()

    def test_parameters_that_changed_are_noticed(self):
        func = Net()
        with attach(func, ErrorEstimate(), samples=None, **TIGHT) as regularized:
            torchdiffeq.odeint(func, start(), FORWARD, **TIGHT)
        with torch.no_grad():
            func.net.weights[0].mul_(1.5)
        with pytest.raises(ValueError, match="before the parameters change"):
            regularized.value()

    def test_a_method_on_a_grid_that_was_not_named_is_noticed(self):
        func = Net()
        with attach(func, KineticEnergy()) as regularized, pytest.warns(UserWarning, match="callbacks"):
            torchdiffeq.odeint(func, start(), FORWARD, method="rk4")
        with pytest.raises(ValueError, match=r"no word came.*method='rk4'"):
            regularized.value()

    def test_an_adaptive_method_named_as_one_on_a_grid_is_noticed(self):
        with attach(rough, KineticEnergy(), method="rk4") as regularized:
            torchdiffeq.odeint(rough, start(), torch.tensor([0.0, 4.0], dtype=F64), rtol=1e-4, atol=1e-4)
        with pytest.raises(ValueError, match="tried again"):
            regularized.value()

    def test_no_solve_is_an_error(self):
        func = Net()
        with attach(func, ErrorEstimate()) as regularized:
            torchdiffeq.odeint(Net(), start(), FORWARD)
        with pytest.raises(ValueError, match="No step was told of"):
            regularized.value()

    @pytest.mark.parametrize("method", ["rk4", "euler", "heun2", "explicit_adams"])
    def test_a_method_on_a_grid_has_no_error_estimate(self, method):
        with pytest.raises(ValueError, match=r"makes no error estimate.*TaylorEnergy"):
            attach(Net(), KineticEnergy() + 2.0 * ErrorEstimate(), method=method).__enter__()
        with pytest.raises(ValueError, match=r"makes no stiffness estimate.*JacobianFrobenius"):
            attach(Net(), StiffnessEstimate(), method=method).__enter__()

    @pytest.mark.parametrize("method", ["adaptive_heun", "fehlberg2"])
    def test_steps_that_cannot_be_repeated_are_refused(self, method):
        with pytest.raises(ValueError, match="another state"):
            attach(Net(), ErrorEstimate(), method=method).__enter__()

    @pytest.mark.parametrize(
        ("cost", "message"),
        [
            (Local(ErrorEstimate()), r"Local\(cost\)"),
            (Steer(), r"Steer\(\)\.times"),
            (TaylorEnergy(3, nodes="state"), "nodes"),
            (KineticEnergy(samples=2), "samples"),
        ],
        ids=str,
    )
    def test_costs_that_cannot_be_attached_are_refused(self, cost, message):
        with pytest.raises(ValueError, match=message):
            attach(Net(), cost).__enter__()

    def test_bad_arguments_are_refused(self):
        for bad in (0, 1.5, "all"):
            with pytest.raises(ValueError, match="samples"):
                attach(Net(), ErrorEstimate(), samples=bad)
        for bad in ("scipy_solver", "rk5"):
            with pytest.raises(ValueError, match="method"):
                attach(Net(), KineticEnergy(), method=bad)
        with pytest.raises(ValueError, match="no options saftey"):
            attach(Net(), ErrorEstimate(), options={"saftey": 0.9})
        with pytest.raises(TypeError, match="ErrorEstimate"):
            attach(Net(), "error").__enter__()

    def test_a_cost_that_is_not_finite_is_refused(self):
        func = Net()
        with attach(func, math.inf * ErrorEstimate()) as regularized:
            torchdiffeq.odeint(func, start(), FORWARD)
        with pytest.raises(ValueError, match="is inf"):
            regularized.value()


PROGRAM = """
import torch
from torch import nn
from torchdiffeq import odeint_adjoint as odeint

torch.manual_seed(0)


class ODEFunc(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 2))
        self.nfe = 0

    def forward(self, t, y):
        self.nfe += 1
        return self.net(y**3)


true_A = torch.tensor([[-0.1, 2.0], [-2.0, -0.1]]).double()
t = torch.linspace(0.0, 1.0, 8).double()
y0 = torch.tensor([[2.0, 0.0]]).double()
with torch.no_grad():
    true_y = odeint(lambda t, y: y**3 @ true_A, y0, t, adjoint_params=())

func = ODEFunc().double()
optimizer = torch.optim.Adam(func.parameters(), lr=1e-2)
for itr in range(40):
    optimizer.zero_grad()
    pred_y = odeint(func, y0, t)
    loss = torch.mean(torch.abs(pred_y - true_y))
    loss.backward()
    optimizer.step()

func.nfe = 0
with torch.no_grad():
    odeint(func, y0, t)
"""


def test_a_program_for_torchdiffeq_gets_faster_dynamics_by_two_lines():
    plain, regularized = {}, {}
    exec(PROGRAM, plain)  # the program as it was
    changed = PROGRAM.replace(
        "    pred_y = odeint(func, y0, t)\n",
        "    with attach(func, ErrorEstimate()) as reg:\n        pred_y = odeint(func, y0, t)\n",
    ).replace("loss.backward()", "(loss + 0.3 * reg.value()).backward()")
    assert sum(line not in PROGRAM for line in changed.splitlines()) == 3  # one of them only moved to the right
    exec("from ude.regularize import ErrorEstimate, attach\n" + textwrap.dedent(changed), regularized)
    # 128 evaluations instead of 158 when this was written, with losses of 0.93 and 0.89.
    assert regularized["func"].nfe < 0.9 * plain["func"].nfe
    assert regularized["loss"] < 1.2 * plain["loss"]
    assert not any(name in vars(regularized["func"]) for name in CALLBACKS)
