"""Steps of every explicit method: order, error estimate, evaluations, stiffness, derivatives, compilation."""

import functools
import math

import pytest
import torch

from ude.methods import BS3, EXPLICIT, RK4, Dopri5, Dopri8, Euler, Method, Tsit5, Vern7

ESTIMATING = [method for method in EXPLICIT if method.error_order is not None]
RATING = [Dopri5(), Tsit5(), Vern7(), Dopri8()]

# Steps over [0, 10] for which the error is asymptotic and stays above 1e-13.
STEPS = {
    1: (640, 1280, 2560),
    2: (160, 320, 640, 1280),
    3: (160, 320, 640),
    4: (80, 160, 320, 640),
    5: (120, 180, 240, 320),
    7: (48, 64, 80, 96, 128),
    8: (24, 32, 40, 48),
}


def growth(t, y):
    return y * torch.cos(t)[:, None]


def numbers(*values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype)


def slope_of(errors, steps):
    """Order seen in a least-squares line through log(error) over log(1/steps)."""
    x = [math.log(n) for n in steps]
    y = [math.log(error) for error in errors]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return -sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)


def root_mean_square(values):
    return math.sqrt(sum(value**2 for value in values) / len(values))


@functools.cache  # order and error estimate are read from the same runs
def relative_errors(method, n, end=10.0):
    """Relative errors of y' = y cos t, y = exp(sin t), after each of n constant steps, and the error estimates."""
    y, dt = numbers(1.0)[:, None], numbers(end / n)
    carry, errors, estimates = method.init(growth, numbers(0.0), y), [], []
    for i in range(n):
        result = method.step(growth, numbers(i * end / n), dt, y, carry)
        y, carry = result.y1, result.carry
        errors.append(y.item() * math.exp(-math.sin((i + 1) * end / n)) - 1)
        estimates.append(0.0 if result.error is None else result.error.item())
    return errors, estimates


@pytest.mark.parametrize("method", EXPLICIT, ids=str)
def test_converges_at_its_stated_order(method):
    # The explicit time catches wrong nodes c; the mean over the steps, unlike the last one, has no accidental zero.
    steps = STEPS[method.order]
    slope = slope_of([root_mean_square(relative_errors(method, n)[0]) for n in steps], steps)
    assert slope == pytest.approx(method.order, abs=0.15)


@pytest.mark.parametrize("method", ESTIMATING, ids=str)
def test_the_error_estimate_shrinks_at_its_stated_order(method):
    steps = STEPS[method.order]
    slope = slope_of([root_mean_square(relative_errors(method, n)[1]) for n in steps], steps)
    assert slope == pytest.approx(method.error_order, abs=0.15)


@pytest.mark.parametrize("method", EXPLICIT, ids=str)
def test_is_a_method_with_a_readable_name(method):
    assert isinstance(method, Method)
    assert str(method) == type(method).__name__
    assert repr(method) == f"{method}()"
    assert method == type(method)()


@pytest.mark.parametrize("method", EXPLICIT, ids=str)
def test_makes_the_stated_number_of_evaluations(method):
    calls = []

    def f(t, y):
        calls.append(y)
        return growth(t, y)

    t, dt, y = numbers(0.3), numbers(0.1), numbers(2.0)[:, None]
    carry = method.init(f, t, y)
    assert len(calls) == method.init_evaluations
    result = method.step(f, t, dt, y, carry)
    assert len(calls) == method.init_evaluations + method.evaluations
    method.step(f, t + dt, dt, result.y1, result.carry)
    assert len(calls) == method.init_evaluations + 2 * method.evaluations
    stages = method.dense_stages(f, t, dt, y, result)
    assert len(calls) == method.init_evaluations + 2 * method.evaluations + method.dense_evaluations
    assert len(stages) == len(method.dense_weights(numbers(0.5))) == len(result.stages) + method.dense_evaluations


