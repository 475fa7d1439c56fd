"""Methods that iterate, through the door: stiff problems against SciPy, gradients, engines, batches."""

import functools
import sys
from pathlib import Path

import pytest
import torch
from scipy.integrate import solve_ivp

import ude
from ude.methods import BDF, TRBDF2, KenCarp3, KenCarp4, Kvaerno3, Kvaerno4, Kvaerno5, RadauIIA5
from ude.nonlinear import GMRES
from ude.problems import ODEProblem

sys.path.insert(0, str(Path(__file__).parent))
from stiff_problems import e5, hires, oregonator, robertson, van_der_pol

F64 = torch.float64


def stiff_linear(t, y):
    return y @ torch.tensor([[-1e6, 1e6 - 2.0], [0.0, -2.0]], dtype=F64).T


def prothero_robinson(t, y):
    return -1e6 * (y - torch.cos(t)) - torch.sin(t)


def heat(t, y):
    """Heat in a rod by lines, 20 cells, with a source that moves in time; both ends are kept at zero."""
    padded = torch.nn.functional.pad(y, (1, 1))
    x = torch.linspace(0.05, 0.95, 20, dtype=y.dtype)
    return 441.0 * (padded[..., 2:] - 2 * y + padded[..., :-2]) + torch.sin(3.0 * x + t)


def brusselator(t, y):
    """The Brusselator with diffusion by lines, 8 cells for each of two species; the ends are kept at rest."""
    u, v = y.unflatten(-1, (2, 8)).unbind(-2)

    def spread(w, end):
        padded = torch.nn.functional.pad(w, (1, 1), value=end)
        return 1.62 * (padded[..., 2:] - 2 * w + padded[..., :-2])

    return torch.cat([1 + u * u * v - 4 * u + spread(u, 1.0), 3 * u - u * u * v + spread(v, 3.0)], -1)


def forced(t, y):
    """Kaps' problem, its fast rate changing in time."""
    a, b = y.unbind(-1)
    fast = 1e4 * (1.0 + torch.sin(5.0 * t) ** 2)
    return torch.stack([-(fast + 2.0) * a + fast * b * b, a - b - b * b], -1)


# Vector field, initial state, end, absolute tolerance of a solve with rtol = 1, after the size of the smallest parts.
PROBLEMS = {
    "Robertson": (robertson, [1.0, 0.0, 0.0], 1e5, [1.0, 1e-5, 1.0]),
    "van der Pol": (van_der_pol, [2.0, 0.0], 1000.0, [1.0, 1.0]),
    "HIRES": (hires, [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0057], 50.0, [1e-3] * 8),
    "Oregonator": (oregonator, [1.0, 2.0, 3.0], 25.0, [1.0, 1.0, 1.0]),
    "stiff linear": (stiff_linear, [2.0, 1.0], 1.0, [1e-3, 1e-3]),
    "Prothero-Robinson": (prothero_robinson, [1.0], 3.0, [1e-3]),
    "E5": (e5, [1.76e-3, 0.0, 0.0, 0.0], 1e5, [1e-3, 1e-14, 1e-14, 1e-14]),
    "heat": (heat, [0.0] * 20, 2.0, [1e-2] * 20),
    "Brusselator": (brusselator, [1.2, 1.6, 1.9, 2.0, 2.0, 1.9, 1.6, 1.2] + [3.0] * 8, 4.0, [1e-2] * 16),
    "forced Kaps": (forced, [1.0, 1.0], 2.0, [1e-2, 1e-2]),
}


@functools.cache
def reference(name):
    field, y0, end, atol = PROBLEMS[name]
    # The tightest tolerance SciPy's methods follow on all of these; LSODA takes a tenth of the time of Radau, and on
    # a fast rate that changes all the time ten times as long.
    solution = solve_ivp(
        lambda t, y: field(torch.tensor(t, dtype=F64), torch.from_numpy(y)).numpy(),
        (0.0, end),
        y0,
        "Radau" if name == "forced Kaps" else "LSODA",
        rtol=1e-11,
        atol=[1e-11 * x for x in atol],
    )
    return torch.from_numpy(solution.y[:, -1])


