"""The weak method: expectations are computed exactly, over all the numbers that its steps can take."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from stochastic_problems import Field, draw

from ude.brownian import Increment
from ude.methods.stochastic_steps import StochasticMethod
from ude.methods.weak import QUANTILE, RI1, three_points

F64 = torch.float64
A = torch.tensor([[-0.6, 0.4], [0.3, -0.8]], dtype=F64)
COLUMNS = torch.tensor([[[0.5, 0.2], [-0.3, 0.4]], [[0.1, -0.6], [0.4, 0.3]], [[0.0, 0.5], [-0.2, 0.3]]], dtype=F64)
"""Matrices that do not commute."""
RATES = torch.tensor([0.7, -0.5], dtype=F64)
START = torch.tensor([[1.0, 0.5]], dtype=F64)


def outcomes(noises, coins):
    """Return increments over the root of the step, signs of the Levy area, and their probabilities."""
    numbers = list(itertools.product([-1.5, 0.0, 1.5], repeat=noises))
    signs = list(itertools.product([-1.0, 1.0], repeat=coins))
    chances = [1 / 6, 2 / 3, 1 / 6]
    weights = [math.prod(p) / len(signs) for p in itertools.product(chances, repeat=noises) for _ in signs]
    w = [number for number in numbers for _ in signs]
    h = [(*sign, *[1.0] * (noises - coins)) for _ in numbers for sign in signs]
    return (torch.tensor(x, dtype=F64) for x in (w, h, weights))


def every_end(field, y0, steps, t1, *, noises, coins=0):
    """Return every state that `steps` steps can end at, and its probability."""
    w, h, weights = outcomes(noises, coins)
    y, chance, dt = y0, torch.ones(1, dtype=F64), t1 / steps
    for i in range(steps):
        samples = len(y) * len(w)
        y = y.repeat_interleave(len(w), 0)
        field.next = Increment(w.repeat(samples // len(w), 1) * math.sqrt(dt), h.repeat(samples // len(w), 1))
        t = torch.full((samples,), i * dt, dtype=F64)
        y = RI1().step(field, t, torch.full_like(t, dt), y, ()).y1
        chance = (chance.unsqueeze(-1) * weights).flatten()
    return y, chance


def moment(y, chance, degree):
    """Return the expectations of all products of `degree` components."""
    powers = torch.ones(len(y), 1, dtype=F64)
    for _ in range(degree):
        powers = (powers.unsqueeze(-1) * y.unsqueeze(1)).flatten(1)
    return (chance.unsqueeze(-1) * powers).sum(0)


def exact_moment(columns, degree, t1):
    """Return the same for dy = A y dt + sum_k B_k y dW_k: it satisfies a linear equation."""
    eye = np.eye(2)

    def acting(matrices):
        product = np.eye(1)
        for i in range(degree):
            product = np.kron(product, matrices.get(i, eye))
        return product

    generator = sum(acting({i: A.numpy()}) for i in range(degree))
    for column in columns.numpy():
        for i, j in itertools.combinations(range(degree), 2):
            generator = generator + acting({i: column, j: column})
    start = moment(START, torch.ones(1, dtype=F64), degree).numpy()
    return torch.from_numpy(scipy.linalg.expm(generator * t1) @ start)


def order(errors, steps):
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


def test_it_says_what_it_solves():
    method = RI1()
    assert isinstance(method, StochasticMethod)
    assert (str(method), method.order, method.error_order, method.evaluations) == ("RI1", 2.0, None, 3)
    assert (method.interpretation, len(method.noises)) == ("ito", 5)


def test_numbers_are_taken_from_the_sixths_of_the_normal_distribution():
    assert scipy.stats.norm.cdf(-QUANTILE) == pytest.approx(1 / 6, rel=1e-13)
    root = torch.tensor([[0.5]], dtype=F64)
    w = torch.tensor([[-0.49, -0.48, 0.0, 0.48, 0.49]], dtype=F64)
    assert three_points(w, root).tolist() == [[-math.sqrt(3), 0.0, 0.0, 0.0, math.sqrt(3)]]
    numbers = three_points(draw(0.25, 200_000, 1).w, root)
    # Standard errors of the second and of the fourth moment of 200,000 numbers: 0.0032 and 0.0095.
    assert numbers.square().mean().item() == pytest.approx(1.0, abs=0.01)
    assert (numbers**4).mean().item() == pytest.approx(3.0, abs=0.03)


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_moments_after_one_step_have_an_error_of_order_three_where_the_noise_does_not_commute(degree):
    field = Field(lambda t, y: y @ A.T, lambda t, y: torch.einsum("kij,bj->bik", COLUMNS, y), is_diagonal=False)
    errors, lengths = [], (1 / 16, 1 / 32, 1 / 64)
    for h in lengths:
        y, chance = every_end(field, START, 1, h, noises=3, coins=3)
        assert chance.sum().item() == pytest.approx(1.0, abs=1e-12)
        errors.append((moment(y, chance, degree) - exact_moment(COLUMNS, degree, h)).norm().item())
    # The mean follows the drift, which has order 3: its error is one order smaller.
    assert -order(errors, lengths) == pytest.approx(4.0 if degree == 1 else 3.0, abs=0.1)


@pytest.mark.parametrize("degree", [2, 3])
def test_moments_converge_with_order_two_where_the_noise_does_not_commute(degree):
    field = Field(lambda t, y: y @ A.T, lambda t, y: torch.einsum("kij,bj->bik", COLUMNS[:2], y), is_diagonal=False)
    ends = [every_end(field, START, steps, 0.5, noises=2, coins=1) for steps in (2, 3, 4)]
    errors = [(moment(y, chance, degree) - exact_moment(COLUMNS[:2], degree, 0.5)).norm().item() for y, chance in ends]
    assert order(errors, (2, 3, 4)) == pytest.approx(2.0, abs=0.2)


@pytest.mark.parametrize("kind", ["diagonal", "as a matrix"])
def test_moments_converge_with_order_two_where_the_noise_is_diagonal(kind):
    columns = torch.stack([torch.diag(RATES * unit) for unit in torch.eye(2, dtype=F64)])
    diagonal = kind == "diagonal"
    field = Field(
        lambda t, y: y @ A.T,
        (lambda t, y: RATES * y) if diagonal else lambda t, y: torch.diag_embed(RATES * y),
        is_diagonal=diagonal,
    )
    exact = exact_moment(columns, 3, 1.0)
    ends = [every_end(field, START, steps, 1.0, noises=2) for steps in (1, 2, 4)]
    errors = [(moment(y, chance, 3) - exact).norm().item() for y, chance in ends]
    assert order(errors, (1, 2, 4)) == pytest.approx(2.0, abs=0.2)


def test_a_functional_of_a_nonlinear_equation_that_depends_on_time_has_an_error_of_order_three_after_one_step():
    # y = (1 + t) sinh(t + W), scalar noise; z = t + W is normal with mean and variance t.
    def drift(t, y):
        x = y / (1 + t)
        return x + (1 + t) * (x / 2 + (1 + x**2).sqrt())

    field = Field(drift, lambda t, y: ((1 + t) * (1 + (y / (1 + t)) ** 2).sqrt()).unsqueeze(-1), is_diagonal=False)
    errors, lengths = [], (1 / 128, 1 / 256, 1 / 512)
    for h in lengths:
        y, chance = every_end(field, torch.zeros(1, 1, dtype=F64), 1, h, noises=1)
        z = (y[:, 0] / (1 + h)).asinh()
        exact = (h**3 + 3 * h**2) - 6 * (h**2 + h) + 8 * h
        errors.append(abs((chance * (z**3 - 6 * z**2 + 8 * z)).sum().item() - exact))
    assert -order(errors, lengths) == pytest.approx(3.0, abs=0.1)


def test_additive_noise_of_a_linear_equation_converges_with_order_two():
    # dy = -y dt + (1 + t) S dW: the covariance is S S^T times the integral of (1 + s)^2 exp(2 s - 2 t).
    s = torch.tensor([[0.5, 0.3], [-0.2, 0.4]], dtype=F64)
    field = Field(lambda t, y: -y, lambda t, y: s * (1 + t).unsqueeze(-1), is_diagonal=False)
    # The antiderivative of (1 + s)^2 exp(2 s) is ((1 + s)^2 - (1 + s) + 1 / 2) exp(2 s) / 2.
    variance = (2.5 - 0.5 * math.exp(-2)) / 2
    exact = START.T @ START * math.exp(-2) + s @ s.T * variance
    ends = [every_end(field, START, steps, 1.0, noises=2) for steps in (1, 2, 4)]
    errors = [(moment(y, chance, 2) - exact.flatten()).norm().item() for y, chance in ends]
    assert order(errors, (1, 2, 4)) == pytest.approx(2.0, abs=0.35)
    assert errors[1] / errors[2] == pytest.approx(4.0, rel=0.15)


def test_as_many_evaluations_are_made_as_are_said():
    counts = {"drift": 0, "diffusion": 0}

    def count(what, value):
        counts[what] += 1
        return value

    for noises, expected in ((1, 3), (2, 9), (3, 13)):
        counts.update(drift=0, diffusion=0)
        path = draw(0.1, 1, noises)
        g = torch.ones(1, 2, noises, dtype=F64)
        field = Field(lambda t, y: count("drift", -y), lambda t, y: count("diffusion", g), path, is_diagonal=False)  # noqa: B023
        RI1().step(field, torch.zeros(1), torch.ones(1) / 10, START, ())
        assert counts == {"drift": 3, "diffusion": expected}


def test_gradients_are_those_of_finite_differences_and_a_sample_may_stand_still():
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(2, generator=generator, dtype=F64, requires_grad=True)
    y = torch.randn(3, 2, generator=generator, dtype=F64, requires_grad=True)
    dt = torch.tensor([0.2, 0.0, 0.3], dtype=F64)

    def values(p, y):
        field = Field(
            lambda t, y: torch.tanh(p * y + t),
            lambda t, y: torch.stack([torch.sin(p * y), torch.cos(y.flip(-1) + t)], -1),
            draw(dt.unsqueeze(-1), 3, 2, seed=1),
            is_diagonal=False,
        )
        step = RI1().step(field, torch.zeros(3, dtype=F64), dt, y, ())
        return step.y1, *step.stages

    assert torch.autograd.gradcheck(values, (p, y))
    y1, rate = values(p, y)
    assert torch.equal(y1[1], y[1])
    assert rate[1].tolist() == [0.0, 0.0]
    assert y1.dtype == F64


def test_single_precision_stays_single():
    field = Field(lambda t, y: -y, lambda t, y: torch.diag_embed(y), is_diagonal=False)
    field.next = draw(0.1, 3, 2, dtype=torch.float32)
    dt = torch.full((3,), 0.1, dtype=F64)
    step = RI1().step(field, torch.zeros(3, dtype=F64), dt, torch.ones(3, 2), ())
    assert {step.y1.dtype, step.stages[0].dtype} == {torch.float32}
