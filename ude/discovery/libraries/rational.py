"""Quotients: saturation, Michaelis-Menten and Hill terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from typing_extensions import override

from ude.discovery.libraries.library import Library
from ude.discovery.libraries.polynomial import Polynomial

if TYPE_CHECKING:
    import sympy


@dataclass(frozen=True, slots=True, kw_only=True)
class Rational(Library):
    r"""Monomials over saturating denominators, $\prod_i x_i^{k_i} \,/\, (c + x_j^m)$.

    Every monomial of degree at most `degree`, over every input $j$, constant $c$ and power $m$. With
    `degree=1` that holds Michaelis-Menten uptake $x / (c + x)$ and saturating predation $y x / (c + x)$ comes
    with `degree=2`; `powers=(2,)` gives Hill terms. Denominators do not vanish where inputs are
    non-negative, or where the power is even.

    Args:
        degree: Largest total degree of the numerator.
        constants: Half-saturation constants to try, in the unit of the input to the power; positive.
        powers: Exponents to try in the denominator.

    Raises:
        ValueError: If a constant or power is not positive, or none is given.

    Example:
        >>> Rational(degree=1, constants=(2.0,)).names(["x"])
        ['1/(2 + x)', 'x/(2 + x)']
    """

    degree: int = 1
    constants: tuple[float, ...] = (1.0,)
    powers: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        if not (self.constants and self.powers and min(self.constants) > 0 and min(self.powers) > 0):
            raise ValueError(
                f"`constants` and `powers` must be positive and not empty, got {self.constants} and {self.powers}."
            )

    @override
    def __call__(self, x: Tensor) -> Tensor:
        denominators = torch.cat([c + x**m for c in self.constants for m in self.powers], dim=-1)
        return (self._numerators(x).unsqueeze(-2) / denominators.unsqueeze(-1)).flatten(-2)

    @override
    def names(self, input_names: Sequence[str]) -> list[str]:
        denominators = [
            f"({c:g} + {x}{f'^{m}' if m > 1 else ''})" for c in self.constants for m in self.powers for x in input_names
        ]
        return [f"{top}/{bottom}" for bottom in denominators for top in self._numerators.names(input_names)]

    @override
    def sympy(self, input_symbols: Sequence[sympy.Expr]) -> list[sympy.Expr]:
        denominators = [c + x**m for c in self.constants for m in self.powers for x in input_symbols]
        return [top / bottom for bottom in denominators for top in self._numerators.sympy(input_symbols)]

    @property
    def _numerators(self) -> Polynomial:
        return Polynomial(degree=self.degree)
