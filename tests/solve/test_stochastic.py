"""Stochastic problems through the door: orders, moments, gradients, steps that are chosen, and mistakes."""

from __future__ import annotations

import math

import pytest
import torch

import ude
from ude.brownian import BrownianGrid, BrownianTree
from ude.regularize import ErrorEstimate, KineticEnergy, StiffnessEstimate

F64 = torch.float64
GROWTH, NOISE = 1.0, 0.6
SRI = (ude.SRIW1(), ude.SOSRI(), ude.SOSRI2())
ITO = (ude.EulerMaruyama(), ude.LambaEM(), ude.Milstein(), ude.Milstein(derivative_free=True), *SRI)
STRATONOVICH = (ude.Milstein("stratonovich"), ude.EulerHeun(), ude.StratonovichHeun(), ude.ReversibleHeun())
ADDITIVE = (ude.SRA1(), ude.SRA3(), ude.SOSRA(), ude.SOSRA2())
STRONG = {"EulerMaruyama": 0.5, "LambaEM": 0.5, "SRIW1": 1.5, "SOSRI": 1.5, "SOSRI2": 1.5}
"""Strong orders with diagonal noise; 1 for all others."""


def at(*times):
    return torch.tensor(times, dtype=F64)


def growing(count=400, path=None, **options):
    return ude.SDEProblem(
        lambda t, y: GROWTH * y, lambda t, y: NOISE * y, torch.ones(count, dtype=F64), (0.0, 1.0), path=path, **options
    )


def grown(path, count, interpretation="ito"):
    w = path.bind(at(0.0), at(1.0), count).wiener(at(0.0), at(1.0))[0]
    return torch.exp(GROWTH - 0.5 * NOISE**2 * (interpretation == "ito") + NOISE * w)


def with_constant_steps(problem, method, dt, **options):
    return ude.solve(problem, method, dt=dt, controller=ude.FixedStep(), save_at=[1.0], dense=False, **options)


def observed_order(problem, method, exact, powers):
    errors = []
    for power in powers:
        solution = with_constant_steps(problem, method, 2.0**-power)
        errors.append(float((solution.ys[-1] - exact).square().mean().sqrt()))
    return math.log2(errors[0] / errors[-1]) / (powers[-1] - powers[0])


@pytest.mark.parametrize("method", [*ITO, *STRATONOVICH], ids=repr)
def test_strong_order_with_diagonal_noise(method):
    path = BrownianTree(11, depth=9)
    problem = growing(2_000, path, interpretation=method.interpretation)
    order = observed_order(problem, method, grown(path, 2_000, method.interpretation), (3, 4, 5, 6))
    assert order == pytest.approx(STRONG.get(str(method), 1.0), abs=0.2)


@pytest.mark.parametrize("method", ADDITIVE, ids=str)
def test_strong_order_with_additive_noise(method):
    path = BrownianTree(12, depth=12)
    problem = ude.SDEProblem(
        lambda t, y: torch.sin(3.0 * y) - y,
        lambda t, y: 1.5 * torch.cos(t) * torch.ones_like(y),
        torch.linspace(-1.0, 1.0, 500, dtype=F64),
        (0.0, 1.0),
        noise="additive",
        path=path,
    )
    exact = with_constant_steps(problem, ude.SRA3(), 2.0**-10).ys[-1]
    assert observed_order(problem, method, exact, (3, 4, 5, 6)) == pytest.approx(1.5, abs=0.2)


@pytest.mark.parametrize(
    ("method", "order"),
    [(ude.EulerMaruyama(), 0.5), (ude.LambaEM(), 0.5), (ude.EulerHeun(), 0.5), (ude.StratonovichHeun(), 0.5)],
    ids=str,
)
def test_strong_order_with_general_noise(method, order):
    path = BrownianTree(13, depth=13)
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=F64)
    stretch = torch.tensor([[0.5, 0.3], [0.3, -0.4]], dtype=F64)
    problem = ude.SDEProblem(
        lambda t, y: -0.5 * y,
        lambda t, y: torch.stack([y @ turn.T, y @ stretch.T], dim=-1),
        torch.ones(400, 2, dtype=F64),
        (0.0, 1.0),
        noise="general",
        interpretation=method.interpretation,
        batched=True,
        path=path,
    )
    exact = with_constant_steps(problem, method, 2.0**-12).ys[-1]
    assert observed_order(problem, method, exact, (3, 4, 5, 6)) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("method", [ude.Milstein(), ude.Milstein("stratonovich"), ude.ReversibleHeun()], ids=repr)
