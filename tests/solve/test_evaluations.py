"""`Stats.nfe` against a vector field that counts its calls."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

import ude
from ude.problems import ODEProblem, Status

F64 = torch.float64

EXPLICIT = [ude.Tsit5(), ude.BS3(), ude.Vern7(), ude.Dopri8()]
ROSENBROCK = [ude.Rosenbrock23(), ude.Rodas5P()]
ITERATING = [ude.TRBDF2(), ude.Kvaerno5(), ude.KenCarp4(), ude.RadauIIA5(), ude.BDF()]
SWITCHING = [
    None,
    ude.AutoSwitch(ude.Vern7(), ude.Rodas5P()),
    ude.AutoSwitch(ude.Tsit5(), ude.Kvaerno3()),
    ude.AutoSwitch(ude.Vern7(), ude.BDF()),
    ude.AutoSwitch(ude.Dopri5(), ude.Heun()),  # no stiff method, but one with an extra stage of its own
]
METHODS = EXPLICIT + ROSENBROCK + ITERATING + SWITCHING
FEW = [ude.Tsit5(), ude.Vern7(), ude.Rodas5P(), ude.Kvaerno3(), ude.RadauIIA5(), ude.BDF(), *SWITCHING[:4]]


class Counted:
    """A function of time, state and perhaps more that counts its calls with tensors, not those with jets."""

    def __init__(self, field):
        self.field, self.calls = field, 0

    def __call__(self, t, y, *p):
        self.calls += type(y) is torch.Tensor
        return self.field(t, y, *p)


def relaxation(t, y, mu):
    """Van der Pol's oscillator with a force, for states (..., 2) and stiffness of shape () or (batch,)."""
    x, v = y.unbind(-1)
    return torch.stack([v, mu * (1 - x**2) * v - x + torch.sin(t).reshape(x.shape)], -1)


def jacobian(t, y, mu):
    x, v = y.unbind(-1)
    rows = [[torch.zeros_like(x), torch.ones_like(x)], [-2 * mu * x * v - 1, mu * (1 - x**2)]]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def oscillator(mu=30.0, end=6.0, y0=(2.0, 0.0)):
    """A problem that is called for evaluations only, its Jacobian being given, and its counter."""
    field = Counted(relaxation)
    p = torch.tensor(mu, dtype=F64)
    return ODEProblem(field, torch.tensor(y0, dtype=F64), (0.0, end), p=p, jacobian=jacobian), field


@pytest.mark.parametrize("save_at", [None, [6.0], [0.0, 0.1, 0.11, 3.3, 6.0]], ids=["steps", "end", "times"])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_every_evaluation_is_counted(method, save_at):
    problem, field = oscillator()
    solution = ude.solve(problem, method, save_at=save_at, rtol=1e-4, atol=1e-6)
    assert solution.stats.nfe == field.calls


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_every_evaluation_is_counted_at_tight_tolerances_and_without_gradients(method):
    problem, field = oscillator(mu=300.0, end=1.0)
    with torch.no_grad():
        solution = ude.solve(problem, method, save_at=[0.2, 0.9, 1.0], rtol=1e-7, atol=1e-9)
    assert solution.stats.nfe == field.calls
    if method is None:
        # The default has gone over to implicit steps, which need no extra stages between their ends.
        assert solution.stats.rejected + solution.stats.accepted > 15


@pytest.mark.parametrize("method", [ude.Kvaerno5(), ude.RadauIIA5(), ude.BDF(), ude.TRBDF2()], ids=str)
def test_implicit_methods_evaluate_once_more_at_each_root_where_gradients_are_recorded(method):
    problem, field = oscillator()
    roots = len(method.tableau.b) - 1 if isinstance(method, ude.ESDIRK) else 3 if method == ude.RadauIIA5() else 1
    recorded = ude.solve(problem, method, rtol=1e-4)
    with torch.no_grad():
        plain = ude.solve(problem, method, rtol=1e-4)
    assert torch.equal(recorded.ys, plain.ys)
    assert recorded.stats.nfe == plain.stats.nfe + roots * len(plain.steps.t)
    assert plain.stats.nfe + recorded.stats.nfe == field.calls