@pytest.mark.parametrize("method", [BS3(), Dopri5(), Tsit5(), Dopri8()], ids=str)
def test_the_last_stage_is_the_first_of_the_next_step(method):
    t, dt, y = numbers(0.3), numbers(0.1), numbers(2.0)[:, None]
    arguments = []

    def f(t, y):
        arguments.append(y)
        return growth(t, y)

    result = method.step(f, t, dt, y, method.init(f, t, y))
    assert result.y1 is arguments[-1]
    assert result.carry[0] is result.stages[-1]
    torch.testing.assert_close(result.carry[0], growth(t + dt, result.y1), rtol=1e-15, atol=0.0)


@pytest.mark.parametrize("method", EXPLICIT, ids=str)
def test_each_sample_has_its_own_time_and_step(method):
    t, dt, y = numbers(0.0, 1.0, 2.0), numbers(0.1, -0.2, 0.0), torch.rand(3, 2, dtype=torch.float64)
    together = method.step(growth, t, dt, y, method.init(growth, t, y))
    for i in range(3):
        one = slice(i, i + 1)
        alone = method.step(growth, t[one], dt[one], y[one], method.init(growth, t[one], y[one]))
        # The same operations on other shapes: equal to rounding.
        torch.testing.assert_close(together.y1[one], alone.y1, rtol=1e-15, atol=0.0)
    assert torch.equal(together.y1[2], y[2])


@pytest.mark.parametrize("method", EXPLICIT, ids=str)
def test_a_backward_step_is_a_forward_step_of_the_reversed_field(method):
    t, dt, y = numbers(0.7), numbers(0.2), numbers(2.0)[:, None]

    def reversed_growth(t, y):
        return -growth(-t, y)

    backward = method.step(growth, t, -dt, y, method.init(growth, t, y))
    forward = method.step(reversed_growth, -t, dt, y, method.init(reversed_growth, -t, y))
    torch.testing.assert_close(backward.y1, forward.y1, rtol=1e-15, atol=0.0)


@pytest.mark.parametrize("method", EXPLICIT, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128], ids=str)
def test_keeps_the_type_of_the_state_whatever_the_type_of_time(method, dtype):
    t, dt, y = numbers(0.3), numbers(0.1), torch.ones(1, 2, dtype=dtype)

    def f(t, y):
        return -y

    result = method.step(f, t, dt, y, method.init(f, t, y))
    assert {tensor.dtype for tensor in (result.y1, *result.stages)} == {dtype}
    if result.error is not None:
        assert result.error.dtype == dtype
    if result.stiffness is not None:
        assert result.stiffness.dtype == y.abs().dtype


