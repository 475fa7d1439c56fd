"""Steps of stochastic Runge-Kutta methods: values, orders of convergence, estimates and gradients."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from stochastic_problems import Field, draw, integrate, observed_order

from ude.brownian import Increment
from ude.methods.sra import SOSRA, SOSRA2, SRA1, SRA3
from ude.methods.sri import SOSRI, SOSRI2, SRIW1
from ude.methods.stochastic_steps import StochasticMethod, linear
from ude.methods.weak import RI1

SRIS = [SRIW1(), SOSRI(), SOSRI2()]
SRAS = [SRA1(), SRA3(), SOSRA(), SOSRA2()]
STIFFNESS = [SOSRI2(), SOSRA2()]
F64 = torch.float64


def ones(*shape):
    return torch.ones(*shape, dtype=F64)


def square(rows, columns):
    return np.array([[*row, *[0.0] * (columns - len(row))] for row in rows])


def geometric(a, b, *, scalar=False):
    """Return dy = a y dt + b y dW, solved by y exp((a - b^2 / 2) t + b W)."""
    g = (lambda t, y: (b * y).unsqueeze(-1)) if scalar else (lambda t, y: b * y)
    return Field(lambda t, y: a * y, g, is_diagonal=not scalar)


@pytest.mark.parametrize("method", [*SRIS, *SRAS], ids=str)
def test_a_method_says_what_it_solves(method):
    additive = method in SRAS
    assert isinstance(method, StochasticMethod)
    assert method.noises == (("additive",) if additive else ("diagonal", "scalar"))
    assert method.interpretation == (None if additive else "ito")
    assert (method.order, method.error_order) == (1.5, 1.5)
    assert (method.init(None, None, None), method.init_evaluations, method.dense_evaluations) == ((), 0, 0)
    assert repr(method).startswith(f"{method}(delta=")


@pytest.mark.parametrize("method", [*SRIS, *SRAS], ids=str)
def test_as_many_evaluations_are_made_as_the_method_says(method):
    counts = {"drift": 0, "diffusion": 0}

    def count(what, value):
        counts[what] += 1
        return value

    field = Field(lambda t, y: count("drift", -y), lambda t, y: count("diffusion", torch.ones_like(y)), draw(0.1, 3, 2))
    method.step(field, 0 * ones(3), 0.1 * ones(3), ones(3, 2), ())
    diffusions = {"SRA1": 2, "SRA3": 2, "SOSRA": 3, "SOSRA2": 2}.get(str(method), 4)
    assert counts == {"drift": method.evaluations, "diffusion": diffusions}


@pytest.mark.parametrize("method", SRIS, ids=str)
def test_a_step_of_a_linear_equation_is_what_its_stages_solve(method):
    # The stages are linear in the state: one linear system gives them all at once.
    a, b, h, y, w, area = -1.3, 0.7, 0.2, 1.5, 0.31, -0.09
    tableau = method.tableau
    s0, s1 = len(tableau.alpha), len(tableau.beta1)
    i10, i11, i111 = h * (w / 2 + area), (w**2 - h) / 2, (w**3 - 3 * h * w) / 6
    system = np.block(
        [
            [h * a * square(tableau.a0, s0), i10 / h * b * square(tableau.b0, s1)],
            [h * a * square(tableau.a1, s0), math.sqrt(h) * b * square(tableau.b1, s1)],
        ]
    )
    states = np.linalg.solve(np.eye(s0 + s1) - system, np.full(s0 + s1, y))
    drifts, diffusions = a * states[:s0], b * states[s0:]
    late = (np.multiply(tableau.beta3, i10 / h) + np.multiply(tableau.beta4, i111 / h)) @ diffusions
    early = (np.multiply(tableau.beta1, w) + np.multiply(tableau.beta2, i11 / math.sqrt(h))) @ diffusions
    field = geometric(a, b)
    field.next = Increment(ones(1, 1) * w, ones(1, 1) * area)
    step = method.step(field, ones(1), ones(1) * h, ones(1, 1) * y, ())
    assert step.y1.item() == pytest.approx(y + h * np.dot(tableau.alpha, drifts) + early + late, rel=1e-13)
    compared = method.delta * h * (np.dot(tableau.alpha, drifts) - drifts[0])
    assert step.error.item() == pytest.approx(compared + late, rel=1e-11)
    bounding = replace(method, compares_drift=False).step(field, ones(1), ones(1) * h, ones(1, 1) * y, ())
    assert bounding.error.item() == pytest.approx(method.delta * h * drifts.sum() + late, rel=1e-12)


@pytest.mark.parametrize("method", SRIS, ids=str)
def test_a_step_without_drift_is_the_ito_taylor_expansion_up_to_the_triple_integral(method):
    h, w, b = 0.3, 0.4, 1e-3
    field = geometric(0.0, b)
    field.next = Increment(ones(1, 1) * w, ones(1, 1) * 0.1)
    y1 = method.step(field, torch.zeros(1), ones(1) * h, ones(1, 1), ()).y1.item()
    expansion = 1 + b * w + b**2 * (w**2 - h) / 2 + b**3 * (w**3 - 3 * h * w) / 6
    # What is left is of fourth order in b, with coefficients of the methods up to 20.
    assert abs(y1 - expansion) < 20 * b**4 * h**2
    assert abs(y1 - (1 + b * w + b**2 * (w**2 - h) / 2)) > 100 * b**4 * h**2


@pytest.mark.parametrize("method", SRAS, ids=str)
def test_a_step_with_additive_noise_of_a_linear_equation_is_what_its_stages_solve(method):
    rate, h, y, noise = 1.7, 0.2, 1.5, torch.tensor([0.31, -0.2], dtype=F64)
    area = torch.tensor([-0.09, 0.05], dtype=F64)
    diffusion = torch.tensor([0.5, -0.4], dtype=F64)
    tableau = method.tableau
    stages = len(tableau.alpha)
    i10 = (diffusion @ (noise / 2 + area)).item()
    known = y + i10 * square(tableau.b0, len(tableau.c1)).sum(1)
    states = np.linalg.solve(np.eye(stages) + h * rate * square(tableau.a0, stages), known)
    field = Field(lambda t, y: -rate * y, lambda t, y: diffusion.expand(1, 1, 2), is_diagonal=False)
    field.next = Increment(noise.unsqueeze(0), area.unsqueeze(0))
    step = method.step(field, ones(1), ones(1) * h, ones(1, 1) * y, ())
    expected = y - rate * h * np.dot(tableau.alpha, states) + (diffusion @ noise).item()
    assert step.y1.item() == pytest.approx(expected, rel=1e-13)
    # The weights of a constant diffusion add up to zero.
    assert step.error.item() == pytest.approx(-rate * h * (np.dot(tableau.alpha, states) - states[0]), rel=1e-11)
    bounding = replace(method, compares_drift=False).step(field, ones(1), ones(1) * h, ones(1, 1) * y, ())
    assert bounding.error.item() == pytest.approx(-rate * h * states.sum(), rel=1e-12)
    if str(method) == "SRA1":
        by_hand = y * (1 - rate * h + (rate * h) ** 2 / 2) + (diffusion @ noise).item() - rate * h * i10
        assert step.y1.item() == pytest.approx(by_hand, rel=1e-14)


@pytest.mark.parametrize("scalar", [False, True], ids=["diagonal", "scalar"])
@pytest.mark.parametrize("method", SRIS, ids=str)
def test_geometric_brownian_motion_converges_with_strong_order_three_halves(method, scalar):
    a, b = torch.tensor([0.5, -1.0], dtype=F64), torch.tensor([0.8, 0.5], dtype=F64)
    path = draw(1 / 64, 64, 2000, 1 if scalar else 2)
    y0 = torch.tensor([1.0, 2.0], dtype=F64).expand(2000, 2)
    exact = y0 * (a - b**2 / 2 + b * path.w.sum(0)).exp()
    order = observed_order(method, geometric(a, b, scalar=scalar), y0, exact, path, [8, 16, 32, 64])
    assert order == pytest.approx(1.5, abs=0.2)


@pytest.mark.parametrize("method", SRIS, ids=str)
def test_an_equation_that_depends_on_time_converges_with_strong_order_three_halves(method):
    # y = (1 + t) sinh(t + W): nonlinear, and the explicit time catches wrong nodes of either kind.
    def drift(t, y):
        x = y / (1 + t)
        return x + (1 + t) * (x / 2 + (1 + x**2).sqrt())

    field = Field(drift, lambda t, y: (1 + t) * (1 + (y / (1 + t)) ** 2).sqrt())
    path = draw(1 / 64, 64, 2000, 1)
    order = observed_order(method, field, 0 * ones(2000, 1), 2 * (1 + path.w.sum(0)).sinh(), path, [8, 16, 32, 64])
    assert order == pytest.approx(1.5, abs=0.2)


@pytest.mark.parametrize("method", SRIS, ids=str)
def test_components_coupled_by_the_drift_converge_with_strong_order_three_halves(method):
    # Predator and prey, each with noise of its own; the reference has steps eight times as short as the shortest.
    coupling = torch.tensor([1.0, -1.0], dtype=F64)
    field = Field(lambda t, y: coupling * (1 - y.flip(-1)) * y, lambda t, y: 0.6 * torch.sin(y))
    path, y0 = draw(1 / 256, 256, 500, 2, seed=1), torch.tensor([1.5, 0.5], dtype=F64).expand(500, 2)
    reference = integrate(SRIW1(), field, y0, path, 256)
    order = observed_order(method, field, y0, reference, path, [4, 8, 16, 32])
    assert order == pytest.approx(1.5, abs=0.2)


@pytest.mark.parametrize("method", SRIS, ids=str)
def test_the_order_is_one_half_where_the_noise_of_a_component_depends_on_others(method):
    # The reference has steps sixteen times as short as the shortest.
    field = Field(lambda t, y: -y, lambda t, y: torch.sin(y.flip(-1)) + 1.2)
    path, y0 = draw(1 / 512, 512, 500, 2, seed=2), 0 * ones(500, 2)
    reference = integrate(SRIW1(), field, y0, path, 512)
    order = observed_order(method, field, y0, reference, path, [4, 8, 16, 32])
    assert order == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize("method", SRAS, ids=str)
def test_additive_noise_converges_with_strong_order_three_halves(method):
    # The reference has steps eight times as short as the shortest.
    field = Field(lambda t, y: torch.cos(2 * y + t), lambda t, y: torch.full_like(y, 1.5))
    path, y0 = draw(1 / 1024, 1024, 500, 1, seed=3), 0 * ones(500, 1)
    reference = integrate(SRA3(), field, y0, path, 1024)
    order = observed_order(method, field, y0, reference, path, [16, 32, 64, 128])
    assert order == pytest.approx(1.5, abs=0.2)


@pytest.mark.parametrize("method", SRAS, ids=str)
def test_additive_noise_in_a_linear_equation_converges_with_strong_order_two(method):
    # y = (1 + t)^2 (1 + b t + S W): where the drift is linear, the term of order 3 / 2 vanishes.
    b, s = torch.tensor([0.5, -0.3], dtype=F64), torch.tensor([[0.5, 0.3, 0.0], [-0.2, 0.4, 0.6]], dtype=F64)
    field = Field(
        lambda t, y: 2 * y / (1 + t) + b * (1 + t) ** 2,
        lambda t, y: s * ((1 + t) ** 2).unsqueeze(-1),
        is_diagonal=False,
    )
    path = draw(1 / 64, 64, 500, 3)
    exact = 4 * (1 + b + path.w.sum(0) @ s.T)
    order = observed_order(method, field, ones(500, 2), exact, path, [8, 16, 32, 64])
    assert order == pytest.approx(2.0, abs=0.2)


def embedded(step):
    return step.y1 - step.error


@pytest.mark.parametrize("method", [SRIW1(delta=0.0), SOSRI(delta=0.0), SOSRI2(delta=0.0)], ids=str)
def test_the_error_estimate_of_the_diffusion_is_the_difference_to_a_method_of_order_one(method):
    field, path = geometric(0.5, 0.8), draw(1 / 64, 64, 2000, 1)
    exact = (0.5 - 0.32 + 0.8 * path.w.sum(0)).exp()
    order = observed_order(method, field, ones(2000, 1), exact, path, [8, 16, 32, 64], step=embedded)
    assert order == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("method", [SRA1(delta=0.0), SRA3(delta=0.0), SOSRA(delta=0.0), SOSRA2(delta=0.0)], ids=str)
def test_the_error_estimate_of_additive_noise_is_the_difference_to_a_method_of_order_one(method):
    field = Field(lambda t, y: 0 * y, lambda t, y: (1 + t) ** 2)
    path = draw(1 / 2048, 2048, 500, 1)
    # The integral of the diffusion over the path: by parts in each cell, with the linear part of the weight exact.
    t = torch.arange(2048, dtype=F64)[:, None, None] / 2048
    middle = (1 + t + 1 / 4096) ** 2
    exact = (middle * path.w - 2 * (1 + t + 1 / 4096) / 2048 * path.h).sum(0)
    order = observed_order(method, field, 0 * ones(500, 1), exact, path, [8, 16, 32, 64], step=embedded)
    assert order == pytest.approx(1.0, abs=0.2)
    assert observed_order(method, field, 0 * ones(500, 1), exact, path, [8, 16, 32, 64]) > 1.8


@pytest.mark.parametrize("kind", [SRIW1, SOSRI, SOSRI2])
def test_an_error_estimate_that_compares_the_drift_is_the_difference_to_a_method_of_order_one(kind):
    field, path = geometric(0.5, 0.8), draw(1 / 64, 64, 2000, 1)
    exact = (0.5 - 0.32 + 0.8 * path.w.sum(0)).exp()
    method = kind(delta=1.0, compares_drift=True)
    order = observed_order(method, field, ones(2000, 1), exact, path, [8, 16, 32, 64], step=embedded)
    assert order == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("kind", [SRA1, SRA3, SOSRA, SOSRA2])
def test_an_error_estimate_of_additive_noise_that_compares_the_drift_is_the_difference_to_one_of_order_one(kind):
    # y = (1 + t)^2 (1 + t / 2 + W / 2)
    field = Field(lambda t, y: 2 * y / (1 + t) + (1 + t) ** 2 / 2, lambda t, y: (1 + t) ** 2 / 2)
    path = draw(1 / 64, 64, 500, 1)
    exact = 4 * (1.5 + path.w.sum(0) / 2)
    method = kind(compares_drift=True)
    order = observed_order(method, field, ones(500, 1), exact, path, [8, 16, 32, 64], step=embedded)
    assert order == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("compares", [False, True])
@pytest.mark.parametrize("kind", [SRIW1, SOSRI, SOSRI2, SRA1, SRA3, SOSRA, SOSRA2])
def test_only_a_compared_drift_lets_the_error_estimate_shrink_as_its_order_says(kind, compares):
    method = kind(compares_drift=compares)

    def error(h):
        constant = method.noises == ("additive",)
        field = Field(lambda t, y: torch.cos(y), lambda t, y: 1 + 0 * y if constant else y)
        field.next = draw(h, 200, 1)
        return method.step(field, 0 * ones(200), h * ones(200), ones(200, 1), ()).error.square().mean()

    slope = math.log(error(1e-6) / error(1e-8)) / math.log(1e4)
    assert slope == pytest.approx(method.error_order if compares else 1.0, abs=0.05)


@pytest.mark.parametrize("method", [*SRIS, *SRAS], ids=str)
def test_the_error_estimate_shrinks_as_its_order_says_where_the_diffusion_prevails(method):
    def error(h):
        field = Field(lambda t, y: 0 * y, (lambda t, y: (2 + t).expand_as(y)) if method in SRAS else lambda t, y: y)
        field.next = draw(h, 200, 1)
        return method.step(field, 0 * ones(200), h * ones(200), ones(200, 1), ()).error.square().mean()

    # The squares, at lengths a hundred times apart.
    slope = math.log(error(1e-4) / error(1e-6)) / math.log(1e4)
    assert slope == pytest.approx(method.error_order, abs=0.01)


@pytest.mark.parametrize("method", STIFFNESS, ids=str)
def test_the_stiffness_estimate_of_a_linear_drift_is_its_rate(method):
    field = Field(lambda t, y: -37.0 * y, lambda t, y: ones(3, 2) * 0.3, draw(0.01, 3, 2))
    step = method.step(field, 0 * ones(3), 0.01 * ones(3), ones(3, 2), ())
    torch.testing.assert_close(step.stiffness, 37.0 * ones(3), rtol=1e-9, atol=0.0)


@pytest.mark.parametrize("method", STIFFNESS, ids=str)
def test_the_stiffness_estimate_is_zero_where_nothing_changes_and_so_is_its_gradient(method):
    shift = torch.zeros(1, dtype=F64, requires_grad=True)
    field = Field(lambda t, y: shift + 0 * y, lambda t, y: 0 * y, draw(0.1, 2, 2))
    step = method.step(field, 0 * ones(2), 0.1 * ones(2), ones(2, 2), ())
    assert step.stiffness.tolist() == [0.0, 0.0]
    assert torch.autograd.grad(step.stiffness.sum(), shift)[0].item() == 0.0


@pytest.mark.parametrize("method", [SRIW1(), SOSRI(), SRA1(), SRA3(), SOSRA()], ids=str)
def test_other_methods_have_no_stiffness_estimate(method):
    field = Field(lambda t, y: -y, lambda t, y: torch.ones_like(y), draw(0.1, 2, 2))
    assert method.step(field, 0 * ones(2), 0.1 * ones(2), ones(2, 2), ()).stiffness is None


def neural(method, parameters):
    """Return a nonlinear equation of the kind that the method solves, with parameters in drift and diffusion."""
    p, q = parameters
    if method in SRAS:
        return Field(lambda t, y: torch.tanh(p * y + t) @ q, lambda t, y: (q[0] * torch.cos(p + t)).expand_as(y))
    return Field(lambda t, y: torch.tanh(p * y + t) @ q, lambda t, y: torch.sin(p * y - t) + q[0] * y)


@pytest.mark.parametrize("method", [*SRIS, *SRAS], ids=str)
def test_gradients_of_all_that_a_step_returns_are_those_of_finite_differences(method):
    generator = torch.Generator().manual_seed(0)
    p, q, y = (torch.randn(n, 2, generator=generator, dtype=F64, requires_grad=True) for n in (1, 2, 3))
    path = draw(0.2, 3, 2)
    w, h = path.w.requires_grad_(), path.h.requires_grad_()

    def values(p, q, y, w, h):
        field = neural(method, (p[0], q))
        field.next = Increment(w, h)
        step = method.step(field, torch.zeros(3, dtype=F64), torch.full((3,), 0.2, dtype=F64), y, ())
        return tuple(x for x in (step.y1, step.error, step.stiffness, *step.stages) if x is not None)

    assert torch.autograd.gradcheck(values, (p, q, y, w, h))


@pytest.mark.parametrize("method", [*SRIS, *SRAS], ids=str)
def test_samples_of_a_batch_do_not_see_each_other_and_one_may_stand_still(method):
    p = torch.tensor([0.7, -1.2], dtype=F64)
    q = torch.tensor([[0.5, 0.3], [-0.4, 0.8]], dtype=F64)
    t, dt = torch.tensor([0.0, 1.0, 2.0], dtype=F64), torch.tensor([0.1, 0.0, 0.4], dtype=F64)
    w, h = draw(dt.unsqueeze(-1), 3, 2)
    # It stands where the diffusion leaves its domain at once.
    y = torch.tensor([[100.0, 200.0], [0.5, 1e-9], [300.0, 400.0]], dtype=F64, requires_grad=True)
    together, apart = (neural(method, (p, q)) for _ in range(2))
    if method in SRIS:
        together.g = apart.g = lambda t, y: y.sqrt()
    together.next = Increment(w, h)
    step = method.step(together, t, dt, y, ())
    for i in range(3):
        apart.next = Increment(w[i : i + 1], h[i : i + 1])
        one = method.step(apart, t[i : i + 1], dt[i : i + 1], y[i : i + 1], ())
        for x, x1 in zip((step.y1, step.error, *step.stages), (one.y1, one.error, *one.stages), strict=True):
            torch.testing.assert_close(x[i : i + 1], x1)
    assert torch.equal(step.y1[1], y[1])
    assert step.error[1].tolist() == step.stages[0][1].tolist() == [0.0, 0.0]
    total = step.y1.sum() + step.error.square().sum() + (0.0 if step.stiffness is None else step.stiffness.sum())
    assert torch.autograd.grad(total, y)[0].isfinite().all()


@pytest.mark.parametrize("method", [*SRIS, *SRAS], ids=str)
def test_single_precision_stays_single_and_gives_the_same_but_for_rounding(method):
    results = []
    for dtype in (torch.float32, F64):
        p, q = torch.tensor([0.7, -1.2], dtype=dtype), torch.tensor([[0.5, 0.3], [-0.4, 0.8]], dtype=dtype)
        field = neural(method, (p, q))
        field.next = Increment(*(x.to(dtype) for x in draw(0.1, 3, 2)))
        # Times may be more precise than states.
        t, dt = torch.zeros(3, dtype=F64), torch.full((3,), 0.1, dtype=F64)
        results.append(method.step(field, t, dt, torch.ones(3, 2, dtype=dtype), ()))
    single, double = results
    assert {x.dtype for x in (single.y1, single.error, *single.stages)} == {torch.float32}
    # Weights reach 18, and the stage divides by the step.
    torch.testing.assert_close(single.y1, double.y1.float(), rtol=0.0, atol=1e-5)
    torch.testing.assert_close(single.stages[0], double.stages[0].float(), rtol=0.0, atol=1e-4)


@pytest.mark.parametrize("method", [*SRIS, *SRAS], ids=str)
def test_a_step_back_in_time_is_one_ahead_of_the_reversed_equation(method):
    field = Field(lambda t, y: torch.sin(y + t), (lambda t, y: 1 + t + 0 * y) if method in SRAS else lambda t, y: y)
    field.next = draw(0.2, 3, 1)
    back = method.step(field, ones(3), -0.2 * ones(3), ones(3, 1), ())
    reversed_ = Field(lambda t, y: -field.f(2 - t, y), lambda t, y: field.g(2 - t, y), field.next)
    ahead = method.step(reversed_, ones(3), 0.2 * ones(3), ones(3, 1), ())
    torch.testing.assert_close(back.y1, ahead.y1)
    torch.testing.assert_close(back.error, ahead.error)


@pytest.mark.parametrize("method", [SRIW1(), SOSRI2(), SOSRA2(), RI1()], ids=str)
def test_a_step_is_one_graph(method):
    generator = torch.Generator().manual_seed(0)
    p, q = torch.randn(2, generator=generator, dtype=F64), torch.randn(2, 2, generator=generator, dtype=F64)

    def values(t, dt, y, w, h):
        step = method.step(replace(neural(method, (p, q)), next=Increment(w, h)), t, dt, y, ())
        return tuple(x for x in (step.y1, step.error, step.stiffness, *step.stages) if x is not None)

    arguments = (0 * ones(3), 0.1 * ones(3), ones(3, 2), *draw(0.1, 3, 2))
    compiled = torch.compile(values, fullgraph=True, backend="eager")
    for x, expected in zip(compiled(*arguments), values(*arguments), strict=True):
        torch.testing.assert_close(x, expected)


@pytest.mark.parametrize("method", [SRIW1(), SOSRA()], ids=str)
def test_between_its_ends_a_step_is_a_line(method):
    field = Field(lambda t, y: -y, lambda t, y: torch.ones_like(y), draw(0.1, 3, 2))
    t, dt, y = 0 * ones(3), 0.1 * ones(3), ones(3, 2)
    step = method.step(field, t, dt, y, ())
    (stage,) = method.dense_stages(field, t, dt, y, step)
    theta = torch.tensor([0.0, 0.25, 1.0], dtype=F64)
    weights = method.dense_weights(theta)
    assert weights.shape == (1, 3)
    between = y + dt.unsqueeze(-1) * weights[0, :, None, None] * stage
    torch.testing.assert_close(between, torch.lerp(y, step.y1, theta[:, None, None]))


def test_a_line_joins_the_ends_of_a_step_and_a_sample_that_stands_still_has_no_slope():
    y = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=F64, requires_grad=True)
    y1 = y + torch.tensor([[1.0, -2.0], [0.0, 0.0]], dtype=F64)
    (rate,) = linear(y, torch.tensor([0.5, 0.0], dtype=F64), y1)
    torch.testing.assert_close(rate, torch.tensor([[2.0, -4.0], [0.0, 0.0]], dtype=F64))
    assert all(x.isfinite().all() for x in torch.autograd.grad(rate.square().sum(), (y,)))


def test_a_negative_weight_of_the_drift_in_the_error_estimate_is_refused():
    with pytest.raises(ValueError, match="`delta`, the weight of the drift in the error estimate, must be at least 0"):
        SOSRI(delta=-1.0)
