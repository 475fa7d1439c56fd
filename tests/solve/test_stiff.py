"""Stiff problems through the door: against SciPy and closed forms, in batches, with gradients, compiled."""

import sys
from pathlib import Path

import pytest
import torch

import ude
from ude.nonlinear import GMRES
from ude.problems import ODEProblem

sys.path.insert(0, str(Path(__file__).parent))
from stiff_problems import PROBLEMS, StiffProblem, forced, forced_solution, heat, robertson, stack, van_der_pol

F64 = torch.float64
SWITCH = ude.AutoSwitch(ude.Tsit5(), ude.Rodas5P())
RUNS = [(ude.Rosenbrock23(), 1e-4), (ude.Rodas4(), 1e-6), (ude.Rodas5P(), 1e-6), (SWITCH, 1e-6)]


def by_name(name: str) -> StiffProblem:
    return next(problem for problem in PROBLEMS if problem.name == name)


# Many steps each, and the same code as the others: left to the second job.
LONG = {(name, str(method)) for name in ("Oregonator", "van der Pol, mu = 1000") for method, _ in RUNS[:2]}
LONG |= {("Oregonator", str(method)) for method, _ in RUNS[2:]} | {("HIRES", str(ude.Rosenbrock23()))}
CASES = [
    pytest.param(
        problem,
        method,
        rtol,
        marks=pytest.mark.slow if (problem.name, str(method)) in LONG else (),
        id=f"{problem}-{method}",
    )
    for problem in PROBLEMS
    for method, rtol in RUNS
]


@pytest.mark.parametrize(("problem", "method", "rtol"), CASES)
def test_reaches_the_end_of_stiff_problems_at_the_tolerance(problem, method, rtol):
    scale = problem.absolute()
    with torch.no_grad():
        solution = ude.solve(
            ODEProblem(problem.field, problem.initial(), (0.0, problem.t1)),
            method,
            save_at=[problem.t1],
            rtol=rtol,
            atol=rtol * scale,
        )
    expected = problem.reference()
    error = ((solution.ys[0] - expected).abs() / (scale + expected.abs())).max().item()
    # Tolerances bound the error of a step; in relaxation oscillations those of all steps add up to a shift in time.
    bound = 200 if (problem.name, method.order) == ("Oregonator", 2) else 20
    assert error < bound * rtol
    attempts = solution.stats.accepted + solution.stats.rejected
    assert attempts < 5000
    if isinstance(method, ude.Rosenbrock):
        # Two evaluations choose the first step.
        assert solution.stats.nfe == attempts * method.evaluations + 2


@pytest.mark.parametrize("method", [ude.Rosenbrock23(), ude.Rodas4(), ude.Rodas5P()], ids=str)
def test_states_between_the_steps_are_as_good_as_those_at_their_ends(method):
    def error(ts, ys):
        return (ys[:, 0] - torch.tensor([forced_solution(t)[0] for t in ts.tolist()], dtype=F64)).abs().max()

    problem = ODEProblem(forced, torch.zeros(1, dtype=F64), (0.0, 3.0))
    solution = ude.solve(problem, method, rtol=1e-4)
    between = (solution.ts[1:] + solution.ts[:-1]) / 2
    # Either not much worse than the ends of steps, or of the size of the tolerance itself (states are of order one).
    assert error(between, solution(between)) < max(3 * error(solution.ts, solution.ys), 3e-4)
    saved = ude.solve(problem, method, rtol=1e-4, save_at=between)
    torch.testing.assert_close(saved.ys, solution(between), rtol=1e-12, atol=1e-14)


def kinetics(t, y, p):
    """Robertson's reactions with their rates as parameters, shape (3,) or (batch, 3)."""
    a, b, c = y.unbind(-1)
    slow, square, fast = (rate * x for rate, x in zip(p.unbind(-1), (a, b**2, b * c), strict=True))
    return stack(fast - slow, slow - fast - square, square)


RATES = torch.tensor([0.04, 3e7, 1e4], dtype=F64)
START = torch.tensor([1.0, 0.0, 0.0], dtype=F64)
OPTIONS = {"rtol": 1e-7, "atol": torch.tensor([1e-8, 1e-12, 1e-8], dtype=F64)}


