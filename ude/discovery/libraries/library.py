"""What every library of candidate functions can do, and how libraries combine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from typing_extensions import override

if TYPE_CHECKING:
    import sympy


class Library(ABC):
    r"""A list of candidate functions $\theta_1(x), \dots, \theta_p(x)$ of the same inputs.

    Libraries combine: `a + b` lists the functions of both, `a * b` all products of one of each, and
    `a.on(0, 2)` applies `a` to the inputs 0 and 2 only.

    Example:
        >>> from ude.discovery.libraries import Fourier, Polynomial
        >>> library = Polynomial(degree=1) * Fourier(1).on(0)
        >>> library.names(["x", "y"])
        ['sin(x)', 'cos(x)', 'x sin(x)', 'x cos(x)', 'y sin(x)', 'y cos(x)']
    """

    __slots__ = ()

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """Evaluate all functions.

        Args:
            x: Inputs, shape `(*batch, n_inputs)`.

        Returns:
            Values, shape `(*batch, n_features)`.
        """

    @abstractmethod
    def names(self, input_names: Sequence[str]) -> list[str]:
        """Return one readable name per function, such as `x y^2` or `sin(2 x)`."""

    @abstractmethod
    def sympy(self, input_symbols: Sequence[sympy.Expr]) -> list[sympy.Expr]:
        """Return one symbolic expression per function, in the symbols of the inputs."""

    def size(self, n_inputs: int) -> int:
        """Return the number of functions of `n_inputs` inputs."""
        return len(self.names([f"x{i}" for i in range(n_inputs)]))

    def __add__(self, other: Library) -> Sum:
        if not isinstance(other, Library):
            return NotImplemented
        return Sum((*_parts(self), *_parts(other)))

    def __mul__(self, other: Library) -> Product:
        if not isinstance(other, Library):
            return NotImplemented
        return Product(self, other)

    def on(self, *inputs: int) -> On:
        """Return this library applied to the inputs with these positions only."""
        return On(self, inputs)


@dataclass(frozen=True, slots=True)
class Sum(Library):
    """The functions of several libraries one after the other; what `a + b` makes."""

    libraries: tuple[Library, ...]

    @override
    def __call__(self, x: Tensor) -> Tensor:
        return torch.cat([library(x) for library in self.libraries], dim=-1)

    @override
    def names(self, input_names: Sequence[str]) -> list[str]:
        return [name for library in self.libraries for name in library.names(input_names)]

    @override
    def sympy(self, input_symbols: Sequence[sympy.Expr]) -> list[sympy.Expr]:
        return [term for library in self.libraries for term in library.sympy(input_symbols)]


@dataclass(frozen=True, slots=True)
class Product(Library):
    """All products of a function of `left` and one of `right`, `left` varying slowest; what `a * b` makes."""

    left: Library
    right: Library

    @override
    def __call__(self, x: Tensor) -> Tensor:
        return (self.left(x).unsqueeze(-1) * self.right(x).unsqueeze(-2)).flatten(-2)

    @override
    def names(self, input_names: Sequence[str]) -> list[str]:
        pairs = ((a, b) for a in self.left.names(input_names) for b in self.right.names(input_names))
        return [" ".join(factor for factor in pair if factor != "1") or "1" for pair in pairs]

    @override
    def sympy(self, input_symbols: Sequence[sympy.Expr]) -> list[sympy.Expr]:
        right = self.right.sympy(input_symbols)
        return [a * b for a in self.left.sympy(input_symbols) for b in right]


@dataclass(frozen=True, slots=True)
class On(Library):
    """A library applied to some of the inputs; what `library.on(0, 2)` makes.

    Raises:
        ValueError: If no position is given, one is negative or one occurs twice.
    """

    library: Library
    inputs: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.inputs or min(self.inputs) < 0 or len(set(self.inputs)) < len(self.inputs):
            raise ValueError(f"`inputs` must be distinct positions 0, 1, ..., got {self.inputs}.")

    @override
    def __call__(self, x: Tensor) -> Tensor:
        self._check(x.shape[-1])
        return self.library(x[..., list(self.inputs)])

    @override
    def names(self, input_names: Sequence[str]) -> list[str]:
        self._check(len(input_names))
        return self.library.names([input_names[i] for i in self.inputs])

    @override
    def sympy(self, input_symbols: Sequence[sympy.Expr]) -> list[sympy.Expr]:
        self._check(len(input_symbols))
        return self.library.sympy([input_symbols[i] for i in self.inputs])

    def _check(self, n_inputs: int) -> None:
        if max(self.inputs) >= n_inputs:
            raise ValueError(f"The library is restricted to inputs {self.inputs}, but there are only {n_inputs}.")


def _parts(library: Library) -> tuple[Library, ...]:
    return library.libraries if isinstance(library, Sum) else (library,)
