"""The midpoint method of Stratonovich against exact solutions and a step by hand."""

from __future__ import annotations

import math

import pytest
import torch

import ude
from ude.brownian import BrownianTree

F64 = torch.float64
METHOD = ude.StratonovichMidpoint()


def final(problem, dt):
    return ude.solve(problem, METHOD, dt=dt, controller=ude.FixedStep(), save_at=[problem.t_span[1]], dense=False).ys[
        -1
    ]


def observed_order(problem, exact, powers):
    errors = [float((final(problem, 2.0**-power) - exact).square().mean().sqrt()) for power in powers]
    return math.log2(errors[0] / errors[-1]) / (powers[-1] - powers[0])


def test_strong_order_is_one_with_diagonal_noise():
    # The drift depends on time, which catches a wrong node: y = exp(sin 2t / 2 + 0.6 W).
    path, count = BrownianTree(21, depth=9), 2_000
    problem = ude.SDEProblem(
        lambda t, y: torch.cos(2.0 * t) * y,
        lambda t, y: 0.6 * y,
        torch.ones(count, dtype=F64),
        (0.0, 1.0),
        interpretation="stratonovich",
        path=path,
    )
    start, length = torch.zeros(1, dtype=F64), torch.ones(1, dtype=F64)
    w = path.bind(start, length, count).wiener(start, length)[0]
    exact = torch.exp(0.5 * math.sin(2.0) + 0.6 * w)
    assert observed_order(problem, exact, (3, 4, 5, 6)) == pytest.approx(1.0, abs=0.2)


def test_strong_order_is_one_half_with_noise_that_does_not_commute():
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=F64)
    stretch = torch.tensor([[0.5, 0.3], [0.3, -0.4]], dtype=F64)
    problem = ude.SDEProblem(
        lambda t, y: -0.5 * y,
        lambda t, y: torch.stack([y @ turn.T, y @ stretch.T], dim=-1),
        torch.ones(400, 2, dtype=F64),
        (0.0, 1.0),
        noise="general",
        interpretation="stratonovich",
        batched=True,
        path=BrownianTree(13, depth=13),
    )
    assert observed_order(problem, final(problem, 2.0**-12), (3, 4, 5, 6)) == pytest.approx(0.5, abs=0.2)


def test_order_is_two_without_noise():
    problem = ude.SDEProblem(
        lambda t, y: y * torch.cos(t),
        lambda t, y: 0.0 * y,
        torch.ones(1, dtype=F64),
        (0.0, 1.0),
        interpretation="stratonovich",
    )
    exact = torch.full((1,), math.exp(math.sin(1.0)), dtype=F64)
    assert observed_order(problem, exact, (4, 5, 6, 7)) == pytest.approx(2.0, abs=0.1)


def test_steps_that_it_chooses_come_closer_to_the_exact_path_with_the_tolerance():
    path, count = BrownianTree(5), 50
    problem = ude.SDEProblem(
        lambda t, y: y,
        lambda t, y: 0.6 * y,
        torch.ones(count, dtype=F64),
        (0.0, 1.0),
        interpretation="stratonovich",
        path=path,
    )
    start, length = torch.zeros(1, dtype=F64), torch.ones(1, dtype=F64)
    exact = torch.exp(1.0 + 0.6 * path.bind(start, length, count).wiener(start, length)[0])
    errors = []
    for tolerance in (1e-1, 1e-2, 1e-3):
        solution = ude.solve(problem, METHOD, save_at=[1.0], rtol=tolerance, atol=tolerance, dense=False)
        errors.append(float((solution.ys[-1] - exact).square().mean().sqrt()))
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