def test_every_sample_of_a_batch_has_its_own_steps():
    rates = RATES * torch.tensor([[1.0], [10.0], [0.01]], dtype=F64)
    ends = torch.tensor([40.0, 40.0, 4000.0], dtype=F64)
    problem = ODEProblem(kinetics, START.expand(3, 3), (0.0, ends), p=rates, batched=True)
    together = ude.solve(problem, ude.Rodas5P(), save_at=ends.unsqueeze(0), **OPTIONS)
    for i in range(3):
        single = ODEProblem(kinetics, START, (0.0, float(ends[i])), p=rates[i])
        alone = ude.solve(single, ude.Rodas5P(), save_at=[float(ends[i])], **OPTIONS)
        assert together.stats.nfe[i] == alone.stats.nfe
        # Rounding of factorisations, in other shapes, enters the step lengths.
        torch.testing.assert_close(together.ys[0, i], alone.ys[0], rtol=1e-9, atol=1e-15)
    assert len(set(together.stats.nfe.tolist())) == 3


def loss(p, method, **options):
    """A number that depends on all states at an inner and at the last time, each of order one."""
    # Past the first moments, in which constant steps would have to be very short.
    start = torch.tensor([0.9885, 3.45e-5, 0.0114655], dtype=F64)
    problem = ODEProblem(kinetics, start, (0.0, 0.5), p=p * RATES)
    ys = ude.solve(problem, method, save_at=[0.32, 0.5], **options).ys
    return (ys * torch.tensor([[1.0, -2e4, 50.0], [3.0, 1e4, 20.0]], dtype=F64)).sum()


FIXED = {"dt": 0.05, "controller": ude.FixedStep()}
TIGHT = {"rtol": 1e-10, "atol": 1e-10 * torch.tensor([1.0, 1e-4, 1e-2], dtype=F64)}


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (ude.Rosenbrock23(), FIXED),
        (ude.Rodas4(), FIXED),
        (ude.Rodas5P(), FIXED),
        (ude.Rodas5P(), FIXED | {"adjoint": ude.Checkpointed()}),
        (ude.Rodas4(linear_solver=GMRES(rtol=1e-13)), FIXED),
        (ude.Rodas5P(), TIGHT),
        (SWITCH, TIGHT),
    ],
    ids=[
        "Rosenbrock23",
        "Rodas4",
        "Rodas5P",
        "Rodas5P checkpointed",
        "Rodas4 with GMRES",
        "Rodas5P adaptive",
        "AutoSwitch",
    ],
)
def test_gradients_agree_with_finite_differences(method, options):
    p = torch.ones(3, dtype=F64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(p, method, **options), p)
    h, direction = 1e-3, torch.tensor([0.6, -0.9, 0.4], dtype=F64)
    with torch.no_grad():
        # Fourth order: truncation h^4 = 1e-12; rounding, or for adaptive steps the tolerance, over h.
        values = [loss(p + s * h * direction, method, **options) for s in (1, -1, 2, -2)]
    difference = (8 * (values[0] - values[1]) - (values[2] - values[3])) / (12 * h)
    assert bool((gradient.abs() > 1e-2).all())
    torch.testing.assert_close(gradient @ direction, difference, rtol=1e-5, atol=0.0)


def jacobian(t, y, p):
    a, b, c = y.unbind(-1)
    slow, square, fast = (rate.expand_as(a) for rate in p.unbind(-1))
    zero = torch.zeros_like(a)
    rows = [
        stack(-slow, fast * c, fast * b),
        stack(slow, -fast * c - 2 * square * b, -fast * b),
        stack(zero, 2 * square * b, zero),
    ]
    return torch.stack(rows, -2)


@pytest.mark.parametrize("batched", [False, True])
def test_the_users_jacobian_takes_the_place_of_ours(batched):
    calls = []

    def counted(t, y, p):
        calls.append(1)
        return jacobian(t, y, p)

    y0 = START.expand(2, 3) if batched else START
    solutions = []
    for own in (None, counted):
        problem = ODEProblem(kinetics, y0, (0.0, 40.0), p=RATES, batched=batched, jacobian=own)
        solutions.append(ude.solve(problem, ude.Rodas5P(), save_at=[40.0], **OPTIONS))
    computed, given = solutions
    torch.testing.assert_close(given.ys, computed.ys, rtol=1e-11, atol=1e-16)
    # One for each attempt, and one at the door, which checks it.
    assert len(calls) == len(given.steps.t) + 1


