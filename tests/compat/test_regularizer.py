"""Costs of the trajectory beside a solve with torchdiffeq's signature."""

from __future__ import annotations

import pytest
import torch
import torchdiffeq
from compat_cases import BACKWARD, F64, FORWARD, Net, NetPair, forced, start, start_pair

import ude
from ude.compat import odeint, odeint_adjoint, odeint_event
from ude.compat.control import Control
from ude.compat.names import ADAPTIVE
from ude.regularize import (
    ErrorEstimate,
    JacobianFrobenius,
    KineticEnergy,
    Local,
    Regularizer,
    Steer,
    StiffnessEstimate,
    TaylorEnergy,
)

LOOSE = {"rtol": 1e-5, "atol": 1e-7}
TIGHTER = {"rtol": 1e-7, "atol": 1e-9}


def seeded():
    return torch.Generator().manual_seed(3)


def costs():
    """Costs of every kind, the random ones with the same draws every time."""
    return [
        ErrorEstimate(),
        ErrorEstimate("raw", "sum"),
        StiffnessEstimate(),
        TaylorEnergy(3, generator=seeded()),
        TaylorEnergy(2, nodes="accepted"),
        TaylorEnergy(2, nodes="quadrature", independent_rows=True),
        TaylorEnergy(2, nodes=torch.tensor([0.2, 0.4])),
        KineticEnergy(nodes="saved"),
        JacobianFrobenius(generator=seeded()),
        Local(ErrorEstimate(), generator=seeded()),
        Local(StiffnessEstimate(), "random", generator=seeded()),
        10.0 * ErrorEstimate() + StiffnessEstimate("mean") * 0.5,
    ]


def counted(model):
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    return calls


def theirs(error, factor):
    """The error ratio that torchdiffeq had, from the length it chose next, where that was not kept within bounds."""
    return (0.9 / factor) ** 5 if 1.001 < factor < 9.999 else error


