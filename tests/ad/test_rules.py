"""Every rule against nested differentiation in float64, in every kind of algebra."""

import math

import pytest
import torch
from probe import COMPLEX, PROBES, directions, inputs
from torch.nn.attention import SDPBackend, sdpa_kernel

from ude.ad import Directions, Jet, Product, Symbol, Univariate

MIXED = Symbol({(2, 0): 1, (1, 1): 2, (0, 2): -1}, {(3, 0): 1, (1, 0): 0.5})
LAPLACIAN = Symbol({(2, 0): 1, (0, 2): 1})

every_probe = pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)


def coefficients(curve, order):
    """Normalised Taylor coefficients at 0 of a function of a number, by nested forward mode."""

    def with_next(functions):
        def evaluate(t):
            values, tangents = torch.func.jvp(functions, (t,), (torch.ones_like(t),))
            return (*values, tangents[-1])

        return evaluate

    functions = lambda t: (curve(t),)  # noqa: E731
    for _ in range(order):
        functions = with_next(functions)
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no forward mode
        series = functions(torch.zeros((), dtype=torch.float64))
    return [c / math.factorial(k) for k, c in enumerate(series)]


LINES = torch.tensor([[1, 0], [0, 1], [1, 1], [1, -1], [1, 2]], dtype=torch.float64)


def derivatives(surface, order):
    """All partial derivatives at 0 of a function of two numbers, by degree, from power series along lines.

    A form of degree k <= 4 in two variables is known from its values in five directions.
    """

    def along(line):
        return coefficients(lambda t: surface(line * t), order)

    try:
        series = torch.func.vmap(along)(LINES)
    except RuntimeError:  # the function has no batching rule or looks at the numbers
        series = [torch.stack(c) for c in zip(*(along(line) for line in LINES), strict=True)]
    result = []
    for k, values in enumerate(series):
        powers = torch.stack([math.comb(k, i) * LINES[:, 0] ** (k - i) * LINES[:, 1] ** i for i in range(k + 1)], 1)
        partials = math.factorial(k) * torch.tensordot(torch.linalg.pinv(powers), values, 1)
        result.append(partials)
    return result


def polynomial(coefficients, t):
    *lower, total = coefficients
    for coefficient in reversed(lower):
        total = total * t + coefficient
    return total


def slots_of(result, dim):
    """Value and slots, zeros for a plain result."""
    if isinstance(result, Jet):
        return [result.value, *result.dense().unbind(0)]
    return [result, *[torch.zeros_like(result)] * (dim - 1)]


def assert_same(ours, expected, what):
    # The recurrences and nested differentiation round differently; a wrong term is of the size of the derivative.
    scale = 1.0 + max((float(e.detach().abs().max()) for e in expected if e.numel()), default=0.0)
    assert len(ours) == len(expected)
    for slot, (a, b) in enumerate(zip(ours, expected, strict=True)):
        assert a.shape == b.shape, f"{what}, slot {slot}: shape {tuple(a.shape)} instead of {tuple(b.shape)}"
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10 * scale, msg=lambda m, s=slot: f"{what}, slot {s}: {m}")


@every_probe
def test_power_series_are_those_of_nested_forward_mode(probe):
    compare_power_series(probe, probe.order)


@pytest.mark.slow
@pytest.mark.parametrize("probe", [p for p in PROBES if p.order < 5 and not p.heavy], ids=lambda probe: probe.name)
def test_power_series_of_order_5_are_those_of_nested_forward_mode(probe):
    """To more digits than those from values, which go to order 6; this is exponentially slow in the order."""
    compare_power_series(probe, 5)


def compare_power_series(probe, highest):
    xs, moves = inputs(probe), directions(probe, highest)
    function = probe.reference or probe.function

    def curve(t):
        return function(*(polynomial([x, *(m[i] for m in moves)], t) for i, x in enumerate(xs)))

    expected = coefficients(curve, highest)
    for order in range(1, highest + 1):
        algebra = Univariate(order)
        jets = [Jet(algebra, x, torch.stack([m[i] for m in moves[:order]])) for i, x in enumerate(xs)]
        assert_same(slots_of(probe.function(*jets), algebra.dim), expected[: order + 1], f"order {order}")


@every_probe
def test_operators_are_those_of_nested_jacobians(probe):
    order = max(3, min(probe.order, 4))
    xs, (first, second) = inputs(probe), directions(probe, 2)
    function = probe.reference or probe.function
    partials = derivatives(
        lambda s: function(*(x + a * s[0] + b * s[1] for x, a, b in zip(xs, first, second, strict=True))), order
    )
    for algebra, coordinates, expected in (
        mixed(partials), along_directions(partials, order), product(partials, order - 2)
    ):  # fmt: skip
        jets = [
            Jet(algebra, x, torch.tensordot(coordinates, torch.stack([a, b]), 1))
            for x, a, b in zip(xs, first, second, strict=True)
        ]
        assert_same(slots_of(probe.function(*jets), algebra.dim), expected, repr(algebra))


