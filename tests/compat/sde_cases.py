"""Equations with torchsde's methods that the tests of `sdeint` share."""

from __future__ import annotations

import torch
import torchsde
from torch import nn

F64 = torch.float64
COMPONENTS = {"diagonal": 3, "additive": 2, "scalar": 1, "general": 2}
TS = torch.linspace(0.0, 1.0, 5, dtype=F64)
DT = 2.0**-5


class Equation(nn.Module):
    """A small network as the drift, a diffusion of every kind; both explicit in time, so that wrong nodes show."""

    def __init__(self, noise_type, sde_type):
        super().__init__()
        torch.manual_seed(0)
        self.noise_type, self.sde_type = noise_type, sde_type
        self.net = nn.Linear(3, 3).double()
        self.size = nn.Parameter(torch.tensor([0.3, 0.5, -0.4], dtype=F64))
        self.mix = nn.Parameter(0.4 * torch.randn(3, 2, dtype=F64))

    def f(self, t, y):
        assert t.shape == ()
        return torch.tanh(self.net(y)) + 0.3 * torch.cos(3.0 * t)

    def g(self, t, y):
        assert t.shape == ()
        # Component i depends on component i alone, as diagonal noise is to do.
        diagonal = 0.2 + self.size * torch.sin(y + t)
        if self.noise_type == "diagonal":
            return diagonal
        if self.noise_type == "scalar":
            return diagonal.unsqueeze(-1)
        if self.noise_type == "additive":
            return (self.mix * torch.cos(t)).expand(len(y), 3, 2)
        return torch.sigmoid(y).unsqueeze(-1) * self.mix + 0.1 * t

    def h(self, t, y):
        return -0.5 * y


class Product:
    """The same equation, telling only the product of diffusion and noise."""

    def __init__(self, equation):
        self.equation, self.noise_type, self.sde_type = equation, equation.noise_type, equation.sde_type

    def f(self, t, y):
        return self.equation.f(t, y)

    def g_prod(self, t, y, v):
        g = self.equation.g(t, y)
        return g * v if self.noise_type == "diagonal" else (g @ v.unsqueeze(-1)).squeeze(-1)


class Both:
    """The same equation, telling drift and diffusion together."""

    def __init__(self, equation):
        self.equation, self.noise_type, self.sde_type = equation, equation.noise_type, equation.sde_type

    def f_and_g(self, t, y):
        return self.equation.f(t, y), self.equation.g(t, y)


class BothProduct:
    """The same equation, telling drift and product together."""

    def __init__(self, equation):
        self.product, self.noise_type, self.sde_type = Product(equation), equation.noise_type, equation.sde_type

    def f_and_g_prod(self, t, y, v):
        return self.product.f(t, y), self.product.g_prod(t, y, v)


def start(*, grad=False):
    return torch.linspace(-1.0, 1.0, 12, dtype=F64).reshape(4, 3).requires_grad_(grad)


def motion(noise, *, extra=0, area="space-time", rows=4, end=1.0):
    """Return a Brownian motion of torchsde; the same object is to be given to both libraries."""
    size = (rows, COMPONENTS[noise] + extra)
    return torchsde.BrownianInterval(0.0, end, size=size, dtype=F64, entropy=5, levy_area_approximation=area)
