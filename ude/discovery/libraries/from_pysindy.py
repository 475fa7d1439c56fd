"""pysindy's libraries, translated where possible and wrapped where not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import mul
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from typing_extensions import override

from ude.discovery.libraries.fourier import Fourier
from ude.discovery.libraries.library import Library, Sum
from ude.discovery.libraries.polynomial import Polynomial

if TYPE_CHECKING:
    import sympy


def as_library(library: Any) -> Library:
    """Return a library of this package for one of this package or of pysindy.

    Polynomial and Fourier libraries and their sums and products are translated: they are differentiable and
    have symbols. Any other object with `fit`, `transform` and `get_feature_names` is wrapped and evaluated in
    NumPy, which is enough to fit coefficients.

    Args:
        library: A `Library`, or a feature library of pysindy (fitted or not).

    Raises:
        TypeError: If it is neither.

    Example:
        >>> import pysindy
        >>> as_library(pysindy.PolynomialLibrary(degree=3))
        Polynomial(degree=3, include_bias=True, interaction=True, interaction_only=False)
    """
    if isinstance(library, Library):
        return library
    kind = type(library).__name__
    if kind == "PolynomialLibrary":
        return Polynomial(
            degree=library.degree,
            include_bias=library.include_bias,
            interaction=library.include_interaction,
            interaction_only=library.interaction_only,
        )
    if kind == "FourierLibrary":
        return Fourier(library.n_frequencies, sin=library.include_sin, cos=library.include_cos)
    if kind == "ConcatLibrary":
        return Sum(tuple(as_library(part) for part in library.libraries))
    if kind == "TensoredLibrary":
        parts = [as_library(part) for part in library.libraries]
        inputs = library.inputs_per_library or [None] * len(parts)
        return reduce(mul, [p if i is None else p.on(*map(int, i)) for p, i in zip(parts, inputs, strict=True)])
    if not all(hasattr(library, name) for name in ("fit", "transform", "get_feature_names")):
        raise TypeError(
            f"Expected a library of `ude.discovery` or of pysindy, got {kind}. "
            "For example `Polynomial(degree=3) + Fourier(1)`."
        )
    return FromPySINDy(library)


@dataclass(frozen=True, slots=True)
class FromPySINDy(Library):
    """Any feature library of pysindy, evaluated in NumPy: values without derivatives and without symbols."""

    library: Any

    @override
    def __call__(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            raise ValueError(
                f"{type(self.library).__name__} is evaluated in NumPy and has no derivatives. Pass `x.detach()`, "
                "or write the functions in torch with `Custom`."
            )
        rows = x.reshape(-1, x.shape[-1]).cpu().numpy()
        values = torch.from_numpy(self._fitted(x.shape[-1]).transform(rows).__array__().copy())
        return values.to(x).reshape(*x.shape[:-1], -1)

    @override
    def names(self, input_names: Sequence[str]) -> list[str]:
        return list(self._fitted(len(input_names)).get_feature_names(list(input_names)))

    @override
    def sympy(self, input_symbols: Sequence[sympy.Expr]) -> list[sympy.Expr]:
        raise ValueError(
            f"{type(self.library).__name__} does not say what its functions are in symbols. Write them with `Custom` "
            "and `expressions=`, or use `Polynomial`, `Fourier` and `Rational`, whose symbols are known."
        )

    def _fitted(self, n_inputs: int) -> Any:
        import numpy as np

        if getattr(self.library, "n_features_in_", None) != n_inputs:
            self.library.fit(np.ones((2, n_inputs)))
        return self.library
