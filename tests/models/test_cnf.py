from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from ude.ad import Coordinates, Gaussian, Orthogonal, Rademacher
from ude.methods import RK4
from ude.models import CNF, MLP, Autonomous, DenseField, Flow, FlowState, Integrator, NeuralODE
from ude.regularize import ErrorEstimate, KineticEnergy, StiffnessEstimate, TaylorEnergy
from ude.solve import FixedStep

TIGHT = Integrator(rtol=1e-10, atol=1e-10)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=1, dtype=torch.float64):
    return torch.randn(shape, dtype=torch.float64, generator=seeded(seed)).to(dtype)


def network(features=2, width=16, seed=0, dtype=torch.float64):
    return DenseField((features, width, features), generator=seeded(seed), dtype=dtype)


class Linear(nn.Module):
    """dz/dt = 2 t A z, whose solution operator from 0 to t is exp(t^2 A)."""

    def __init__(self, matrix):
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    def forward(self, t, z):
        return 2 * t * z @ self.matrix.mT


@pytest.mark.parametrize("batched", [False, True])
def test_a_linear_field_gives_the_density_of_a_normal_distribution(batched):
    matrix, x = randn(3, 3), randn(20, 3, seed=2)
    model = CNF(Linear(matrix), 3, t_span=(0.0, 1.2), integrator=Integrator(rtol=1e-10, atol=1e-10, batched=batched))
    spread = torch.matrix_exp(1.2**2 * matrix)
    expected = MultivariateNormal(torch.zeros(3).double(), scale_tril=torch.linalg.cholesky(spread @ spread.mT))
    # Global error of some dozen steps of 1e-10.
    torch.testing.assert_close(model.log_prob(x), expected.log_prob(x), rtol=1e-7, atol=1e-7)


