import math

import pytest
import torch

from ude.bsde import EqualSteps, SemilinearPDE


def seeded():
    return torch.Generator().manual_seed(0)


def heat(**changes):
    given = {
        "drift": 0.5,
        "diffusion": 2.0,
        "f": lambda t, x, u, grad_u: torch.zeros_like(u),
        "g": lambda x: (x**2).sum(-1, keepdim=True),
        "t1": 1.5,
    }
    return SemilinearPDE(**(given | changes))


X0 = torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)


def test_constants_and_functions_that_are_constant_give_the_same_paths():
    one = EqualSteps(steps=7).draw(heat(), X0, 0.5, 11, seeded())
    pde = heat(drift=lambda t, x: torch.full_like(x, 0.5), diffusion=lambda t, x: torch.full_like(x, 2.0))
    other = EqualSteps(steps=7).draw(pde, X0, 0.5, 11, seeded())
    torch.testing.assert_close(one.xs, other.xs)
    torch.testing.assert_close(one.noise, other.noise)
    assert torch.equal(one.ts, torch.linspace(0.5, 1.5, 8, dtype=torch.float64))
    assert torch.equal(one.xs[0], X0.expand(11, 3))


def test_a_step_is_drift_and_noise():
    pde = heat(drift=lambda t, x: t * x, diffusion=lambda t, x: torch.stack([x, t + 0 * x], -1))
    paths = EqualSteps(steps=5).draw(pde, X0, 0.0, 4, seeded())
    assert paths.noise.shape == (5, 4, 3)
    expected = paths.states + 0.3 * paths.times * paths.states + paths.noise
    torch.testing.assert_close(paths.xs[1:], expected)
    torch.testing.assert_close(paths.end, paths.xs[-1])


def test_noise_has_the_variance_of_the_diffusion():
    matrix = torch.tensor([[1.0, 0.0], [1.0, 2.0], [0.0, 3.0]], dtype=torch.float64)
    paths = EqualSteps(steps=4).draw(heat(diffusion=matrix), X0, 0.5, 20_000, seeded())
    covariance = paths.noise[2].T.cov() / 0.25
    # Of n normal numbers a covariance has the relative standard error sqrt(2 / n), here 0.01; entries are up to 9.
    torch.testing.assert_close(covariance, matrix @ matrix.T, atol=0.4, rtol=0)
    assert float((paths.noise[0] * paths.noise[1]).mean()) == pytest.approx(0.0, abs=4 * 9 * 0.25 / math.sqrt(20_000))


def test_no_step_is_refused():
    with pytest.raises(ValueError, match="`steps` must be at least 1"):
        EqualSteps(steps=0)
