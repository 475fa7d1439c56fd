"""Forward selection chooses as its definition says, in batches and with derivatives."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ude.discovery import ForwardSelection

TRUTH = torch.tensor([[1.0, 0, 2, 0, 0, 0.3], [0, 0.5, 0, 0, -1, 0]], dtype=torch.float64)


def problem(*batch, samples=30, noise=0.3, seed=0):
    """Columns that resemble each other, so that greedy choices are not obvious."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(*batch, samples, 6, dtype=torch.float64, generator=generator)
    features = (features + features.mean(-1, keepdim=True)) * torch.logspace(-2, 2, 6, dtype=torch.float64)
    targets = features @ TRUTH.mT
    return features, targets + noise * torch.randn(targets.shape, dtype=torch.float64, generator=generator)


def reference(features, y, k_max, orthogonal):
    """The definition, term by term, with a new least-squares fit for every question."""
    chosen, path = [], []

    def residual(columns):
        if not columns:
            return y
        return y - features[:, columns] @ np.linalg.lstsq(features[:, columns], y, rcond=None)[0]

    for _ in range(k_max):
        left = [j for j in range(features.shape[1]) if j not in chosen]
        if orthogonal:
            best = min(left, key=lambda j: np.linalg.norm(residual([*chosen, j])))
        else:
            r = residual(chosen)
            best = max(left, key=lambda j: abs(features[:, j] @ r) / np.linalg.norm(features[:, j]))
        chosen = [*chosen, best]
        coefficients = np.zeros(features.shape[1])
        coefficients[chosen] = np.linalg.lstsq(features[:, chosen], y, rcond=None)[0]
        path.append(coefficients)
    return np.stack(path)


@pytest.mark.parametrize("orthogonal", [False, True])
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000))
def test_the_path_is_the_one_of_the_definition(orthogonal, seed):
    features, targets = problem(seed=seed)
    found = ForwardSelection(k_max=4, orthogonal=orthogonal).fit(features, targets).coefficients.numpy()
    for target in range(2):
        expected = reference(features.numpy(), targets[:, target].numpy(), 4, orthogonal)
        # Columns of lengths 1e-2 to 1e2: compare their contributions, which are of the size of the targets.
        lengths = features.norm(dim=0).numpy()
        np.testing.assert_allclose(found[:, target] * lengths, expected * lengths, atol=1e-9)


@pytest.mark.parametrize("orthogonal", [False, True])
def test_a_batch_is_the_loop_over_its_members(orthogonal):
    features, targets = problem(2, 3)
    selection = ForwardSelection(k_max=3, orthogonal=orthogonal)
    together = selection.fit(features, targets)
    for i in range(2):
        for j in range(3):
            for target in range(2):
                alone = selection.fit(features[i, j], targets[i, j, :, target : target + 1])
                assert torch.equal(alone.support[:, 0], together.support[:, i, j, target])
                # Batched LAPACK calls may round differently.
                torch.testing.assert_close(
                    alone.coefficients[:, 0], together.coefficients[:, i, j, target], rtol=1e-10, atol=1e-12
                )


def test_supports_are_nested_and_grow_by_one():
    support = ForwardSelection(k_max=5).fit(*problem(4)).support
    assert torch.equal(support.sum(-1), torch.arange(1, 6).reshape(-1, 1, 1).expand(5, 4, 2))
    assert bool((support[1:] | ~support[:-1]).all())


def test_coefficients_have_derivatives_of_first_and_second_order():
    features, targets = problem(2, samples=10)
    features = (features / features.norm(dim=-2, keepdim=True)).requires_grad_()
    targets.requires_grad_()

    def coefficients(a, b):
        return ForwardSelection(k_max=2).fit(a, b).coefficients

    assert torch.autograd.gradcheck(coefficients, (features, targets))
    assert torch.autograd.gradgradcheck(coefficients, (features, targets))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.permutations(range(6)), st.lists(st.floats(1e-3, 1e3), min_size=6, max_size=6))
def test_neither_the_order_nor_the_unit_of_the_columns_matters(seed, order, units):
    features, targets = problem(seed=seed)
    factors = torch.tensor(units, dtype=torch.float64)
    plain = ForwardSelection(k_max=3).fit(features, targets)
    changed = ForwardSelection(k_max=3).fit((features * factors)[:, order], targets)
    assert torch.equal(changed.support, plain.support[..., order])
    torch.testing.assert_close(
        changed.coefficients * factors[order], plain.coefficients[..., order], rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("orthogonal", [False, True])
def test_a_copy_of_a_chosen_column_is_never_chosen(orthogonal):
    features, targets = problem()
    selection = ForwardSelection(k_max=8, orthogonal=orthogonal)
    support = selection.fit(torch.cat([features, features], dim=-1), targets).support
    assert not bool((support[..., :6] & support[..., 6:]).any())
    assert bool((support[-1].sum(-1) == 6).all())


def test_columns_of_zeros_and_targets_of_zeros_are_no_problem():
    features, targets = problem()
    found = ForwardSelection(k_max=2).fit(
        features * torch.tensor([0.0, 1, 1, 1, 1, 1]), targets * torch.tensor([0.0, 1])
    )
    assert bool(found.coefficients.isfinite().all())
    assert not bool(found.support[..., 0].any())


def test_a_wrong_number_of_terms_is_refused():
    with pytest.raises(ValueError, match="k_max"):
        ForwardSelection(k_max=0)