def test_strong_order_with_commutative_noise(method):
    # Both columns are multiples of the state: the exact solution is an exponential.
    path, sizes = BrownianTree(14, depth=9), torch.tensor([0.4, 0.3], dtype=F64)
    problem = ude.SDEProblem(
        lambda t, y: 0.5 * y,
        lambda t, y: y.unsqueeze(-1) * sizes,
        torch.ones(1_000, 1, dtype=F64),
        (0.0, 1.0),
        noise="commutative",
        interpretation=method.interpretation,
        batched=True,
        path=path,
    )
    w = path.bind(torch.zeros(1_000, dtype=F64), torch.ones(1_000, dtype=F64), 2).wiener(
        torch.zeros(1_000, dtype=F64), torch.ones(1_000, dtype=F64)
    )
    drift = 0.5 - 0.5 * float(sizes.square().sum()) * (method.interpretation == "ito")
    exact = torch.exp(drift + w @ sizes).unsqueeze(-1)
    assert observed_order(problem, method, exact, (3, 4, 5, 6)) == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("method", SRI, ids=str)
def test_strong_order_with_scalar_noise(method):
    path = BrownianTree(15, depth=9)
    starts = torch.ones(1_000, 2, dtype=F64)
    problem = ude.SDEProblem(
        lambda t, y: GROWTH * y,
        lambda t, y: NOISE * y,
        starts,
        (0.0, 1.0),
        noise="scalar",
        batched=True,
        path=path,
    )
    ends = torch.zeros(1_000, dtype=F64), torch.ones(1_000, dtype=F64)
    w = path.bind(*ends, 1).wiener(*ends)
    exact = torch.exp(GROWTH - 0.5 * NOISE**2 + NOISE * w).expand(-1, 2)
    assert observed_order(problem, method, exact, (3, 4, 5, 6)) == pytest.approx(1.5, abs=0.2)


@pytest.mark.parametrize("method", [ude.LambaEM(), ude.SRIW1(), ude.SOSRI()], ids=str)
def test_tighter_tolerances_come_nearer_to_the_same_path(method):
    path = BrownianTree(16, depth=16)
    exact, errors, attempts = grown(path, 50), [], []
    for tolerance in (1e-1, 1e-2, 2e-3):
        solution = ude.solve(growing(50, path), method, rtol=tolerance, atol=tolerance, save_at=[1.0])
        errors.append(float((solution.ys[-1] - exact).square().mean().sqrt()))
        attempts.append(int(solution.stats.accepted + solution.stats.rejected))
    assert errors[0] > 1.5 * errors[1] > 2.0 * errors[2]
    assert attempts[0] < attempts[1] < attempts[2]


def test_rejected_steps_stay_on_the_path():
    # Of dy = dW the solution is the path itself, whatever steps are tried on the way.
    path = BrownianTree(17, depth=18)
    problem = ude.SDEProblem(
        lambda t, y: 20.0 * torch.sin(40.0 * t) * torch.ones_like(y),
        lambda t, y: torch.ones_like(y),
        torch.zeros(200, dtype=F64),
        (0.0, 1.0),
        noise="additive",
        path=path,
    )
    solution = ude.solve(problem, ude.SRA1(), rtol=0.0, atol=5e-2, dt=0.5, save_at=[0.4, 1.0])
    assert int(solution.stats.rejected) > 0
    w = path.bind(at(0.0), at(1.0), 200)
    for i, t in enumerate((0.4, 1.0)):
        drift = 0.5 * (1.0 - math.cos(40.0 * t))
        noise = solution.ys[i] - w.wiener(at(0.0), at(t))[0]
        assert float(noise.std()) < 1e-12
        assert float(noise.mean()) == pytest.approx(drift, abs=5e-2)


