from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from ude.methods import RK4
from ude.models import MLP, DenseField, GRUEncoder, Integrator, LatentODE, Posterior, elbo, squared_error
from ude.solve import FixedStep

CONSTANT = Integrator(method=RK4(), dt=0.25, controller=FixedStep())


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def series(batch=5, times=6, features=3, dtype=torch.float64):
    generator = seeded(1)
    mask = torch.rand(batch, times, features, generator=generator) < 0.5
    data = torch.rand(batch, times, features, generator=generator, dtype=torch.float64) * mask
    return data.to(dtype), mask, torch.linspace(0.0, 1.0, times, dtype=dtype)


def small(integrator=Integrator(), dtype=torch.float64, seed=0):  # noqa: B008
    generator = seeded(seed)
    return LatentODE(
        GRUEncoder(3, latent=2, state=3, gate_width=4, head_width=4, generator=generator, dtype=dtype),
        DenseField((2, 4, 2), is_autonomous=True, activates_input=True, generator=generator, dtype=dtype),
        MLP(2, 3, depth=0, generator=generator, dtype=dtype),
        integrator=integrator,
    )


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_formats_and_gradients(dtype, batched):
    model, (data, mask, ts) = small(Integrator(batched=batched), dtype), series(dtype=dtype)
    out = model(data, mask, ts, generator=seeded(3))
    assert out.values.shape == data.shape
    assert out.values.dtype == dtype
    assert out.solution.ys.shape == (6, 5, 2)
    assert out.posterior.mean.shape == (5, 2)
    (-elbo(out, data, mask)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.abs().max() > 0 for p in model.parameters())


def test_values_are_the_decoded_states_of_the_drawn_trajectory():
    model, (data, mask, ts) = small(), series()
    out = model(data, mask, ts, generator=seeded(3))
    noise = torch.randn(5, 2, generator=seeded(3), dtype=torch.float64)
    z0 = out.posterior.mean + torch.exp(out.posterior.log_variance / 2) * noise
    solution = model.solve(z0, ts)
    torch.testing.assert_close(out.values, model.decode(solution), rtol=0, atol=1e-14)
    torch.testing.assert_close(out.values[:, 0], model.decoder(z0), rtol=0, atol=1e-14)
    torch.testing.assert_close(out.values[:, 3], model.decoder(solution(0.6)), rtol=0, atol=1e-14)


def test_a_generator_makes_it_repeatable_and_leaves_the_global_one_alone():
    model, (data, mask, ts) = small(), series()
    before = torch.get_rng_state()
    first, again, other = (model(data, mask, ts, generator=seeded(seed)).values for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_the_bound_is_that_of_the_distributions_of_torch():
    model, (data, mask, ts) = small(), series()
    out = model(data, mask, ts, generator=seeded(3))
    mean, std = out.posterior.mean, torch.exp(out.posterior.log_variance / 2)
    likelihood = [Normal(v[m], 0.05).log_prob(x[m]).mean() for v, x, m in zip(out.values, data, mask, strict=True)]
    ours = Independent(Normal(mean, std), 1)
    divergence = kl_divergence(ours, Independent(Normal(torch.zeros_like(mean), torch.ones_like(std)), 1)) / 2
    expected = (torch.stack(likelihood) - 0.3 * divergence).mean()
    torch.testing.assert_close(elbo(out, data, mask, kl_weight=0.3, sigma=0.05), expected, rtol=1e-12, atol=0)


def test_the_error_counts_measurements_of_a_sample_and_nothing_else():
    values, (data, mask, _) = torch.rand(5, 6, 3, generator=seeded(4), dtype=torch.float64), series()
    mask[2] = False
    error = squared_error(values, data, mask)
    assert error[2] == 0
    for i in (0, 1, 3, 4):
        assert float(error[i]) == pytest.approx(float((values[i] - data[i])[mask[i]].square().mean()), rel=1e-12)
    strange = torch.where(mask, data, 7.0)
    assert torch.equal(squared_error(values, strange, mask), error)


def test_gradients_are_those_of_finite_differences():
    # Constant steps: the bound is then a smooth function of the parameters.
    model, (data, mask, ts) = small(CONSTANT), series(batch=2, times=4)
    names, values = zip(*model.named_parameters(), strict=True)

    def bound(*values):
        parameters = dict(zip(names, values, strict=True))
        out = torch.func.functional_call(model, parameters, (data, mask, ts), {"generator": seeded(3)})
        return elbo(out, data, mask, kl_weight=0.5, sigma=1.0)

    assert torch.autograd.gradcheck(bound, [v.detach().requires_grad_() for v in values])


def test_the_parameters_go_through_a_state_dict():
    first, second, (data, mask, ts) = small(), small(seed=9), series()
    second.load_state_dict(first.state_dict())
    assert torch.equal(*(model(data, mask, ts, generator=seeded(3)).values for model in (first, second)))


def test_it_learns_a_decay_of_which_it_sees_a_half():
    generator = seeded(5)
    ts = torch.linspace(0, 1, 8, dtype=torch.float64)
    start = 0.5 + torch.rand(32, 1, 1, generator=generator, dtype=torch.float64)
    truth = start * torch.exp(-2 * ts).reshape(1, 8, 1) * torch.tensor([1.0, 0.5, -1.0], dtype=torch.float64)
    mask = torch.rand(truth.shape, generator=generator) < 0.5
    model = small(Integrator(rtol=1e-4, atol=1e-4))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    errors = []
    for _ in range(100):
        optimizer.zero_grad()
        out = model(truth * mask, mask, ts, generator=generator)
        (-elbo(out, truth, mask, kl_weight=0.0, sigma=0.1)).backward()
        optimizer.step()
        errors.append(float(squared_error(out.values.detach(), truth, ~mask).mean()))
    # What it did not see it fills in better than the mean of each quantity would; seeds gave 0.20 to 0.38.
    assert errors[-1] < 0.5 * float(truth.var(dim=(0, 1)).mean())


def test_a_normal_distribution_is_drawn_with_its_moments():
    posterior = Posterior(torch.full((100_000, 1), 2.0), torch.full((100_000, 1), 2 * math.log(3.0)))
    drawn = posterior.sample(seeded())
    # Standard errors of mean and standard deviation are 0.0095 and 0.0067.
    assert float(drawn.mean()) == pytest.approx(2.0, abs=0.04)
    assert float(drawn.std()) == pytest.approx(3.0, abs=0.03)


def test_wrong_arguments_are_refused():
    model, (data, mask, ts) = small(), series()
    with pytest.raises(ValueError, match="`encoder` must be a module"):
        LatentODE(GRUEncoder, model.field, model.decoder)
    out = model(data, mask, ts)
    with pytest.raises(ValueError, match="must be positive"):
        elbo(out, data, mask, sigma=0.0)
    with pytest.raises(ValueError, match="must have one shape"):
        squared_error(out.values, data, mask[:, 1:])
