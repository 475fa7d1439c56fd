"""Linear solvers of both kinds: values, gradients, transposed systems, failures."""

import pytest
import torch

from ude.ad import jacobian_product, linearise
from ude.nonlinear import GMRES, LU, LinearSolver

F64 = torch.float64
SOLVERS = [LU(), GMRES(), GMRES(restart=3)]


def systems(n, batch=4, dtype=F64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=dtype)  # noqa: E731
    jacobian = draw(batch, n, n) / n - torch.eye(n, dtype=dtype)
    return jacobian, draw(batch).real.abs(), draw(batch, n)


def matrix_of(jacobian, scale):
    return torch.eye(jacobian.shape[-1], dtype=jacobian.dtype) - scale[:, None, None] * jacobian


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_solves_the_system_and_its_transpose_for_every_right_hand_side(solver, n):
    jacobian, scale, b = systems(n)
    system = solver.prepare(jacobian, scale)
    matrix = matrix_of(jacobian, scale)
    # Condition numbers stay below 100.
    for rhs in (b, b.flip(0)):
        torch.testing.assert_close(system.solve(rhs), torch.linalg.solve(matrix, rhs), rtol=1e-8, atol=1e-9)
        expected = torch.linalg.solve(matrix.mT, rhs)
        torch.testing.assert_close(system.solve_transposed(rhs), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
@pytest.mark.parametrize("n", [1, 2, 4])
def test_a_complex_scale_makes_a_complex_system(solver, n):
    jacobian, scale, b = systems(n)
    scale, b = scale * (0.6 + 0.8j), b * (1.0 - 0.5j)
    system, matrix = solver.prepare(jacobian, scale), matrix_of(jacobian, scale)
    torch.testing.assert_close(system.solve(b), torch.linalg.solve(matrix, b), rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(system.solve_transposed(b), torch.linalg.solve(matrix.mH, b), rtol=1e-8, atol=1e-9)
    # Complex numbers on one side only.
    torch.testing.assert_close(system.solve(b.real), torch.linalg.solve(matrix, b.real + 0j), rtol=1e-8, atol=1e-9)
    real, matrix = solver.prepare(jacobian, scale.abs()), matrix_of(jacobian, scale.abs())
    torch.testing.assert_close(real.solve(b), torch.linalg.solve(matrix + 0j, b), rtol=1e-8, atol=1e-9)
    transposed = torch.linalg.solve(matrix.mT + 0j, b)
    torch.testing.assert_close(real.solve_transposed(b), transposed, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_is_the_identity_at_scale_zero(solver):
    jacobian, scale, b = systems(3)
    assert torch.equal(solver.prepare(jacobian, torch.zeros_like(scale)).solve(b), b)


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
@pytest.mark.parametrize("n", [1, 2, 4])
def test_its_gradients_are_right(solver, n):
    inputs = tuple(x.requires_grad_() for x in systems(n, batch=2))

    def solve(jacobian, scale, b):
        # Two right-hand sides, one depending on the solution of the other, as stages do.
        system = solver.prepare(jacobian, scale)
        first = system.solve(b)
        return system.solve(first**2 + b)

    assert torch.autograd.gradcheck(solve, inputs)


@pytest.mark.parametrize("solver", [LU(), GMRES()], ids=str)
def test_gradients_reach_the_parameters_of_a_field(solver):
    t, y = torch.tensor([0.3, -0.2], dtype=F64), torch.tensor([[0.5, -1.0, 0.2], [1.5, 0.3, -0.7]], dtype=F64)
    weight = torch.tensor([[-1.0, 0.4, 0.0], [0.2, -2.0, 0.5], [0.1, 0.0, -0.5]], dtype=F64)
    scale = torch.tensor([0.4, 0.9], dtype=F64)

    def step(weight, y):
        def f(t, y):
            return torch.tanh(y @ weight.T) + torch.sin(t)[:, None] * y

        at = solver.linearise(f, t, y)
        return solver.prepare(at.jacobian, scale).solve(at.value + scale[:, None] * at.rate)

    assert torch.autograd.gradcheck(step, (weight.requires_grad_(), y.requires_grad_()))


@pytest.mark.parametrize(("n", "solver"), [(2, LU()), (3, LU()), (3, GMRES(max_iterations=3))], ids=str)
def test_compiles_into_one_graph(n, solver):
    jacobian, scale, b = systems(n)
    jacobian.requires_grad_()

    def solve(jacobian, scale, b):
        return solver.prepare(jacobian, scale).solve(b)

    compiled = torch.compile(solve, fullgraph=True, backend="aot_eager")(jacobian, scale, b)
    expected = solve(jacobian, scale, b)
    torch.testing.assert_close(compiled, expected, rtol=1e-12, atol=1e-13)
    (got,), (wanted,) = (torch.autograd.grad(x.square().sum(), jacobian) for x in (compiled, expected))
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
@pytest.mark.parametrize("n", [1, 2, 4])
def test_a_singular_system_fails_alone(solver, n):
    jacobian, scale, b = systems(n)
    jacobian[1], scale[1] = torch.eye(n, dtype=F64), 1.0
    jacobian[2] = torch.nan
    x = solver.prepare(jacobian, scale).solve(b)
    assert not bool(x[1].isfinite().all())
    assert not bool(x[2].isfinite().all())
    expected = torch.linalg.solve(matrix_of(jacobian, scale)[[0, 3]], b[[0, 3]])
    torch.testing.assert_close(x[[0, 3]], expected, rtol=1e-8, atol=1e-9)


def test_gmres_gives_up_in_nan():
    jacobian, scale, b = systems(8)
    assert bool(GMRES(max_iterations=2).prepare(jacobian, scale).solve(b).isnan().all())


def test_gmres_needs_as_many_iterations_as_there_are_eigenvalues():
    products = []
    matrix = torch.diag_embed(torch.tensor([[1.0, 1.0, 1.0, 5.0, 5.0, 5.0]], dtype=F64))
    J = jacobian_product(lambda t, y: (matrix @ y.unsqueeze(-1)).squeeze(-1), torch.zeros(1), torch.ones(1, 6).double())

    def counted(v):
        products.append(v)
        return J.forward(v)

    counting = type(J)(counted, J.transposed)
    with torch.no_grad():
        GMRES().prepare(counting, torch.tensor([-1.0], dtype=F64)).solve(torch.ones(1, 6, dtype=F64))
    # Two for the space, one for the residual that is left.
    assert len(products) == 3


def test_lu_asks_for_a_matrix():
    J = jacobian_product(lambda t, y: -y, torch.zeros(1), torch.ones(1, 3))
    with pytest.raises(ValueError, match="matrix"):
        LU().prepare(J, torch.ones(1))


def test_a_solver_is_a_value():
    assert isinstance(LU(), LinearSolver)
    assert isinstance(GMRES(), LinearSolver)
    assert LU() == LU()
    assert hash(GMRES(restart=5)) == hash(GMRES(restart=5))
    with pytest.raises(ValueError, match="restart"):
        GMRES(restart=0)


def test_a_small_system_is_as_accurate_as_one_with_pivots():
    # Rows of very different size, as in chemical kinetics.
    jacobian = torch.tensor([[[-1e9, 1e9], [3.0, -2.0]]], dtype=F64)
    scale, b = torch.tensor([0.1], dtype=F64), torch.tensor([[1.0, 2.0]], dtype=F64)
    closed = LU().prepare(jacobian, scale).solve(b)
    torch.testing.assert_close(closed, torch.linalg.solve(matrix_of(jacobian, scale), b), rtol=1e-13, atol=0.0)


def test_the_jacobian_of_both_is_the_same():
    t, y = torch.zeros(2, dtype=F64), torch.rand(2, 3, dtype=F64)
    f = lambda t, y: torch.sin(y) * y.flip(-1) + t[:, None]  # noqa: E731
    v = torch.rand(2, 3, dtype=F64)
    exact, free = LU().linearise(f, t, y), GMRES().linearise(f, t, y)
    torch.testing.assert_close(
        free.jacobian.forward(v), (exact.jacobian @ v[..., None])[..., 0], rtol=1e-13, atol=1e-14
    )
    torch.testing.assert_close(free.rate, exact.rate, rtol=1e-14, atol=0.0)
    torch.testing.assert_close(linearise(f, t, y).value, free.value, rtol=1e-14, atol=0.0)
