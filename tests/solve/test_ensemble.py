"""Ensembles against solves of their samples."""

import pytest
import torch

import ude
from ude import EnsembleProblem, ODEProblem, solve


def lotka_volterra(t, y, p):
    a, b, c, d = p["rates"]
    if y.ndim != 1 or t.ndim != 0:
        raise AssertionError("the field is written for one sample")
    return torch.stack([a * y[0] - b * y[0] * y[1], -c * y[1] + d * y[0] * y[1]])


def problem(requires_grad=False):
    rates = torch.tensor([[1.5, 1.0, 3.0, 1.0], [1.0, 1.0, 2.0, 0.5], [0.7, 0.3, 1.0, 1.0]], dtype=torch.float64)
    y0 = torch.tensor([[1.0, 1.0], [0.5, 2.0], [2.0, 1.0]], dtype=torch.float64)
    return EnsembleProblem(lotka_volterra, y0, (0.0, 2.0), p={"rates": rates.requires_grad_(requires_grad)})


@pytest.mark.parametrize(
    "method", [ude.Tsit5(), ude.Rodas5P(), pytest.param(ude.Kvaerno3(), marks=pytest.mark.slow)], ids=str
)
def test_every_sample_is_solved_as_if_alone(method):
    ensemble = problem()
    together = solve(ensemble, method, save_at=[1.0, 2.0], rtol=1e-8, atol=1e-8)
    for i in range(3):
        alone = ODEProblem(lotka_volterra, ensemble.y0[i], (0.0, 2.0), p={"rates": ensemble.p["rates"][i]})
        single = solve(alone, method, save_at=[1.0, 2.0], rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(together.ys[:, i], single.ys, rtol=1e-10, atol=0)
        assert int(together.stats.accepted[i]) == int(single.stats.accepted)


def test_gradients_reach_the_parameters_of_every_sample():
    ensemble = problem(requires_grad=True)
    ys = solve(ensemble, save_at=[2.0], rtol=1e-8, atol=1e-8).ys
    gradient = torch.autograd.grad(ys.sum(), ensemble.p["rates"])[0]
    for i in range(3):
        p = ensemble.p["rates"][i].detach().requires_grad_()
        single = solve(
            ODEProblem(lotka_volterra, ensemble.y0[i], (0.0, 2.0), p={"rates": p}), save_at=[2.0], rtol=1e-8, atol=1e-8
        )
        torch.testing.assert_close(gradient[i], torch.autograd.grad(single.ys.sum(), p)[0], rtol=1e-9, atol=1e-12)


def test_samples_may_have_their_own_intervals():
    ends = torch.tensor([1.0, 2.0], dtype=torch.float64)
    ensemble = EnsembleProblem(lambda t, y: -y, torch.ones(2, 1, dtype=torch.float64), (0.0, ends))
    ys = solve(ensemble, rtol=1e-9, atol=1e-9).ys
    torch.testing.assert_close(ys[-1, :, 0], torch.exp(-ends), rtol=1e-8, atol=0)


def test_rows_must_match_the_samples():
    with pytest.raises(ValueError, match="one row for each of the 2 samples"):
        solve(EnsembleProblem(lambda t, y, p: -p * y, torch.ones(2, 1), (0.0, 1.0), p=torch.ones(3, 1)))
    with pytest.raises(ValueError, match="What all samples share"):
        solve(EnsembleProblem(lambda t, y, p: -p * y, torch.ones(2, 1), (0.0, 1.0), p=1.0))
