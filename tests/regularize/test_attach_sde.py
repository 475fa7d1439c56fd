"""Costs attached to solves by unmodified torchsde."""

import pytest
import torch

from ude.regularize import ErrorEstimate, JacobianFrobenius, KineticEnergy, StiffnessEstimate, TaylorEnergy, attach

torchsde = pytest.importorskip("torchsde", reason="torchsde is not installed")

F64 = torch.float64
TS = torch.tensor([0.0, 0.5, 1.0], dtype=F64)


class Sde(torch.nn.Module):
    noise_type, sde_type = "diagonal", "ito"

    def __init__(self):
        super().__init__()
        self.rate = torch.nn.Parameter(torch.tensor([1.0, 2.0], dtype=F64))
        self.calls = []

    def f(self, t, y):
        self.calls.append((float(t), y))
        return -self.rate * y + torch.sin(3.0 * t)

    def g(self, t, y):
        return 0.1 * torch.ones_like(y)


class Joint(torch.nn.Module):
    """Its drift comes together with the diffusion."""

    noise_type, sde_type = "diagonal", "ito"

    def __init__(self):
        super().__init__()
        self.parts = Sde()

    def f_and_g(self, t, y):
        return self.parts.f(t, y), self.parts.g(t, y)


def solve(sde, adjoint=False, ts=TS, **kwargs):
    noise = torchsde.BrownianInterval(0.0, 1.0, size=(2, 2), dtype=F64, entropy=1, levy_area_approximation="space-time")
    y0 = torch.tensor([[1.0, 0.5], [0.3, -1.0]], dtype=F64)
    return (torchsde.sdeint_adjoint if adjoint else torchsde.sdeint)(sde, y0, ts, dt=0.05, bm=noise, **kwargs)


@pytest.mark.parametrize("method", ["euler", "milstein", "srk"])
def test_the_cost_is_the_mean_over_the_calls_of_the_drift(method):
    sde = Sde()
    with attach(sde, KineticEnergy(), samples=None) as regularized:
        ys = solve(sde, method=method)
    # The first call only looks at the shape.
    calls = sde.calls[1:]
    assert regularized.nfe == len(calls) >= 20
    squares = torch.stack(
        [(-sde.rate * y + torch.sin(3.0 * torch.tensor(t, dtype=F64))).square().mean() for t, y in calls]
    )
    times = [t for t, _ in calls]
    torch.testing.assert_close(regularized.value(), squares.mean() * (max(times) - min(times)))
    assert torch.equal(ys, solve(Sde(), method=method))


def test_gradients_go_through_the_states_of_sdeint_alone():
    gradients = []
    for adjoint in (False, True):
        sde = Sde()
        with attach(sde, KineticEnergy(), samples=None) as regularized:
            ys = solve(sde, adjoint, method="euler")
        cost = regularized.value()
        gradients.append(torch.autograd.grad(cost, sde.rate, retain_graph=True)[0])
        (ys.sum() + cost).backward()
        assert sde.rate.grad.isfinite().all()

    def value(rate):
        sde = Sde()
        with torch.no_grad():
            sde.rate.copy_(rate)
            with attach(sde, KineticEnergy(), samples=None) as regularized:
                solve(sde, method="euler")
            return regularized.value()

    step = 1e-4
    for i in range(2):
        move = step * torch.eye(2, dtype=F64)[i]
        rate = torch.tensor([1.0, 2.0], dtype=F64)
        slope = (value(rate + move) - value(rate - move)) / (2.0 * step)
        assert gradients[0][i].item() == pytest.approx(slope.item(), rel=1e-6)
    assert (gradients[0] - gradients[1]).abs().min() > 1e-3


def test_calls_are_drawn_and_the_drift_is_put_back():
    sde, generator = Sde(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        values = []
        for samples in [None, *[4] * 60]:
            with attach(sde, KineticEnergy(), samples=samples, generator=generator) as regularized:
                solve(sde, method="euler")
            values.append(regularized.value())
            assert len(regularized.calls.drawn.kept) == (4 if samples else 20)
    assert "f" not in vars(sde)
    draws = torch.stack(values[1:])
    error = draws.std() / 60**0.5
    assert 0 < error < 0.2 * values[0]
    assert abs(draws.mean() - values[0]) < 4.0 * error


def test_a_drift_that_comes_with_the_diffusion_is_heard():
    joint, plain = Joint(), Sde()
    values = []
    for sde in (joint, plain):
        with attach(sde, KineticEnergy() + 0.1 * JacobianFrobenius(), samples=None) as regularized:
            solve(sde, method="euler")
        values.append(regularized.value())
    torch.testing.assert_close(*values)
    assert not any(name in vars(joint) for name in ("f_and_g", "f"))


def test_the_plain_way_is_the_saved_states():
    sde, ts = Sde(), torch.linspace(0.0, 1.0, 21, dtype=F64)
    with torch.no_grad():
        along = KineticEnergy().along(sde.f, ts, solve(sde, ts=ts, method="euler"))
        with attach(sde, KineticEnergy(), samples=None) as regularized:
            solve(sde, method="euler")
    # The trapezoidal rule over all of the interval, and the mean up to the start of the last step.
    assert along.item() == pytest.approx(regularized.value().item(), rel=0.1)


@pytest.mark.parametrize("cost", [ErrorEstimate(), StiffnessEstimate(), TaylorEnergy(2)], ids=str)
def test_costs_that_an_sde_does_not_have_are_refused(cost):
    with pytest.raises(ValueError, match="Taylor"):
        attach(Sde(), cost).__enter__()


def test_mistakes_are_refused():
    sde = Sde()
    with attach(sde, KineticEnergy()) as regularized, pytest.raises(ValueError, match="attached to this `sde` already"):
        attach(sde, KineticEnergy()).__enter__()
    with pytest.raises(ValueError, match="No call of the drift"):
        regularized.value()
    sde = torch.nn.Module()
    sde.noise_type, sde.sde_type = "diagonal", "ito"
    with pytest.raises(ValueError, match="must have its drift"):
        attach(sde, KineticEnergy()).__enter__()
