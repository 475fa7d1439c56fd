from __future__ import annotations

import pytest
import torch
from scipy.interpolate import CubicSpline, PchipInterpolator, interp1d

from ude.models import MLP, UDE, Signal, Term

SCIPY = {
    "linear": lambda t, y: interp1d(t, y, axis=0),
    "previous": lambda t, y: interp1d(t, y, axis=0, kind="previous"),
    "pchip": PchipInterpolator,
    "natural_cubic": lambda t, y: CubicSpline(t, y, bc_type="natural"),
}


def series(groups=3, times=9, inputs=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ts = torch.rand(groups, times, dtype=torch.float64, generator=generator).add(0.1).cumsum(1)
    return ts, torch.randn(groups, times, inputs, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("kind", SCIPY)
@pytest.mark.parametrize("times", [2, 3, 9])
def test_agrees_with_scipy_on_irregular_times(kind, times):
    ts, values = series(times=times)
    signal = getattr(Signal, kind)(ts, values)
    fractions = torch.linspace(0, 1, 41, dtype=torch.float64)[:-1]
    t = ts[:, 0] + fractions[:, None] * (ts[:, -1] - ts[:, 0])
    ours = signal(t)
    assert ours.shape == (40, 3, 2)
    for g in range(3):
        expected = torch.as_tensor(SCIPY[kind](ts[g].numpy(), values[g].numpy())(t[:, g].numpy()))
        # Same interpolant by other arithmetic; rounding grows with the shortest interval, 0.1.
        torch.testing.assert_close(ours[:, g], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", SCIPY)
def test_holds_the_end_values_outside(kind):
    ts, values = series()
    signal = getattr(Signal, kind)(ts, values)
    torch.testing.assert_close(signal(ts[:, 0] - 1.0), values[:, 0], rtol=0, atol=1e-13)
    torch.testing.assert_close(signal(ts[:, -1]), values[:, -1], rtol=0, atol=1e-12)
    torch.testing.assert_close(signal(ts[:, -1] + 1.0), values[:, -1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", SCIPY)
def test_padding_at_the_end_changes_nothing(kind):
    ts, values = series()
    padded_t = torch.cat([ts, ts[:, -1:].expand(-1, 3)], dim=1)
    padded_y = torch.cat([values, values[:, -1:].expand(-1, 3, -1)], dim=1)
    t = ts[:, :1] + torch.linspace(0, 0.999, 20, dtype=torch.float64) * (ts[:, -1:] - ts[:, :1])
    plain, padded = getattr(Signal, kind)(ts, values), getattr(Signal, kind)(padded_t, padded_y)
    torch.testing.assert_close(padded(t.mT), plain(t.mT), rtol=1e-11, atol=1e-11)


def test_layouts_of_scalar_groups_and_replicates_agree():
    ts, values = series()
    signal = Signal.linear(ts, values)
    t = torch.tensor(1.5, dtype=torch.float64)
    one = signal(t)
    assert one.shape == (3, 2)
    flat = signal(t.expand(4 * 3))
    assert flat.shape == (12, 2)
    assert torch.equal(flat.reshape(4, 3, 2), one.expand(4, 3, 2))
    assert torch.equal(signal(t.expand(4, 3)), one.expand(4, 3, 2))
    single = signal.take(torch.tensor([1]))
    assert torch.equal(single(t), one[1])
    assert single(t.expand(5, 7)).shape == (5, 7, 2)
    with pytest.raises(ValueError, match="one per group"):
        signal(t.expand(4))


def test_gradcheck_in_time_and_values():
    ts, values = series()
    t = (ts[:, 2:4].mean(1) + 0.01).requires_grad_()
    values.requires_grad_()
    for kind in ("linear", "pchip", "natural_cubic"):
        assert torch.autograd.gradcheck(lambda t, v, kind=kind: getattr(Signal, kind)(ts, v)(t), (t, values))


@pytest.mark.parametrize("replicates", [None, 2])
def test_drives_a_model_and_compiles_without_a_break(replicates):
    torch._dynamo.reset()
    ts, values = series(inputs=1)
    signal = Signal.pchip(ts, values)
    term = Term(MLP(2, 1), inputs=("x", "heat"), outputs=("x",))
    model = UDE(lambda t, y, p: -y * p.heat[..., None], term, states=("x",), inputs=("heat",))
    rows = 3
    if replicates:
        model, rows = model.replicate(replicates), 6
    t, y = torch.linspace(0.5, 2.0, rows).double()[:, None], torch.ones(rows, 1).double()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    rate = model(t, y, signal)
    torch.testing.assert_close(compiled(t, y, signal), rate, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(model(t, y, signal(t[:, 0])), rate, rtol=1e-13, atol=1e-13)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="at least two times"):
        Signal.linear(torch.zeros(1, 1), torch.zeros(1, 1, 1))
