import math

import pytest
import torch

from ude.bsde import Diffusion, SemilinearPDE


def pde(**changes):
    given = {
        "drift": 0.0,
        "diffusion": 1.0,
        "f": lambda t, x, u, grad_u: -(grad_u**2).sum(-1, keepdim=True),
        "g": lambda x: (x**2).sum(-1, keepdim=True),
        "t1": 1.0,
    }
    return SemilinearPDE(**(given | changes))


X0 = torch.ones(3, dtype=torch.float64)
MATRIX = torch.tensor([[1.0, 2.0], [0.0, 1.0], [3.0, 0.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("diffusion", "matrix"),
    [
        (2.0, 2 * torch.eye(3).double()),
        (torch.tensor([1.0, 2.0, 3.0]), torch.diag(torch.tensor([1.0, 2.0, 3.0])).double()),
        (MATRIX, MATRIX),
        (lambda t, x: t * x, None),
        (lambda t, x: (1 + t).unsqueeze(-1) * MATRIX, None),
    ],
    ids=["number", "diagonal", "matrix", "diagonals", "matrices"],
)
def test_a_diffusion_of_any_form_acts_as_its_matrix(diffusion, matrix):
    random = torch.Generator().manual_seed(0)
    x = torch.randn(5, 3, dtype=torch.float64, generator=random)
    t = torch.rand(5, 1, dtype=torch.float64, generator=random)
    sigma = pde(diffusion=diffusion).diffusion_at(t, x)
    if matrix is None:
        given = diffusion(t, x)
        matrix = torch.diag_embed(given) if given.shape == x.shape else given
    matrix = matrix.expand(5, -1, -1)
    noise = torch.randn(5, sigma.noise_size(3), dtype=torch.float64, generator=random)
    assert torch.equal(sigma.matrix(3).expand_as(matrix), matrix)
    torch.testing.assert_close(sigma.spread(noise), torch.einsum("bdn,bn->bd", matrix, noise))
    torch.testing.assert_close(sigma.gather(x), torch.einsum("bdn,bd->bn", matrix, x))


@pytest.mark.parametrize("drift", [-2.0, torch.tensor([1.0, 2.0, 3.0]), lambda t, x: t * x])
def test_a_drift_of_any_form_has_the_shape_of_the_points(drift):
    x, t = torch.ones(5, 3), torch.full((5, 1), 2.0)
    expected = {float: -2.0 * x, torch.Tensor: torch.tensor([1.0, 2.0, 3.0]).expand(5, 3)}.get(type(drift), 2.0 * x)
    assert torch.equal(pde(drift=drift).drift_at(t, x), expected)


def test_one_number_per_point_may_come_without_its_axis():
    flat = pde(f=lambda t, x, u, grad_u: (grad_u**2).sum(-1), g=lambda x: x.sum(-1))
    flat.check(X0, 0.0)
    assert flat.terminal(torch.ones(4, 3)).shape == (4, 1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"f": lambda t, x, u, grad_u: u - grad_u.sum(-1)}, r"`f` must return one number per point.*keepdim"),
        ({"f": lambda t, x, u, grad_u: grad_u}, "`f` must return one number"),
        ({"g": lambda x: x}, "`g` must return one number"),
        ({"drift": torch.ones(2)}, "`drift` must have shape"),
        ({"drift": lambda t, x: torch.ones(7)}, "`drift` must have shape"),
        ({"diffusion": torch.ones(2)}, "`diffusion` must have shape"),
        ({"diffusion": torch.ones(2, 3)}, "`diffusion` must have shape"),
        ({"diffusion": lambda t, x: torch.eye(3)}, r"`diffusion` must have shape .*\(diagonals\)"),
    ],
)
def test_what_does_not_fit_the_point_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        pde(**changes).check(X0, 0.0)


def test_constants_that_cannot_be_coefficients_are_refused_at_once():
    with pytest.raises(ValueError, match="`drift` must be a number or"):
        pde(drift=torch.ones(3, 3))
    with pytest.raises(ValueError, match=r"`diffusion` must be a number, .* infinite or NaN"):
        pde(diffusion=math.nan)
    with pytest.raises(TypeError, match="`g` must be a function"):
        pde(g=1.0)
    with pytest.raises(ValueError, match="finite time"):
        pde(t1=math.inf)


@pytest.mark.parametrize(
    ("x0", "t0", "words"),
    [
        (torch.ones(2, 3), 0.0, "one finite point"),
        (torch.tensor([1, 2]), 0.0, "one finite point"),
        (torch.tensor([1.0, math.inf]), 0.0, "one finite point"),
        (torch.ones(3), 1.0, "`t0` must lie before"),
    ],
)
def test_a_start_that_is_none_is_refused(x0, t0, words):
    with pytest.raises(ValueError, match=words):
        pde().check(x0, t0)


def test_a_diffusion_says_how_many_noises_it_needs():
    assert Diffusion(torch.tensor(1.0), is_diagonal=True).noise_size(5) == 5
    assert Diffusion(MATRIX, is_diagonal=False).noise_size(3) == 2
