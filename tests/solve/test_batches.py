"""Batches of independent samples, and states of every shape and kind."""

from __future__ import annotations

import math

import pytest
import torch
from test_reference import oscillator, van_der_pol

import ude
from ude.methods import Dopri5, Tsit5, Vern7
from ude.problems import ODEProblem, Status

F64 = torch.float64


@pytest.mark.parametrize("method", [Tsit5(), Dopri5(), Vern7()], ids=str)
def test_samples_of_a_batch_are_solved_as_if_alone(method):
    y0 = torch.tensor([[2.0, 0.0], [0.1, 1.0], [0.5, 0.1]], dtype=F64)
    t0, t1 = torch.tensor([0.0, 1.0, 2.0], dtype=F64), torch.tensor([3.0, 7.0, -1.0], dtype=F64)
    ts = t0 + (t1 - t0) * torch.linspace(0, 1, 9, dtype=F64).unsqueeze(-1)
    options = {"rtol": 1e-7, "atol": 1e-9}
    batch = ude.solve(ODEProblem(van_der_pol, y0, (t0, t1), batched=True), method, save_at=ts, **options)
    assert batch.ts.shape == (9, 3)
    for i in range(3):
        alone = ude.solve(ODEProblem(van_der_pol, y0[i], (t0[i], t1[i])), method, save_at=ts[:, i], **options)
        torch.testing.assert_close(batch.ys[:, i], alone.ys, rtol=1e-10, atol=1e-10)
        for name in ("nfe", "accepted", "rejected"):
            assert getattr(batch.stats, name)[i] == getattr(alone.stats, name)
        attempts = len(alone.steps.t)
        torch.testing.assert_close(batch.steps.error[:attempts, i], alone.steps.error, rtol=1e-6, atol=1e-9)
        assert not batch.steps.dt[attempts:, i].any()
        assert not batch.steps.accepted[attempts:, i].any()
    inside = torch.tensor([2.0, 2.5, 0.5], dtype=F64)
    one = ude.solve(ODEProblem(van_der_pol, y0[2], (2.0, -1.0)), method, **options)
    torch.testing.assert_close(batch(inside.unsqueeze(0))[0, 2], one(0.5), rtol=1e-9, atol=1e-9)


def test_gradients_of_a_batch_are_those_of_its_samples():
    y0 = torch.tensor([[2.0, 0.0], [0.1, 1.0]], dtype=F64, requires_grad=True)
    options = {"save_at": [1.0, 4.0], "rtol": 1e-7, "atol": 1e-9}
    batch = ude.solve(ODEProblem(van_der_pol, y0, (0.0, 4.0), batched=True), Tsit5(), **options)
    (got,) = torch.autograd.grad(batch.ys.square().sum() + batch.steps.stiffness.sum(), [y0])
    for i in range(2):
        alone = ude.solve(ODEProblem(van_der_pol, y0[i], (0.0, 4.0)), Tsit5(), **options)
        (expected,) = torch.autograd.grad(alone.ys.square().sum() + alone.steps.stiffness.sum(), [y0])
        torch.testing.assert_close(got[i], expected[i], rtol=1e-9, atol=1e-9)


