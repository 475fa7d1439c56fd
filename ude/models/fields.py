"""Vector fields made of networks, called as f(t, y)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ude.models.mlp import ACTIVATIONS


class Autonomous(nn.Module):
    r"""The vector field $f(t, y) = N(y)$ of a network that does not see the time.

    Args:
        network: Maps a state to one of the same shape, such as `MLP(d, d)`.

    Example:
        >>> Autonomous(nn.Tanh())(0.0, torch.zeros(2))
        tensor([0., 0.])
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, t: float | Tensor, y: Tensor) -> Tensor:
        """Return the network's value at `y`."""
        return self.network(y)


class DenseField(nn.Module):
    r"""Vector field of dense layers which all see the time, $h_{l+1} = \varphi(W_l h_l + w_l t + b_l)$, $h_0 = y$.

    The activation follows the last layer too unless that is switched off; a bounded one bounds the field.
    `DenseField((784, 100, 784))` is the one of the MNIST classifiers of Kelly et al. (2020) and Pal et al. (2021):
    layers from 785 to 100 and from 101 to 784 numbers, the last input being the time. It is not joined to the state but
    multiplied with its own column $w_l$, which is the same and copies nothing.

    Weights start uniform within $\pm\sqrt{6 / (n_{in} + n_{out})}$ (Glorot), the time counting among the inputs; biases
    at zero.

    Args:
        sizes: Widths of the state and of every layer; the last one is the width of the result, that of the state
            unless the field is a part of another one.
        is_autonomous: Leave the time out.
        activates_input: Apply the activation to the state first, $h_0 = \varphi(y)$.
        activates_output: Apply the activation after the last layer; False leaves the field unbounded.
        activation: As for `MLP`.
        generator: Source of the initial weights; the global one of torch if not given.
        dtype: Floating-point type of the parameters.

    Raises:
        ValueError: If there is no layer, a size is not positive or the activation is unknown.

    Example:
        >>> DenseField((2, 8, 2))(0.5, torch.zeros(5, 2, dtype=torch.float64)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        is_autonomous: bool = False,
        activates_input: bool = False,
        activates_output: bool = True,
        activation: str | Callable[[Tensor], Tensor] = "tanh",
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        if len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(f"`sizes` must be the widths of the state and of each layer, got {tuple(sizes)}.")
        if isinstance(activation, str) and activation not in ACTIVATIONS:
            raise ValueError(
                f"`activation` must be one of {', '.join(ACTIVATIONS)} or a function of a tensor, got {activation!r}."
            )
        self.sizes, self.is_autonomous = tuple(sizes), is_autonomous
        self.activates_input, self.activates_output = activates_input, activates_output
        self.activation = activation
        self._phi = ACTIVATIONS[activation] if isinstance(activation, str) else activation
        for layer, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
            self.register_parameter(f"weight{layer}", nn.Parameter(torch.empty(n_out, n_in, dtype=dtype)))
            self.register_parameter(f"bias{layer}", nn.Parameter(torch.empty(n_out, dtype=dtype)))
            if not is_autonomous:
                self.register_parameter(f"time{layer}", nn.Parameter(torch.empty(n_out, dtype=dtype)))
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters again."""
        for weight, bias, *time in self._layers():
            bound = math.sqrt(6.0 / (weight.shape[1] + len(time) + weight.shape[0]))
            weight.uniform_(-bound, bound, generator=generator)
            bias.zero_()
            for column in time:
                column.uniform_(-bound, bound, generator=generator)

    def forward(self, t: float | Tensor, y: Tensor) -> Tensor:
        """Return the rate of the state.

        Args:
            t: Time: a number, a tensor of shape `()`, or one with a last axis of 1 that broadcasts with `y`.
            y: State, shape `(*batch, sizes[0])`.
        """
        h = self._phi(y) if self.activates_input else y
        layers = self._layers()
        for number, (weight, bias, *time) in enumerate(layers, 1):
            for column in time:
                bias = bias + t * column
            # A shift of its own for every sample is no bias that `linear` could fuse.
            h = functional.linear(h, weight, bias) if bias.ndim == 1 else functional.linear(h, weight) + bias
            h = self._phi(h) if number < len(layers) or self.activates_output else h
        return h

    def _layers(self) -> list[tuple[Tensor, ...]]:
        """Return weight, bias and, unless the field is autonomous, the column of the time, of each layer."""
        values = cast("list[Tensor]", list(self._parameters.values()))
        count = 2 if self.is_autonomous else 3
        return [tuple(values[i : i + count]) for i in range(0, len(values), count)]

    def extra_repr(self) -> str:
        """Describe the architecture."""
        sizes = "-".join(map(str, self.sizes))
        return f"{sizes}, activation={self.activation}, is_autonomous={self.is_autonomous}"


class SecondOrder(nn.Module):
    r"""Second-order equation $\ddot x = a(t, x, \dot x)$ as a field of $y = (x, v)$: $f(t, y) = (v, a(t, y))$.

    Args:
        acceleration: Called as `a(t, y)` with position and velocity side by side, `(*batch, 2 * d)`; returns
            `(*batch, d)`: `DenseField((2 * d, 32, d))`, `Autonomous(MLP(2 * d, d))` or one's own.

    Example:
        >>> spring = SecondOrder(lambda t, y: -y[..., :1])
        >>> spring(0.0, torch.tensor([1.0, 2.0]))
        tensor([ 2., -1.])

    Reference:
        Norcliffe, Bodnar, Day, Simidjievski & Lio (2020), On second order behaviour in augmented neural ODEs,
        arXiv:2006.07220.
    """

    def __init__(self, acceleration: Callable[[float | Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.acceleration = acceleration

    def forward(self, t: float | Tensor, y: Tensor) -> Tensor:
        """Return velocity and acceleration.

        Raises:
            ValueError: If the state has no two halves, or the acceleration is not half of it.
        """
        if y.shape[-1] % 2:
            raise ValueError(
                f"The last axis of the state must hold positions and as many velocities, got shape {tuple(y.shape)}. "
                "`Augment` appends initial velocities to positions."
            )
        half = y.shape[-1] // 2
        acceleration = self.acceleration(t, y)
        if acceleration.shape[-1] != half:
            raise ValueError(
                f"The acceleration must have {half} components, half of the state's, got shape "
                f"{tuple(acceleration.shape)}."
            )
        return torch.cat([y[..., half:], acceleration], dim=-1)