def test_moments_of_an_ornstein_uhlenbeck_process():
    torch.manual_seed(0)
    problem = ude.SDEProblem(
        lambda t, y: -2.0 * (y - 1.0),
        lambda t, y: 0.5 * torch.ones_like(y),
        torch.zeros(40_000, dtype=F64),
        (0.0, 1.0),
        noise="additive",
    )
    ends = ude.solve(problem, ude.SRA3(), dt=0.05, controller=ude.FixedStep(), save_at=[1.0]).ys[-1]
    assert float(ends.mean()) == pytest.approx(1.0 - math.exp(-2.0), abs=0.01)
    assert float(ends.var()) == pytest.approx(0.25 / 4.0 * (1.0 - math.exp(-4.0)), rel=0.03)


def test_moments_of_a_cox_ingersoll_ross_process():
    torch.manual_seed(1)
    problem = ude.SDEProblem(
        lambda t, y: 1.5 * (0.8 - y),
        lambda t, y: 0.3 * torch.sqrt(y.clamp(min=0.0)),
        torch.full((20_000,), 0.5, dtype=F64),
        (0.0, 1.0),
    )
    ends = ude.solve(problem, ude.SRIW1(), dt=0.02, controller=ude.FixedStep(), save_at=[1.0]).ys[-1]
    decay = math.exp(-1.5)
    variance = 0.5 * 0.09 / 1.5 * (decay - decay**2) + 0.8 * 0.09 / 3.0 * (1.0 - decay) ** 2
    assert float(ends.mean()) == pytest.approx(0.8 - 0.3 * decay, abs=0.005)
    assert float(ends.var()) == pytest.approx(variance, rel=0.04)


@pytest.mark.parametrize("method", [ude.EulerMaruyama(), ude.Milstein(), ude.SOSRI()], ids=str)
def test_gradients_along_a_path_are_those_of_finite_differences(method):
    path = BrownianTree(18, depth=10)

    def end(growth, noise):
        problem = ude.SDEProblem(
            lambda t, y: growth * torch.sin(y), lambda t, y: noise * torch.cos(y), at(0.3, 0.9), (0.0, 1.0), path=path
        )
        return with_constant_steps(problem, method, 0.125).ys[-1]

    assert torch.autograd.gradcheck(end, (at(0.7).requires_grad_(), at(0.4).requires_grad_()))


def test_gradient_of_an_expectation_is_that_of_the_closed_form():
    torch.manual_seed(2)
    growth, noise = at(0.4).requires_grad_(), at(0.5).requires_grad_()
    problem = ude.SDEProblem(
        lambda t, y: growth * y, lambda t, y: noise * y, torch.ones(100_000, dtype=F64), (0.0, 1.0)
    )
    second = ude.solve(problem, ude.SRIW1(), dt=0.1, controller=ude.FixedStep(), save_at=[1.0]).ys[-1].square().mean()
    second.backward()
    moment = math.exp(2.0 * 0.4 + 0.25)
    assert float(second.detach()) == pytest.approx(moment, rel=0.02)
    assert float(growth.grad) == pytest.approx(2.0 * moment, rel=0.03)
    assert float(noise.grad) == pytest.approx(2.0 * 0.5 * moment, rel=0.06)


@pytest.mark.parametrize("options", [{"dt": 0.05, "controller": ude.FixedStep()}, {"rtol": 1e-2}], ids=["grid", "tree"])
def test_checkpoints_see_the_same_path(options):
    gradients = []
    for adjoint in (ude.Direct(), ude.Checkpointed()):
        torch.manual_seed(3)
        rate = at(0.5).requires_grad_()
        problem = ude.SDEProblem(
            lambda t, y, p: p * y, lambda t, y, p: 0.3 * y, torch.ones(4, dtype=F64), (0.0, 1.0), p=rate
        )
        solution = ude.solve(problem, ude.SOSRI(), adjoint=adjoint, save_at=[0.5, 1.0], **options)
        gradients.append((solution.ys.detach(), torch.autograd.grad(solution.ys.sum(), rate)[0]))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0.0)


