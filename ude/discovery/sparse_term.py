"""A term that is a weighted sum of library functions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ude.discovery.libraries import Library
from ude.models import Expression


class SparseTerm(nn.Module):
    r"""Weighted sum of candidate functions, $u_o(x) = \sum_j c_{oj}\, \theta_j(x)$.

    Args:
        library: The candidate functions $\theta_j$.
        coefficients: $c$, shape `(outputs, features)`; or `(K, outputs, features)` for K replicates, whose input and
            output have shape `(K, *batch, columns)`.

    Example:
        >>> from ude.discovery.libraries import Polynomial
        >>> SparseTerm(Polynomial(degree=1), torch.tensor([[1.0, 0.0, 2.0]]))(torch.tensor([[3.0, 4.0]]))
        tensor([[9.]], grad_fn=<SumBackward1>)
    """

    def __init__(self, library: Library, coefficients: Tensor) -> None:
        super().__init__()
        self.library = library
        self.coefficients = nn.Parameter(coefficients.detach().clone())
        self.replicates = coefficients.shape[0] if coefficients.ndim == 3 else None

    def forward(self, x: Tensor) -> Tensor:
        """Evaluate at `x` of shape `(*batch, inputs)`, or `(K, *batch, inputs)` for K replicates."""
        features = self.library(x).unsqueeze(-2)
        coefficients = self.coefficients
        if self.replicates is not None:
            lead = [1] * (x.ndim - 2)
            coefficients = coefficients.reshape(coefficients.shape[0], *lead, *coefficients.shape[1:])
        return (features * coefficients).sum(-1)

    def simplified(self, inputs: Sequence[str]) -> nn.Module:
        """Return the sum without the functions of coefficient zero, as an `Expression` of these inputs.

        The term itself if a function of the library has no symbolic form.
        """
        import sympy

        try:
            functions = self.library.sympy([sympy.Symbol(name) for name in inputs])
        except ValueError:
            return self
        rows = [
            sympy.Add(*(sympy.Float(c) * f for c, f in zip(row, functions, strict=True) if c != 0.0))
            for row in self.coefficients.tolist()
        ]
        return Expression(rows, inputs, dtype=self.coefficients.dtype)

    def with_coefficients(self, coefficients: Tensor) -> SparseTerm:
        """Return the sum with other weights."""
        return SparseTerm(self.library, coefficients)

    def replicate(self, replicates: int, generator: torch.Generator | None = None) -> SparseTerm:
        """Return K copies as one term; nothing is drawn."""
        single = self.coefficients if self.replicates is None else self.coefficients[0]
        return self.with_coefficients(single.expand(replicates, -1, -1))

    def member(self, index: int) -> SparseTerm:
        """Return copy `index` of K."""
        return self.with_coefficients(self.coefficients[index])
