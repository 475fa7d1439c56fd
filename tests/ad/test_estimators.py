"""Estimators: unbiased within three standard errors, of the predicted variance, exact with all directions."""

import pytest
import torch
from torch.func import hessian

from ude import ad

DOUBLE = torch.float64
MANY = 20_000


def function(x):
    """A function whose Hessian is neither diagonal nor constant."""
    return torch.sin(x[..., 0] * x[..., 1]) + x[..., 2] ** 2 * x[..., 3] + torch.exp(0.3 * x.sum(-1))


@pytest.fixture
def x():
    return torch.tensor([0.5, -0.8, 0.3, 1.1], dtype=DOUBLE)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def estimates(estimator, x):
    """Independent estimates of the Laplacian at one point."""
    return ad.laplacian(function, x.expand(MANY, 4), estimator=estimator).operator


def variance(kind, H, samples):
    d = len(H)
    off, diagonal = H - H.diagonal().diag(), H.diagonal()
    if kind is ad.Rademacher:
        return 2 * off.square().sum() / samples
    if kind is ad.Gaussian:
        return 2 * H.square().sum() / samples
    if kind is ad.Coordinates:
        return d * d * diagonal.var(unbiased=False) / samples * (d - samples) / (d - 1)
    # One uniform direction of length sqrt(d): d^2 Var(q^T H q) on the sphere.
    single = 2 * d / (d + 2) * (H.square().sum() - H.trace() ** 2 / d)
    return single / samples * (d - samples) / (d - 1)


@pytest.mark.parametrize("kind", [ad.Rademacher, ad.Gaussian, ad.Coordinates, ad.Orthogonal], ids=lambda k: k.__name__)
@pytest.mark.parametrize("samples", [1, 3])
def test_estimates_of_a_laplacian_are_unbiased_with_the_predicted_variance(kind, samples, x, generator):
    H = hessian(function)(x)
    found = estimates(kind(samples, generator, per_sample=True), x)
    assert (found.mean() - H.trace()).abs() <= 3 * found.std() / MANY**0.5
    assert found.var() == pytest.approx(variance(kind, H, samples).item(), rel=0.06)  # of 20,000: about 3 sigma


@pytest.mark.parametrize("kind", [ad.Coordinates, ad.Orthogonal], ids=lambda k: k.__name__)
@pytest.mark.parametrize("per_sample", [False, True])
def test_all_directions_without_replacement_are_exact(kind, per_sample, x, generator):
    batch = x.expand(3, 4)
    result = ad.laplacian(function, batch, estimator=kind(4, generator, per_sample=per_sample), standard_error=True)
    exact = ad.laplacian(function, batch).operator
    torch.testing.assert_close(result.operator, exact, rtol=1e-12, atol=1e-12)
    assert result.standard_error.abs().max() == 0.0


@pytest.mark.parametrize("kind", [ad.Rademacher, ad.Gaussian, ad.Coordinates, ad.Orthogonal], ids=lambda k: k.__name__)
def test_the_standard_error_is_the_spread_of_the_estimates(kind, x, generator):
    estimator = kind(3, generator, per_sample=True)
    result = ad.laplacian(function, x.expand(MANY, 4), estimator=estimator, standard_error=True)
    assert result.standard_error.square().mean().sqrt() == pytest.approx(result.operator.std().item(), rel=0.05)


def test_probes_are_shared_unless_asked_for_and_repeat_with_their_generator(x):
    def run(**options):
        return ad.laplacian(
            function, x.expand(2, 4), estimator=ad.Gaussian(1, torch.Generator().manual_seed(3), **options)
        )

    shared, own = run().operator, run(per_sample=True).operator
    assert shared[0] == shared[1]
    assert own[0] != own[1]
    assert torch.equal(shared, run().operator)


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_the_gaussian_estimate_of_a_biharmonic_is_unbiased(chunk_size, x, generator):
    exact = ad.biharmonic(function, x).operator
    estimator = ad.Gaussian(5, generator, per_sample=True)
    result = ad.biharmonic(function, x.expand(MANY, 4), estimator=estimator, standard_error=True)
    found = result.operator
    assert (found.mean() - exact).abs() <= 3 * found.std() / MANY**0.5
    assert result.standard_error.square().mean().sqrt() == pytest.approx(found.std().item(), rel=0.1)
    if chunk_size:
        same = [
            ad.biharmonic(function, x, estimator=ad.Gaussian(5, torch.Generator().manual_seed(1)), chunk_size=size)
            for size in (None, 8)
        ]
        torch.testing.assert_close(same[0].operator, same[1].operator, rtol=1e-12, atol=1e-12)