def test_paths_are_drawn_from_the_generator_of_torch():
    ends = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        ends.append(with_constant_steps(growing(3), ude.EulerMaruyama(), 0.1).ys)
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def test_states_are_saved_on_the_path_between_constant_steps():
    path = BrownianTree(19, depth=12)
    problem = ude.SDEProblem(
        lambda t, y: 0.0 * y, lambda t, y: torch.ones_like(y), at(0.0, 0.0), (0.0, 1.0), noise="additive", path=path
    )
    times = [0.0, 0.13, 0.5, 0.77, 1.0]
    solution = ude.solve(problem, ude.EulerMaruyama(), dt=0.1, save_at=times)
    w = path.bind(at(0.0), at(1.0), 2)
    for t, y in zip(times, solution.ys, strict=True):
        torch.testing.assert_close(y, w.wiener(at(0.0), at(t))[0], rtol=0.0, atol=1e-13)


def test_samples_of_a_batch_have_steps_and_intervals_of_their_own():
    path = BrownianTree(20, depth=16)
    ends = torch.tensor([0.5, 1.0], dtype=F64)
    problem = ude.SDEProblem(
        lambda t, y: y, lambda t, y: 0.4 * y, torch.ones(2, 3, dtype=F64), (0.0, ends), batched=True, path=path
    )
    solution = ude.solve(problem, ude.SRIW1(), rtol=1e-3, atol=1e-3, save_at=torch.stack([0.5 * ends, ends]))
    w = path.bind(at(0.0, 0.0), ends, 3).wiener(at(0.0, 0.0), ends)
    exact = torch.exp((1.0 - 0.08) * ends.unsqueeze(-1) + 0.4 * w)
    torch.testing.assert_close(solution.ys[-1], exact, rtol=2e-3, atol=0.0)
    assert solution.stats.accepted.shape == (2,)


def test_states_may_be_pytrees_and_single_precision():
    y0 = {"a": torch.ones(2, 3), "b": torch.zeros(4)}
    problem = ude.SDEProblem(
        lambda t, y: {"a": y["a"], "b": -y["b"]},
        lambda t, y: {"a": 0.1 * y["a"], "b": torch.ones_like(y["b"])},
        y0,
        (0.0, 1.0),
        p=None,
    )
    solution = ude.solve(problem, ude.SOSRI(), save_at=[1.0])
    assert solution.ys["a"].shape == (1, 2, 3)
    assert solution.ys["b"].dtype == torch.float32
    matrix = ude.SDEProblem(
        lambda t, y, p: p * y,
        lambda t, y, p: torch.ones(3, 2) * p,
        torch.zeros(3),
        (0.0, 1.0),
        noise="additive",
        p=torch.tensor(0.5),
    )
    assert ude.solve(matrix, save_at=[1.0]).ys.shape == (1, 3)


def test_a_path_that_explodes_has_a_status_of_its_own():
    problem = ude.SDEProblem(
        lambda t, y: y**3, lambda t, y: 0.1 * y, torch.tensor([[0.1], [3.0]], dtype=F64), (0.0, 1.0), batched=True
    )
    torch.manual_seed(0)
    solution = ude.solve(problem, ude.SOSRI(), throw=False, save_at=[1.0])
    assert solution.success.tolist() == [True, False]
    assert bool(solution.ys[-1, 0].isfinite())
    with pytest.raises(ude.SolveError, match="Sample 1 of 2 stopped at t = 0"):
        ude.solve(problem, ude.SOSRI())


def test_costs_of_the_trajectory_carry_gradients():
    rate = at(1.0).requires_grad_()
    problem = ude.SDEProblem(lambda t, y: rate * y, lambda t, y: 0.2 * y, torch.ones(3, dtype=F64), (0.0, 1.0))
    solution = ude.solve(problem, ude.SOSRI2(), rtol=1e-1, atol=1e-1)
    cost = ErrorEstimate()(solution) + StiffnessEstimate("mean")(solution) + KineticEnergy(nodes="accepted")(solution)
    (gradient,) = torch.autograd.grad(cost, rate)
    assert float(gradient.abs()) > 0.0
    assert float(StiffnessEstimate("mean")(solution)) == pytest.approx(1.0, rel=1e-6)


