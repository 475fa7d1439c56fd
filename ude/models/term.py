"""One unknown term of a differential equation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ude.models.replicated import member, replicate


class Term(nn.Module):
    r"""An unknown term, $u(x) = s_u\, N((x - m) / s_x)$ with a network $N$.

    The shift $m$ and the scales $s_x, s_u$ are buffers, by default 0 and 1; `UDE.scale_terms` sets them
    from data, so that the network sees and gives numbers of order one.

    Args:
        network: Maps `(*batch, inputs)` to `(*batch, outputs)`.
        inputs: Names of the input columns. In a UDE whose known part does not call the term itself, these
            are names of states, of exogenous inputs, or `t`.
        outputs: Names of the outputs. In a UDE whose known part does not call the term itself, these are
            the states to whose time derivatives the outputs are added.
        dtype: Floating-point type of the scales.

    Attributes:
        input_shift: $m$, shape `(inputs,)`.
        input_scale: $s_x$, shape `(inputs,)`.
        output_scale: $s_u$, shape `(outputs,)`.

    Example:
        >>> term = Term(nn.Linear(2, 1, dtype=torch.float64), inputs=("S", "I"), outputs=("E",))
        >>> term(torch.zeros(5, 2, dtype=torch.float64)).shape
        torch.Size([5, 1])
    """

    input_shift: Tensor
    input_scale: Tensor
    output_scale: Tensor

    def __init__(
        self,
        network: nn.Module,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        _check_width(network, "in_features", inputs)
        _check_width(network, "out_features", outputs)
        self.network = network
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        first = next(network.parameters(), None)
        dtype, device = (dtype, None) if first is None else (first.dtype, first.device)
        self.register_buffer("input_shift", torch.zeros(len(self.inputs), dtype=dtype, device=device))
        self.register_buffer("input_scale", torch.ones(len(self.inputs), dtype=dtype, device=device))
        self.register_buffer("output_scale", torch.ones(len(self.outputs), dtype=dtype, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """Evaluate the term at `x` of shape `(*batch, inputs)`, in the units of the equation."""
        return self.network((x - self.input_shift) / self.input_scale) * self.output_scale

    def with_network(self, network: nn.Module) -> Term:
        """Return a term with the same names and scales and another network."""
        other = Term(network, self.inputs, self.outputs, dtype=self.input_shift.dtype).to(self.input_shift)
        for name in ("input_shift", "input_scale", "output_scale"):
            getattr(other, name).copy_(getattr(self, name))
        return other

    def replicate(self, replicates: int, generator: torch.Generator | None = None) -> Term:
        """Return K freshly drawn terms as one; input and output have shape `(K, *batch, columns)`."""
        return self.with_network(replicate(self.network, replicates, generator))

    def member(self, index: int) -> Term:
        """Return term `index` of K."""
        return self.with_network(member(self.network, index))

    @property
    def replicates(self) -> int | None:
        """Number K of replicates, None for a single term."""
        return cast("int | None", getattr(self.network, "replicates", None))

    def extra_repr(self) -> str:
        """Name inputs and outputs."""
        return f"({', '.join(self.inputs)}) -> ({', '.join(self.outputs)})"


def _check_width(network: nn.Module, attribute: str, names: Sequence[str]) -> None:
    width = getattr(network, attribute, None)
    if isinstance(width, int) and width != len(names):
        side = "inputs" if attribute == "in_features" else "outputs"
        raise ValueError(
            f"The network has {attribute}={width}, but {len(names)} {side} are named: {tuple(names)}. "
            f"Make the two agree."
        )