def test_the_users_jacobian_serves_matrix_free_solvers_too():
    problem = ODEProblem(kinetics, START, (0.0, 4.0), p=RATES, jacobian=jacobian)
    free, dense = (
        ude.solve(problem, ude.Rodas5P(linear_solver=solver), save_at=[4.0], **OPTIONS).ys
        for solver in (GMRES(), ude.LU())
    )
    torch.testing.assert_close(free, dense, rtol=1e-7, atol=1e-11)


@pytest.mark.parametrize("batched", [False, True])
def test_a_jacobian_of_the_wrong_shape_is_refused_at_the_door(batched):
    y0 = torch.ones((3, 2) if batched else (2,), dtype=F64)
    problem = ODEProblem(lambda t, y: -y, y0, (0.0, 1.0), batched=batched, jacobian=lambda t, y: -torch.ones(2, 1))
    with pytest.raises(ValueError, match="`jacobian` must return a tensor of shape"):
        ude.solve(problem)


def test_a_jacobian_of_a_state_in_several_tensors_is_refused():
    y0 = (torch.ones(2, dtype=F64), torch.ones(1, dtype=F64))
    problem = ODEProblem(lambda t, y: (-y[0], -y[1]), y0, (0.0, 1.0), jacobian=lambda t, y: -torch.eye(3))
    with pytest.raises(ValueError, match="one real tensor"):
        ude.solve(problem)


def test_without_a_matrix_the_heat_equation_is_the_same():
    problem = by_name("heat by lines")
    states = [
        ude.solve(ODEProblem(heat, problem.initial(), (0.0, 0.03)), method, save_at=[0.02, 0.03], rtol=1e-4).ys
        for method in (ude.Rodas5P(), ude.Rodas5P(linear_solver=GMRES()))
    ]
    torch.testing.assert_close(*states, rtol=1e-7, atol=1e-9)


def test_a_pytree_of_states_is_stiff_as_one():
    def field(t, y):
        x, v = y["x"], y["v"]
        return {"x": v, "v": van_der_pol(t, torch.cat([x, v], -1))[..., 1:]}

    y0 = {"x": torch.tensor([2.0], dtype=F64), "v": torch.tensor([0.0], dtype=F64)}
    tree = ude.solve(ODEProblem(field, y0, (0.0, 100.0)), ude.Rodas5P(), save_at=[100.0], rtol=1e-7).ys
    flat = ude.solve(
        ODEProblem(van_der_pol, torch.tensor([2.0, 0.0], dtype=F64), (0.0, 100.0)),
        ude.Rodas5P(),
        save_at=[100.0],
        rtol=1e-7,
    ).ys
    torch.testing.assert_close(torch.cat([tree["v"], tree["x"]], -1), flat.flip(-1), rtol=1e-10, atol=0.0)


def test_runs_backwards_in_time():
    # Fast growth forwards is fast decay backwards.
    problem = ODEProblem(lambda t, y: 1e5 * (y - torch.sin(t)) + torch.cos(t), torch.ones(1, dtype=F64), (2.0, 0.5))
    solution = ude.solve(problem, ude.Rodas5P(), save_at=[0.5], rtol=1e-7)
    torch.testing.assert_close(solution.ys[0, 0], torch.sin(torch.tensor(0.5, dtype=F64)), rtol=1e-6, atol=0.0)
    assert solution.stats.accepted < 100