def applied(polynomial, partials, extra=()):
    """A polynomial in the two derivatives, followed by derivatives along directions in the plane."""
    total = torch.zeros_like(partials[0][0])
    for monomial, factor in polynomial.items():
        form = {sum(monomial): float(factor)}  # by the power of the second variable
        for a, b in extra:
            form = {i: a * form.get(i, 0.0) + b * form.get(i - 1, 0.0) for i in range(len(monomial) + len(extra) + 1)}
        total = total + sum(c * partials[len(monomial) + len(extra)][i] for i, c in form.items() if c)
    return total


def rows(symbol):
    return [symbol._span.rows[pivot] for pivot in symbol._numbers]


def mixed(partials):
    seeds = MIXED.seeds(torch.zeros((), dtype=torch.float64))
    padded = torch.cat([seeds, seeds.new_zeros(MIXED.dim - 1 - len(seeds), 2)])
    return MIXED, padded, [partials[0][0], *(applied(row, partials) for row in rows(MIXED))]


def along_directions(partials, order):
    chosen, weights = [(1.0, 0.0), (0.0, 1.0), (0.5, -1.5)], [1.0, -2.0, 0.5]
    algebra = Directions(3, order, weights)
    coordinates = torch.zeros(algebra.dim - 1, 2, dtype=torch.float64)
    coordinates[:3] = torch.tensor(chosen, dtype=torch.float64)
    one = {(): 1.0}
    expected = [partials[0][0]]
    for k in range(1, order):
        expected += [applied(one, partials, [v] * k) / math.factorial(k) for v in chosen]
    top = [w * applied(one, partials, [v] * order) for v, w in zip(chosen, weights, strict=True)]
    return algebra, coordinates, [*expected, sum(top) / math.factorial(order)]


def product(partials, order):
    """A Laplacian and a power series in time, along a straight line in the same plane."""
    algebra, velocity = Product(LAPLACIAN, Univariate(order)), (1.0, 0.3)
    coordinates = torch.zeros(algebra.dim, 2, dtype=torch.float64)
    expected = [partials[0][0]] * algebra.dim
    polynomials = [{(): 1.0}, *rows(LAPLACIAN)]
    for a, polynomial in enumerate(polynomials):
        for k in range(order + 1):
            place = algebra.number(a, k)
            expected[place] = applied(polynomial, partials, [velocity] * k) / math.factorial(k)
            if k == 0:
                for variable in range(2):
                    coordinates[place, variable] = float(polynomial.get((variable,), 0.0))
    coordinates[algebra.number(0, 1)] = torch.tensor(velocity, dtype=torch.float64)
    return algebra, coordinates[1:], expected


# Other number formats


IN_DOUBLE_ONLY = {
    # Their functions close over constants or layers in float64, which torch does not mix with float32.
    "erfcx",
    "index_add",
    "index_copy",
    "index_put",
    "scatter_add",
    "scatter_reduce",
    "masked_scatter",
    "select_scatter",
    "diagonal_scatter",
    "constant @ jet",
    "inner",
    "vecdot",
    "einsum 3",
    "addmv",
    "multi_dot",
    "chain_matmul",
    "linear",
    "F.bilinear",
    "solve vector",
    "solve right",
    "pinv",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose2d",
    "MultiheadAttention",
    "MultiheadAttention weights",
    "TransformerEncoderLayer train",
    "TransformerDecoderLayer",
    "gru",
    "lstm",
    "rnn",
    "gru_cell",
    "lstm_cell",
    "rnn_cell",
    "Sequential",
    "Conv2d ReLU inplace",
    "Bilinear",
}
IN_SINGLE = [probe for probe in PROBES if probe not in COMPLEX and probe.name not in IN_DOUBLE_ONLY]


@pytest.mark.parametrize("probe", IN_SINGLE, ids=lambda probe: probe.name)
def test_float32_stays_float32_and_close(probe):
    algebra = Univariate(2)
    moves = directions(probe, 2)

    def evaluate(dtype):
        jets = [
            Jet(algebra, x, torch.stack([m[i].to(dtype) for m in moves])) for i, x in enumerate(inputs(probe, dtype))
        ]
        return probe.function(*jets)

    single, double = evaluate(torch.float32), evaluate(torch.float64)
    for a, b in zip(slots_of(single, 3), slots_of(double, 3), strict=True):
        scale = 1.0 + float(b.abs().max()) if b.numel() else 1.0
        torch.testing.assert_close(a.double(), b, rtol=2e-3, atol=1e-4 * scale, check_dtype=False)
