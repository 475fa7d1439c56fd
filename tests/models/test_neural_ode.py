from __future__ import annotations

import math

import pytest
import torch
import torchdiffeq
from torch import nn

from ude.methods import RK4, Dopri5
from ude.models import MLP, Augment, Autonomous, DenseField, Integrator, NeuralODE, SecondOrder
from ude.regularize import Steer, TaylorEnergy
from ude.solve import FixedStep

TIGHT = Integrator(rtol=1e-10, atol=1e-10)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=1, dtype=torch.float64):
    return torch.randn(shape, dtype=torch.float64, generator=seeded(seed)).to(dtype)


def linear_field(matrix):
    network = nn.Linear(len(matrix), len(matrix), bias=False, dtype=matrix.dtype)
    with torch.no_grad():
        network.weight.copy_(matrix)
    return Autonomous(network)


@pytest.mark.parametrize("batched", [False, True])
def test_a_linear_field_gives_the_matrix_exponential(batched):
    matrix, y0 = randn(3, 3), randn(5, 3, seed=2)
    model = NeuralODE(
        linear_field(matrix), t_span=(0.5, 2.0), integrator=Integrator(rtol=1e-10, atol=1e-10, batched=batched)
    )
    # Global error of a few dozen steps of 1e-10 each.
    torch.testing.assert_close(model(y0), y0 @ torch.matrix_exp(1.5 * matrix).mT, rtol=1e-8, atol=1e-8)


def test_solving_back_returns_to_the_start():
    field, y0 = DenseField((3, 8, 3), generator=seeded()), randn(4, 3)
    forth, back = (NeuralODE(field, t_span=span, integrator=TIGHT) for span in ((0.0, 1.0), (1.0, 0.0)))
    torch.testing.assert_close(back(forth(y0)), y0, rtol=1e-8, atol=1e-8)


def test_a_mini_batch_is_one_state_with_one_norm_as_in_torchdiffeq():
    field, y0 = DenseField((3, 8, 3), generator=seeded()), randn(6, 3)
    evaluations = 0

    def counted(t, y):
        nonlocal evaluations
        evaluations += 1
        return field(t, y)

    theirs = torchdiffeq.odeint(counted, y0, torch.tensor([0.0, 1.0]).double(), rtol=1e-6, atol=1e-6, method="dopri5")
    solution = NeuralODE(field, integrator=Integrator(method=Dopri5(), rtol=1e-6, atol=1e-6)).solve(y0, save_at=[1.0])
    assert solution.stats.nfe.shape == ()
    # The same pair with the same norm needs about the same steps; controller and first step differ a little.
    assert abs(int(solution.stats.nfe) - evaluations) <= 2 * 6
    torch.testing.assert_close(solution.ys[0], theirs[-1], rtol=1e-5, atol=1e-5)


def test_batched_samples_have_their_own_steps_and_do_not_feel_each_other():
    field = DenseField((2, 8, 2), generator=seeded())
    model = NeuralODE(field, integrator=Integrator(batched=True))
    easy, hard = randn(1, 2), 30 * randn(1, 2, seed=3)
    together, alone = model.solve(torch.cat([easy, hard])), model.solve(easy)
    assert together.stats.nfe.shape == (2,)
    assert together.stats.nfe[0] == alone.stats.nfe[0]
    # One sample more changes how a matrix product adds up: rounding only.
    torch.testing.assert_close(together(1.0)[0], alone(1.0)[0], rtol=0, atol=1e-13)


def test_the_layer_is_the_end_of_the_solution():
    model, y0 = NeuralODE(DenseField((3, 8, 3), generator=seeded())), randn(4, 3)
    solution = model.solve(y0, save_at=torch.linspace(0, 1, 5))
    assert solution.ys.shape == (5, 4, 3)
    # The same steps; times between them are interpolated.
    torch.testing.assert_close(model(y0), solution.ys[-1], rtol=0, atol=1e-14)
    torch.testing.assert_close(solution(0.5), solution.ys[2], rtol=0, atol=1e-14)


def test_one_call_may_use_another_interval():
    matrix, y0 = randn(2, 2), randn(3, 2)
    solution = NeuralODE(linear_field(matrix), integrator=TIGHT).solve(y0, save_at=[1.3], t_span=(0.0, 1.3))
    torch.testing.assert_close(solution.ys[0], y0 @ torch.matrix_exp(1.3 * matrix).mT, rtol=1e-8, atol=1e-8)