@pytest.mark.parametrize("method", [*ITERATING[:4], ude.AutoSwitch(ude.Tsit5(), ude.Kvaerno3())], ids=str)
def test_jacobians_by_differentiation_are_no_evaluations(method):
    problem, field = oscillator()
    given = ude.solve(problem, method, rtol=1e-4)
    field.calls = 0
    computed = ude.solve(ODEProblem(field, problem.y0, (0.0, 6.0), p=problem.p), method, rtol=1e-4)
    # The field is called with jets for a Jacobian that is recorded.
    assert computed.stats.nfe == given.stats.nfe == field.calls


def test_a_pass_of_a_taylor_series_counts_as_one_evaluation():
    field = Counted(lambda t, y: -y * torch.cos(t))
    solution = ude.solve(ODEProblem(field, torch.ones(1, dtype=F64), (0.0, 3.0)), ude.Taylor(6), save_at=[0.5, 3.0])
    attempts = solution.stats.accepted + solution.stats.rejected
    # Only the defect at the end of every step is a call with tensors.
    assert field.calls == 2 + attempts
    assert solution.stats.nfe == 2 + 7 * attempts


@pytest.mark.parametrize("method", [*EXPLICIT, *ROSENBROCK, ude.RK4(), ude.Heun(), ude.Taylor(4)], ids=str)
def test_methods_of_constant_cost_carry_no_count(method):
    problem, _ = oscillator(mu=1.0)
    options = {} if method.error_order else {"dt": 0.05}
    assert ude.solve(problem, method, **options).interpolant.trace.evaluations is None


def test_the_default_method_carries_no_count_before_a_problem_is_stiff():
    problem, _ = oscillator(mu=1.0)
    assert ude.solve(problem).interpolant.trace.evaluations is None


@pytest.mark.parametrize("stiff", [ude.Rosenbrock23(), ude.Kvaerno3(), ude.RadauIIA5()], ids=str)
def test_going_over_to_another_method_costs_its_first_slope(stiff):
    rate = lambda t: torch.where(t < 1.0, 2000.0, 0.1).to(t)  # noqa: E731
    field = Counted(lambda t, y: -rate(t) * (y - torch.cos(t)))
    problem = ODEProblem(
        field, torch.zeros(1, dtype=F64), (0.0, 20.0), jacobian=lambda t, y: -rate(t).reshape(1, 1) + 0 * y
    )
    with torch.no_grad():
        solution = ude.solve(problem, ude.AutoSwitch(ude.Tsit5(), stiff), save_at=[20.0], stop_at=[1.0], rtol=1e-4)
    assert solution.stats.nfe == field.calls
    stages = solution.interpolant.trace.store.starts(range(len(solution.steps.t)))[1][:, 0]
    changes = list(pairwise((stages[:, :7] != 0).any(-1).any(-1).tolist()))
    entered, left = (changes.index(x) for x in ((True, False), (False, True)))
    counts = solution.interpolant.trace.evaluations[:, 0].tolist()
    assert entered < left
    assert counts[entered] == 6
    assert counts[left + 1] == 6 + 1


@pytest.mark.parametrize("method", [ude.Euler(), ude.RK4(), ude.Heun(), *METHODS[:-1]], ids=str)
@pytest.mark.parametrize("save_at", [None, [0.31, 0.4]], ids=["steps", "times"])
def test_constant_steps_are_counted(method, save_at):
    problem, field = oscillator(mu=20.0, end=0.4)
    solution = ude.solve(problem, method, save_at=save_at, dt=0.05, controller=ude.FixedStep())
    assert solution.stats.accepted == 8
    assert solution.stats.nfe == field.calls


def leaves_its_domain(t, y, p):
    return -p * torch.sqrt(y - 0.5)


def raises_at_nan(t, y, p):
    if bool(y.isnan().any()):
        raise ArithmeticError("asked for the value at NaN")
    return leaves_its_domain(t, y, p)


def sink(field, y0=(1.0,), *, gradient=False, batched=False):
    field = Counted(field)
    y0, p = torch.tensor(y0, dtype=F64), torch.tensor(1.0, dtype=F64, requires_grad=gradient)
    slope = lambda t, y, p: (-0.5 * p / torch.sqrt(y - 0.5)).unsqueeze(-1)  # noqa: E731
    return ODEProblem(field, y0, (0.0, 5.0), p=p, jacobian=slope, batched=batched), field


