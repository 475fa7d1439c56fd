"""The Taylor energy of stochastic trajectories."""

from __future__ import annotations

import pytest
import torch

import ude
from ude.models import MLP, Autonomous, Integrator, NeuralSDE
from ude.regularize import KineticEnergy, TaylorEnergy
from ude.reproduce.generator_energy import GeneratorEnergy

F64 = torch.float64
STILL = Integrator(method=ude.SOSRI(), rtol=1e-3, atol=1e-3)
MATRIX = torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 2.0], [0.5, 0.0, -1.0]], dtype=F64)


def randn(*shape, seed=1):
    return torch.randn(shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def solved(drift, diffusion, y0, **options):
    model = NeuralSDE(drift, diffusion, integrator=STILL, **options)
    return model.solve(y0, generator=torch.Generator().manual_seed(0))


def test_of_a_cubic_drift_it_is_the_formula_of_ito():
    # f = -y^3, g = 1 + y / 2: L f = f' f + g^2 f'' / 2 = 3 y^5 - 3 y g^2. Evaluated at the start alone.
    y0 = randn(4, 3)
    solution = solved(lambda t, y: -(y**3), lambda t, y: 1.0 + 0.5 * y, y0)
    expected = (3.0 * y0**5 - 3.0 * y0 * (1.0 + 0.5 * y0) ** 2).square().mean()
    torch.testing.assert_close(GeneratorEnergy(2, nodes=[0.0])(solution), expected)


def test_of_a_linear_drift_it_does_not_feel_the_noise():
    y0 = randn(4, 3)
    solution = solved(lambda t, y: y @ MATRIX.T, lambda t, y: 0.5 * torch.sin(y), y0)
    expected = (solution(0.5) @ (MATRIX @ MATRIX).T).square().mean()
    torch.testing.assert_close(GeneratorEnergy(2, nodes=[0.5])(solution), expected)


def test_of_order_one_it_is_the_kinetic_energy():
    drift = Autonomous(MLP(3, 3, width=8, depth=1))
    solution = solved(drift, lambda t, y: 0.1 * y, randn(4, 3))
    nodes = {"nodes": "quadrature", "samples": 5}
    torch.testing.assert_close(GeneratorEnergy(1, **nodes)(solution), KineticEnergy(**nodes)(solution))


def test_without_noise_it_is_the_taylor_energy():
    drift = Autonomous(MLP(3, 3, width=8, depth=1))
    solution = solved(drift, lambda t, y: 0.0 * y, randn(4, 3))
    nodes = {"nodes": "quadrature", "samples": 5}
    torch.testing.assert_close(GeneratorEnergy(2, **nodes)(solution), TaylorEnergy(2, **nodes)(solution))


def test_its_gradient_is_that_of_finite_differences_in_drift_and_diffusion():
    y0 = 0.5 * randn(2, 3)
    path = ude.BrownianTree(3, depth=8)

    def cost(a, b):
        problem = ude.SDEProblem(
            lambda t, y: torch.tanh(a * y), lambda t, y: b * torch.cos(y), y0, (0.0, 1.0), path=path
        )
        solution = ude.solve(problem, ude.SOSRI(), dt=0.25, controller=ude.FixedStep())
        return GeneratorEnergy(2, nodes=[0.25, 0.75])(solution)

    inputs = [torch.tensor(x, dtype=F64, requires_grad=True) for x in (0.8, 0.6)]
    assert torch.autograd.gradcheck(cost, inputs)
    assert all(g.abs() > 1e-3 for g in torch.autograd.grad(cost(*inputs), inputs))


def test_what_has_no_such_energy_is_refused():
    with pytest.raises(ValueError, match="must be 1 or 2"):
        GeneratorEnergy(3)
    with pytest.raises(ValueError, match="no state of the equation"):
        GeneratorEnergy(2, nodes="state")
    ordinary = ude.solve(ude.ODEProblem(lambda t, y: -y, randn(4, 3), (0.0, 1.0)), ude.Tsit5())
    with pytest.raises(ValueError, match="Ito equation with diagonal noise"):
        GeneratorEnergy(2)(ordinary)
    with pytest.raises(ValueError, match="needs the diffusion too"):
        GeneratorEnergy(2).along(lambda t, y: -y, torch.linspace(0, 1, 3), torch.zeros(3, 2))
