"""A vector field that is a weighted sum of library functions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ude.discovery.libraries import Library


class SparseField(nn.Module):
    r"""Vector field $f(t, y) = \Xi\, \theta(y, u(t))$ with the non-zero entries of $\Xi$ as parameters.

    Args:
        library: The candidate functions $\theta$.
        coefficients: $\Xi$, shape `(states, features)`.

    Example:
        >>> from ude.discovery.libraries import Polynomial
        >>> field = SparseField(Polynomial(degree=1), torch.tensor([[0.0, -1.0]]))
        >>> field(torch.tensor(0.0), torch.tensor([2.0]))
        tensor([-2.], grad_fn=<...>)
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, library: Library, coefficients: Tensor) -> None:
        super().__init__()
        self.library = library
        self.shape = tuple(coefficients.shape)
        rows, columns = coefficients.detach().nonzero(as_tuple=True)
        self.register_buffer("rows", rows)
        self.register_buffer("columns", columns)
        self.values = nn.Parameter(coefficients.detach()[rows, columns].clone())

    @property
    def coefficients(self) -> Tensor:
        """All coefficients, shape `(states, features)`."""
        return self.values.new_zeros(self.shape).index_put((self.rows, self.columns), self.values)

    def forward(self, t: Tensor | float, y: Tensor, signal: Tensor | None = None) -> Tensor:
        """Evaluate at states `(*batch, states)` and exogenous inputs `(*batch, inputs)`, if the model has any."""
        x = y if signal is None else torch.cat([y, signal.expand(*y.shape[:-1], -1)], dim=-1)
        return self.library(x) @ self.coefficients.mT
