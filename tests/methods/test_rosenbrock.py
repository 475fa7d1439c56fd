"""Steps of every Rosenbrock method: order conditions, order, error estimate, stability, dense output, derivatives."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from ude.methods import ROSENBROCK, Method, Rodas4, Rodas5P, Rosenbrock, Rosenbrock23
from ude.methods.rooted_trees import trees
from ude.nonlinear import GMRES, LU

F64 = torch.float64
# Coefficients of up to 166 with 16 digits.
ROUNDING = 5e-14
# Below this a condition of the next order would count as satisfied, and the stated order as too low.
VIOLATED = 1e-3
# Steps over [0, 5] for which the error is asymptotic and stays above 1e-12.
STEPS = {2: (320, 640, 1280), 4: (40, 80, 160), 5: (160, 200, 240, 320)}


def numbers(*values, dtype=F64):
    return torch.tensor(values, dtype=dtype)


def growth(t, y):
    return y * torch.cos(t)[:, None]


def riccati(t, y):
    """y' = -y^2 cos t / 2 + cos t / 2, y = tanh(sin(t) / 2 + 1/2): not linear, not autonomous."""
    return 0.5 * (1.0 - y**2) * torch.cos(t)[:, None]


def riccati_solution(t):
    return math.tanh(0.5 * math.sin(t) + 0.5)


def slope_of(errors, steps):
    """Order seen in a least-squares line through log(error) over log(1/steps)."""
    x, y = [math.log(n) for n in steps], [math.log(error) for error in errors]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return -sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)


def root_mean_square(values):
    return math.sqrt(sum(value**2 for value in values) / len(values))


def constant_steps(method, f, exact, n, end):
    """Errors after each of n constant steps from the exact state, and the error estimates."""
    y, dt = numbers(exact(0.0))[:, None], numbers(end / n)
    errors, estimates = [], []
    for i in range(n):
        result = method.step(f, numbers(i * end / n), dt, y, ())
        y = result.y1
        errors.append(y.item() - exact((i + 1) * end / n))
        estimates.append(result.error.item())
    return errors, estimates


@pytest.mark.parametrize("method", ROSENBROCK, ids=str)
def test_the_solution_has_its_order_and_no_more(method):
    tableau = method.tableau
    for n in range(1, method.order + 1):
        assert max(abs(tableau.residual(tableau.b, tree)) for tree in trees(n)) < ROUNDING
    assert max(abs(tableau.residual(tableau.b, tree)) for tree in trees(method.order + 1)) > VIOLATED


@pytest.mark.parametrize("method", ROSENBROCK, ids=str)
def test_the_embedded_solution_has_its_order_and_no_more(method):
    tableau = method.tableau
    embedded = [b - e for b, e in zip(tableau.b, tableau.b_err, strict=True)]
    for n in range(1, tableau.embedded_order + 1):
        assert max(abs(tableau.residual(embedded, tree)) for tree in trees(n)) < ROUNDING
    assert max(abs(tableau.residual(embedded, tree)) for tree in trees(tableau.embedded_order + 1)) > VIOLATED


@pytest.mark.parametrize("theta", [0.0, 0.1, 0.37, 0.5, 0.81, 1.0])
@pytest.mark.parametrize("method", ROSENBROCK, ids=str)
def test_dense_output_satisfies_the_continuous_order_conditions(method, theta):
    tableau = method.tableau
    weights = method.dense_weights(numbers(theta))[:, 0].tolist()
    for n in range(1, tableau.dense_order + 1):
        assert max(abs(tableau.residual(weights, tree, theta)) for tree in trees(n)) < 1e-13


@pytest.mark.parametrize("method", ROSENBROCK, ids=str)
def test_wrong_coefficients_are_refused(method):
    b = list(method.tableau.b)
    b[0] += 1e-6
    with pytest.raises(ValueError, match="do not have order"):
        replace(method.tableau, b=tuple(b))
    with pytest.raises(ValueError, match="stages"):
        replace(method.tableau, b_err=method.tableau.b_err[1:])


