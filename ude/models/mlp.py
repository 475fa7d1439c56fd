"""The network that stands for what is not known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional


def rbf(x: Tensor) -> Tensor:
    r"""Gaussian bump, $e^{-x^2}$, in (0, 1]."""
    return torch.exp(-x.square())


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "rbf": rbf,
    "softplus": functional.softplus,
    "relu": torch.relu,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "sin": torch.sin,
}


class MLP(nn.Module):
    r"""Fully connected network: $h_0 = x$, $h_{l+1} = \varphi(W_l h_l + b_l)$, linear in the last layer.

    Weights start uniform within $\pm\sqrt{6 / (n_{in} + n_{out})}$ (Glorot), biases at zero.

    Args:
        in_features: Width of the input.
        out_features: Width of the output.
        width: Width of the hidden layers.
        depth: Number of hidden layers; 0 gives an affine map.
        activation: "tanh", "rbf" ($e^{-x^2}$), "softplus", "relu", "gelu", "silu", "sin", or any
            elementwise function of a tensor.
        replicates: Number K of independent networks evaluated as one. Every parameter then has a leading
            axis K, and input and output have shape `(K, *batch, features)`.
        final_scale: Factor on the initial weights of the last layer. A small value makes the network
            start close to zero, so that a model starts close to its known part.
        generator: Source of the initial weights; the global one of torch if not given.
        dtype: Floating-point type of the parameters.

    Raises:
        ValueError: If a size is not positive or the activation is unknown.

    Example:
        >>> MLP(2, 1, width=8)(torch.zeros(5, 2, dtype=torch.float64)).shape
        torch.Size([5, 1])
        >>> MLP(2, 1, replicates=3)(torch.zeros(3, 5, 2, dtype=torch.float64)).shape
        torch.Size([3, 5, 1])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        width: int = 32,
        depth: int = 2,
        activation: str | Callable[[Tensor], Tensor] = "tanh",
        replicates: int | None = None,
        final_scale: float = 1.0,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        _check(in_features, out_features, width, depth, activation, replicates)
        self.in_features, self.out_features = in_features, out_features
        self.width, self.depth = width, depth
        self.activation, self.final_scale, self.replicates = activation, final_scale, replicates
        self._phi = ACTIVATIONS[activation] if isinstance(activation, str) else activation
        lead = () if replicates is None else (replicates,)
        sizes = [in_features, *[width] * depth, out_features]
        pairs = list(itertools.pairwise(sizes))
        for layer, (n_in, n_out) in enumerate(pairs):
            self.register_parameter(f"weight{layer}", nn.Parameter(torch.empty(*lead, n_out, n_in, dtype=dtype)))
            self.register_parameter(f"bias{layer}", nn.Parameter(torch.empty(*lead, n_out, dtype=dtype)))
        self.reset_parameters(generator)

    @property
    def weights(self) -> list[Tensor]:
        """Weights of the layers, each of shape `(out, in)`, or `(K, out, in)`."""
        return cast("list[Tensor]", list(self._parameters.values())[::2])

    @property
    def biases(self) -> list[Tensor]:
        """Biases of the layers, each of shape `(out,)`, or `(K, out)`."""
        return cast("list[Tensor]", list(self._parameters.values())[1::2])

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters again."""
        for weight, bias in zip(self.weights, self.biases, strict=True):
            bound = math.sqrt(6.0 / (weight.shape[-1] + weight.shape[-2]))
            weight.uniform_(-bound, bound, generator=generator)
            bias.zero_()
        self.weights[-1].mul_(self.final_scale)

    def forward(self, x: Tensor) -> Tensor:
        """Evaluate the network, or all K of them, at `x` of shape `(*batch, in)` or `(K, *batch, in)`."""
        if self.replicates is None:
            return self._run(x, functional.linear)
        h = x.reshape(self.replicates, -1, x.shape[-1])
        return self._run(h, _batched_linear).reshape(*x.shape[:-1], self.out_features)

    def _run(self, h: Tensor, linear: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        weights, biases = self.weights, self.biases
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            h = self._phi(linear(h, weight, bias))
        return linear(h, weights[-1], biases[-1])

    def replicate(self, replicates: int, generator: torch.Generator | None = None) -> MLP:
        """Return K freshly drawn networks of this architecture, evaluated as one."""
        return self._like(replicates, generator)

    def member(self, index: int) -> MLP:
        """Return network `index` of K as an ordinary one; its parameters are copies."""
        if self.replicates is None:
            raise ValueError("This network has no replicates, so it has no members. Call `replicate(K)` first.")
        single = self._like(None, None)
        with torch.no_grad():
            for own, theirs in zip(self.parameters(), single.parameters(), strict=True):
                theirs.copy_(own[index])
        return single

    def _like(self, replicates: int | None, generator: torch.Generator | None) -> MLP:
        return MLP(
            self.in_features,
            self.out_features,
            width=self.width,
            depth=self.depth,
            activation=self.activation,
            replicates=replicates,
            final_scale=self.final_scale,
            generator=generator,
            dtype=self.biases[0].dtype,
        ).to(self.biases[0].device)

    def extra_repr(self) -> str:
        """Describe the architecture."""
        sizes = "-".join(str(bias.shape[-1]) for bias in self.biases)
        members = "" if self.replicates is None else f", replicates={self.replicates}"
        return f"{self.in_features}-{sizes}, activation={self.activation}{members}"


def _batched_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.baddbmm(bias.unsqueeze(-2), x, weight.mT)


def _check(
    in_features: int, out_features: int, width: int, depth: int, activation: object, replicates: int | None
) -> None:
    sizes = {"in_features": in_features, "out_features": out_features, "width": width}
    sizes |= {} if replicates is None else {"replicates": replicates}
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"`{name}` must be at least 1, got {size}.")
    if depth < 0:
        raise ValueError(f"`depth`, the number of hidden layers, must be at least 0, got {depth}.")
    if isinstance(activation, str) and activation not in ACTIVATIONS:
        raise ValueError(
            f"`activation` must be one of {', '.join(ACTIVATIONS)} or a function of a tensor, got {activation!r}."
        )
