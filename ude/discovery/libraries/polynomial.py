"""Monomials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import combinations, combinations_with_replacement, pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from typing_extensions import override

from ude.discovery.libraries.library import Library

if TYPE_CHECKING:
    import sympy

Monomial = tuple[int, ...]
"""Positions of the factors in ascending order: `(0, 0, 2)` is `x0^2 x2`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Polynomial(Library):
    r"""Monomials $\prod_i x_i^{k_i}$ of total degree at most `degree`, in scikit-learn's and pysindy's order.

    Args:
        degree: Largest total degree.
        include_bias: Whether the constant 1 is a candidate.
        interaction: Whether products of different inputs are candidates.
        interaction_only: Whether to leave out monomials in which an input occurs more than once.

    Raises:
        ValueError: If `degree` is negative or nothing is left of the library.

    Example:
        >>> Polynomial(degree=2).names(["x", "y"])
        ['1', 'x', 'y', 'x^2', 'x y', 'y^2']
        >>> Polynomial(degree=2)(torch.tensor([2.0, 3.0]))
        tensor([1., 2., 3., 4., 6., 9.])
    """

    degree: int = 2
    include_bias: bool = True
    interaction: bool = True
    interaction_only: bool = False

    def __post_init__(self) -> None:
        if self.degree < int(not self.include_bias):
            raise ValueError(
                f"`degree` must be at least {int(not self.include_bias)} with include_bias={self.include_bias}, "
                f"got {self.degree}."
            )
        if self.interaction_only and not self.interaction:
            raise ValueError("`interaction_only` needs `interaction=True`: without interactions nothing is left.")

    @override
    def __call__(self, x: Tensor) -> Tensor:
        blocks = [torch.ones_like(x[..., :1])]
        for first, rest in _factors(self, x.shape[-1], x.device):
            blocks.append(x.index_select(-1, first) * blocks[-1].index_select(-1, rest))
        return torch.cat(blocks if self.include_bias else blocks[1:], dim=-1)

    def monomials(self, n_inputs: int) -> list[Monomial]:
        """Return the factors of each function, the constant being `()`."""
        blocks = _blocks(self, n_inputs)
        return [m for block in (blocks if self.include_bias else blocks[1:]) for m in block]

    @override
    def names(self, input_names: Sequence[str]) -> list[str]:
        return [monomial_name(m, input_names) for m in self.monomials(len(input_names))]

    @override
    def sympy(self, input_symbols: Sequence[sympy.Expr]) -> list[sympy.Expr]:
        import sympy

        return [sympy.Mul(*(input_symbols[i] for i in m)) for m in self.monomials(len(input_symbols))]


def monomial_name(monomial: Monomial, input_names: Sequence[str]) -> str:
    """Write a monomial as `x y^2`."""
    powers = {i: monomial.count(i) for i in monomial}
    return " ".join(input_names[i] + (f"^{k}" if k > 1 else "") for i, k in powers.items()) or "1"


@lru_cache(maxsize=256)
def _blocks(library: Polynomial, n_inputs: int) -> list[list[Monomial]]:
    """Monomials by degree."""
    degrees = range(library.degree + 1)
    if not library.interaction:
        return [[(i,) * k for i in range(n_inputs)] if k else [()] for k in degrees]
    choose = combinations if library.interaction_only else combinations_with_replacement
    return [list(choose(range(n_inputs), k)) for k in degrees]


@lru_cache(maxsize=256)
def _factors(library: Polynomial, n_inputs: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """For each degree: the first factor of each monomial, and where the rest stands one degree below."""
    blocks = [block for block in _blocks(library, n_inputs) if block]
    index = partial(torch.tensor, device=device)
    return [
        (index([m[0] for m in block]), index([position[m[1:]] for m in block]))
        for block, position in ((block, {m: i for i, m in enumerate(below)}) for below, block in pairwise(blocks))
    ]
