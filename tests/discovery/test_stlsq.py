"""STLSQ gives pysindy's supports and coefficients, in batches and with derivatives."""

import warnings

import numpy as np
import pysindy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from ude.discovery import SR3, STLSQ, ForwardSelection, Fourier, Polynomial

TRUTH = torch.tensor([[1.0, 0, 2, 0, 0], [0, 0.5, 0, 0, -1]], dtype=torch.float64)


def problem(*batch, samples=30, noise=0.02, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(*batch, samples, 5, dtype=torch.float64, generator=generator)
    targets = features @ TRUTH.mT
    return features, targets + noise * torch.randn(targets.shape, dtype=torch.float64, generator=generator)


def pysindy_coefficients(features, targets, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pysindy.STLSQ(**options).fit(features.numpy(), targets.numpy()).coef_


def lotka_volterra(points=61):
    """Learned interaction term on the trajectory of the UDE paper: 21 monomials and two sines, condition 8e8."""
    ts = np.linspace(0, 3, points)
    x = solve_ivp(
        lambda t, y: [1.3 * y[0] - 0.9 * y[0] * y[1], 0.8 * y[0] * y[1] - 1.8 * y[1]],
        (0, 3), [0.44249296, 4.6280594], t_eval=ts, rtol=1e-12, atol=1e-12, method="DOP853",
    ).y.T  # fmt: skip
    x = torch.from_numpy(np.ascontiguousarray(x))
    targets = torch.stack([-0.9 * x.prod(-1), 0.8 * x.prod(-1)], dim=-1)
    noise = torch.randn(targets.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return (Polynomial(degree=5) + Fourier(1, cos=False))(x), targets + 0.05 * targets.std(0) * noise


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"alpha": 0.0},
        {"alpha": 5.0},
        {"unbias": False},
        {"normalize": True, "threshold": 1.0},
        {"normalize": True, "threshold": 1.0, "unbias": False},
        {"max_iter": 1, "unbias": False, "threshold": 0.02},
        {"threshold": 0.0},
        {"threshold": 100.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("samples", [30, 3], ids=["more samples than features", "fewer"])
def test_every_option_means_what_it_means_in_pysindy(options, samples):
    features, targets = problem(samples=samples)
    theirs = {"normalize_columns" if name == "normalize" else name: value for name, value in options.items()}
    expected = pysindy_coefficients(features, targets, **theirs)
    found = STLSQ(**options).fit(features, targets)
    # Well-conditioned columns: rounding only.
    np.testing.assert_allclose(found.coefficients.numpy(), expected, atol=1e-12)
    assert np.array_equal(found.support.numpy(), expected != 0)


def test_the_path_over_thresholds_has_pysindys_supports():
    features, targets = lotka_volterra()
    thresholds = torch.logspace(-3, 5, 81, dtype=torch.float64)
    path = STLSQ().path(features, targets, thresholds)
    expected = np.stack([pysindy_coefficients(features, targets, threshold=value) for value in thresholds.tolist()])
    assert np.array_equal(path.support.numpy(), expected != 0)
    # pysindy solves dense supports through a Gram matrix of condition 1e12, and cuts singular values where we do.
    scale = np.abs(expected).max(axis=(1, 2), keepdims=True) + 1e-300
    assert (np.abs(path.coefficients.numpy() - expected) / scale).max() < 1e-8


def test_dependent_columns_share_a_coefficient_as_in_pysindy():
    features, targets = problem()
    features = torch.cat([features, features[:, :1]], dim=-1)
    expected = pysindy_coefficients(features, targets, threshold=0.2)
    found = STLSQ(threshold=0.2).fit(features, targets).coefficients
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)
    assert found[0, 0] == pytest.approx(found[0, 5].item(), abs=1e-12)


def test_a_column_of_zeros_gets_no_coefficient():
    features, targets = problem()
    found = STLSQ().fit(torch.cat([features, torch.zeros(30, 1, dtype=torch.float64)], dim=-1), targets)
    assert torch.equal(found.coefficients[:, 5], torch.zeros(2, dtype=torch.float64))
    assert torch.allclose(found.coefficients[:, :5], STLSQ().fit(features, targets).coefficients, atol=1e-13)


@pytest.mark.parametrize("options", [{}, {"unbias": False}, {"normalize": True, "threshold": 0.4}, {"alpha": 0.0}])
def test_a_batch_is_the_loop_over_its_members(options):
    features, targets = problem(2, 3)
    thresholds = torch.tensor([0.01, 0.1, 0.7, 1.5], dtype=torch.float64)
    path = STLSQ(**options).path(features, targets, thresholds)
    for k, threshold in enumerate(thresholds.tolist()):
        for i in range(2):
            for j in range(3):
                for target in range(2):
                    alone = STLSQ(**(options | {"threshold": threshold})).fit(
                        features[i, j], targets[i, j, :, target : target + 1]
                    )
                    assert torch.equal(alone.support[0], path.support[k, i, j, target])
                    # Batched LAPACK calls may round differently.
                    assert torch.allclose(alone.coefficients[0], path.coefficients[k, i, j, target], atol=1e-13)


def test_features_shared_by_a_batch_of_targets_need_not_be_repeated():
    features, _ = problem()
    _, targets = problem(4)
    shared = STLSQ().fit(features, targets)
    assert shared.coefficients.shape == (4, 2, 5)
    assert torch.equal(shared.coefficients, STLSQ().fit(features.expand(4, -1, -1), targets).coefficients)


def test_each_equation_may_have_its_own_threshold():
    features, targets = problem()
    both = STLSQ(threshold=(1.5, 0.6)).fit(features, targets)
    assert torch.equal(both.support[0], STLSQ(threshold=1.5).fit(features, targets).support[0])
    assert torch.equal(both.support[1], STLSQ(threshold=0.6).fit(features, targets).support[1])
    path = STLSQ().path(features, targets, torch.tensor([[1.5, 0.6], [0.1, 0.1]], dtype=torch.float64))
    assert torch.equal(path.support[0], both.support)


@pytest.mark.parametrize(
    "optimizer",
    [
        STLSQ(threshold=0.2),
        pytest.param(STLSQ(threshold=0.2, unbias=False), marks=pytest.mark.slow),
        STLSQ(threshold=0.2, alpha=0.0, unbias=False),
        STLSQ(threshold=0.9, normalize=True, unbias=False),
        STLSQ(threshold=0.9, normalize=True),
    ],
    ids=["unbiased", "ridge", "least squares", "normalized ridge", "normalized"],
)
def test_coefficients_have_derivatives_of_first_and_second_order(optimizer):
    features, targets = (value.requires_grad_() for value in problem(2, samples=8))

    def coefficients(a, b):
        return optimizer.fit(a, b).coefficients

    assert torch.autograd.gradcheck(coefficients, (features, targets))
    assert torch.autograd.gradgradcheck(coefficients, (features, targets))


def test_dependent_columns_leave_derivatives_finite_and_right():
    features, targets = problem(samples=8)
    features = torch.cat([features, features[:, :1]], dim=-1).requires_grad_()
    targets.requires_grad_()
    found = STLSQ(threshold=0.2).fit(features, targets).coefficients
    found.square().sum().backward()
    assert features.grad is not None
    assert bool(features.grad.isfinite().all())
    fixed = features.detach()
    assert torch.autograd.gradcheck(lambda b: STLSQ(threshold=0.2).fit(fixed, b).coefficients, (targets,))


def test_a_loss_on_fit_and_size_of_the_coefficients_trains():
    features, targets = problem(noise=0.5)
    shift = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([shift], lr=0.05)
    losses = []
    for _ in range(30):
        coefficients = STLSQ(threshold=0.3).fit(features + shift, targets).coefficients
        loss = (targets - (features + shift) @ coefficients.mT).square().mean() + 0.01 * coefficients.abs().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.permutations(range(5)), st.floats(0.01, 100.0))
def test_permuting_columns_and_scaling_targets_commute_with_the_fit(seed, order, factor):
    features, targets = problem(seed=seed)
    plain = STLSQ(threshold=0.2).fit(features, targets)
    permuted = STLSQ(threshold=0.2).fit(features[:, order], targets)
    scaled = STLSQ(threshold=0.2 * factor).fit(features, targets * factor)
    assert torch.allclose(permuted.coefficients, plain.coefficients[:, order], atol=1e-12)
    assert torch.allclose(scaled.coefficients, plain.coefficients * factor, atol=1e-12 * factor)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.lists(st.floats(1e-3, 1e3), min_size=5, max_size=5))