@pytest.mark.parametrize(
    ("field", "method"),
    [
        (leaves_its_domain, ude.Euler()),
        (leaves_its_domain, ude.RK4()),
        (leaves_its_domain, ude.Tsit5()),
        (leaves_its_domain, ude.Kvaerno3()),
        (leaves_its_domain, ude.RadauIIA5()),
        # The others look at states that a single step would reach only later.
        (raises_at_nan, ude.Euler()),
    ],
    ids=lambda x: getattr(x, "__name__", str(x)),
)
def test_constant_steps_made_in_vain_are_counted(field, method):
    problem, field = sink(field)
    solution = ude.solve(problem, method, dt=0.1, controller=ude.FixedStep(), throw=False)
    assert solution.status == Status.NON_FINITE
    assert solution.stats.nfe == field.calls


def test_constant_steps_made_in_vain_are_those_of_the_sample_to_blame():
    problem, _ = sink(leaves_its_domain, [[1.0], [100.0]], batched=True)
    options = {"dt": 0.1, "controller": ude.FixedStep(), "throw": False}
    together = ude.solve(problem, ude.Tsit5(), **options)
    alone = [ude.solve(sink(leaves_its_domain, y0)[0], ude.Tsit5(), **options) for y0 in ([1.0], [100.0])]
    assert together.stats.nfe.tolist() == [int(one.stats.nfe) for one in alone]
    assert together.stats.nfe[1] == 1 + 6 * 50


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("method", METHODS[:-1], ids=str)
def test_steps_that_left_the_domain_are_counted_as_often_as_they_were_made(method, gradient):
    problem, field = sink(leaves_its_domain, gradient=gradient)
    solution = ude.solve(problem, method, dt=5.0, throw=False, max_steps=60)
    assert bool(solution.steps.error.isinf().any())
    assert solution.stats.nfe == field.calls


def test_a_sample_that_is_tried_again_leaves_the_others_alone():
    # The long first step overflows for one of them only.
    field = lambda t, y, p: -p * y**3  # noqa: E731
    p = torch.tensor([[1.0], [1e150]], dtype=F64, requires_grad=True)
    options = {"dt": 0.5, "throw": False, "max_steps": 12}

    def problem(rows, batched):
        y0 = torch.ones(2, 1, dtype=F64)[rows]
        return ODEProblem(field, y0, (0.0, 1.0), p=p[rows], batched=batched)

    together = ude.solve(problem(slice(None), True), ude.Tsit5(), **options)
    alone = [ude.solve(problem(i, False), ude.Tsit5(), **options) for i in range(2)]
    assert bool(together.steps.error[:, 1].isinf().any())
    assert together.stats.nfe.tolist() == [int(one.stats.nfe) for one in alone]
    attempts = together.stats.accepted + together.stats.rejected
    again = together.steps.error.isinf().sum(0)
    assert torch.equal(together.stats.nfe, 1 + 6 * (attempts + again))


@pytest.mark.parametrize(
    "method", [*ITERATING, *SWITCHING[:3], ude.AutoSwitch(ude.Vern7(), ude.RadauIIA5()), ude.Vern7()], ids=str
)
def test_every_sample_of_a_batch_is_charged_what_it_costs_alone(method):
    mus, ends = [1.0, 40.0, 300.0], [6.0, 5.0, 0.7]
    fields = [oscillator(mu, end) for mu, end in zip(mus, ends, strict=True)]
    y0 = torch.tensor([[2.0, 0.0]] * 3, dtype=F64)
    times = torch.tensor([[0.1, 0.5, 1.0]], dtype=F64).T * torch.tensor(ends, dtype=F64)
    problem = ODEProblem(
        relaxation,
        y0,
        (0.0, torch.tensor(ends, dtype=F64)),
        p=torch.tensor(mus, dtype=F64),
        jacobian=jacobian,
        batched=True,
    )
    # Loose enough for all samples to go through their steps whatever the last digit.
    options = {"rtol": 1e-3, "atol": 1e-5}
    together = ude.solve(problem, method, save_at=times, **options)
    for i, (single, field) in enumerate(fields):
        alone = ude.solve(single, method, save_at=times[:, i], **options)
        assert together.stats.accepted[i] == alone.stats.accepted
        assert together.stats.nfe[i] == alone.stats.nfe == field.calls


