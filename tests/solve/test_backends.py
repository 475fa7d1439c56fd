"""torchdiffeq and SciPy behind the same door."""

from __future__ import annotations

import pytest
import torch
import torchdiffeq

import ude
from ude.problems import ODEProblem, SolveError, Status
from ude.solve import SciPy, TorchDiffEq, TorchDiffEqOptions

F64 = torch.float64


def field(t, y, p):
    return torch.stack([y[..., 1], -p * y[..., 0]], -1)


@pytest.mark.parametrize("name", ["dopri5", "rk4"])
def test_torchdiffeq_gives_its_own_numbers_and_gradients(name):
    ts = torch.linspace(0.0, 2.0, 5, dtype=F64)
    results = []
    for backend in (True, False):
        y0 = torch.tensor([1.0, 0.0], dtype=F64, requires_grad=True)
        p = torch.tensor(1.7, dtype=F64, requires_grad=True)
        calls = 0

        def counted(t, y, p=p):
            nonlocal calls
            calls += 1
            return field(t, y, p)

        if backend:
            options = TorchDiffEqOptions(step_size=0.1) if name == "rk4" else TorchDiffEqOptions()
            problem = ODEProblem(counted, y0, (0.0, 2.0))
            solution = ude.solve(problem, TorchDiffEq(name, options), save_at=ts, rtol=1e-7, atol=1e-9)
            assert solution.stats.nfe == calls
            ys = solution.ys
        else:
            options = {"step_size": 0.1} if name == "rk4" else None
            ys = torchdiffeq.odeint(counted, y0, ts, rtol=1e-7, atol=1e-9, method=name, options=options)
        results.append((ys.detach(), *torch.autograd.grad(ys.square().sum(), [y0, p])))
    for ours, theirs in zip(*results, strict=True):
        # The same program on states of shape (1, 2) instead of (2,).
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["LSODA", "Radau", "DOP853"])
@pytest.mark.parametrize("batched", [False, True])
def test_scipy_solves_in_both_directions_of_time(name, batched):
    y0 = torch.tensor([[1.0, 0.0], [0.5, 0.5]] if batched else [1.0, 0.0], dtype=F64)
    problem = ODEProblem(field, y0, (1.0, -1.0), p=torch.tensor(1.0, dtype=F64), batched=batched)
    solution = ude.solve(problem, SciPy(name), save_at=[1.0, 0.0, 0.0], rtol=1e-8, atol=1e-10)
    c, s = torch.tensor(-1.0, dtype=F64).cos(), torch.tensor(-1.0, dtype=F64).sin()
    expected = torch.stack([c * y0[..., 0] + s * y0[..., 1], -s * y0[..., 0] + c * y0[..., 1]], -1)
    torch.testing.assert_close(solution.ys, torch.stack([y0, expected, expected]), rtol=1e-6, atol=1e-6)
    assert (solution.status == Status.SUCCESS).all()
    assert (solution.stats.nfe > 0).all()


def test_scipy_takes_a_tolerance_per_state_and_solves_stiff_problems():
    def robertson(t, y):
        a, b, c = 0.04 * y[0], 1e4 * y[1] * y[2], 3e7 * y[1] ** 2
        return torch.stack([-a + b, a - b - c, c])

    atol = torch.tensor([1e-8, 1e-12, 1e-8], dtype=F64)
    problem = ODEProblem(robertson, torch.tensor([1.0, 0.0, 0.0], dtype=F64), (0.0, 40.0))
    got = ude.solve(problem, SciPy("LSODA"), save_at=[40.0], rtol=1e-8, atol=atol).ys[0]
    # Hairer & Wanner (1996), section IV.10.
    torch.testing.assert_close(got[0], torch.tensor(0.7158, dtype=F64), rtol=1e-4, atol=0.0)


def test_scipy_refuses_to_drop_a_gradient():
    y0 = torch.ones(2, dtype=F64)
    p = torch.tensor(1.0, dtype=F64, requires_grad=True)
    problem = ODEProblem(field, y0, (0.0, 1.0), p=p)
    with pytest.raises(ValueError, match="has no gradient"):
        ude.solve(problem, SciPy(), save_at=[1.0])
    with torch.no_grad():
        assert ude.solve(problem, SciPy(), save_at=[1.0]).success


def test_a_backend_s_failure_is_a_status():
    problem = ODEProblem(lambda t, y: y * y, torch.ones(1, dtype=F64), (0.0, 2.0))
    with pytest.raises(SolveError, match="torchdiffeq: underflow"):
        ude.solve(problem, TorchDiffEq(), save_at=[2.0])
    with pytest.raises(SolveError, match="SciPy: "):
        ude.solve(problem, SciPy("RK45"), save_at=[0.5, 2.0])
    solution = ude.solve(problem, SciPy("RK45"), save_at=[0.5, 2.0], throw=False)
    assert solution.status == Status.BACKEND_FAILED
    assert solution.ys.isnan().flatten().tolist() == [False, True]


@pytest.mark.parametrize("option", [{"dt": 0.1}, {"engine": "compiled"}, {"adjoint": ude.Checkpointed()}])
def test_a_backend_refuses_options_it_would_not_follow(option):
    problem = ODEProblem(lambda t, y: -y, torch.ones(1), (0.0, 1.0))
    with pytest.raises(ValueError, match=f"does not follow the option.*{next(iter(option))}"):
        ude.solve(problem, TorchDiffEq(), save_at=[1.0], **option)
    with pytest.raises(ValueError, match="name the times"):
        ude.solve(problem, TorchDiffEq())
