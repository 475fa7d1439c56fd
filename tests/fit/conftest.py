"""Small systems that fit in a second or two."""

import pytest
import torch

from ude.models import MLP, UDE, Parameter
from ude.problems import ODEProblem, Trajectories
from ude.solve import solve


def lotka_volterra(t, y, signal=None):
    x, z = y.unbind(-1)
    return torch.stack([1.3 * x - 0.9 * x * z, 0.8 * x * z - 1.8 * z], dim=-1)


def measure(field, y0, ts, states, noise=0.0, seed=0):
    """Solve to 1e-10 and add noise relative to the mean of each state."""
    ys = solve(ODEProblem(field, y0, (float(ts[0]), float(ts[-1]))), save_at=ts, rtol=1e-10, atol=1e-10).ys
    generator = torch.Generator().manual_seed(seed)
    ys = ys + noise * ys.mean(dim=0) * torch.randn(ys.shape, generator=generator, dtype=ys.dtype)
    return Trajectories.from_arrays(ts, ys, states=states)


def known_lotka_volterra(t, y, p):
    x, z = y.unbind(-1)
    return torch.stack([p.alpha * x - p.beta * x * z, 0.8 * x * z - p.delta * z], dim=-1)


@pytest.fixture(name="measure")
def measure_fixture():
    return measure


@pytest.fixture
def truth():
    return lotka_volterra


@pytest.fixture(scope="session")
def times():
    return torch.linspace(0, 3, 31, dtype=torch.float64)


@pytest.fixture(scope="session")
def start():
    return torch.tensor([0.44249296, 4.6280594], dtype=torch.float64)


@pytest.fixture(scope="session")
def data(times, start):
    return measure(lotka_volterra, start, times, ("x", "y"), noise=5e-3)


@pytest.fixture(scope="session")
def exact_data(times, start):
    return measure(lotka_volterra, start, times, ("x", "y"))


@pytest.fixture
def parametric():
    """Lotka-Volterra whose structure is known and whose three parameters are not: alpha 1.3, beta 0.9, delta 1.8."""
    positive = {name: Parameter(1.0, positive=True) for name in ("alpha", "beta", "delta")}
    return UDE(known_lotka_volterra, None, states=("x", "y"), parameters=positive)


@pytest.fixture
def hybrid():
    """Lotka-Volterra with unknown interactions."""
    network = MLP(2, 2, width=5, depth=2, generator=torch.Generator().manual_seed(0))
    return UDE(lambda t, y: (1.3 * y[..., 0], -1.8 * y[..., 1]), network, states=("x", "y"))
