"""What is kept of a solve by its numbers: nothing that was made elsewhere may come back in another solve."""

import sys

import pytest
import torch

from ude import FixedStep, Heun, ODEProblem, Tsit5, solve

frames = sys.modules["ude.solve.frame"]
F64 = torch.float64


@pytest.fixture(autouse=True)
def kept(monkeypatch):
    """Begin with no frames."""
    shelf = type(frames._kept)()
    monkeypatch.setattr(frames, "_kept", shelf)
    return shelf


def problem(y0=None, t1=1.0):
    return ODEProblem(lambda t, y: -y, torch.ones(2, dtype=F64) if y0 is None else y0, (0.0, t1))


def test_equal_solves_share_a_frame_and_others_do_not(kept):
    for _ in range(2):
        solve(problem(), Tsit5(), save_at=[0.5, 1.0], rtol=1e-6)
    assert len(kept) == 1
    for options in ({"rtol": 1e-5}, {"save_at": [0.5, 0.9]}, {"save_at": None}, {"max_step": 0.1}, {"atol": 1e-3}):
        solve(problem(), Tsit5(), **{"save_at": [0.5, 1.0], "rtol": 1e-6, **options})
    solve(problem(t1=2.0), Tsit5(), save_at=[0.5, 1.0], rtol=1e-6)
    solve(problem(torch.ones(2)), Tsit5(), save_at=[0.5, 1.0], rtol=1e-6)
    assert len(kept) == 8


def test_times_changed_in_place_are_seen():
    ts = torch.tensor([0.5, 1.0], dtype=F64)
    before = solve(problem(), Tsit5(), save_at=ts, rtol=1e-9, atol=1e-9)
    ts[0] = 0.25
    after = solve(problem(), Tsit5(), save_at=ts, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(before.ys[0, 0], torch.exp(torch.tensor(-0.5, dtype=F64)), rtol=1e-7, atol=0.0)
    torch.testing.assert_close(after.ys[0, 0], torch.exp(torch.tensor(-0.25, dtype=F64)), rtol=1e-7, atol=0.0)
    assert after.ts is ts


def test_a_field_that_writes_into_its_time_spoils_no_later_solve():
    def writes(t, y):
        slope = -y * t
        t += 10.0
        return slope

    def solved(field):
        problem = ODEProblem(field, torch.ones(2, dtype=F64), (0.0, 1.0))
        return solve(problem, Tsit5(), save_at=[1.0], max_steps=20, throw=False).ys

    expected = solved(lambda t, y: -y)
    with torch.no_grad():
        solved(writes)
    torch.testing.assert_close(solved(lambda t, y: -y), expected, rtol=0.0, atol=0.0)


def test_a_solve_inside_of_a_transform_or_without_autograd_leaves_nothing_behind(kept):
    def end(y0):
        return solve(problem(y0), Heun(), dt=0.1, controller=FixedStep(), save_at=[1.0]).ys.sum()

    y0 = torch.ones(2, dtype=F64)
    inside = torch.func.grad(end)(y0)
    assert not kept
    with torch.inference_mode():
        end(y0)
    leaf = y0.clone().requires_grad_()
    (outside,) = torch.autograd.grad(end(leaf), leaf)
    torch.testing.assert_close(inside, outside, rtol=1e-12, atol=0.0)


def test_what_cannot_be_used_is_refused_every_time(kept):
    for _ in range(2):
        with pytest.raises(ValueError, match="`save_at` must lie in"):
            solve(problem(), Tsit5(), save_at=[0.5, 2.0])
        with pytest.raises(ValueError, match="`rtol`"):
            solve(problem(), Tsit5(), rtol=-1.0)
    assert not kept


def test_only_the_latest_frames_are_kept(kept):
    for i in range(frames.KEPT + 3):
        solve(problem(t1=1.0 + 0.01 * i), Heun(), dt=0.5, controller=FixedStep())
    assert len(kept) == frames.KEPT