@pytest.mark.parametrize("method", ROSENBROCK, ids=str)
def test_is_l_stable(method):
    assert abs(method.tableau.gain_at_infinity) < 1e-12

    def gain(z):
        """|y1 / y| of y' = z y / dt, as a rotation and contraction of the plane."""
        matrix = torch.stack([torch.stack([z.real, -z.imag], -1), torch.stack([z.imag, z.real], -1)], -2)
        y = numbers(1.0, 0.0).expand(len(z), 2)
        f = lambda t, y: (matrix @ y.unsqueeze(-1)).squeeze(-1)  # noqa: E731
        result = method.step(f, torch.zeros_like(z.real), torch.ones_like(z.real), y, ())
        return torch.linalg.vector_norm(result.y1, dim=-1)

    # The boundary of the left half plane, by the maximum principle, up to where the gain has fallen for good.
    imaginary = torch.logspace(-3, 6, 400, dtype=F64) * 1j
    assert bool((gain(imaginary) <= 1 + 1e-12).all())
    assert gain(numbers(-1e9).to(torch.complex128)).item() < 1e-6


@pytest.mark.parametrize("problem", [(growth, lambda t: math.exp(math.sin(t))), (riccati, riccati_solution)])
@pytest.mark.parametrize("method", ROSENBROCK, ids=str)
def test_converges_at_its_stated_order(method, problem):
    steps = STEPS[method.order]
    runs = [constant_steps(method, *problem, n, 5.0) for n in steps]
    assert slope_of([root_mean_square(errors) for errors, _ in runs], steps) == pytest.approx(method.order, abs=0.15)
    estimated = slope_of([root_mean_square(estimates) for _, estimates in runs], steps)
    assert estimated == pytest.approx(method.error_order, abs=0.15)


@pytest.mark.parametrize("method", ROSENBROCK, ids=str)
def test_the_local_error_of_dense_output_has_the_stated_order(method):
    start, theta = numbers(*[0.1 * i for i in range(60)]), numbers(0.2, 0.5, 0.7)
    lengths = {2: (0.04, 0.02, 0.01), 3: (0.1, 0.05, 0.025), 4: (0.1, 0.05, 0.025)}[method.dense_order]
    exact = lambda t: torch.tanh(0.5 * torch.sin(t) + 0.5)  # noqa: E731
    errors = []
    for h in lengths:
        y = exact(start)[:, None]
        result = method.step(riccati, start, torch.full_like(start, h), y, ())
        stages = torch.stack(method.dense_stages(riccati, start, start, y, result))[..., 0]
        states = y.T + h * method.dense_weights(theta).T @ stages
        errors.append((states - exact(start + theta[:, None] * h)).norm().item())
    slope = slope_of(errors, [1 / h for h in lengths])
    assert slope == pytest.approx(method.dense_order + 1, abs=0.2)


@pytest.mark.parametrize("method", ROSENBROCK, ids=str)
def test_dense_output_starts_at_the_state_and_ends_at_the_solution(method):
    t, dt, y = numbers(0.3), numbers(0.2), numbers(0.4)[:, None]
    result = method.step(riccati, t, dt, y, ())
    weights = method.dense_weights(numbers(0.0, 1.0))
    states = y + dt * weights.T @ torch.stack(result.stages)[:, 0]
    torch.testing.assert_close(states, torch.cat([y, result.y1]), rtol=1e-13, atol=0.0)


# Order seen in y' = -(y - cos t) / epsilon - sin t over constant steps that are long against epsilon: less than the
# 4 and 5 of problems that are not stiff, which is known as order reduction.
REDUCED = {"Rosenbrock23": 2.0, "Rodas4": 1.0, "Rodas5P": 3.0}


@pytest.mark.parametrize("method", ROSENBROCK, ids=str)
def test_order_reduction_on_the_problem_of_prothero_and_robinson(method):
    def errors(rate):
        stiff = lambda t, y: -rate * (y - torch.cos(t)[:, None]) - torch.sin(t)[:, None]  # noqa: E731
        return [root_mean_square(constant_steps(method, stiff, math.cos, n, 4.0)[0]) for n in (32, 64, 128)]

    moderate, stiff = errors(1e4), errors(1e6)
    assert slope_of(stiff, (32, 64, 128)) == pytest.approx(REDUCED[str(method)], abs=0.15)
    # The error of stiffly accurate methods vanishes with epsilon.
    ratio = 1.0 if method == Rosenbrock23() else 100.0
    assert moderate[0] / stiff[0] == pytest.approx(ratio, rel=0.1)