def test_a_sample_with_nothing_to_do_is_not_charged_for_a_first_step():
    field = Counted(relaxation)
    y0, ends = torch.tensor([[2.0, 0.0]] * 2, dtype=F64), torch.tensor([0.0, 1.0], dtype=F64)
    p = torch.ones((), dtype=F64)
    together = ude.solve(ODEProblem(field, y0, (0.0, ends), p=p, batched=True), ude.Tsit5())
    assert together.stats.nfe.tolist() == [1, field.calls]


def test_checkpointed_solves_count_the_forward_pass():
    problem, field = oscillator()
    y0 = problem.y0.requires_grad_()
    solution = ude.solve(problem, ude.Kvaerno3(), save_at=[1.0, 6.0], rtol=1e-4, adjoint=ude.Checkpointed())
    calls = field.calls
    assert solution.stats.nfe == calls
    torch.autograd.grad(solution.ys.sum(), y0)
    assert field.calls > calls


# Events


def ball(t, y, p):
    return torch.stack([y[..., 1], -p - 0.1 * y[..., 1]], -1)


def slope_of_ball(t, y, p):
    return torch.tensor([[0.0, 1.0], [0.0, -0.1]], dtype=F64).expand(*y.shape, 2)


def bounce(t, y):
    return torch.stack([y[..., 0].clamp(min=0.0), -0.8 * y[..., 1]], -1)


def kicked(t, y, p):
    return y + 1.0


HEIGHT = lambda t, y, p: y[..., 0]  # noqa: E731
EVENTS = {
    "bounces": [ude.ContinuousEvent(condition=HEIGHT, affect=lambda t, y, p: bounce(t, y), direction=-1)],
    "is recorded": [ude.ContinuousEvent(condition=lambda t, y, p: y[..., 1], interior=2)],
    "starts at zero": [ude.ContinuousEvent(condition=lambda t, y, p: y[..., 0] - 1.0)],
    "ends": [ude.ContinuousEvent(condition=HEIGHT, terminate=True)],
    "times": [ude.PresetTimes([0.1, 0.2], kicked)],
    "jumps": [ude.PresetTimes([0.1, 0.2])],
    "periodic": [ude.Periodic(0.15, kicked)],
    "discrete": [ude.DiscreteEvent(condition=lambda t, y, p: y[..., 0] < 0.5, affect=kicked)],
    "manifold": [ude.ManifoldProjection(residual=lambda t, y, p: (y[..., :1] - 1.0) * y[..., 1:] ** 2 - 1.0)],
    "steady": [ude.SteadyState(rtol=1e-9, atol=1e-9)],
    "many": [
        ude.ContinuousEvent(condition=lambda t, y, p: y[..., 0] - 1.0),
        ude.PresetTimes([0.1], kicked),
        ude.SteadyState(rtol=1e-9, atol=1e-9),
        ude.ContinuousEvent(condition=HEIGHT, terminate=True),
    ],
}


def thrown(y0=(1.0, 0.0), g=9.81, *, batched=False, gradient=False):
    field = Counted(ball)
    state, p = torch.tensor(y0, dtype=F64), torch.tensor(g, dtype=F64, requires_grad=gradient)
    return ODEProblem(field, state, (0.0, 0.8), p=p, jacobian=slope_of_ball, batched=batched), field


@pytest.mark.parametrize("method", FEW, ids=str)
@pytest.mark.parametrize("events", EVENTS.values(), ids=EVENTS)
def test_what_events_evaluate_is_counted(events, method):
    problem, field = thrown(gradient=True)
    # A restart after every step leaves BDF at order 1, with steps too many for a test.
    solution = ude.solve(problem, method, events=events, save_at=[0.3, 0.8], max_steps=100, throw=False)
    assert solution.stats.nfe == field.calls


@pytest.mark.parametrize("method", [ude.Vern7(), ude.Kvaerno3()], ids=str)
@pytest.mark.parametrize("events", [EVENTS[name] for name in ("bounces", "starts at zero", "many", "discrete")])
def test_a_sample_of_a_batch_is_charged_for_its_own_events(events, method):
    starts, weights = [[1.0, 0.0], [0.3, 1.0], [50.0, 0.0]], [9.81, 5.0, 1.0]
    problem, _ = thrown(starts, weights, batched=True)
    together = ude.solve(problem, method, events=events)
    for i, (y0, g) in enumerate(zip(starts, weights, strict=True)):
        single, field = thrown(y0, g)
        alone = ude.solve(single, method, events=events)
        assert together.stats.accepted[i] == alone.stats.accepted
        assert together.stats.nfe[i] == alone.stats.nfe == field.calls
    assert len(set(together.stats.nfe.tolist())) > 1


