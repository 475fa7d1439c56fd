"""The compiled engine against the eager one."""

from __future__ import annotations

import gc
import logging
import weakref

import pytest
import torch
from torch._dynamo.utils import counters

import ude
from ude.methods import BS3, Tsit5
from ude.solve.compilation import _compiled, compiled


class Field(torch.nn.Module):
    """A small network beside a known part; takes a root, which leaves its domain when a trial step is too long."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(0.3 * torch.randn(2, 2, generator=generator, dtype=torch.float64))

    def forward(self, t, y):
        return torch.stack([y[..., 1], -y[..., 0]], -1) + torch.tanh(y) @ self.weight.T + 0.1 * torch.cos(t)


def gradient(field, engine, y0=(1.0, 0.5), end=2.0, rtol=1e-6, adjoint=None):
    y0 = torch.tensor(y0, dtype=torch.float64, requires_grad=True)
    problem = ude.ODEProblem(field, y0, (0.0, end))
    ts = torch.linspace(0.0, end, 7, dtype=torch.float64)
    adjoint = ude.Direct() if adjoint is None else adjoint
    solution = ude.solve(problem, Tsit5(), save_at=ts, rtol=rtol, atol=1e-8, engine=engine, adjoint=adjoint)
    loss = (solution.ys**2).sum()
    for parameter in field.parameters():
        parameter.grad = None
    loss.backward()
    return solution, y0.grad, field.weight.grad


@pytest.mark.slow
def test_engines_agree_and_nothing_is_compiled_twice(caplog):
    field = Field()
    engine = ude.Compiled(unroll=2)
    with caplog.at_level(logging.INFO, "ude"):
        compiled, dy0, dweight = gradient(field, engine)
    assert "Field" in caplog.messages[-1]
    eager, dy0_eager, dweight_eager = gradient(field, "eager")
    # The same operations in another order of rounding.
    torch.testing.assert_close(compiled.ys, eager.ys, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(dy0, dy0_eager, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(dweight, dweight_eager, rtol=1e-10, atol=1e-12)
    # An error estimate is a difference of nearly equal numbers: half of its digits are lost.
    torch.testing.assert_close(compiled.steps.error, eager.steps.error, rtol=1e-5, atol=1e-6)
    assert torch.equal(compiled.stats.nfe, eager.stats.nfe)
    torch.testing.assert_close(compiled(1.234), eager(1.234), rtol=1e-12, atol=1e-13)

    graphs = counters["stats"]["unique_graphs"]
    with torch.no_grad():
        field.weight.mul_(0.9)
    _, dy0, dweight = gradient(field, engine, y0=(0.3, -0.2), end=1.3, rtol=1e-7)
    _, dy0_eager, dweight_eager = gradient(field, "eager", y0=(0.3, -0.2), end=1.3, rtol=1e-7)
    torch.testing.assert_close(dweight, dweight_eager, rtol=1e-10, atol=1e-12)
    _, dy0_again, dweight_again = gradient(
        field, engine, y0=(0.3, -0.2), end=1.3, rtol=1e-7, adjoint=ude.Checkpointed()
    )
    torch.testing.assert_close(dy0_again, dy0, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(dweight_again, dweight, rtol=1e-12, atol=1e-14)
    assert counters["stats"]["unique_graphs"] == graphs

    reference, key = weakref.ref(field), id(field)
    del field, compiled, eager, dweight, dweight_eager, dweight_again, _  # a solution knows its problem
    gc.collect()
    assert reference() is None
    assert key not in _compiled


@pytest.mark.slow
def test_gradcheck_of_the_compiled_solve():
    weight = Field().weight.detach()

    def end(y0, weight):
        def field(t, y, p):
            return torch.tanh(y @ p.T) - 0.5 * y * torch.cos(t)

        problem = ude.ODEProblem(field, y0, (0.0, 1.0), p=weight)
        engine = ude.Compiled(unroll=1)
        return ude.solve(problem, Tsit5(), save_at=[0.4, 1.0], dt=0.2, controller=ude.FixedStep(), engine=engine).ys

    y0 = torch.tensor([0.5, -1.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(end, (y0, weight.requires_grad_()))


@pytest.mark.slow
def test_batches_with_trial_steps_outside_the_domain_and_more_shapes_than_the_compiler_keeps():
    rate = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)

    def field(t, y):
        return -rate * torch.sqrt(y)

    with torch._dynamo.config.patch(recompile_limit=1):
        for start in ([[1.0], [4.0]], [[1.0], [4.0], [9.0]]):
            y0 = torch.tensor(start, dtype=torch.float64, requires_grad=True)
            problem = ude.ODEProblem(field, y0, (0.0, 1.5), batched=True)
            options = {"save_at": [1.5], "dt": 1.49, "rtol": 1e-8, "atol": 1e-10}
            got, expected = (
                ude.solve(problem, BS3(), engine=engine, **options) for engine in (ude.Compiled(unroll=1), "eager")
            )
            assert torch.equal(got.stats.rejected, expected.stats.rejected)
            assert got.steps.error[0, 0] == torch.inf
            # The same operations in another order of rounding, which moves the step lengths by 1e-9.
            torch.testing.assert_close(got.ys, expected.ys, rtol=1e-10, atol=1e-12)
            gradients = [torch.autograd.grad(s.ys.sum(), [rate, y0]) for s in (got, expected)]
            for a, b in zip(*gradients, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.slow
def test_a_large_batch_of_small_states_equals_the_eager_engine_although_it_lies_across_in_memory():
    mu = torch.linspace(0.5, 2.0, 20, dtype=torch.float64, requires_grad=True)

    def field(t, y, mu):
        x, v = y.unbind(-1)
        return torch.stack([v, mu * (1 - x * x) * v - x], dim=-1)

    y0 = torch.tensor([2.0, 0.0], dtype=torch.float64).expand(20, 2).clone().requires_grad_()
    problem = ude.ODEProblem(field, y0, (0.0, 3.0), p=mu, batched=True)
    got, expected = (
        ude.solve(problem, Tsit5(), save_at=[1.5, 3.0], rtol=1e-6, engine=engine)
        for engine in (ude.Compiled(unroll=2), "eager")
    )
    assert torch.equal(got.stats.accepted, expected.stats.accepted)
    # The same operations in another order of rounding.
    torch.testing.assert_close(got.ys, expected.ys, rtol=1e-12, atol=1e-13)
    gradients = [torch.autograd.grad(s.ys.square().sum(), [mu, y0]) for s in (got, expected)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_a_vector_field_that_cannot_be_traced_says_so():
    def field(t, y):
        return -y if y.sum() > 0 else y

    problem = ude.ODEProblem(field, torch.ones(2), (0.0, 1.0))
    with pytest.raises(RuntimeError, match='engine="eager"'):
        ude.solve(problem, engine="compiled")


@pytest.mark.slow
def test_a_vector_field_that_changes_with_every_call_is_refused_instead_of_compiled_for_ever():
    class Growing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.times = []

        def forward(self, t, y):
            self.times.append(t)
            return -y

    problem = ude.ODEProblem(Growing(), torch.ones(3), (0.0, 1.0))
    with pytest.raises(RuntimeError, match="compiled anew for every step"):
        ude.solve(problem, ude.Heun(), dt=0.01, controller=ude.FixedStep(), engine="compiled")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_hyperbolic_tangent_of_compiled_code_is_right_to_two_units_of_rounding(dtype):
    def function(x):
        return torch.tanh(x)

    size = torch.logspace(-30, 3, 4_001, dtype=torch.float64)
    special = torch.tensor([0.0, torch.inf, -torch.inf, torch.nan], dtype=torch.float64)
    x = torch.cat([size, -size, special]).to(dtype).requires_grad_()
    ours, exact = compiled(function, "tanh")(x), torch.tanh(x.double()).to(dtype)
    torch.testing.assert_close(ours, exact, rtol=2.5 * torch.finfo(dtype).eps, atol=0.0, equal_nan=True)
    (slope,) = torch.autograd.grad(ours.nansum(), x)
    torch.testing.assert_close(
        slope, 1.0 - ours.detach() ** 2, rtol=4 * torch.finfo(dtype).eps, atol=1e-15, equal_nan=True
    )