def test_a_regularizer_may_change_the_problem_before_the_solve():
    model, y0 = NeuralODE(DenseField((3, 8, 3), generator=seeded()), integrator=TIGHT), randn(4, 3)
    cost = TaylorEnergy(2, nodes="state")
    problem, save_at = cost.prepare(model.problem(y0), [1.0])
    solution = model.integrator.solve(problem, save_at=save_at)
    torch.testing.assert_close(cost.restore(solution).ys[-1], model(y0), rtol=1e-8, atol=1e-8)
    expected = TaylorEnergy(2, nodes="quadrature", samples=16)(model.solve(y0))
    torch.testing.assert_close(cost(solution), expected, rtol=1e-6, atol=0)
    problem, save_at = Steer(generator=seeded(3)).prepare(model.problem(y0))
    ended = model.integrator.solve(problem, save_at=save_at)
    assert 0.5 <= float(ended.ts[-1]) <= 1.5
    assert float(ended.ts[-1]) != 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_a_layer_among_layers_in_either_precision(dtype):
    layers = (nn.Flatten(), Augment(2), NeuralODE(DenseField((8, 16, 8), dtype=dtype)), nn.Linear(8, 10, dtype=dtype))
    model = nn.Sequential(*layers)
    out = model(randn(5, 3, 2, dtype=dtype))
    assert out.shape == (5, 10)
    assert out.dtype == dtype
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def fields():
    return {
        "time at every layer": DenseField((4, 5, 4), generator=seeded()),
        "autonomous": DenseField((4, 5, 4), is_autonomous=True, activates_input=True, generator=seeded()),
        "network": Autonomous(MLP(4, 4, width=5, depth=1, generator=seeded())),
        "second order": SecondOrder(DenseField((4, 5, 2), generator=seeded())),
    }


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("kind", fields())
def test_gradients_are_those_of_finite_differences(kind, batched):
    # Constant steps: the loss is then a smooth function whose differences show nothing but its gradient.
    integrator = Integrator(method=RK4(), dt=0.25, controller=FixedStep(), batched=batched)
    model = NeuralODE(fields()[kind], integrator=integrator)
    names, values = zip(*model.named_parameters(), strict=True)

    def end(y0, *values):
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), (y0,))

    inputs = [randn(3, 4), *(v.detach() for v in values)]
    assert torch.autograd.gradcheck(end, [x.requires_grad_() for x in inputs])


def test_adaptive_gradients_agree_with_finite_differences():
    model, y0 = NeuralODE(DenseField((2, 6, 2), generator=seeded()), integrator=TIGHT), randn(4, 2)
    weight = next(model.parameters())
    model(y0).square().sum().backward()
    gradient, change = weight.grad.clone(), randn(*weight.shape, seed=7)
    sides = []
    with torch.no_grad():
        for step in (1e-5, -1e-5):
            weight += step * change
            sides.append(float(model(y0).square().sum()))
            weight -= step * change
    # Steps count as constants: what is left out is of the size of the tolerance, here 1e-10 / 1e-5 in the quotient.
    assert (sides[0] - sides[1]) / 2e-5 == pytest.approx(float((gradient * change).sum()), rel=1e-5)


def test_the_parameters_go_through_a_state_dict():
    make = lambda seed: NeuralODE(DenseField((3, 8, 3), generator=seeded(seed)))  # noqa: E731
    model, other, y0 = make(0), make(1), randn(4, 3)
    assert not torch.equal(model(y0), other(y0))
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(y0), other(y0))


def test_a_pytree_is_a_state_like_any_other():
    turn = lambda t, y: {"x": y["v"], "v": -y["x"]}  # noqa: E731
    y0 = {"x": torch.ones(2).double(), "v": torch.zeros(2).double()}
    end = NeuralODE(turn, integrator=TIGHT)(y0)
    torch.testing.assert_close(end["x"], torch.full_like(y0["x"], math.cos(1.0)), rtol=1e-8, atol=1e-8)


def test_a_spring_released_with_a_velocity_made_from_its_position():
    # x'' = -x with v(0) = 2 x(0): x = x0 (cos t + 2 sin t).
    velocity = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.constant_(velocity.weight, 2.0)
    spring = NeuralODE(SecondOrder(lambda t, y: -y[..., :1]), integrator=TIGHT)
    x0 = randn(4, 1)
    end = nn.Sequential(Augment(velocity), spring)(x0)
    torch.testing.assert_close(end[:, :1], x0 * (math.cos(1.0) + 2 * math.sin(1.0)), rtol=1e-8, atol=1e-8)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match=r"called as f\(t, y\)"):
        NeuralODE("network")
    with pytest.raises(ValueError, match="must be a pair"):
        NeuralODE(DenseField((2, 2)), t_span=(0.0, 0.5, 1.0))
    with pytest.raises(ValueError, match="shape and dtype of the state"):
        NeuralODE(DenseField((2, 3)))(randn(5, 2))
    with pytest.raises(ValueError, match="at least 1 dimension"):
        Augment(0)
    with pytest.raises(ValueError, match="as many velocities"):
        SecondOrder(DenseField((3, 1)))(0.0, randn(5, 3))
    with pytest.raises(ValueError, match="must have 2 components"):
        SecondOrder(DenseField((4, 4)))(0.0, randn(5, 4))