@pytest.mark.parametrize("method", ROSENBROCK, ids=str)
def test_is_a_method_with_a_readable_name_and_makes_the_stated_evaluations(method):
    assert isinstance(method, Method)
    assert str(method) == type(method).__name__
    assert method == type(method)()
    assert hash(method) == hash(type(method)())
    calls = []

    def f(t, y):
        calls.append(y)
        return growth(t, y)

    t, dt, y = numbers(0.3), numbers(0.1), numbers(2.0)[:, None]
    result = method.step(f, t, dt, y, method.init(f, t, y))
    assert len(calls) == method.evaluations + method.init_evaluations
    stages = method.dense_stages(f, t, dt, y, result)
    assert len(calls) == method.evaluations
    assert len(stages) == len(method.dense_weights(numbers(0.5)))


def field(weight):
    return lambda t, y: torch.tanh(y @ weight.T) * torch.cos(t)[:, None] - y**3


def weights(n, seed=0):
    return torch.randn(n, n, dtype=F64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("method", ROSENBROCK, ids=str)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_each_sample_has_its_own_time_and_step_forwards_backwards_or_none(method, n):
    f = field(weights(n))
    t, dt, y = numbers(0.0, 1.0, 2.0), numbers(0.1, -0.2, 0.0), torch.rand(3, n, dtype=F64)
    together = method.step(f, t, dt, y, ())
    for i in range(3):
        one = slice(i, i + 1)
        alone = method.step(f, t[one], dt[one], y[one], ())
        torch.testing.assert_close(together.y1[one], alone.y1, rtol=1e-13, atol=1e-15)
    assert torch.equal(together.y1[2], y[2])
    assert all(bool(x.isfinite().all()) for x in together.stages)
    backwards = method.step(lambda t, y: -f(-t, y), -t, -dt, y, ())
    torch.testing.assert_close(backwards.y1, together.y1, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("method", ROSENBROCK, ids=str)
def test_keeps_single_precision(method):
    y = torch.rand(2, 3)
    result = method.step(field(weights(3).float()), torch.zeros(2), torch.full((2,), 0.1), y, ())
    assert {x.dtype for x in (result.y1, result.error, result.stiffness, *result.stages)} == {torch.float32}
    double = method.step(field(weights(3)), numbers(0.0, 0.0), numbers(0.1, 0.1), y.double(), ())
    torch.testing.assert_close(result.y1.double(), double.y1, rtol=1e-5, atol=1e-6)


def test_a_complex_state_is_refused():
    with pytest.raises(ValueError, match="real state"):
        Rodas5P().step(lambda t, y: -y, numbers(0.0), numbers(0.1), torch.ones(1, 1, dtype=torch.complex128), ())


def differentiated():
    """Every method with either solver; without a matrix, where it takes seconds, one of each size in the first job."""
    first = {(Rosenbrock23, 1), (Rodas4, 2), (Rosenbrock23, 3)}
    for n, kind, solver in itertools.product((1, 2, 3), (Rosenbrock23, Rodas4, Rodas5P), (LU(), GMRES())):
        slow = solver != LU() and (kind, n) not in first
        yield pytest.param(kind, n, solver, marks=pytest.mark.slow if slow else ())


@pytest.mark.parametrize(("kind", "n", "solver"), list(differentiated()), ids=str)
def test_the_result_of_a_step_differentiates(kind, n, solver):
    method = kind(linear_solver=solver)

    def everything(t, dt, y, weight):
        result = method.step(field(weight), t, dt, y, ())
        # Without a matrix the stiffness is that of a constant direction.
        stiffness = (result.stiffness,) if solver == LU() else ()
        return result.y1, result.error, *stiffness

    y = torch.rand(2, n, dtype=F64, generator=torch.Generator().manual_seed(3))
    inputs = tuple(x.requires_grad_() for x in (numbers(0.3, 0.4), numbers(0.5, 0.7), y, weights(n)))
    assert torch.autograd.gradcheck(everything, inputs, check_forward_ad=solver == LU())


def test_a_step_with_a_dense_solver_differentiates_twice():
    def step(y, weight):
        return Rodas4().step(field(weight), numbers(0.3), numbers(0.5), y, ()).y1

    y = torch.rand(1, 3, dtype=F64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    assert torch.autograd.gradgradcheck(step, (y, weights(3).requires_grad_()))


@pytest.mark.parametrize("method", ROSENBROCK, ids=str)
def test_without_a_matrix_the_step_is_the_same(method):
    free = type(method)(linear_solver=GMRES())
    # Longer steps from some starts blow up beyond 1e100, where nothing agrees.
    t, dt, y = numbers(0.3, 0.4), numbers(0.05, -0.07), torch.rand(2, 4, dtype=F64)
    f = field(weights(4))
    for a, b in zip(free.step(f, t, dt, y, ())[:2], method.step(f, t, dt, y, ())[:2], strict=True):
        # Each of the solves is good to 1e-10.
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("solver", [LU(), GMRES(rtol=1e-13)], ids=str)
def test_stiffness_is_at_least_the_largest_rate(solver):
    matrix = torch.diag(numbers(-1.0, -10.0, -1e4))
    f = lambda t, y: y @ matrix.T  # noqa: E731
    step = Rodas5P(linear_solver=solver).step(f, numbers(0.0), numbers(1e-3), torch.ones(1, 3, dtype=F64), ())
    assert step.stiffness.item() == pytest.approx(1e4, rel=1e-2)


@pytest.mark.parametrize(
    ("method", "n"),
    [(Rosenbrock23(), 3), (Rosenbrock23(), 2), pytest.param(Rodas5P(), 2, marks=pytest.mark.slow)],
    ids=str,
)
def test_a_step_compiles_into_one_graph(method, n):
    f = field(weights(n))

    def everything(t, dt, y):
        result = method.step(f, t, dt, y, method.init(f, t, y))
        return result.y1, result.error, result.stiffness, method.dense_weights(t)

    t, dt, y = numbers(0.3, 0.4), numbers(0.1, 0.2), torch.rand(2, n, dtype=F64, requires_grad=True)
    compiled = torch.compile(everything, fullgraph=True, backend="aot_eager")(t, dt, y)
    torch.testing.assert_close(compiled, everything(t, dt, y), rtol=1e-11, atol=1e-13)
    (gradient,) = torch.autograd.grad(compiled[0].sum(), y)
    (expected,) = torch.autograd.grad(everything(t, dt, y)[0].sum(), y)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-14)


def test_vmap_over_a_step_equals_a_loop():
    t, dt, y = numbers(0.3, 0.4), numbers(0.1, 0.2), torch.rand(2, 3, dtype=F64)

    def advance(rate):
        return Rodas5P().step(lambda t, y: rate * growth(t, y) - y**2, t, dt, y, ()).y1

    rates = numbers(-1.0, 0.5, 3.0)
    mapped = torch.func.vmap(advance)(rates)
    torch.testing.assert_close(mapped, torch.stack([advance(rate) for rate in rates]), rtol=1e-13, atol=1e-14)


def test_own_coefficients_make_a_method():
    linearly_implicit_euler = Rosenbrock(
        type(Rodas4().tableau)(
            name="LinearlyImplicitEuler",
            gamma=1.0,
            a=((),),
            c=((),),
            b=(1.0,),
            order=1,
            b_err=(0.0,),
            embedded_order=1,
            dense=((1.0,),),
            dense_order=1,
        )
    )
    step = linearly_implicit_euler.step(lambda t, y: -3.0 * y, numbers(0.0), numbers(0.5), numbers(1.0)[:, None], ())
    assert step.y1.item() == pytest.approx(1 / 2.5, rel=1e-15)
