import pytest
import torch

from ude.ad import laplacian
from ude.bsde import DeepBSDE, DeepSplitting, EqualSteps, ForwardBackward, Network, SemilinearPDE
from ude.bsde.networks import LinearGuess, Start


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


PDE = SemilinearPDE(
    drift=lambda t, x: -t * x,
    diffusion=lambda t, x: 1.0 + 0.1 * x**2,
    f=lambda t, x, u, grad_u: u - (grad_u**2).sum(-1, keepdim=True),
    g=lambda x: torch.cos(x).sum(-1, keepdim=True),
    t1=2.0,
)
X0 = torch.tensor([0.5, -0.5, 1.0], dtype=torch.float64)
STEPS = EqualSteps(steps=4)


def start(pde=PDE):
    return Start.of(pde, X0, 1.0, lambda count: STEPS.draw(pde, X0, 1.0, count, seeded()))


def points():
    return 1.0 + torch.rand(6, 1, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)


def differences(function, x, h=1e-6):
    e = h * torch.eye(x.shape[-1], dtype=x.dtype)
    return torch.cat([(function(x + step) - function(x - step)) / (2 * h) for step in e], -1)


def shaken(model):
    """Large weights, so that every term counts."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=seeded(1), dtype=parameter.dtype), alpha=0.3)
    return model


def test_the_gradient_of_a_linear_guess_is_that_of_finite_differences():
    guess, (t, x) = LinearGuess(start(), 2, seeded()), points()
    value, gradient = guess.with_gradient(t, x)
    torch.testing.assert_close(value, guess(t, x))
    torch.testing.assert_close(gradient, differences(lambda x: guess(t, x), x), rtol=1e-6, atol=1e-8)


def test_a_linear_guess_is_the_terminal_value_at_the_end():
    _, x = points()
    end = torch.full((6, 1), 2.0, dtype=torch.float64)
    torch.testing.assert_close(LinearGuess(start(), 2, seeded())(end, x), PDE.terminal(x))


def test_the_gradient_of_a_value_model_is_that_of_finite_differences():
    model, (t, x) = shaken(ForwardBackward().build(start(), seeded())), points()
    value, gradient = model.with_gradient(t, x)
    torch.testing.assert_close(value, model(t, x))
    torch.testing.assert_close(gradient, differences(lambda x: model(t, x), x), rtol=1e-6, atol=1e-8)
    end = torch.full((6, 1), 2.0, dtype=torch.float64)
    torch.testing.assert_close(model(end, x), PDE.terminal(x))


def test_values_and_gradients_are_recorded_for_the_weights():
    model, (t, x) = shaken(ForwardBackward(network=Network(width=3)).build(start(), seeded())), points()
    weight = model.network.weights[0]

    def loss():
        value, gradient = model.with_gradient(t, x)
        return (value * gradient).sum()

    loss().backward()
    with torch.no_grad():
        for i, j in ((0, 0), (2, 1)):
            kept = weight[i, j].clone()
            values = []
            for h in (1e-6, -1e-6):
                weight[i, j] = kept + h
                values.append(float(loss()))
            weight[i, j] = kept
            assert float(weight.grad[i, j]) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5)


def test_the_gradient_of_every_step_of_a_splitting_is_that_of_finite_differences():
    model, (_, x) = shaken(DeepSplitting(paths=STEPS).build(start(), seeded())), points()
    for n in range(5):
        gradient = model.with_gradient(n, x)[1]
        expected = differences(lambda x, n=n: model.with_gradient(n, x)[0].detach(), x)
        torch.testing.assert_close(gradient.detach(), expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(model.with_gradient(4, x)[0], PDE.terminal(x))


@pytest.mark.parametrize(
    "method", [DeepBSDE(paths=STEPS), DeepBSDE(paths=STEPS, per_step=True), DeepSplitting(paths=STEPS)]
)
def test_gradients_along_paths_are_those_at_their_points(method):
    model = shaken(method.build(start(), seeded()))
    if isinstance(method, DeepSplitting):
        model.trained_from = 0
    paths = STEPS.draw(PDE, X0, 1.0, 5, seeded())
    with torch.no_grad():
        along = model.gradients(paths)
        each = torch.stack([model.gradient(t, x) for t, x in zip(paths.times, paths.states, strict=True)])
    assert along.shape == (4, 5, 3)
    torch.testing.assert_close(along, each)
    # Different times have different networks, or are told apart by one.
    assert not torch.allclose(model.gradient(paths.times[0], paths.states[2]), along[2])


def test_a_trained_value_goes_through_the_kernel():
    model, (t, x) = shaken(ForwardBackward().build(start(), seeded())), points()
    assert laplacian(lambda x: model(t, x), x).operator.shape == (6, 1)


def test_scales_are_those_of_the_paths():
    found = start()
    paths = STEPS.draw(PDE, X0, 1.0, 1000, seeded())
    torch.testing.assert_close(found.center, paths.xs.reshape(-1, 3).mean(0))
    torch.testing.assert_close(found.spread, paths.xs.reshape(-1, 3).std(0, correction=0))
    torch.testing.assert_close(found.scale, PDE.terminal(paths.end).std())


def test_a_constant_terminal_value_and_a_coordinate_at_rest_have_a_scale():
    pde = SemilinearPDE(
        drift=0.0,
        diffusion=torch.tensor([1.0, 0.0, 1.0]),
        f=PDE.f,
        g=lambda x: torch.full_like(x[..., :1], 3.0),
        t1=2.0,
    )
    found = start(pde)
    assert float(found.scale) == 3.0
    assert float(found.spread[1]) == 1.0
    assert float(found.slope) > 0


def test_paths_that_explode_are_named_with_their_time():
    pde = SemilinearPDE(drift=lambda t, x: 1e3 * x**9, diffusion=1.0, f=PDE.f, g=PDE.g, t1=2.0)
    with pytest.raises(ValueError, match=r"leaves the finite numbers at t = 2\. .*4 steps"):
        start(pde)


def test_a_terminal_value_that_is_not_finite_is_refused():
    pde = SemilinearPDE(drift=0.0, diffusion=1.0, f=PDE.f, g=lambda x: torch.log(x[..., :1]), t1=2.0)
    with pytest.raises(ValueError, match="`g` is not finite at"):
        start(pde)