@pytest.mark.parametrize("method", FEW, ids=str)
def test_steady_states_cost_an_evaluation_for_every_accepted_step(method):
    field = Counted(lambda t, y: 1.0 - y**3)
    problem = ODEProblem(
        field,
        torch.tensor([3.0], dtype=F64),
        (0.0, 100.0),
        jacobian=lambda t, y: (-3.0 * y**2).unsqueeze(-1),
    )
    solution = ude.solve(problem, method, events=[ude.SteadyState(rtol=1e-4, atol=1e-4)], dt=1.0)
    assert solution.status == Status.TERMINATED
    assert solution.stats.rejected > 0
    assert solution.stats.nfe == field.calls


@pytest.mark.parametrize("method", FEW, ids=str)
def test_steps_made_again_to_stay_positive_are_counted(method):
    field = Counted(lambda t, y: -torch.ones_like(y) * torch.where(t < 1.0, 1.0, 0.0) * y.clamp(min=0.0).sqrt())
    problem = ODEProblem(
        field,
        torch.tensor([0.2], dtype=F64),
        (0.0, 3.0),
        jacobian=lambda t, y: torch.zeros(1, 1, dtype=F64),
    )
    event = ude.PositiveDomain(tolerance=1e-12)
    solution = ude.solve(problem, method, events=[event], rtol=1e-2, atol=1e-2, dt=0.6, throw=False, max_steps=200)
    assert solution.stats.nfe == field.calls


# Blocks of attempts, as they are compiled


@pytest.mark.parametrize("method", [ude.Tsit5(), ude.Kvaerno3(), ude.RadauIIA5(), *SWITCHING[2:3]], ids=str)
def test_blocks_count_what_single_attempts_do(method):
    problem, _ = oscillator(mu=20.0, end=1.0)
    # A block longer than the solve may be is not compiled; it makes all attempts, of which those beyond the end do not
    # count.
    options = {"rtol": 1e-3, "atol": 1e-5, "save_at": [0.2, 1.0], "max_steps": 60}
    with torch.no_grad():
        blocks = ude.solve(problem, method, engine=ude.Compiled(unroll=61), **options)
        single = ude.solve(problem, method, **options)
    assert blocks.stats.nfe == single.stats.nfe


def test_a_block_made_again_counts_twice_for_the_sample_to_blame():
    problem, field = sink(leaves_its_domain, [[1.0], [100.0]], gradient=True, batched=True)
    options = {"dt": 5.0, "throw": False, "max_steps": 7, "engine": ude.Compiled(unroll=8)}
    solution = ude.solve(problem, ude.Tsit5(), **options)
    attempts = solution.stats.accepted + solution.stats.rejected
    assert bool(solution.steps.error[:, 0].isinf().any())
    assert solution.stats.nfe.tolist() == (1 + 6 * attempts * torch.tensor([2, 1])).tolist()
    # Both times all seven attempts were made.
    assert field.calls == 1 + 2 * 6 * 7


@pytest.mark.slow
@pytest.mark.parametrize("method", [ude.TRBDF2(), ude.AutoSwitch(ude.Tsit5(), ude.Rosenbrock23())], ids=str)
def test_compiled_steps_count_what_eager_ones_do(method):
    y0, p = torch.tensor([[2.0, 0.0]] * 2, dtype=F64), torch.tensor([1.0, 30.0], dtype=F64)
    problem = ODEProblem(relaxation, y0, (0.0, 2.0), p=p, jacobian=jacobian, batched=True)
    options = {"rtol": 1e-3, "atol": 1e-5, "save_at": [2.0]}
    with torch.no_grad():
        eager, compiled = (
            ude.solve(problem, method, engine=engine, **options) for engine in ("eager", ude.Compiled(unroll=1))
        )
    assert compiled.stats.nfe.tolist() == eager.stats.nfe.tolist()