@pytest.mark.parametrize("method", EXPLICIT, ids=str)
def test_a_complex_state_moves_like_its_real_and_imaginary_parts(method):
    t, dt, rate = numbers(0.3), numbers(0.1), -0.5 + 2.0j
    rotation = torch.tensor([[rate.real, -rate.imag], [rate.imag, rate.real]], dtype=torch.float64)
    z = torch.tensor([[0.3 - 0.8j]], dtype=torch.complex128)
    pair = torch.view_as_real(z).reshape(1, 2)

    def field(t, z):
        return rate * z

    def real_field(t, y):
        return y @ rotation.T

    whole = method.step(field, t, dt, z, method.init(field, t, z))
    parts = method.step(real_field, t, dt, pair, method.init(real_field, t, pair))
    torch.testing.assert_close(torch.view_as_real(whole.y1).reshape(1, 2), parts.y1, rtol=1e-14, atol=1e-15)
    if parts.stiffness is not None:
        # The ratio divides two differences of order dt**5 and more: eleven digits are left.
        torch.testing.assert_close(whole.stiffness, parts.stiffness, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("method", RATING, ids=str)
def test_stiffness_is_the_largest_rate_of_a_linear_system(method):
    rates = numbers(-1.0, -10.0, -100.0)
    basis = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    matrix = basis @ torch.diag(rates) @ basis.T

    def f(t, y):
        return y @ matrix.T

    # At the edge of stability the fast mode dominates the last stages: its weight in them is (100/10)**5 and more.
    t, dt, y = numbers(0.0), numbers(method.stability_size / 100), torch.ones(1, 3, dtype=torch.float64)
    result = method.step(f, t, dt, y, method.init(f, t, y))
    assert result.stiffness.item() == pytest.approx(100.0, rel=1e-3)


@pytest.mark.parametrize("method", [m for m in EXPLICIT if m not in RATING], ids=str)
def test_methods_whose_last_stages_differ_in_time_have_no_stiffness_estimate(method):
    t, dt, y = numbers(0.3), numbers(0.1), numbers(2.0)[:, None]
    assert method.step(growth, t, dt, y, method.init(growth, t, y)).stiffness is None


@pytest.mark.parametrize("method", RATING, ids=str)
def test_stiffness_and_its_gradients_are_zero_at_rest(method):
    y = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    rate = numbers(4.0).requires_grad_()

    def f(t, y):
        return -rate * y

    t, dt = numbers(0.0, 0.0), numbers(0.1, 0.1)
    stiffness = method.step(f, t, dt, y, method.init(f, t, y)).stiffness
    assert torch.equal(stiffness, torch.zeros(2, dtype=torch.float64))
    first = torch.autograd.grad(stiffness.sum(), (y, rate), create_graph=True)
    second = torch.autograd.grad(first[0].sum() + first[1].sum(), (y, rate), allow_unused=True)
    assert all(torch.equal(g, torch.zeros_like(g)) for g in (*first, *second) if g is not None)


@pytest.mark.parametrize("method", EXPLICIT, ids=str)
def test_the_result_of_a_step_differentiates(method):
    # Not linear, and of a size at which differences of stages are far above rounding.
    def everything(t, dt, y, rate):
        def f(t, y):
            return rate * torch.sin(y) * torch.cos(t)[:, None] - y**3

        result = method.step(f, t, dt, y, method.init(f, t, y))
        return tuple(x for x in (result.y1, result.error, result.stiffness) if x is not None)

    inputs = (numbers(0.3, 0.4), numbers(0.5, 0.7), torch.tensor([[0.9, 1.2], [-0.7, 0.4]]).double(), numbers(2.5))
    inputs = tuple(x.clone().requires_grad_() for x in inputs)
    assert torch.autograd.gradcheck(everything, inputs, check_forward_ad=True)


@pytest.mark.parametrize("method", [Euler(), RK4(), Tsit5(), Vern7()], ids=str)
def test_vmap_over_a_step_equals_a_loop(method):
    t, dt, y = numbers(0.3, 0.4), numbers(0.1, 0.2), torch.rand(2, 3, dtype=torch.float64)

    def advance(rate):
        def f(t, y):
            return rate * growth(t, y)

        result = method.step(f, t, dt, y, method.init(f, t, y))
        return result.y1 if result.error is None else result.y1 + result.error

    rates = numbers(-1.0, 0.5, 3.0)
    mapped = torch.func.vmap(advance)(rates)
    torch.testing.assert_close(mapped, torch.stack([advance(rate) for rate in rates]), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("method", [Euler(), BS3(), Tsit5(), pytest.param(Vern7(), marks=pytest.mark.slow)], ids=str)
def test_a_step_compiles_into_one_graph(method):
    def everything(t, dt, y):
        result = method.step(growth, t, dt, y, method.init(growth, t, y))
        stages = method.dense_stages(growth, t, dt, y, result)
        return result.y1, result.error, result.stiffness, method.dense_weights(t), stages

    t, dt, y = numbers(0.3, 0.4), numbers(0.1, 0.2), torch.rand(2, 3, dtype=torch.float64, requires_grad=True)
    compiled = torch.compile(everything, fullgraph=True, backend="aot_eager")(t, dt, y)
    # The same operations in the same order, unless a decomposition rounds once more.
    torch.testing.assert_close(compiled, everything(t, dt, y), rtol=1e-11, atol=1e-13)
    (gradient,) = torch.autograd.grad(compiled[0].sum(), y)
    (expected,) = torch.autograd.grad(everything(t, dt, y)[0].sum(), y)
    torch.testing.assert_close(gradient, expected, rtol=1e-14, atol=0.0)