class Stiff(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.rates = torch.nn.Parameter(torch.tensor([0.04, 3e3, 1e2], dtype=F64))

    def forward(self, t, y):
        return kinetics(t, y, self.rates)


@pytest.mark.parametrize(
    ("own", "method"),
    [
        pytest.param(False, ude.Rosenbrock23(), marks=pytest.mark.slow),
        pytest.param(True, ude.Rosenbrock23(), marks=pytest.mark.slow),
        pytest.param(False, ude.Rodas5P(), marks=pytest.mark.slow),
    ],
    ids=["computed", "given", "computed, Rodas5P"],
)
def test_compiled_steps_agree_with_eager_ones(own, method):
    model = Stiff()
    given = (lambda t, y: jacobian(t, y, model.rates)) if own else None
    problem = ODEProblem(model, START.expand(2, 3), (0.0, 40.0), batched=True, jacobian=given)
    results = []
    for engine in ("eager", ude.Compiled(unroll=1)):
        solution = ude.solve(problem, method, save_at=[0.5, 40.0], rtol=1e-4, atol=1e-7, engine=engine)
        gradient = torch.autograd.grad(solution.ys.square().sum() + 1e-9 * solution.steps.stiffness.sum(), model.rates)
        results.append((solution, *gradient))
    (eager, expected), (compiled, got) = results
    assert torch.equal(compiled.stats.nfe, eager.stats.nfe)
    torch.testing.assert_close(compiled.ys, eager.ys, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-14)


def test_robertson_conserves_mass_to_rounding():
    # The rows of the Jacobian add up to zero, which linear solves keep.
    solution = ude.solve(ODEProblem(robertson, START, (0.0, 1e5)), ude.Rodas5P(), save_at=[1e5], **OPTIONS)
    assert solution.ys.sum().item() == pytest.approx(1.0, abs=1e-11)


def test_the_default_method_finds_out_that_a_problem_is_stiff():
    problem = ODEProblem(robertson, START, (0.0, 1e4))
    default = ude.solve(problem, save_at=[1e4], **OPTIONS)
    assert default.stats.accepted < 500
    expected = ude.solve(problem, ude.Rodas5P(), save_at=[1e4], **OPTIONS).ys
    torch.testing.assert_close(default.ys, expected, rtol=1e-5, atol=1e-12)


def pendulum(t, y):
    return stack(y[..., 1], -torch.sin(y[..., 0]) + 0.1 * torch.cos(t))


@pytest.mark.parametrize(("explicit", "rtol"), [(ude.Tsit5(), 1e-5), (ude.Vern7(), 1e-8)], ids=lambda x: str(x))
def test_where_nothing_is_stiff_the_default_is_the_explicit_method(explicit, rtol):
    problem = ODEProblem(pendulum, torch.tensor([1.0, 0.0], dtype=F64), (0.0, 20.0))
    times = torch.linspace(0.0, 20.0, 33, dtype=F64)
    default, alone = (ude.solve(problem, method, save_at=times, rtol=rtol) for method in (None, explicit))
    assert torch.equal(default.steps.dt, alone.steps.dt)
    assert torch.equal(default.stats.nfe, alone.stats.nfe)
    # Zeros of the other method take part in the sums between the steps.
    torch.testing.assert_close(default.ys, alone.ys, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("adjoint", [ude.Gauss(), ude.Backsolve()], ids=str)
def test_continuous_adjoints_get_an_explicit_method_by_default(adjoint):
    problem = ODEProblem(lambda t, y: -300.0 * y, torch.ones(1, dtype=F64, requires_grad=True), (0.0, 1.0))
    default, alone = (ude.solve(problem, method, save_at=[1.0], adjoint=adjoint) for method in (None, ude.Tsit5()))
    assert torch.equal(default.steps.dt, alone.steps.dt)


@pytest.mark.parametrize("kind", ["large", "complex"])
def test_large_and_complex_states_stay_with_explicit_steps_by_default(kind):
    y0 = torch.ones(51, dtype=F64) if kind == "large" else torch.ones(2, dtype=torch.complex128)
    problem = ODEProblem(lambda t, y: -200.0 * (y - 1.0) + 0.1 * y, y0, (0.0, 1.0))
    default, alone = (ude.solve(problem, method, save_at=[1.0]) for method in (None, ude.Tsit5()))
    assert torch.equal(default.steps.dt, alone.steps.dt)


def test_a_solve_goes_over_to_implicit_steps_and_back():
    # Relaxation oscillations: slow and stiff, with jumps in between, over two periods.
    problem = ODEProblem(van_der_pol, torch.tensor([2.0, 0.0], dtype=F64), (0.0, 3300.0))
    solution = ude.solve(problem, SWITCH, rtol=1e-5, atol=1e-6)
    speed = (solution.steps.dt * solution.steps.stiffness)[solution.steps.accepted]
    is_implicit = speed > 2 * SWITCH.stability_size
    assert int((is_implicit[1:] != is_implicit[:-1]).sum()) >= 4
    assert solution.stats.accepted < 2000