def test_the_exact_trace_is_that_of_reverse_mode():
    field, z, t = network(4), randn(6, 4), torch.tensor(0.3).double()
    rate = Flow(field, None)(t, FlowState(z, torch.zeros(6).double()))
    traces = [torch.autograd.functional.jacobian(lambda row: field(t, row), row).trace() for row in z]
    torch.testing.assert_close(rate.log_p, -torch.stack(traces), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(rate.z, field(t, z), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("estimator", [Orthogonal(2), Coordinates(2), Orthogonal(2, per_sample=True)], ids=str)
def test_an_estimator_with_all_directions_is_exact(estimator):
    field, x = network(), randn(5, 2)
    exact, estimate = (CNF(field, 2, estimator=e, integrator=TIGHT).log_prob(x) for e in (None, estimator))
    # The same equation up to rounding, which may change a step length.
    torch.testing.assert_close(estimate, exact, rtol=0, atol=1e-8)


class Signs(Rademacher):
    """Signs that are given instead of drawn."""

    chosen: tuple[float, ...] = ()

    def draw(self, dimension, batch, like):
        return like.new_tensor(self.chosen).reshape(1, *[1] * len(batch), dimension)


def test_the_mean_over_all_signs_is_the_exact_density():
    field, x, values = network(3), randn(5, 3), []
    for signs in itertools.product((-1.0, 1.0), repeat=3):
        estimator = Signs(1)
        object.__setattr__(estimator, "chosen", signs)
        values.append(CNF(field, 3, estimator=estimator, integrator=TIGHT).log_prob(x))
    exact = CNF(field, 3, integrator=TIGHT).log_prob(x)
    assert not torch.allclose(values[0], exact, rtol=0, atol=1e-3)
    torch.testing.assert_close(torch.stack(values).mean(0), exact, rtol=0, atol=1e-8)


@pytest.mark.parametrize("per_sample", [False, True])
def test_the_noise_is_drawn_once_per_solve(per_sample):
    bounded, x = Integrator(max_steps=200), randn(5, 2)
    model = CNF(network(), 2, estimator=Gaussian(1, generator=seeded(), per_sample=per_sample), integrator=bounded)
    solution, other = model.solve(x), model.log_prob(x)
    assert not torch.allclose(model.log_density(solution), other)
    # A right-hand side with fresh noise at every stage would look rough, and its steps would be short.
    exact = CNF(model.field, 2).solve(x)
    assert int(solution.stats.nfe) <= 2 * int(exact.stats.nfe)
    again = CNF(model.field, 2, estimator=Gaussian(1, generator=seeded(), per_sample=per_sample))
    assert torch.equal(model.log_density(solution), again.log_density(again.solve(x)))


@pytest.mark.parametrize("kind", ["dense", "network"])
def test_the_density_integrates_to_one(kind):
    field = network() if kind == "dense" else Autonomous(MLP(2, 2, width=16, activation="softplus", generator=seeded()))
    axis = torch.linspace(-8, 8, 81, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        density = CNF(field, 2, integrator=Integrator(rtol=1e-7, atol=1e-7)).log_prob(grid).exp()
    # The sum over a grid of a smooth density that has died out at its border is spectrally accurate.
    assert float(density.sum()) * 0.2**2 == pytest.approx(1.0, abs=1e-5)


def test_samples_are_carried_back_to_where_they_came_from():
    model = CNF(network(), 2, integrator=TIGHT)
    x = model.sample(50, seeded(3))
    solution = model.solve(x)
    z = torch.randn(50, 2, generator=seeded(3), dtype=torch.float64)
    torch.testing.assert_close(solution.ys.z[-1], z, rtol=0, atol=1e-7)
    # log p(x) = log p(z) - log |dx / dz|, the determinant from the flow of neighbours.
    flow = lambda row: NeuralODE(model.field, integrator=TIGHT)(row[None])[0]  # noqa: E731
    jacobians = torch.stack([torch.autograd.functional.jacobian(flow, row) for row in z[:5]])
    expected = -0.5 * z[:5].square().sum(-1) - math.log(2 * math.pi) - torch.linalg.slogdet(jacobians).logabsdet
    torch.testing.assert_close(model.log_prob(x)[:5], expected, rtol=0, atol=1e-7)


def test_samples_have_the_moments_of_the_density():
    matrix = torch.tensor([[0.3, 0.5], [-0.2, 0.1]]).double()
    model = CNF(Linear(matrix), 2)
    x = model.sample(20_000, seeded())
    spread = torch.matrix_exp(matrix)
    # Standard errors of covariances of order 2 from 20,000 samples are about 0.02.
    torch.testing.assert_close(x.T.cov(), spread @ spread.mT, rtol=0, atol=0.1)
    assert float(x.mean(0).detach().norm()) < 0.05


@pytest.mark.parametrize("estimator", [None, Rademacher(1, per_sample=True)], ids=str)
@pytest.mark.parametrize("batched", [False, True])
def test_gradients_are_those_of_finite_differences(estimator, batched):
    integrator = Integrator(method=RK4(), dt=0.25, controller=FixedStep(), batched=batched)
    field = network(width=3)
    names, values = zip(*field.named_parameters(), strict=True)

    def density(x, *values):
        parameters = dict(zip(names, values, strict=True))
        call = lambda t, z: torch.func.functional_call(field, parameters, (t, z))  # noqa: E731
        torch.manual_seed(0)
        return CNF(call, 2, estimator=estimator, integrator=integrator).log_prob(x)

    inputs = [randn(3, 2), *(v.detach() for v in values)]
    assert torch.autograd.gradcheck(density, [x.requires_grad_() for x in inputs])


def test_steps_of_points_and_density_carry_gradient():
    model, x = CNF(network(), 2, integrator=Integrator(rtol=1e-6, atol=1e-6)), randn(8, 2)
    solution = model.solve(x)
    assert isinstance(solution.ys, FlowState)
    assert solution.ys.z.shape[1:] == (8, 2)
    assert solution.ys.log_p.shape[1:] == (8,)
    (solution.steps.error.mean() + solution.steps.stiffness.max()).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


@pytest.mark.parametrize("cost", [TaylorEnergy(2, nodes="quadrature"), KineticEnergy(nodes="quadrature")], ids=str)
def test_costs_of_the_points_are_those_of_a_solve_without_densities(cost):
    field, x = network(), randn(6, 2)
    model, plain = CNF(field, 2, integrator=TIGHT), NeuralODE(field, t_span=(1.0, 0.0), integrator=TIGHT)
    ours = cost(model.positions(model.solve(x)))
    # Both trajectories are exact to the tolerance; the dense output between other steps is less so.
    torch.testing.assert_close(ours, cost(plain.solve(x)), rtol=1e-6, atol=0)
    assert all(g.abs().max() > 0 for g in torch.autograd.grad(ours, list(field.parameters())))


def test_costs_of_steps_and_evaluations_take_points_and_densities():
    model, x = CNF(network(), 2), randn(6, 2)
    solution = model.solve(x)
    for cost in (ErrorEstimate(), StiffnessEstimate(), KineticEnergy(nodes="quadrature")):
        gradients = torch.autograd.grad(cost(solution), list(model.parameters()), retain_graph=True)
        assert all(g.isfinite().all() and g.abs().max() > 0 for g in gradients)
    both, points = (KineticEnergy(nodes="quadrature")(s) for s in (solution, model.positions(solution)))
    assert not torch.allclose(both, points)
    with pytest.raises(ValueError, match="`positions` needs"):
        model.positions(NeuralODE(model.field).solve(x))


class Bursting(nn.Module):
    """A field that turns infinite far away, where a trial step may go."""

    def forward(self, t, z):
        return torch.where(z.abs() > 2.0, torch.inf, -z)


def test_a_trial_step_out_of_the_numbers_is_rejected_and_not_an_error():
    x = torch.tensor([[1.9, 0.0], [0.1, 0.0]]).double()
    for batched in (False, True):
        # A stage of a first step of 20 lies where the field is infinite, and the next one beyond all numbers.
        model = CNF(Bursting(), 2, t_span=(20.0, 0.0), integrator=Integrator(dt=20.0, batched=batched))
        expected = -0.5 * (x * math.exp(-20)).square().sum(-1) - math.log(2 * math.pi) - 40.0
        torch.testing.assert_close(model.log_prob(x), expected, rtol=1e-4, atol=1e-4)


def test_single_precision_and_a_state_dict():
    first, second = (CNF(network(seed=seed, dtype=torch.float32), 2) for seed in (0, 1))
    x = randn(5, 2, dtype=torch.float32)
    assert first.log_prob(x).dtype == torch.float32
    assert first.sample(3).dtype == torch.float32
    assert not torch.equal(first.log_prob(x), second.log_prob(x))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.log_prob(x), second.log_prob(x))


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match=r"called as f\(t, z\)"):
        CNF("field", 2)
    with pytest.raises(ValueError, match="at least 1"):
        CNF(network(), 0)
    with pytest.raises(ValueError, match="`estimator` must be None"):
        CNF(network(), 2, estimator="hutchinson")
    model = CNF(network(), 2)
    with pytest.raises(ValueError, match=r"must have shape \(batch, 2\)"):
        model.log_prob(randn(5, 3))
    with pytest.raises(ValueError, match="`count` must be"):
        model.sample(0)