def test_every_step_of_a_batch_is_padded_with_its_last_state():
    y0 = torch.tensor([[2.0, 0.0], [0.1, 1.0]], dtype=F64)
    t1 = torch.tensor([1.0, 6.0], dtype=F64)
    solution = ude.solve(ODEProblem(van_der_pol, y0, (0.0, t1), batched=True), Tsit5())
    steps = int(solution.stats.accepted[0])
    assert solution.ts.shape == solution.ys.shape[:2]
    assert torch.equal(solution.ts[-1], t1)
    assert (solution.ys[steps:, 0] == solution.ys[steps, 0]).all()


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (1, 2, 2)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128], ids=str)
def test_states_of_any_shape_and_kind(shape, dtype):
    y0 = torch.ones(shape, dtype=dtype) * (1.0 if not dtype.is_complex else 1.0 + 0.5j)

    def rotate(t, y):
        assert y.shape == shape
        assert t.shape == ()
        return -y if not dtype.is_complex else 1j * y

    solution = ude.solve(ODEProblem(rotate, y0, (0.0, 1.0)), Tsit5(), save_at=[0.5, 1.0], rtol=1e-5, atol=1e-6)
    factor = torch.tensor(-1.0 if not dtype.is_complex else 1j).exp()
    assert solution.ys.shape == (2, *shape)
    assert solution.ys.dtype == dtype
    # The tolerance asked for, and some.
    torch.testing.assert_close(solution.ys[-1], (y0 * factor).to(dtype), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batched", [False, True])
def test_a_pytree_is_solved_as_one_state(batched):
    lead = (4,) if batched else ()
    y0 = {"x": torch.rand(*lead, 2, 2, dtype=F64), "more": (torch.rand(lead, dtype=F64),)}

    def field(t, y):
        assert t.shape == ((4, 1, 1) if batched else ())
        return {"x": -y["x"], "more": (y["more"][0] * torch.cos(t.reshape(lead)),)}

    problem = ODEProblem(field, y0, (0.0, 2.0), batched=batched)
    solution = ude.solve(problem, Tsit5(), save_at=[1.0, 2.0], rtol=1e-9, atol=1e-10)
    assert solution.ys["x"].shape == (2, *lead, 2, 2)
    growth = torch.tensor([1.0, 2.0], dtype=F64).sin().exp()
    # Local tolerance 1e-9 over some twenty steps.
    torch.testing.assert_close(solution.ys["x"][1], y0["x"] * torch.tensor(-2.0, dtype=F64).exp(), rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(
        solution.ys["more"][0], torch.stack([y0["more"][0] * g for g in growth]), rtol=1e-7, atol=1e-8
    )
    assert solution(0.3)["x"].shape == (*lead, 2, 2)


def test_a_tolerance_of_its_own_for_every_state():
    y0 = torch.tensor([1.0, 1e-6], dtype=F64)
    problem = ODEProblem(lambda t, y: torch.stack([-y[0], -y[1] * (1 + torch.sin(8 * t))]), y0, (0.0, 2.0))
    exact = 1e-6 * math.exp(-(2.0 + (1 - math.cos(16.0)) / 8))
    same = ude.solve(problem, Tsit5(), save_at=[2.0], rtol=0.0, atol=1e-6)
    own = ude.solve(problem, Tsit5(), save_at=[2.0], rtol=0.0, atol=torch.tensor([1e-6, 1e-12], dtype=F64))
    assert abs(own.ys[0, 1] - exact) < 1e-11 < abs(same.ys[0, 1] - exact)


def test_an_interval_of_length_zero_gives_the_initial_state():
    y0 = torch.tensor([1.0, 0.0], dtype=F64, requires_grad=True)
    solution = ude.solve(ODEProblem(oscillator, y0, (1.0, 1.0)), Tsit5(), save_at=[1.0, 1.0])
    assert torch.equal(solution.ys, y0.expand(2, 2))
    assert solution.status == Status.SUCCESS
    assert len(solution.steps.t) == 0
    assert torch.equal(solution(1.0), y0)
    assert torch.equal(torch.autograd.grad(solution.ys.sum(), [y0])[0], torch.full((2,), 2.0, dtype=F64))
    assert ude.solve(ODEProblem(oscillator, y0, (1.0, 1.0))).ys.shape == (1, 2)


def test_shared_times_stay_shared():
    y0 = torch.tensor([[2.0, 0.0], [0.1, 1.0]], dtype=F64)
    ends = torch.tensor([3.0, 5.0], dtype=F64)
    problem = ODEProblem(van_der_pol, y0, (0.0, ends), batched=True)
    # The last time lies a rounding error beyond the first sample's interval.
    solution = ude.solve(problem, Tsit5(), save_at=[0.0, 1.0, 3.0 + 1e-15])
    assert solution.ts.shape == (3,)
    assert solution.ys.shape == (3, 2, 2)
    alone = ude.solve(ODEProblem(van_der_pol, y0[0], (0.0, 3.0)), Tsit5(), save_at=[3.0])
    torch.testing.assert_close(solution.ys[2, 0], alone.ys[0], rtol=1e-10, atol=1e-10)
    with pytest.raises(ValueError, match=r"\[0, 3\], got 4"):
        ude.solve(problem, Tsit5(), save_at=[4.0])


def test_tolerances_of_a_dict_state_go_by_key_not_by_the_order_of_its_keys():
    start = {"x": torch.ones(1, dtype=torch.float64), "v": torch.zeros(1, dtype=torch.float64)}
    problem = ODEProblem(lambda t, s: {"x": s["v"], "v": -s["x"]}, start, (0.0, 10.0))
    tight, loose = {"rtol": 1e-10}, {"x": 1e-10, "v": 1e3}
    one = ude.solve(problem, atol=loose, **tight)
    other = ude.solve(problem, atol=dict(reversed(loose.items())), **tight)
    assert int(one.stats.accepted) == int(other.stats.accepted)
