"""Vector fields and comparisons that the tests of this room share."""

from __future__ import annotations

import torch
from torch import nn

F64 = torch.float64
FORWARD = torch.tensor([0.0, 0.3, 0.5, 1.1, 2.0], dtype=F64)
BACKWARD = torch.tensor([1.0, 0.8, 0.3, -0.5], dtype=F64)


def forced(t, y):
    """A pendulum pushed by a force that depends on time; explicit in time so that wrong nodes show."""
    return torch.stack([y[..., 1], -torch.sin(y[..., 0]) + 0.5 * torch.cos(2 * t)], -1)


def pair(t, state):
    """The same with a running cost, as a tuple of tensors of other shapes."""
    y, cost = state
    return forced(t, y), (y**2).sum() * torch.ones_like(cost)


class Net(nn.Module):
    """A small network on the state, with time as an input."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).double()

    def forward(self, t, y):
        return self.layers(torch.cat([y, torch.sin(t).expand(*y.shape[:-1], 1)], -1))


class NetPair(nn.Module):
    """A network and a running cost as a tuple."""

    def __init__(self):
        super().__init__()
        self.net = Net(1)

    def forward(self, t, state):
        y, cost = state
        return self.net(t, y), (y**2).sum().reshape(cost.shape)


def start(*, grad=False):
    return torch.tensor([[1.0, 0.0], [0.4, -0.6]], dtype=F64, requires_grad=grad)


def start_pair(*, grad=False):
    return (start(grad=grad), torch.zeros(1, dtype=F64, requires_grad=grad))


def as_rows(ys):
    """A solution as one matrix, whether its state is a tensor or a tuple."""
    parts = (ys,) if isinstance(ys, torch.Tensor) else ys
    return torch.cat([part.reshape(len(part), -1) for part in parts], -1)
