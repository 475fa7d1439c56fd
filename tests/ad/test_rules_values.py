"""Every rule against values of its function: orders 1 to 6 without differentiation, other formats, layouts, shapes."""

import pytest
import torch
from chebyshev import ORDER, sizes, taylor
from probe import ARITHMETIC, ELEMENTWISE, PROBES, REDUCTIONS, Probe, directions, inputs
from test_rules import polynomial, slots_of
from torch import Tensor

from ude import ad
from ude.ad import Jet, Univariate

every_probe = pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)


def series_of(probe, order, dtype=torch.float64):
    """Value and coefficients of all arguments."""
    real = [inputs(probe), *directions(probe, order)]
    if not dtype.is_complex:
        return [[x.to(dtype) for x in xs] for xs in real]
    other = Probe(f"{probe.name} imaginary", probe.function, probe.shapes)
    imaginary = [inputs(other), *directions(other, order)]
    return [
        [torch.complex(a, 0.5 * b).to(dtype) for a, b in zip(xs, ys, strict=True)]
        for xs, ys in zip(real, imaginary, strict=True)
    ]


def pushed(probe, series):
    """The coefficients of the result, on one first axis."""
    return torch.stack(ad.jet(lambda xs: probe.function(*xs), series)).detach()


def reference(probe, series):
    """Taylor coefficients to order 6 from values, the size of each, and a bound of their errors in these sizes."""
    with torch.no_grad():
        expected, size, error = taylor(
            lambda t: probe.function(*(polynomial(coefficients, t) for coefficients in zip(*series, strict=True)))
        )
    # Ten times the estimate, the smallest of several; 1e-4 at most, where a wrong term has the size of a coefficient.
    assert error < 9e-6, f"the reference is uncertain by {error}; choose other arguments, away from kinks and poles"
    return expected, size, 5e-6 + 10.0 * error


def assert_close(found, expected, size, tolerance, what):
    assert found.shape == expected.shape
    errors = (found - expected).reshape(len(found), -1).abs().amax(1) / size
    assert errors.max() < tolerance, f"{what}: relative errors {errors.tolist()}, expected less than {tolerance}"


def assert_taylor_coefficients(probe, series):
    expected, size, tolerance = reference(probe, series)
    for order in range(1, ORDER + 1):
        found = pushed(probe, series[: order + 1])
        assert_close(found, expected[: order + 1], size[: order + 1], tolerance, f"order {order}")


# Orders


@every_probe
def test_power_series_to_order_6_are_those_of_the_values_along_a_curve(probe):
    assert_taylor_coefficients(probe, series_of(probe, ORDER))


@every_probe
def test_collapsed_directions_of_order_6_are_those_of_the_values_along_two_lines(probe):
    xs, moves, weights = inputs(probe), directions(probe, 2), (1.0, -0.5)
    lines = [reference(probe, [xs, move]) for move in moves]
    tolerance = max(tolerance for *_, tolerance in lines)
    algebra = ad.Directions(2, ORDER, weights)
    jets = [Jet(algebra, x, torch.stack([move[i] for move in moves])) for i, x in enumerate(xs)]
    found = torch.stack(slots_of(probe.function(*jets), algebra.dim)).detach()
    expected = [lines[0][0][0], *(series[k] for k in range(1, ORDER) for series, *_ in lines)]
    expected.append(sum(w * series[ORDER] for w, (series, *_) in zip(weights, lines, strict=True)))
    size = torch.stack([size for _, size, _ in lines]).amax(0)
    size = torch.cat([size[:1], size[1:ORDER].repeat_interleave(2), size[ORDER:]])
    assert_close(found, torch.stack(expected), size, tolerance, repr(algebra))


