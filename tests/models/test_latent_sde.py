"""Time series whose unobserved state follows a stochastic equation."""

from __future__ import annotations

import math

import pytest
import torch

import ude
from ude.models import (
    MLP,
    ContextEncoder,
    DenseField,
    Integrator,
    LatentSDE,
    Posterior,
    SeparateDiffusion,
    path_elbo,
)

F64 = torch.float64
TIMES = torch.linspace(0.0, 1.0, 5, dtype=F64)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=1):
    return torch.randn(shape, dtype=F64, generator=seeded(seed))


def small(**options):
    source = seeded()
    return LatentSDE(
        ContextEncoder(3, latent=2, context=4, state=6, generator=source),
        DenseField((6, 8, 2), generator=source),
        DenseField((2, 8, 2), generator=source),
        SeparateDiffusion(2, generator=source),
        MLP(2, 3, depth=0, generator=source),
        latent=2,
        **options,
    )


def known(posterior_drift, mean=0.0, variance=1.0, noise=0.5, **options):
    """A model of one component with equations given, whose context is the data."""
    start = lambda data: torch.full_like(data[:, 0], mean)  # noqa: E731
    return LatentSDE(
        lambda data, mask, ts: (Posterior(start(data), torch.full_like(data[:, 0], math.log(variance))), data),
        posterior_drift,
        lambda t, z: torch.zeros_like(z),
        lambda t, z: torch.full_like(z, noise),
        lambda z: z,
        latent=1,
        **options,
    )


@pytest.mark.parametrize("batched", [False, True])
def test_divergence_of_constant_drifts_is_that_of_girsanov(batched):
    integrator = Integrator(method=ude.SOSRI(), rtol=1e-3, atol=1e-3, batched=batched)
    model = known(lambda t, y: torch.full_like(y[:, :1], 0.8), mean=0.3, variance=0.25, integrator=integrator)
    data = torch.zeros(4, 5, 1, dtype=F64)
    made = model(data, torch.ones_like(data), 2.0 * TIMES, generator=seeded())
    # (0.8 / 0.5)^2 / 2 over two units of time; (s^2 + m^2 - 1 - log s^2) / 2 at the start.
    torch.testing.assert_close(made.path_divergence, torch.full((4,), 0.5 * 1.6**2 * 2.0, dtype=F64))
    start = 0.5 * (0.25 + 0.09 - 1.0 - math.log(0.25))
    torch.testing.assert_close(made.initial_divergence, torch.full((4,), start, dtype=F64))


def test_the_bound_is_tight_for_the_true_posterior_and_lower_for_another():
    # A Brownian motion of spread 0.5 from N(0, 1), seen at time 1 as x = 1.2 with an error of 0.4.
    x, noise, error, samples = 1.2, 0.5, 0.4, 20_000
    data = torch.full((samples, 2, 1), x, dtype=F64)
    mask = torch.tensor([[False], [True]]).expand(samples, 2, 1)
    rest = noise**2 + error**2
    integrator = Integrator(method=ude.SOSRI(), rtol=1e-2, atol=1e-2)

    def pulled(t, y):
        return noise**2 * (y[:, 1:] - y[:, :1]) / (noise**2 * (1.0 - t).clamp(min=0.0) + error**2)

    def bound(drift, mean, variance):
        model = known(drift, mean, variance, noise, integrator=integrator)
        made = model(data, mask, torch.tensor([0.0, 1.0], dtype=F64), generator=seeded())
        return float(path_elbo(made, data, mask, sigma=error).detach())

    evidence = -0.5 * x**2 / (1.0 + rest) - 0.5 * math.log(2.0 * math.pi * (1.0 + rest))
    true = bound(pulled, x / (1.0 + rest), rest / (1.0 + rest))
    # Five standard errors of 20,000 samples, each of which scatters by less than 1.
    assert true == pytest.approx(evidence, abs=0.035)
    assert bound(pulled, 0.0, 1.0) < evidence - 0.1
    assert bound(lambda t, y: 0.0 * y[:, :1], x / (1.0 + rest), rest / (1.0 + rest)) < evidence - 0.1


@pytest.mark.parametrize("batched", [False, True])
def test_between_two_times_the_context_is_that_of_the_later(batched):
    integrator = Integrator(method=ude.EulerMaruyama(), dt=0.05, controller=ude.FixedStep(), batched=batched)
    model = known(lambda t, y: y[:, 1:], variance=1e-30, noise=1e-9, integrator=integrator)
    data = randn(3, 5, 1)
    made = model(data, torch.ones_like(data), TIMES, generator=seeded())
    expected = torch.cat([torch.zeros(3, 1, 1, dtype=F64), (0.25 * data[:, 1:]).cumsum(1)], dim=1)
    # The spread of the start, 1e-15, and the noise.
    torch.testing.assert_close(made.values, expected, rtol=0.0, atol=1e-7)


def test_all_parameters_get_a_gradient():
    model, data = small(), randn(4, 5, 3)
    mask = randn(4, 5, 3, seed=2) > 0
    bound = path_elbo(model(data, mask, TIMES, generator=seeded()), data, mask, sigma=0.5)
    bound.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert without == []