def test_with_normalization_units_of_the_columns_do_not_matter(seed, units):
    features, targets = problem(seed=seed)
    factors = torch.tensor(units, dtype=torch.float64)
    optimizer = STLSQ(threshold=1.0, normalize=True)
    plain, scaled = optimizer.fit(features, targets), optimizer.fit(features * factors, targets)
    assert torch.equal(plain.support, scaled.support)
    assert torch.allclose(scaled.coefficients * factors, plain.coefficients, atol=1e-12)


def test_more_than_62_columns_are_told_apart():
    features = torch.randn(200, 130, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    targets = features[:, [1, 70, 129]] @ torch.eye(3, dtype=torch.float64)
    path = STLSQ().path(features, targets, torch.tensor([1e-6, 0.5], dtype=torch.float64))
    assert path.support[1].nonzero().tolist() == [[0, 1], [1, 70], [2, 129]]


@pytest.mark.parametrize("optimizer", [STLSQ(), SR3(), ForwardSelection()], ids=lambda value: type(value).__name__)
def test_single_precision_data_are_fitted_in_double_precision(optimizer):
    features, targets = (value.float() for value in problem())
    found, expected = optimizer.fit(features, targets), optimizer.fit(features.double(), targets.double())
    assert found.coefficients.dtype == torch.float32
    assert torch.equal(found.coefficients, expected.coefficients.float())


def test_each_equation_may_have_its_own_library():
    features, targets = problem()
    allowed = torch.tensor([[True, True, False, True, True], [False, True, False, False, False]])
    found = STLSQ(threshold=0.1).fit(features, targets, allowed=allowed)
    assert not bool((found.support & ~allowed).any())
    for target, columns in enumerate(row.nonzero()[:, 0] for row in allowed):
        alone = STLSQ(threshold=0.1).fit(features[:, columns], targets[:, target : target + 1])
        torch.testing.assert_close(found.coefficients[target, columns], alone.coefficients[0], rtol=1e-12, atol=1e-13)
    path = ForwardSelection(k_max=2).fit(features, targets, allowed=allowed)
    assert not bool((path.support & ~allowed).any())
    assert path.support.sum(-1).tolist() == [[1, 1], [2, 1]]
    with pytest.raises(ValueError, match="bool tensor of shape"):
        STLSQ().fit(features, targets, allowed=allowed.mT)


def test_whether_the_iteration_ended_is_reported():
    features, targets = problem(noise=1.0)
    assert bool(STLSQ(threshold=0.2).fit(features, targets).converged.all())
    assert not bool(STLSQ(threshold=0.2, max_iter=1).fit(features, targets).converged.all())


@pytest.mark.parametrize("options", [{"threshold": -1.0}, {"threshold": (0.1, -1.0)}, {"alpha": -1.0}, {"max_iter": 0}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ValueError, match="must not be negative"):
        STLSQ(**options)


def test_data_that_do_not_belong_together_or_are_missing_are_refused():
    features, targets = problem()
    with pytest.raises(ValueError, match="shape"):
        STLSQ().fit(features[:-1], targets)
    with pytest.raises(ValueError, match="one per target"):
        STLSQ(threshold=(0.1, 0.2, 0.3)).fit(features, targets)
    with pytest.raises(ValueError, match="finite"):
        STLSQ().fit(features, targets * torch.nan)
