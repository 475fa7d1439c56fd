"""SR3 takes pysindy's steps, in batches and with derivatives."""

import warnings

import numpy as np
import pysindy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ude.discovery import SR3

TRUTH = torch.tensor([[1.0, 0, 2, 0, 0], [0, 0.5, 0, 0, -1]], dtype=torch.float64)


def problem(*batch, samples=30, noise=0.02, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(*batch, samples, 5, dtype=torch.float64, generator=generator)
    targets = features @ TRUTH.mT
    return features, targets + noise * torch.randn(targets.shape, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("norm", [0, 1, 2])
@pytest.mark.parametrize(
    "options", [{}, {"nu": 0.1}, {"unbias": True}, {"normalize": True}, {"max_iter": 10, "tol": 1e-12}], ids=str
)
@pytest.mark.parametrize("samples", [30, 3], ids=["more samples than features", "fewer"])
def test_every_option_means_what_it_means_in_pysindy(norm, options, samples):
    features, targets = problem(samples=samples)
    renamed = {"nu": "relax_coeff_nu", "normalize": "normalize_columns"}
    theirs = pysindy.SR3(
        reg_weight_lam=0.05,
        regularizer=f"l{norm}",
        **{renamed.get(name, name): value for name, value in options.items()},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.fit(features.numpy(), targets.numpy())
    found = SR3(weight=0.05, norm=norm, **options).fit(features, targets)
    # The same steps: rounding only.
    np.testing.assert_allclose(found.coefficients.numpy(), theirs.coef_, atol=1e-12)


def test_each_coefficient_may_have_its_own_weight():
    features, targets = problem()
    weights = torch.full((2, 5), 0.05, dtype=torch.float64)
    weights[0, 2] = 100.0
    found = SR3().path(features, targets, weights.unsqueeze(0))
    theirs = pysindy.SR3(reg_weight_lam=weights.numpy(), regularizer="weighted_l0").fit(
        features.numpy(), targets.numpy()
    )
    assert found.coefficients[0, 0, 2] == 0
    np.testing.assert_allclose(found.coefficients[0].numpy(), theirs.coef_, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"norm": 1}, {"unbias": True}, {"normalize": True}], ids=str)
def test_a_batch_is_the_loop_over_its_members(options):
    features, targets = problem(2, 3)
    weights = torch.tensor([0.001, 0.05, 0.5], dtype=torch.float64)
    path = SR3(**options).path(features, targets, weights)
    for k, weight in enumerate(weights.tolist()):
        for i in range(2):
            for j in range(3):
                alone = SR3(weight=weight, **options).fit(features[i, j], targets[i, j])
                # Batched LAPACK calls may round differently.
                assert torch.allclose(alone.coefficients, path.coefficients[k, i, j], atol=1e-13)
                assert torch.equal(alone.converged, path.converged[k, i, j])


@pytest.mark.parametrize("options", [{}, {"norm": 1}, {"norm": 2}, {"unbias": True}, {"normalize": True}], ids=str)
def test_coefficients_are_differentiable(options):
    features, targets = (value.requires_grad_() for value in problem(samples=8))
    optimizer = SR3(weight=0.05, **options)
    assert torch.autograd.gradcheck(lambda a, b: optimizer.fit(a, b).coefficients, (features, targets))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.permutations(range(5)))
def test_permuting_columns_commutes_with_the_fit(seed, order):
    features, targets = problem(seed=seed)
    plain, permuted = (SR3(weight=0.05).fit(value, targets) for value in (features, features[:, order]))
    assert torch.allclose(permuted.coefficients, plain.coefficients[:, order], atol=1e-12)


def test_whether_the_iteration_ended_is_reported():
    features, targets = problem()
    assert bool(SR3(nu=0.1).fit(features, targets).converged.all())
    assert not bool(SR3(max_iter=1).fit(features, targets).converged.any())


@pytest.mark.parametrize("options", [{"weight": -1.0}, {"nu": 0.0}, {"tol": 0.0}, {"max_iter": 0}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ValueError, match="must not be negative"):
        SR3(**options)