def solve(name, method, rtol):
    field, y0, end, atol = PROBLEMS[name]
    problem = ODEProblem(field, torch.tensor(y0, dtype=F64), (0.0, end))
    with torch.no_grad():
        return ude.solve(problem, method, save_at=[end], rtol=rtol, atol=rtol * torch.tensor(atol, dtype=F64))


METHODS = [Kvaerno5(), RadauIIA5(), BDF()]
QUICK = ["Robertson", "stiff linear", "Prothero-Robinson", "E5", "heat", "Brusselator", "forced Kaps"]


def error_in_tolerances(name, method, rtol):
    solution, expected = solve(name, method, rtol), reference(name)
    allowed = rtol * (expected.abs() + torch.tensor(PROBLEMS[name][3], dtype=F64))
    return ((solution.ys[-1] - expected).abs() / allowed).max().item()


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("name", QUICK)
def test_agrees_with_scipy_on_stiff_problems(name, method):
    # Local errors of at most one tolerance add up over the steps; contraction forgets most of them.
    assert error_in_tolerances(name, method, 1e-7) < 15.0


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("name", [name for name in PROBLEMS if name not in QUICK])
def test_agrees_with_scipy_on_relaxation_oscillations_and_chemistry(name, method):
    # Phase errors of the oscillators are not contracted.
    assert error_in_tolerances(name, method, 1e-7) < 60.0


@pytest.mark.slow
@pytest.mark.parametrize("method", [TRBDF2(), Kvaerno3(), KenCarp3(), Kvaerno4(), KenCarp4()], ids=str)
@pytest.mark.parametrize("name", ["Robertson", "HIRES", "E5", "forced Kaps"])
def test_every_pair_agrees_with_scipy(name, method):
    # Pairs of low order leave global errors of more tolerances, since their estimate is that of the lower order.
    assert error_in_tolerances(name, method, 1e-5) < 100.0


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_tighter_tolerances_give_smaller_errors(method):
    errors = [rtol * error_in_tolerances("heat", method, rtol) for rtol in (1e-4, 1e-8)]
    assert errors[1] < 1e-3 * errors[0]


def pendulum(t, y, p):
    """A forced relaxation oscillator with a stiff filter behind it."""
    x, v, w = y.unbind(-1)
    time = t.reshape(x.shape) if t.ndim else t
    return torch.stack(
        [v, p[0] * (1 - x * x) * v - x + p[1] * torch.cos(time) * w, -50 * (w - torch.sin(x * p[1]))], -1
    )


def fixed(y0, p, method):
    problem = ODEProblem(pendulum, y0, (0.0, 0.6), p=p)
    # The tolerances let the iterations go on until differences of 1e-6 see a smooth function.
    options = {"dt": 0.06, "controller": ude.FixedStep(), "rtol": 1e-10, "atol": 1e-11}
    return ude.solve(problem, method, save_at=[0.25, 0.6], **options).ys