def test_its_gradient_is_that_of_finite_differences():
    integrator = Integrator(method=ude.SOSRI(), dt=0.25, controller=ude.FixedStep())
    model, data = small(integrator=integrator), randn(2, 3, 3)
    names, values = zip(*model.prior.named_parameters(), strict=True)

    def bound(*values):
        parameters = {f"prior.{name}": value for name, value in zip(names, values, strict=True)}
        made = torch.func.functional_call(
            model, parameters, (data, torch.ones_like(data), TIMES[:3]), {"generator": seeded()}
        )
        return path_elbo(made, data, torch.ones_like(data), sigma=0.5)

    assert torch.autograd.gradcheck(bound, [v.detach().requires_grad_() for v in values], fast_mode=True)


def test_what_was_not_measured_has_no_effect():
    model, data = small(), randn(4, 5, 3)
    mask = randn(4, 5, 3, seed=2) > 0
    other = torch.where(mask, data, 7.0)
    bounds = [path_elbo(model(x, mask, TIMES, generator=seeded()), x, mask) for x in (data, other)]
    assert torch.equal(*bounds)


def test_the_context_knows_what_is_still_to_come_and_not_what_was():
    encoder = ContextEncoder(3, latent=2, context=4, state=6, generator=seeded())
    data = randn(2, 5, 3)
    changed = data.clone()
    changed[:, 2] += 1.0
    (_, one), (_, other) = (encoder(x, torch.ones_like(x), TIMES) for x in (data, changed))
    same = (one == other).all(-1).all(0)
    assert same.tolist() == [False, False, False, True, True]


def test_samples_of_the_prior_have_its_moments():
    model = known(lambda t, y: y[:, :1], noise=0.5)
    with torch.no_grad():
        model.prior_mean += 2.0
        model.prior_log_variance += math.log(0.09)
        series = model.sample(20_000, TIMES, generator=seeded())
    assert series.shape == (20_000, 5, 1)
    # Five standard errors.
    assert float(series[:, -1].mean()) == pytest.approx(2.0, abs=5 * (0.34 / 20_000) ** 0.5)
    assert float(series[:, -1].var()) == pytest.approx(0.09 + 0.25, rel=0.05)
    assert torch.equal(series, model.sample(20_000, TIMES, generator=seeded()).detach())


def test_components_of_a_separate_diffusion_depend_on_their_own_state_alone():
    diffusion, z = SeparateDiffusion(3, largest=0.7, generator=seeded()), 3.0 * randn(5, 3)
    value = diffusion(0.0, z)
    assert value.shape == z.shape
    assert bool(((value > 0) & (value < 0.7)).all())
    jacobian = torch.func.vmap(torch.func.jacrev(lambda z: diffusion(0.0, z)))(z)
    assert torch.equal(jacobian, torch.diag_embed(jacobian.diagonal(dim1=1, dim2=2)))
    assert bool((jacobian.diagonal(dim1=1, dim2=2) != 0).all())


def test_wrong_arguments_are_refused():
    data = randn(4, 5, 3)
    model = small()
    with pytest.raises(ValueError, match="must be a module or function"):
        LatentSDE("encoder", model.posterior_drift, model.prior.drift, model.prior.diffusion, model.decoder, latent=2)
    with pytest.raises(ValueError, match="`largest` must be positive"):
        SeparateDiffusion(2, largest=0.0)
    made = model(data, torch.ones_like(data), TIMES, generator=seeded())
    with pytest.raises(ValueError, match="`sigma` must be positive"):
        path_elbo(made, data, torch.ones_like(data), sigma=0.0)
    with pytest.raises(ValueError, match="must have one shape"):
        path_elbo(made, data, torch.ones_like(data[:, 1:]))
    shifted = known(lambda t, y: y[:, 1:])
    shifted.encoder = lambda data, mask, ts: (made.posterior, torch.zeros(4, 4, dtype=F64))
    with pytest.raises(ValueError, match=r"context of shape \(4, 5, context\)"):
        shifted(data, torch.ones_like(data), TIMES)
    still = known(lambda t, y: y[:, 1:] + 1.0, noise=0.0)
    one = torch.zeros(4, 5, 1, dtype=F64)
    with pytest.raises(ude.SolveError):
        still(one, torch.ones_like(one), TIMES)


@pytest.mark.usefixtures("unchecked")
def test_training_raises_the_bound():
    model = small(integrator=Integrator(method=ude.EulerMaruyama(), dt=0.125, controller=ude.FixedStep()))
    phase = 6.28 * torch.rand(16, 1, 1, dtype=F64, generator=seeded())
    data = torch.sin(3.0 * TIMES[:, None] + phase + torch.arange(3, dtype=F64))
    optimizer, noise, bounds = torch.optim.Adam(model.parameters(), lr=0.02), seeded(1), []
    for _ in range(40):
        optimizer.zero_grad()
        bound = path_elbo(model(data, torch.ones_like(data), TIMES, generator=noise), data, data.isfinite(), sigma=0.3)
        (-bound).backward()
        optimizer.step()
        bounds.append(float(bound.detach()))
    # Noise moves the bound by a few units; the training gains more than fifty.
    assert sum(bounds[-5:]) / 5 > sum(bounds[:5]) / 5 + 50