def test_the_reference_from_values_knows_a_wrong_coefficient_of_order_6():
    sine = Probe("sine", torch.sin)
    wrong = Probe("wrong", lambda x: torch.sin(x) + (1e-3 * (x - x.value) ** 6 if isinstance(x, Jet) else 0.0))
    assert_taylor_coefficients(sine, series_of(sine, ORDER))
    with pytest.raises(AssertionError, match="order 6"):
        assert_taylor_coefficients(wrong, series_of(sine, ORDER))


def test_the_reference_from_values_is_uncertain_at_a_kink():
    x = torch.tensor([1e-4], dtype=torch.float64)
    *_, error = taylor(lambda t: (x + t).abs())
    assert error > 1e-2


@pytest.mark.parametrize("order", [0, -1, -6, 1.5])
@pytest.mark.parametrize(
    "make",
    [Univariate, lambda order: ad.Directions(2, order), lambda order: ad.Directions(2, order, collapsed=False)],
    ids=["Univariate", "Directions", "not collapsed"],
)
def test_no_algebra_has_an_order_below_1(make, order):
    with pytest.raises(ValueError, match="order of at least 1"):
        make(order)


def test_no_operator_has_order_0_and_no_series_ends_at_its_value():
    with pytest.raises(ValueError, match="Expected"):
        ad.Symbol({(0, 0): 1})
    for series in ([], [torch.ones(2)]):
        with pytest.raises(ValueError, match="at least 1 coefficient"):
            ad.jet(torch.sin, series)


# Complex numbers and single precision


def takes_complex(probe):
    try:
        probe.function(*series_of(probe, 1, torch.complex128)[0])
    except RuntimeError:
        return False
    return True


ON_REALS = [*ELEMENTWISE, *ARITHMETIC]
NOT_ANALYTIC = {
    # They refuse complex jets: one divides by the modulus, the other compares real parts.
    "softsign",
    "logaddexp",
}
ON_COMPLEX = [probe for probe in ON_REALS if probe.name not in NOT_ANALYTIC and takes_complex(probe)]


@pytest.mark.parametrize("probe", ON_COMPLEX, ids=lambda probe: probe.name)
def test_complex_power_series_to_order_6_are_those_of_the_values_along_a_curve(probe):
    assert_taylor_coefficients(probe, series_of(probe, ORDER, torch.complex128))


PROMOTED = {"lerp", "lerp number"}  # torch wants both ends of one format, a jet does not
REFUSED = [probe for probe in ON_REALS if probe not in ON_COMPLEX and probe.name not in PROMOTED]


@pytest.mark.parametrize("probe", REFUSED, ids=lambda probe: probe.name)
def test_complex_jets_are_refused_where_complex_numbers_are(probe):
    with pytest.raises(RuntimeError):  # of which NotImplementedError is one
        pushed(probe, series_of(probe, 3, torch.complex128))


FORMATS = [(probe, torch.float32) for probe in ELEMENTWISE] + [(probe, torch.complex64) for probe in ON_COMPLEX]


@pytest.mark.parametrize(("probe", "dtype"), FORMATS, ids=lambda x: getattr(x, "name", str(x).removeprefix("torch.")))
def test_single_precision_is_close_to_double(probe, dtype):
    single = series_of(probe, 3, dtype)
    double = [[x.to(torch.complex128 if dtype.is_complex else torch.float64) for x in xs] for xs in single]
    found, expected = pushed(probe, single), pushed(probe, double)
    assert found.dtype == probe.function(*single[0]).dtype
    difference = (found - expected).reshape(len(found), -1).abs().amax(1) / sizes(expected)
    assert difference.max() < 1e-5, difference  # a hundred units in the last place


# Layouts in memory and unusual shapes


def jets_of(series):
    algebra = Univariate(len(series) - 1)
    return [Jet(algebra, x, torch.stack(slots)) for x, *slots in zip(*series, strict=True)]


def stacked(result):
    return torch.stack(slots_of(result, 4)).detach()


def transposed(x: Tensor) -> Tensor:
    return x.mT.contiguous().mT if x.ndim > 1 else x