GRADIENT_METHODS = [
    TRBDF2(),
    Kvaerno5(),
    RadauIIA5(),
    BDF(),
    pytest.param(Kvaerno3(linear_solver=GMRES(rtol=1e-13)), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("method", GRADIENT_METHODS, ids=str)
def test_gradients_in_state_and_parameters_are_those_of_the_steps(method):
    y0 = torch.tensor([1.0, 0.3, 0.2], dtype=F64, requires_grad=True)
    p = torch.tensor([3.0, 0.7], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y0, p: fixed(y0, p, method), (y0, p), rtol=1e-5, atol=1e-7)


def relaxation(weight, method, rtol, adjoint):
    rates = torch.tensor([1.0, 100.0, 1e4], dtype=F64)
    field = lambda t, y: -rates * (y - torch.tanh(y @ weight.T) * torch.cos(t))  # noqa: E731
    problem = ODEProblem(field, torch.tensor([1.0, 0.5, -0.5], dtype=F64), (0.0, 0.5))
    return ude.solve(problem, method, save_at=[0.2, 0.5], rtol=rtol, atol=rtol / 10, adjoint=adjoint).ys.square().sum()


def random_matrix(seed):
    return torch.randn(3, 3, dtype=F64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("method", "rtol"),
    [
        (Kvaerno5(), 1e-8),
        pytest.param(RadauIIA5(), 1e-7, marks=pytest.mark.slow),
        pytest.param(BDF(), 1e-9, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_the_gradient_of_an_adaptive_solve_agrees_with_finite_differences(method, rtol):
    weight, direction, h = (0.5 * random_matrix(0)).requires_grad_(), random_matrix(1), 1e-2
    (gradient,) = torch.autograd.grad(relaxation(weight, method, rtol, ude.Direct()), weight)
    with torch.no_grad():
        values = [relaxation(weight + s * h * direction, method, rtol, ude.Direct()) for s in (1, -1, 2, -2)]
    # Fourth-order differences, since the tolerances forbid short ones.
    expected = (8 * (values[0] - values[1]) - (values[2] - values[3])) / (12 * h)
    assert (gradient * direction).sum().item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_checkpointed_gradient_is_the_direct_one(method):
    weight = (0.5 * random_matrix(0)).requires_grad_()
    gradients = [
        torch.autograd.grad(relaxation(weight, method, 1e-4, adjoint), weight)[0]
        for adjoint in (ude.Direct(), ude.Checkpointed())
    ]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-14)


def test_a_second_derivative_is_refused():
    y0 = torch.tensor([1.0, 0.3, 0.2], dtype=F64, requires_grad=True)
    ys = fixed(y0, torch.tensor([3.0, 0.7], dtype=F64), Kvaerno3())
    (first,) = torch.autograd.grad(ys.sum(), y0, create_graph=True)
    with pytest.raises(RuntimeError, match="can be differentiated once"):
        torch.autograd.grad(first.sum(), y0)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_samples_of_a_batch_have_their_own_steps_ends_and_directions(method):
    mu = torch.tensor([1.0, 30.0, 300.0], dtype=F64)

    def field(t, y, mu):
        x, v = y.unbind(-1)
        return torch.stack([v, mu * (1 - x * x) * v - x], -1)

    y0 = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0]], dtype=F64)
    ends = torch.tensor([-1.5, 8.0, 60.0], dtype=F64)
    with torch.no_grad():
        together = ude.solve(ODEProblem(field, y0, (0.0, ends), p=mu, batched=True), method, rtol=1e-6, atol=1e-8)
        for i in range(3):
            alone = ude.solve(ODEProblem(field, y0[i], (0.0, float(ends[i])), p=mu[i]), method, rtol=1e-6, atol=1e-8)
            assert int(together.stats.accepted[i]) == int(alone.stats.accepted)
            # The same operations on other shapes: equal to rounding, which a thousandfold stiffness amplifies.
            torch.testing.assert_close(together.ys[-1, i], alone.ys[-1], rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_dense_output_follows_the_solution(method):
    field, y0, end, _ = PROBLEMS["forced Kaps"]
    with torch.no_grad():
        solution = ude.solve(ODEProblem(field, torch.tensor(y0, dtype=F64), (0.0, end)), method, rtol=1e-7, atol=1e-9)
    ts = torch.linspace(0.0, end, 41, dtype=F64)
    # The exact solution, whatever the fast rate is: y1 = y2^2, y2 = exp(-t).
    exact = torch.stack([torch.exp(-2 * ts), torch.exp(-ts)], -1)
    torch.testing.assert_close(solution(ts), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_the_user_s_jacobian_is_used(method):
    calls = []

    def jacobian(t, y):
        calls.append(t)
        return torch.tensor([[-1e6, 1e6 - 2.0], [0.0, -2.0]], dtype=F64)

    _, y0, end, _ = PROBLEMS["stiff linear"]
    problem = ODEProblem(stiff_linear, torch.tensor(y0, dtype=F64), (0.0, end), jacobian=jacobian)
    with torch.no_grad():
        solution = ude.solve(problem, method, save_at=[end], rtol=1e-9, atol=1e-11)
    attempts = int(solution.stats.accepted + solution.stats.rejected)
    # Once per attempt (less often if it is kept), and once at the door.
    assert 3 < len(calls) <= attempts + 1
    torch.testing.assert_close(solution.ys[-1], reference("stiff linear"), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_single_precision_reaches_its_own_tolerances(method):
    field, y0, end, _ = PROBLEMS["Brusselator"]
    problem = ODEProblem(field, torch.tensor(y0), (0.0, end))
    with torch.no_grad():
        solution = ude.solve(problem, method, save_at=[end], rtol=1e-4, atol=1e-6)
    assert solution.ys.dtype == torch.float32
    torch.testing.assert_close(solution.ys[-1].double(), reference("Brusselator"), rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "most"), [(TRBDF2(), 6), (Kvaerno5(), 19), (RadauIIA5(), 10), (BDF(), 2.5)], ids=str
)
def test_an_attempt_takes_at_most_three_iterations_of_every_stage(method, most):
    calls = []

    def field(t, y):
        calls.append(t)
        return robertson(t, y)

    problem = ODEProblem(field, torch.tensor([1.0, 0.0, 0.0], dtype=F64), (0.0, 1e5))
    with torch.no_grad():
        solution = ude.solve(problem, method, save_at=[1e5], rtol=1e-5, atol=torch.tensor([1e-6, 1e-10, 1e-6]).double())
    assert len(calls) / int(solution.stats.accepted + solution.stats.rejected) < most


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_solve_goes_on_after_an_event_from_the_new_state(method):
    doses = ude.PresetTimes(torch.tensor([1.0], dtype=F64), lambda t, y: y + 1.0)
    decay = ODEProblem(lambda t, y: -100.0 * (y - torch.cos(t)), torch.ones(1, dtype=F64), (0.0, 1.02))
    with torch.no_grad():
        ends = [
            ude.solve(decay, method, save_at=[1.02], rtol=1e-9, atol=1e-10, events=events).ys[-1, 0]
            for events in ([], [doses])
        ]
    # The dose decays by exp(-2) in the time that is left.
    assert (ends[1] - ends[0]).item() == pytest.approx(0.1353352832, abs=1e-7)


def test_the_loop_takes_the_steps_that_a_method_proposes():
    with torch.no_grad():
        steps = solve("HIRES", BDF(), 1e-6).steps
    lengths = steps.dt[steps.accepted]
    kept = (lengths[1:] == lengths[:-1]).double().mean().item()
    # Every length is kept for one step more than the order; the last step is what is left.
    assert kept > 0.5


def test_a_complex_problem_is_refused():
    problem = ODEProblem(lambda t, y: 1j * y, torch.ones(1, dtype=torch.complex128), (0.0, 1.0))
    with pytest.raises(ValueError, match="view_as_real"):
        ude.solve(problem, Kvaerno3())


@pytest.mark.slow
@pytest.mark.parametrize("method", [Kvaerno3(), Kvaerno5(), RadauIIA5()], ids=str)
def test_engines_agree_in_values_and_gradients(method):
    results = []
    for engine in (ude.Compiled(unroll=1), "eager"):
        y0 = torch.tensor([[1.0, 0.3, 0.2], [0.5, 1.0, 0.3]], dtype=F64, requires_grad=True)
        p = torch.tensor([3.0, 0.7], dtype=F64, requires_grad=True)
        problem = ODEProblem(pendulum, y0, (0.0, 1.0), p=p, batched=True)
        solution = ude.solve(problem, method, save_at=[0.3, 1.0], rtol=1e-6, atol=1e-8, engine=engine)
        results.append((solution, torch.autograd.grad(solution.ys.square().sum(), (y0, p))))
    (got, gradients), (expected, wanted) = results
    assert torch.equal(got.stats.accepted, expected.stats.accepted)
    # The same operations in another order of rounding.
    torch.testing.assert_close(got.ys, expected.ys, rtol=1e-11, atol=1e-12)
    for a, b in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.slow
def test_engines_agree_within_the_tolerance_for_a_method_that_keeps_its_jacobian_only_eagerly():
    results = []
    for engine in (ude.Compiled(unroll=1), "eager"):
        y0 = torch.tensor([[1.0, 0.3, 0.2], [0.5, 1.0, 0.3]], dtype=F64, requires_grad=True)
        problem = ODEProblem(pendulum, y0, (0.0, 1.0), p=torch.tensor([3.0, 0.7], dtype=F64), batched=True)
        solution = ude.solve(problem, BDF(), save_at=[0.3, 1.0], rtol=1e-6, atol=1e-8, engine=engine)
        results.append((solution.ys, *torch.autograd.grad(solution.ys.square().sum(), y0)))
    for got, expected in zip(*results, strict=True):
        # Newton's method may leave 1 % of the tolerance in each of 80 steps.
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