class TestValues:
    def test_without_a_regularizer_the_result_is_what_it_was(self):
        for module in (odeint, odeint_adjoint):
            ys = module(Net(), start(), FORWARD, regularizer=None)
            assert isinstance(ys, torch.Tensor)
            torch.testing.assert_close(ys, torchdiffeq.odeint(Net(), start(), FORWARD), rtol=1e-6, atol=1e-8)

    @pytest.mark.parametrize("number", range(12))
    @pytest.mark.parametrize("t", [FORWARD, BACKWARD], ids=["forward", "backward"])
    def test_cost_and_gradients_are_those_of_solve(self, number, t):
        model, results = Net(), []
        for solver in ("compat", "solve"):
            y0, cost = start(grad=True), costs()[number]
            if solver == "compat":
                ys, info = odeint(model, y0, t, regularizer=cost, **LOOSE)
                value = info.cost
            else:
                problem = ude.ODEProblem(model, y0, (t[0], t[-1]))
                solution = ude.solve(problem, ADAPTIVE["dopri5"], save_at=t, controller=Control(), **LOOSE)
                ys, value = solution.ys, cost(solution)
            inputs = [y0, *model.parameters()]
            # Whatever weight the loss and the cost have, their gradients add up.
            results.append((ys, value, *torch.autograd.grad(ys.sum() + 3.0 * value, inputs)))
        torch.testing.assert_close(*results, rtol=1e-9, atol=1e-11)

    @pytest.mark.parametrize("state", ["tensor", "tuple", "norm"])
    def test_error_ratios_are_those_that_torchdiffeq_saw(self, state):
        model, y0 = (NetPair(), start_pair()) if state == "tuple" else (Net(), start())
        options = {"norm": lambda y: y.abs().max()} if state == "norm" else {}
        for t in (FORWARD, BACKWARD):
            _, info = odeint(model, y0, t, regularizer=ErrorEstimate(), options=options, **TIGHTER)
            # torchdiffeq takes these very steps, one by one, if told to; what it would do next tells the ratio.
            checked = 0
            for at, dt, error in zip(info.steps.t, info.steps.dt, info.steps.error, strict=True):
                before = y0
                if at != t[0]:
                    before = odeint(model, y0, torch.stack([t[0], at]), options=options, **TIGHTER)
                    before = tuple(part[-1] for part in before) if state == "tuple" else before[-1]
                seen = []
                model.callback_step = lambda t0, y, dt, seen=seen: seen.append((t0, dt))
                far = torch.stack([at, at + 1.5 * dt])
                torchdiffeq.odeint(model, before, far, options={**options, "first_step": dt.abs()}, **TIGHTER)
                del model.callback_step
                (_, tried), (_, following) = seen[:2]
                implied = theirs(None, float(following / tried))
                if implied is None or error > 1.0:
                    continue
                checked += 1
                # The estimate cancels leading digits, and the state comes from another solve.
                assert error.item() == pytest.approx(implied, rel=1e-5)
            assert checked >= 3

    @pytest.mark.parametrize(
        "cost", [ErrorEstimate(), TaylorEnergy(2, nodes="quadrature"), StiffnessEstimate("sum")], ids=str
    )
    @pytest.mark.parametrize("pair", [False, True])
    def test_gradients_are_those_of_finite_differences_with_the_steps_held(self, cost, pair):
        model, y0 = (NetPair(), start_pair()) if pair else (Net(), start())
        weight = next(model.parameters())
        # A least and a greatest length that agree hold the steps.
        held = {"min_step": 0.25, "max_step": 0.25, "first_step": 0.25}
        t = torch.tensor([0.0, 1.0], dtype=F64)

        def value():
            return odeint(model, y0, t, regularizer=cost, options=held, **LOOSE)[1].cost

        (gradient,) = torch.autograd.grad(value(), weight)
        step, slope = 1e-3, 0.0
        with torch.no_grad():
            for move, factor in {-2: 1.0, -1: -8.0, 1: 8.0, 2: -1.0}.items():
                weight[0, 0] += move * step
                slope += factor * value().item() / (12.0 * step)
                weight[0, 0] -= move * step
        assert gradient[0, 0].item() == pytest.approx(slope, rel=1e-6)

    def test_a_tuple_has_the_cost_of_its_parts(self):
        y0, t = start_pair(), torch.tensor([0.0, 1.0], dtype=F64)
        ys, info = odeint(NetPair(), y0, t, regularizer=KineticEnergy(nodes="saved"), **LOOSE)
        assert [part.shape for part in ys] == [(2, 2, 2), (2, 1)]
        slopes = [NetPair()(at, tuple(part[i] for part in ys)) for i, at in enumerate(t)]
        squares = torch.stack([torch.cat([part.flatten() for part in slope]).square().mean() for slope in slopes])
        torch.testing.assert_close(info.cost, squares.mean())

    def test_calendar_years_in_single_precision_cost_what_they_cost_from_zero(self):
        year = torch.tensor([2024.0, 2024.7, 2026.0], dtype=F64)
        single, pendulum = {"rtol": 1e-3, "atol": 1e-5}, lambda t, y: forced(0.0 * t, y)
        for make in (ErrorEstimate, lambda: Local(ErrorEstimate(), generator=seeded())):
            results = [
                odeint(pendulum, start().float(), t, regularizer=make(), **single) for t in (year, year - 2024.0)
            ]
            torch.testing.assert_close(results[0][0], results[1][0])
            assert results[0][1].cost.item() == pytest.approx(results[1][1].cost.item(), rel=1e-5)
        # With a force the field sees the time, to 1e-4 from 2024 on.
        field = lambda t, y: forced(t - 2024.0, y)  # noqa: E731
        cost = KineticEnergy(nodes="quadrature")
        _, info = odeint(field, start().float(), year, regularizer=cost, **single)
        _, expected = odeint(forced, start().float(), year - 2024.0, regularizer=cost, **single)
        assert info.cost.item() == pytest.approx(expected.cost.item(), rel=1e-2)
        assert info.cost.dtype == torch.float32
        assert info.steps.t[0] == 2024.0
        nodes = torch.tensor([2024.5, 2025.5], dtype=F64)
        times = []
        watched = lambda t, y: times.append(float(t)) or field(t, y)  # noqa: E731
        _, info = odeint(watched, start().float(), year, regularizer=KineticEnergy(nodes=nodes), **single)
        assert times[-2:] == [2024.5, 2025.5]

    def test_the_loop_engine_has_the_same_cost(self):
        for engine in ("eager", "loop"):
            _, info = odeint(
                forced, start(), FORWARD, regularizer=ErrorEstimate(), options={"engine": engine}, rtol=1e-4, atol=1e-4
            )
            if engine == "eager":
                expected = info
        assert info.cost.item() == pytest.approx(expected.cost.item(), rel=1e-6)
        assert info.nfe == expected.nfe
        assert info.nfe.rejected == 6 * info.rejected


