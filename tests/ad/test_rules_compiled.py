"""A network of many rules as one compiled graph."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ude import ad

CLOSE = {"rtol": 1e-10, "atol": 1e-10}


class ManyRules(nn.Module):
    """A function of a row of 4 numbers, applied to every row."""

    def __init__(self):
        super().__init__()
        self.enter = nn.Linear(4, 6)
        self.norm = nn.LayerNorm(6)
        self.kernel = nn.Parameter(torch.randn(2, 1, 3))
        self.query, self.key = nn.Linear(3, 3), nn.Linear(3, 3, bias=False)
        self.mix = nn.Parameter(torch.randn(2, 3, 3))
        self.leave = nn.Linear(9, 1)

    def forward(self, x):
        u = F.gelu(self.norm(self.enter(x)))
        v = F.conv1d(u.flatten(0, -2)[:, None, :], self.kernel, padding=1).reshape(*u.shape[:-1], 2, 6)
        w = v.unfold(-1, 3, 3).mean(-3) + u.reshape(*u.shape[:-1], 2, 3)
        # torch 2.13 does not compile `@` between jets, see `ude.ad.lifted`.
        scores = torch.softmax(torch.matmul(self.query(w), self.key(w).mT) / 3.0**0.5, -1)
        mixed = torch.einsum("...hi,hij->...hj", torch.matmul(scores, w), self.mix)
        gated = torch.where(x[..., :1] > 0.0, mixed[..., 0, :] ** 3, mixed[..., 1, :].sin())
        ratio = mixed.mean((-2, -1), keepdim=True).squeeze(-1) / (1.0 + x.square().sum(-1, keepdim=True)) ** 1.5
        joined = torch.cat([gated, ratio * x[..., [3, 0]], x[..., 1:3], w[..., 0, ::2]], -1)
        return self.leave(joined).tanh()


@pytest.fixture
def network():
    torch.manual_seed(5)
    return ManyRules().double()


def points(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_compiled_as_eager(function, network, *arguments):
    """Compare results and the gradients by the parameters of a function of all of them."""
    torch._dynamo.reset()
    values, gradients = [], []
    for run in (function, torch.compile(function, fullgraph=True)):
        results = run(*arguments)
        values.append([result.detach() for result in results])
        total = sum((result * points(*result.shape, seed=k)).sum() for k, result in enumerate(results))
        gradients.append(torch.autograd.grad(total, list(network.parameters())))
    torch.testing.assert_close(values[0], values[1], **CLOSE)
    torch.testing.assert_close(gradients[0], gradients[1], **CLOSE)
    assert all(result.abs().max() > 1e-6 for result in (*values[0], *gradients[0]))


@pytest.mark.slow
def test_a_compiled_power_series_and_its_gradients_are_those_of_eager_execution(network):
    series = [points(5, 4, seed=k) for k in range(4)]
    assert_compiled_as_eager(lambda *series: ad.jet(network, series), network, *series)


@pytest.mark.slow
def test_a_compiled_laplacian_and_its_gradients_are_those_of_eager_execution(network):
    def laplacian(x):
        result = ad.laplacian(network, x)
        return result.value, result.gradient, result.operator

    assert_compiled_as_eager(laplacian, network, points(5, 4, seed=0))


def test_the_network_of_many_rules_has_the_jets_of_nested_jacobians(network):
    x = points(5, 4, seed=0)
    hessians = torch.func.vmap(torch.func.hessian(lambda row: network(row[None])[0, 0]))(x)
    expected = hessians.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None]
    torch.testing.assert_close(ad.laplacian(network, x).operator, expected, **CLOSE)