def strided(x: Tensor) -> Tensor:
    return torch.stack([x, x + 1.0], -1)[..., 0]


@pytest.mark.parametrize("layout", [transposed, strided])
@every_probe
def test_the_layout_in_memory_does_not_matter(probe, layout):
    jets = jets_of(series_of(probe, 3))
    others = [Jet(x.algebra, layout(x.value), layout(x.slots)) for x in jets]
    torch.testing.assert_close(stacked(probe.function(*others)), stacked(probe.function(*jets)), rtol=1e-11, atol=1e-11)


BROADCAST = [*ELEMENTWISE, *(p for p in REDUCTIONS if len(p.shapes[0]) > 1)]


@pytest.mark.parametrize("probe", BROADCAST, ids=lambda probe: probe.name)
def test_expanded_arguments_are_those_written_out(probe):
    rows = jets_of([[x[:1] if probe in REDUCTIONS else x[None] for x in xs] for xs in series_of(probe, 3)])
    shapes = [probe.shapes[i] if probe in REDUCTIONS else (2, *probe.shapes[i]) for i in range(len(rows))]
    written = [
        Jet(x.algebra, x.value.expand(s).clone(), x.slots.expand(3, *s).clone())
        for x, s in zip(rows, shapes, strict=True)
    ]
    expected = stacked(probe.function(*written))
    for expand_slots in (True, False):  # or slots with an axis of length 1, which stand for the same
        expanded = [
            Jet(x.algebra, x.value.expand(s), x.slots.expand(3, *s) if expand_slots else x.slots)
            for x, s in zip(rows, shapes, strict=True)
        ]
        torch.testing.assert_close(stacked(probe.function(*expanded)), expected, rtol=1e-11, atol=1e-11, equal_nan=True)


def with_shape(probe, shapes):
    return Probe(probe.name, probe.function, shapes, probe.low, probe.high, draw=probe.draw)


@pytest.mark.parametrize("probe", ELEMENTWISE, ids=lambda probe: probe.name)
def test_numbers_without_axes_are_those_of_an_array(probe):
    series = series_of(with_shape(probe, ((),) * len(probe.shapes)), 3)
    found = pushed(probe, series)
    arrays = pushed(probe, [[x[None] for x in xs] for xs in series])
    torch.testing.assert_close(found, arrays.reshape(found.shape), rtol=1e-13, atol=1e-13)


CHOOSES_FROM_NOTHING = {"median", "matrix_norm inf"}  # torch says nan and 0, jets refuse: there is no place to look


def without_rows(probe):
    """The probe with no rows, None if torch does not take that."""
    if probe in REDUCTIONS:
        if probe.name in CHOOSES_FROM_NOTHING:
            return None
        empty = with_shape(probe, tuple((0, *shape[1:]) for shape in probe.shapes))
    else:
        empty = with_shape(probe, ((0, 1, 3),) * len(probe.shapes))
    try:
        empty.function(*inputs(empty))
    except (RuntimeError, IndexError, ValueError):
        return None
    return empty


WITHOUT_ROWS = [empty for empty in map(without_rows, [*ELEMENTWISE, *REDUCTIONS]) if empty is not None]


@pytest.mark.parametrize("probe", WITHOUT_ROWS, ids=lambda probe: probe.name)
def test_no_rows_go_in_and_the_same_comes_out_as_without_jets(probe):
    series = series_of(probe, 3)
    value = probe.function(*series[0])
    found = pushed(probe, series)
    assert found.shape == (4, *value.shape)
    assert found.dtype == value.dtype
    torch.testing.assert_close(found[0], value, equal_nan=True)
    if value.numel() and not value.isnan().any():  # sums over nothing do not change
        assert not found[1:].any()


def test_few_functions_need_rows():
    names = {probe.name for probe in WITHOUT_ROWS}
    assert {probe.name for probe in ELEMENTWISE} <= names
    assert len([probe for probe in REDUCTIONS if probe.name in names]) > 30