class TestMethods:
    @pytest.mark.parametrize(
        "method", ["dopri8", "bosh3", "fehlberg2", "adaptive_heun", "tsit5", ude.Rodas5P()], ids=str
    )
    def test_every_adaptive_method_has_its_costs(self, method):
        cost = ErrorEstimate() + TaylorEnergy(2, nodes="quadrature")
        y0 = start(grad=True)
        _, info = odeint(Net(), y0, FORWARD, regularizer=cost, method=method, rtol=1e-4, atol=1e-5)
        assert info.cost > 0
        (gradient,) = torch.autograd.grad(info.cost, y0)
        assert gradient.abs().min() > 0
        assert (info.steps.error[info.steps.accepted] <= 1.0).all()

    @pytest.mark.parametrize("interp", ["linear", "cubic"])
    @pytest.mark.parametrize("t", [FORWARD, BACKWARD], ids=["forward", "backward"])
    def test_costs_on_a_grid_are_near_the_integral(self, t, interp):
        nodes = {"quadrature": 1e-3, "accepted": 1e-3, "random": 0.9, "saved": 0.3}
        exact = odeint(Net(), start(), t, regularizer=TaylorEnergy(2, nodes="quadrature", samples=20))[1].cost
        for rule, tolerance in nodes.items():
            y0 = start(grad=True)
            cost = TaylorEnergy(2, nodes=rule, samples=20 if rule == "quadrature" else None, generator=seeded())
            options = {"step_size": 0.05, "interp": interp}
            ys, info = odeint(Net(), y0, t, regularizer=cost, method="rk4", options=options)
            assert torch.equal(ys, odeint(Net(), y0, t, method="rk4", options=options))
            assert info.cost.item() == pytest.approx(exact.item(), rel=tolerance)
            assert torch.autograd.grad(info.cost, y0)[0].abs().min() > 0
            assert info.accepted == len(info.steps.t) > 20
            torch.testing.assert_close(info.steps.t[-1] + info.steps.dt[-1], t[-1])

    @pytest.mark.parametrize("method", ["rk4", "euler", "midpoint", "heun2", "implicit_adams"])
    def test_an_error_estimate_on_a_grid_is_refused(self, method):
        for cost in (ErrorEstimate(), Local(ErrorEstimate()), 2.0 * ErrorEstimate() + KineticEnergy(nodes="saved")):
            with pytest.raises(ValueError, match=r"makes no error estimate.*TaylorEnergy"):
                odeint(Net(), start(), FORWARD, regularizer=cost, method=method)

    def test_multistep_methods_keep_no_steps(self):
        y0 = start(grad=True)
        cost = KineticEnergy(nodes="saved")
        t = torch.linspace(0.0, 1.0, 41, dtype=F64)
        _, info = odeint(Net(), y0, t, regularizer=cost, method="implicit_adams")
        _, expected = odeint(Net(), y0, t, regularizer=cost)
        assert info.cost.item() == pytest.approx(expected.cost.item(), rel=1e-3)
        assert torch.autograd.grad(info.cost, y0)[0].abs().min() > 0
        for cost in (StiffnessEstimate(), TaylorEnergy(), KineticEnergy(nodes="accepted"), Local(StiffnessEstimate())):
            with pytest.raises(ValueError, match="keeps none of them"):
                odeint(Net(), start(), FORWARD, regularizer=cost, method="implicit_adams")

    def test_steer_moves_the_times_of_the_states(self):
        cost = Steer(0.5, generator=seeded()) + ErrorEstimate()
        for t in (FORWARD, FORWARD[:2], BACKWARD, FORWARD + 2024.0):
            single = t[0] == 2024.0
            model, y0 = (Net().float(), start().float()) if single else (Net(), start())
            ys, info = odeint(model, y0, t, regularizer=cost, **LOOSE)
            assert info.t[0] == t[0]
            assert (info.t[1:-1] != t[1:-1]).all()
            assert torch.equal(ys, odeint(model, y0, info.t, **LOOSE))

    @pytest.mark.parametrize(
        "make", [lambda grad: (Net(), start(grad=grad)), lambda grad: (NetPair(), start_pair(grad=grad))]
    )
    @pytest.mark.parametrize("module", [odeint, odeint_adjoint])
    @pytest.mark.parametrize("options", [{}, {"norm": lambda y: torch.stack([x.abs().max() for x in y]).max()}])
    def test_the_cost_may_be_a_state(self, make, module, options):
        tight = {"rtol": 1e-8, "atol": 1e-10}
        model, y0 = make(True)
        parts = [y0] if isinstance(y0, torch.Tensor) else list(y0)
        plain = module(model, y0, FORWARD, **tight)
        heard = []
        model.callback_step = lambda t, y, dt: heard.append(y)
        ys, info = module(model, y0, FORWARD, regularizer=TaylorEnergy(2, nodes="state"), options=options, **tight)
        torch.testing.assert_close(ys, plain, rtol=1e-7, atol=1e-8)
        # A callback hears of the user's state alone.
        assert [x.shape for x in heard[0]] == [x.shape for x in y0]
        _, expected = odeint(model, y0, FORWARD, regularizer=TaylorEnergy(2, nodes="quadrature", samples=24), **tight)
        assert info.cost.item() == pytest.approx(expected.cost.item(), rel=1e-7)
        inputs = [*parts[:1], *model.parameters()]
        gradients = [torch.autograd.grad(x.cost, inputs) for x in (info, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


class TestAdjoint:
    @pytest.mark.parametrize("pair", [False, True])
    @pytest.mark.parametrize("t", [FORWARD, BACKWARD], ids=["forward", "backward"])
    def test_gradients_of_costs_at_saved_states_are_those_of_odeint(self, pair, t):
        cost, results = TaylorEnergy(2, nodes="saved"), []
        for module in (odeint, odeint_adjoint):
            model, y0 = (NetPair(), start_pair(grad=True)) if pair else (Net(), start(grad=True))
            ys, info = module(model, y0, t, regularizer=cost, rtol=1e-9, atol=1e-11)
            loss = (ys[0] if pair else ys).square().sum() + 0.3 * info.cost
            results.append(torch.autograd.grad(loss, [y0[0] if pair else y0, *model.parameters()]))
        torch.testing.assert_close(*results, rtol=1e-6, atol=1e-8)

    @pytest.mark.parametrize(
        "cost", [Local(ErrorEstimate()), Local(StiffnessEstimate(), "random"), TaylorEnergy(2, detach=True)], ids=str
    )
    def test_costs_from_constant_states_have_the_gradients_of_odeint(self, cost):
        results = []
        for module in (odeint, odeint_adjoint):
            object.__setattr__(cost, "generator", seeded())
            model, y0 = Net(), start(grad=True)
            _, info = module(model, y0, FORWARD, regularizer=cost, **LOOSE)
            results.append((info.cost, *torch.autograd.grad(info.cost, list(model.parameters()))))
        torch.testing.assert_close(*results, rtol=1e-8, atol=1e-10)

    @pytest.mark.parametrize("cost", [ErrorEstimate(), StiffnessEstimate() + KineticEnergy(nodes="saved")], ids=str)
    def test_costs_of_steps_are_refused_where_they_would_have_no_gradient(self, cost):
        with pytest.raises(ValueError, match=r"carry no gradient.*`Local\(.*odeint"):
            odeint_adjoint(Net(), start(), FORWARD, regularizer=cost)
        with torch.no_grad():
            _, info = odeint_adjoint(Net(), start(), FORWARD, regularizer=cost, **LOOSE)
            _, expected = odeint(Net(), start(), FORWARD, regularizer=cost, **LOOSE)
        torch.testing.assert_close(info.cost, expected.cost)

    @pytest.mark.parametrize("nodes", ["random", "accepted", "quadrature", torch.tensor([0.5])], ids=str)
    def test_nodes_whose_states_have_no_gradient_are_refused(self, nodes):
        with pytest.raises(ValueError, match=r"gradient of the states at `t` only.*detach=True"):
            odeint_adjoint(Net(), start(), FORWARD, regularizer=KineticEnergy(nodes=nodes))


class TestCounts:
    @pytest.mark.parametrize("method", ["dopri5", "dopri8", "rk4", ude.Rodas5P()], ids=str)
    @pytest.mark.parametrize("interp", ["linear", "cubic"])
    def test_every_evaluation_is_counted_and_the_solve_costs_what_it_did(self, method, interp):
        options = {"step_size": 0.3, "interp": interp} if method == "rk4" else {}
        t = torch.tensor([0.0, 0.5, 2.0], dtype=F64)

        def rough(t, y):
            calls.append(1)
            return forced(40.0 * torch.sin(3.0 * t), 3.0 * y)

        calls = []
        odeint(rough, start(), t, method=method, options=options, rtol=1e-4, atol=1e-4)
        plain, calls = len(calls), []
        _, info = odeint(
            rough, start(grad=True), t, method=method, options=options, rtol=1e-4, atol=1e-4,
            regularizer=KineticEnergy(nodes="saved"),
        )  # fmt: skip
        assert info.nfe.total == len(calls)
        assert info.nfe.regularizer == 3
        assert info.nfe.adjoint == 0
        info.cost.backward()
        assert info.nfe.total == len(calls)
        if method == ude.Rodas5P():  # it evaluates once more where it records a gradient
            return
        assert info.nfe.solve == plain
        if method != "rk4":
            stages = ADAPTIVE[method].evaluations
            assert info.nfe.rejected == stages * info.rejected > 0
            assert info.nfe.initial == 2
            assert (
                info.nfe.forward - stages * info.accepted == ADAPTIVE[method].dense_evaluations
            )  # for the state at 0.5

    def test_steps_made_again_count_as_rejected(self):
        calls = []
        field = lambda t, y: calls.append(1) or -torch.sqrt(y)  # noqa: E731
        y0, t = torch.ones(1, dtype=F64, requires_grad=True), torch.tensor([0.0, 1.5], dtype=F64)
        _, info = odeint(field, y0, t, options={"first_step": 1.49}, rtol=1e-6, regularizer=ErrorEstimate())
        assert info.nfe.total == len(calls)
        assert info.nfe.initial == 1
        assert info.nfe.forward == 6 * info.accepted
        assert info.nfe.rejected > 6 * info.rejected

    def test_evaluations_of_the_backward_pass_are_known_after_it(self):
        model = Net()
        calls = counted(model)
        y0 = start(grad=True)
        ys, info = odeint_adjoint(model, y0, FORWARD, regularizer=Local(ErrorEstimate()), **LOOSE)
        before = info.nfe
        assert before.adjoint == 0
        assert before.regularizer == 4 * 7
        assert before.total == len(calls)
        (ys.sum() + info.cost).backward()
        assert info.nfe.adjoint > 50
        assert info.nfe.total == len(calls)
        assert info.nfe.solve == before.solve

    def test_an_info_is_a_value(self):
        _, info = odeint(Net(), start(), FORWARD, regularizer=ErrorEstimate())
        with pytest.raises(AttributeError):
            info.cost = 1.0
        assert info.steps.t.shape == info.steps.dt.shape == info.steps.error.shape == info.steps.stiffness.shape
        assert not info.steps.t.requires_grad
        assert info.steps.error.requires_grad


class TestErrors:
    def test_what_is_no_regularizer_is_refused(self):
        with pytest.raises(ValueError, match=r"ErrorEstimate\(\).*got 'error'"):
            odeint(Net(), start(), FORWARD, regularizer="error")

    def test_a_solve_until_an_event_is_refused(self):
        with pytest.raises(ValueError, match="event_fn"):
            odeint_event(Net(), start(), torch.tensor(0.0), event_fn=lambda t, y: y[0, 0], regularizer=ErrorEstimate())

    def test_scipy_is_refused(self):
        with pytest.raises(ValueError, match="No gradient passes"):
            odeint(Net(), start(), FORWARD, regularizer=KineticEnergy(nodes="saved"), method="scipy_solver")

    def test_raw_errors_of_single_steps_are_refused_for_tuples(self):
        with pytest.raises(ValueError, match="scale='tolerance'"):
            odeint(NetPair(), start_pair(), FORWARD, regularizer=Local(ErrorEstimate("raw")))

    def test_times_that_a_regularizer_spoils_are_refused(self):
        class Backwards(Regularizer):
            def measure(self, solution):
                return solution.ys.sum()

            def prepare(self, problem, save_at=None):
                return problem, torch.stack([save_at[0], save_at[-1], save_at[-1]])

        with pytest.raises(ValueError, match="strictly increasing"):
            odeint(Net(), start(), FORWARD, regularizer=Backwards())
