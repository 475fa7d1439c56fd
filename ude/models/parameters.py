"""Physical parameters: learnable numbers with a name, a sign and bounds."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Parameter:
    r"""How a physical parameter starts and which values it may take.

    The optimiser sees an unconstrained number $\rho$: the value is $\rho$, or $e^\rho$ for a positive
    parameter, or $l + (h - l) / (1 + e^{-\rho})$ for one with bounds $(l, h)$.

    Args:
        initial: Value at the start, in the parameter's own unit.
        positive: The value stays above zero.
        bounds: The value stays strictly between these two.
        spread: Size of the random change of each replicate's start: a standard deviation relative to
            `initial`, in $\log$ for a positive parameter. The first replicate starts at `initial`.
        learnable: Whether the value is fitted; if not it is a named constant.

    Raises:
        ValueError: If `initial` is not allowed by the sign or the bounds.

    Example:
        >>> Parameter(0.5, positive=True).initial
        0.5
    """

    initial: float = 1.0
    positive: bool = False
    bounds: tuple[float, float] | None = None
    spread: float = 0.25
    learnable: bool = True

    def __post_init__(self) -> None:
        if not math.isfinite(self.initial):
            raise ValueError(f"`initial` must be a finite number, got {self.initial}.")
        if self.positive and self.initial <= 0:
            raise ValueError(f"A positive parameter must start above zero, got `initial={self.initial}`.")
        if self.bounds is not None and not self.bounds[0] < self.initial < self.bounds[1]:
            raise ValueError(f"`initial` must lie strictly within `bounds` = {self.bounds}, got {self.initial}.")
        if self.positive and self.bounds is not None:
            raise ValueError("Give `positive=True` or `bounds`, not both: bounds (0, h) are positive already.")

    def encode(self, value: Tensor) -> Tensor:
        """Return the unconstrained number that stands for `value`."""
        if self.positive:
            return value.log()
        if self.bounds is not None:
            low, high = self.bounds
            return torch.logit((value - low) / (high - low))
        return value

    def decode(self, raw: Tensor) -> Tensor:
        """Return the value that the unconstrained number `raw` stands for."""
        if self.positive:
            return raw.exp()
        if self.bounds is not None:
            low, high = self.bounds
            return low + (high - low) * torch.sigmoid(raw)
        return raw

    def draw(self, replicates: int, generator: torch.Generator | None) -> Tensor:
        """Draw starting points for K replicates as unconstrained numbers, shape `(K,)`."""
        noise = self.spread * torch.randn(replicates, generator=generator, dtype=torch.float64)
        noise[0] = 0.0
        relative = 1.0 if self.positive or self.bounds is not None else abs(self.initial) or 1.0
        return self.encode(torch.tensor(self.initial, dtype=torch.float64)) + relative * noise


class Values:
    """Numbers by attribute or key: `p.alpha` or `p["alpha"]`."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        self._values = values

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._values:
            raise AttributeError(_unknown_name(name, tuple(self._values)))
        return self._values[name]

    def __getattr__(self, name: str) -> Tensor:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __repr__(self) -> str:
        return f"Values({', '.join(self._values)})"


class Parameters(nn.Module):
    """The physical parameters of a model, K sets of them for K replicates.

    Args:
        specs: `Parameter` of each name.
        replicates: Number K of sets; None for one set without a leading axis.
        dtype: Floating-point type.
    """

    def __init__(
        self, specs: Mapping[str, Parameter], *, replicates: int | None = None, dtype: torch.dtype = torch.float64
    ) -> None:
        super().__init__()
        self.specs, self.replicates = dict(specs), replicates
        self.names = tuple(name for name, spec in self.specs.items() if spec.learnable)
        self.fixed_names = tuple(name for name, spec in self.specs.items() if not spec.learnable)
        lead = () if replicates is None else (replicates,)
        start = torch.tensor([self._start(name) for name in self.names], dtype=dtype)
        fixed = torch.tensor([self.specs[name].initial for name in self.fixed_names], dtype=dtype)
        self.raw = nn.Parameter(start.expand(*lead, -1).clone())
        self.register_buffer("fixed", fixed)

    def _start(self, name: str) -> float:
        spec = self.specs[name]
        return spec.encode(torch.tensor(spec.initial, dtype=torch.float64)).item()

    def values(self) -> dict[str, Tensor]:
        """Value of every parameter, in its own unit, of shape `()`, or `(K,)` for K replicates."""
        learnt = {name: self.specs[name].decode(raw) for name, raw in zip(self.names, self.raw.unbind(-1), strict=True)}
        fixed = cast("Tensor", self.fixed)
        return learnt | dict(zip(self.fixed_names, fixed.unbind(-1), strict=True)) if self.fixed_names else learnt

    def set_values(self, values: Mapping[str, float | Tensor]) -> None:
        """Set learnable parameters to these values, each a number or of shape `(K,)`."""
        for name, value in values.items():
            if name not in self.names:
                raise ValueError(_unknown_name(name, self.names))
            with torch.no_grad():
                raw = self.specs[name].encode(torch.as_tensor(value, dtype=self.raw.dtype))
                self.raw[..., self.names.index(name)] = raw

    def replicate(self, replicates: int, generator: torch.Generator | None = None) -> Parameters:
        """Return K sets, drawn around the initial values."""
        many = Parameters(self.specs, replicates=replicates, dtype=self.raw.dtype)
        with torch.no_grad():
            for i, name in enumerate(self.names):
                many.raw[:, i] = self.specs[name].draw(replicates, generator)
        return many.to(self.raw.device)

    def member(self, index: int) -> Parameters:
        """Return set `index` of K."""
        single = Parameters(self.specs, dtype=self.raw.dtype).to(self.raw.device)
        with torch.no_grad():
            single.raw.copy_(self.raw[index])
        return single


def _unknown_name(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"There is no learnable parameter or input {name!r}; there are {known or 'none'}.{hint}"