class TestMistakes:
    def test_diffusions_of_the_wrong_shape_are_refused(self):
        y = torch.ones(3, dtype=F64)
        for noise, shape in (("diagonal", (3, 2)), ("general", (3,)), ("scalar", (3, 1)), ("additive", (2,))):
            problem = ude.SDEProblem(
                lambda t, y: y, lambda t, y, s=shape: torch.ones(s, dtype=F64), y, (0.0, 1.0), noise
            )
            with pytest.raises(ValueError, match=rf"With `noise=\'{noise}\'` the diffusion must return .*got"):
                ude.solve(problem, ude.EulerMaruyama(), dt=0.1)

    def test_additive_noise_that_depends_on_the_state_is_refused(self):
        problem = growing(noise="additive")
        with pytest.raises(ValueError, match="does not depend on the state, and this one does"):
            ude.solve(problem)

    def test_methods_that_do_not_fit_are_refused(self):
        general = ude.SDEProblem(
            lambda t, y: y,
            lambda t, y: torch.ones(3, 2, dtype=F64) * y[:1],
            torch.ones(3, dtype=F64),
            (0.0, 1.0),
            "general",
        )
        for method in (ude.SOSRI(), ude.Milstein(), ude.SRA1()):
            with pytest.raises(ValueError, match=r"solves problems with noise of the kinds .* got 'general'"):
                ude.solve(general, method, dt=0.1)
        with pytest.raises(ValueError, match="approximates the 'ito' integral"):
            ude.solve(growing(interpretation="stratonovich"), ude.SOSRI())
        with pytest.raises(ValueError, match="needs a method for stochastic equations"):
            ude.solve(growing(), ude.Tsit5())
        with pytest.raises(ValueError, match="is for an `SDEProblem`"):
            ude.solve(ude.ODEProblem(lambda t, y: y, at(1.0), (0.0, 1.0)), ude.SOSRI())
        with pytest.raises(ValueError, match="is for ordinary equations"):
            ude.solve(growing(), ude.SOSRI(), adjoint=ude.Gauss(), save_at=[1.0])

    @pytest.mark.usefixtures("unchecked")
    def test_bad_problems_are_refused(self):
        with pytest.raises(ValueError, match="`noise` must be one of"):
            growing(noise="white")
        with pytest.raises(ValueError, match="`interpretation` must be one of"):
            growing(interpretation="backward")
        with pytest.raises(ValueError, match="`path` must be"):
            growing(path=3)
        backwards = ude.SDEProblem(lambda t, y: y, lambda t, y: y, at(1.0), (1.0, 0.0))
        with pytest.raises(ValueError, match="runs forward in time"):
            ude.solve(backwards)
        with pytest.raises(ValueError, match="real state"):
            ude.solve(ude.SDEProblem(lambda t, y: y, lambda t, y: y, at(1.0) + 0j, (0.0, 1.0)))
        with pytest.raises(ValueError, match=r"`BrownianGrid` needs constant steps"):
            ude.solve(growing(path=BrownianGrid(0)), ude.SOSRI())

    def test_steps_finer_than_the_path_are_refused(self):
        with pytest.raises(ude.SolveError, match=r"BrownianTree\(seed, depth"):
            ude.solve(growing(5, BrownianTree(0, depth=6)), ude.SOSRI(), rtol=1e-4, atol=1e-4)


@pytest.mark.slow  # compiling takes its time
@pytest.mark.parametrize(
    ("method", "options"),
    [(ude.EulerMaruyama(), {"dt": 0.05}), (ude.SOSRI(), {"rtol": 1e-2, "atol": 1e-2})],
    ids=["grid", "tree"],
)
def test_compiled_steps_follow_the_same_path(method, options):
    problem = ude.SDEProblem(
        lambda t, y: -y,
        lambda t, y: 0.3 * y,
        torch.ones(8, 2, dtype=F64),
        (0.0, 1.0),
        batched=True,
        path=None if "dt" in options else BrownianTree(3, depth=12),
    )
    solutions = []
    for engine in ("eager", "compiled"):
        torch.manual_seed(4)
        solutions.append(ude.solve(problem, method, save_at=[0.5, 1.0], engine=engine, **options))
    eager, compiled = solutions
    assert torch.equal(eager.stats.accepted, compiled.stats.accepted)
    # Rounding of the time, which chosen steps pass on, moves a rough path by much more than rounding.
    torch.testing.assert_close(eager.ys, compiled.ys, rtol=1e-6, atol=0.0)
