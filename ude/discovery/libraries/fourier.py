"""Sines and cosines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from typing_extensions import override

from ude.discovery.libraries.library import Library

if TYPE_CHECKING:
    import sympy


@dataclass(frozen=True, slots=True)
class Fourier(Library):
    r"""$\sin(k x_i)$ and $\cos(k x_i)$ for $k = 1, \dots, n$ and every input.

    Ordered by frequency, then input, then sine before cosine, as in pysindy.

    Args:
        n: Largest frequency, in radians per unit of the input.
        sin: Whether sines are candidates.
        cos: Whether cosines are candidates.

    Raises:
        ValueError: If `n` is less than 1 or neither sines nor cosines are wanted.

    Example:
        >>> Fourier(2, cos=False).names(["x", "y"])
        ['sin(x)', 'sin(y)', 'sin(2 x)', 'sin(2 y)']
    """

    n: int = 1
    sin: bool = True
    cos: bool = True

    def __post_init__(self) -> None:
        if self.n < 1 or not (self.sin or self.cos):
            raise ValueError(f"Expected n >= 1 and sines or cosines, got n={self.n}, sin={self.sin}, cos={self.cos}.")

    @override
    def __call__(self, x: Tensor) -> Tensor:
        angle = torch.arange(1, self.n + 1, dtype=x.dtype, device=x.device).unsqueeze(-1) * x.unsqueeze(-2)
        waves = [wave(angle) for wave, wanted in ((torch.sin, self.sin), (torch.cos, self.cos)) if wanted]
        return torch.stack(waves, dim=-1).flatten(-3)

    @override
    def names(self, input_names: Sequence[str]) -> list[str]:
        return [
            f"{wave}({f'{k} ' if k > 1 else ''}{name})"
            for k in range(1, self.n + 1)
            for name in input_names
            for wave in self._waves()
        ]

    @override
    def sympy(self, input_symbols: Sequence[sympy.Expr]) -> list[sympy.Expr]:
        import sympy

        waves = [getattr(sympy, wave) for wave in self._waves()]
        return [wave(k * x) for k in range(1, self.n + 1) for x in input_symbols for wave in waves]

    def _waves(self) -> list[str]:
        return [wave for wave, wanted in (("sin", self.sin), ("cos", self.cos)) if wanted]
