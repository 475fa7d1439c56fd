"""Newton's method with a frozen matrix: roots, samples by themselves, failure, derivatives."""

import pytest
import torch

from ude.nonlinear import Newton, attach_root

F64 = torch.float64


def cubic(p):
    """z^3 + z = p, whose root is known from p = r^3 + r."""
    return lambda z: z**3 + z - p


def size(change):
    return change.abs().amax(-1)


def slope_at(z):
    return lambda r: r / (3 * z**2 + 1)


def roots(*values):
    r = torch.tensor(values, dtype=F64).unsqueeze(-1)
    return r, r**3 + r


def test_finds_the_root_of_every_sample():
    r, p = roots(0.1, 1.0, 3.0)
    z, rate, _ = Newton(tolerance=1e-12).iterate(cubic(p), slope_at(r + 0.05), r + 0.1, size)
    torch.testing.assert_close(z, r, rtol=0.0, atol=1e-12)
    assert bool((rate < 0.3).all())


def test_the_error_left_is_below_the_tolerance():
    r, p = roots(1.0)
    for tolerance in (1e-2, 1e-4, 1e-8):
        z = Newton(tolerance=tolerance, max_iterations=50).iterate(cubic(p), slope_at(r + 0.2), r + 0.5, size).z
        # The rate changes from one iteration to the next by some of its digits.
        assert abs(z - r).item() < 1.5 * tolerance


def test_a_sample_does_not_depend_on_its_neighbours():
    r, p = roots(0.1, 1.0, 3.0)
    start, matrix = r + torch.tensor([[0.0], [0.1], [0.5]], dtype=F64), r + 0.1
    newton = Newton(tolerance=1e-10, max_iterations=40)
    together = newton.iterate(cubic(p), slope_at(matrix), start, size)
    for i in range(3):
        one = slice(i, i + 1)
        alone = newton.iterate(cubic(p[one]), slope_at(matrix[one]), start[one], size)
        assert torch.equal(together.z[one], alone.z)
        assert torch.equal(together.rate[one], alone.rate)


def test_a_sample_that_does_not_converge_is_nan_and_alone():
    r, p = roots(1.0, 1.0, 1.0)
    # A slope of the wrong sign diverges, one that is far too large converges too slowly, NaN is NaN.
    slopes = torch.tensor([[-4.0], [400.0], [4.0]], dtype=F64)
    z = Newton(tolerance=1e-8).iterate(cubic(p), lambda residual: residual / slopes, r + 0.1, size).z
    assert z.isnan().tolist() == [[True], [True], [False]]
    z = Newton().iterate(lambda z: z * torch.nan, lambda r: r, r, size).z
    assert bool(z.isnan().all())


def test_stops_as_soon_as_every_sample_has_converged_or_failed():
    calls = []

    def counted(residual):
        def evaluate(z):
            calls.append(z)
            return residual(z)

        return evaluate

    r, p = roots(1.0, 2.0)
    Newton(tolerance=1e-10).iterate(counted(lambda z: 2.0 * (z - r)), lambda residual: residual / 2.0, r + 1.0, size)
    # The first correction is exact, the second one shows it.
    assert len(calls) == 2
    calls.clear()
    Newton(tolerance=1e-10).iterate(counted(cubic(p)), lambda residual: -residual, r + 1.0, size)
    assert len(calls) == 2


def test_a_rate_seen_before_saves_an_iteration():
    calls = []
    r, _ = roots(1.0)

    def residual(z):
        calls.append(z)
        return z - r

    Newton().iterate(residual, lambda x: x, r + 0.5, size, torch.tensor([1e-6], dtype=F64))
    assert len(calls) == 1


def test_starts_at_a_root_without_moving():
    r, _ = roots(2.0)
    z = Newton().iterate(lambda z: torch.zeros_like(z), lambda x: x, r, size).z
    assert torch.equal(z, r)


def test_the_derivative_of_a_root_is_that_of_the_implicit_function_theorem():
    def root(p):
        r = torch.ones(2, 1, dtype=F64)
        z = Newton(tolerance=1e-13, max_iterations=60).iterate(cubic(p), slope_at(r), r, size).z
        return attach_root(z, cubic(p), slope_at(z))

    p = torch.tensor([[1.5], [3.0]], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(root, (p,))


def test_no_gradient_costs_no_evaluation():
    z = torch.ones(1, 1)
    with torch.no_grad():
        assert attach_root(z, lambda z: pytest.fail("evaluated"), lambda w: w) is z


def test_compiles_to_the_same_result():
    r, p = roots(0.1, 1.0, 3.0)
    newton = Newton(tolerance=1e-10, max_iterations=40)

    def find(p, start):
        return newton.iterate(cubic(p), slope_at(start + 0.1), start, size).z

    compiled = torch.compile(find, fullgraph=True, backend="aot_eager")(p, r + 0.2)
    # The same operations in the same order.
    torch.testing.assert_close(compiled, find(p, r + 0.2), rtol=1e-15, atol=0.0)


@pytest.mark.parametrize("option", ["tolerance", "max_iterations"])
def test_an_option_that_is_not_positive_is_refused(option):
    with pytest.raises(ValueError, match=f"`{option}` must be a positive finite number, got 0"):
        Newton(**{option: 0})