def test_pairs_of_a_subset_of_coordinates_estimate_a_biharmonic_without_bias(x):
    # All six subsets of two coordinates are equally likely: their mean is exact.
    exact = ad.biharmonic(function, x).operator
    found = {}
    for seed in range(60):
        estimator = ad.Coordinates(2, torch.Generator().manual_seed(seed))
        chosen = tuple(sorted(ad.Coordinates(2, torch.Generator().manual_seed(seed)).subset(4, x.device).tolist()))
        found[chosen] = ad.biharmonic(function, x, estimator=estimator).operator
    assert len(found) == 6
    torch.testing.assert_close(torch.stack(list(found.values())).mean(), exact, rtol=1e-11, atol=1e-11)


def test_the_divergence_is_estimated_without_bias(x, generator):
    def field(y):
        return torch.sin(y.flip(-1) * y) + y * y.sum(-1, keepdim=True)

    exact = ad.divergence(field, x).operator
    estimator = ad.Rademacher(2, generator, per_sample=True)
    result = ad.divergence(field, x.expand(MANY, 4), estimator=estimator, standard_error=True)
    assert (result.operator.mean() - exact).abs() <= 3 * result.operator.std() / MANY**0.5
    assert result.gradient is None
    assert result.standard_error.square().mean().sqrt() == pytest.approx(result.operator.std().item(), rel=0.05)


def test_a_generator_is_estimated_in_the_space_of_the_noise(x, generator):
    sigma = torch.randn(4, 3, generator=torch.Generator().manual_seed(5), dtype=DOUBLE)
    exact = ad.generator(function, x, drift=1.0, diffusion=sigma).operator
    estimator = ad.Gaussian(2, generator, per_sample=True)
    for separate in (False, True):
        found = ad.generator(
            function, x.expand(MANY, 4), drift=1.0, diffusion=sigma, estimator=estimator, standard_error=separate
        )
        assert (found.operator.mean() - exact).abs() <= 3 * found.operator.std() / MANY**0.5


@pytest.mark.parametrize("kind", [ad.Rademacher, ad.Orthogonal], ids=lambda k: k.__name__)
def test_estimators_that_are_biased_for_a_biharmonic_are_refused_with_the_reason(kind, x):
    with pytest.raises(ValueError, match=r"fourth moments.*biased"):
        ad.biharmonic(function, x, estimator=kind(2))


@pytest.mark.parametrize("kind", [ad.Coordinates, ad.Orthogonal], ids=lambda k: k.__name__)
def test_more_directions_than_dimensions_are_refused(kind, x):
    with pytest.raises(ValueError, match="at most 4"):
        ad.laplacian(function, x, estimator=kind(5))


@pytest.mark.parametrize("samples", [0, -1, 1.5])
def test_a_number_of_samples_is_an_integer_of_at_least_one(samples):
    with pytest.raises(ValueError, match="at least 1 sample"):
        ad.Gaussian(samples)


def test_weights_and_an_estimator_exclude_each_other(x):
    with pytest.raises(ValueError, match="weights or an estimator"):
        ad.weighted_laplacian(function, x, 1.0, weights=[1.0] * 4, estimator=ad.Gaussian(2))


def test_one_sample_has_no_standard_error(x):
    with pytest.raises(ValueError, match="at least 2 samples"):
        ad.laplacian(function, x, estimator=ad.Gaussian(1), standard_error=True)
