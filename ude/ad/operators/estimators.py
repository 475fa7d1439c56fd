r"""Random directions $v$ with $\mathbb{E}[v v^T] = I$: a trace at the cost of a few of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Estimator(Protocol):
    """A way to draw directions.

    Args:
        samples: Number of directions S.
        generator: Source of randomness; torch's default one if None.
        per_sample: Draw directions of its own for every row of the batch; otherwise all rows share them, which is
            cheaper and unbiased for every row, but makes the errors of the rows dependent.
    """

    @property
    def samples(self) -> int:
        """Number of directions."""
        ...

    @property
    def generator(self) -> torch.Generator | None:
        """Source of randomness."""
        ...

    @property
    def per_sample(self) -> bool:
        """Whether every row has its own directions."""
        ...

    def draw(self, dimension: int, batch: tuple[int, ...], like: Tensor) -> Tensor:
        r"""Return directions with $\mathbb{E}[v v^T] = I$, shape `(samples, *batch, dimension)`."""
        ...

    def spread(self, dimension: int) -> float:
        """Return the standard deviation of the mean over that of independent directions."""
        ...


@dataclass(frozen=True, slots=True)
class _Random:
    """Settings that all estimators share."""

    samples: int
    generator: torch.Generator | None = None
    per_sample: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.samples, int) or self.samples < 1:
            raise ValueError(f"Expected at least 1 sample, an integer, got {self.samples!r}.")

    def spread(self, dimension: int) -> float:
        """Return the standard deviation of the mean over that of independent directions."""
        return 1.0


@dataclass(frozen=True, slots=True)
class Rademacher(_Random):
    r"""Independent signs, $v_i = \pm 1$: the smallest variance of independent entries for a trace.

    For a symmetric $A$ the variance of $v^T A v$ is $2 \sum_{i \neq j} A_{ij}^2$. Its fourth moments are not those of a
    Gaussian, so that it is biased for operators of order four.

    Reference: M. Hutchinson, A stochastic estimator of the trace of the influence matrix, 1989.
    """

    def draw(self, dimension: int, batch: tuple[int, ...], like: Tensor) -> Tensor:
        """Return signs."""
        shape = (self.samples, *batch, dimension)
        bits = torch.randint(0, 2, shape, generator=self.generator, device=like.device)
        return (2 * bits - 1).to(like.dtype)


@dataclass(frozen=True, slots=True)
class Gaussian(_Random):
    r"""Independent standard normal entries: variance $2 \|A\|_F^2$, and right for every even order."""

    def draw(self, dimension: int, batch: tuple[int, ...], like: Tensor) -> Tensor:
        """Return normal entries."""
        shape = (self.samples, *batch, dimension)
        return _normal(shape, self.generator, like).to(like.dtype)


@dataclass(frozen=True, slots=True)
class Orthogonal(_Random):
    r"""Orthogonal directions of length $\sqrt{D}$, uniform among all such frames: exact when $S = D$.

    Raises:
        ValueError: When it draws more samples than there are dimensions.

    Reference: F. Mezzadri, How to generate random matrices from the classical compact groups, 2007.
    """

    def draw(self, dimension: int, batch: tuple[int, ...], like: Tensor) -> Tensor:
        """Return columns of random orthogonal matrices."""
        _check_subset(self.samples, dimension)
        q, r = torch.linalg.qr(_normal((*batch, dimension, self.samples), self.generator, like))
        q = q * r.diagonal(dim1=-2, dim2=-1).sgn().unsqueeze(-2)  # without these signs the frame is not uniform
        return (q.movedim(-1, 0) * dimension**0.5).to(like.dtype)

    def spread(self, dimension: int) -> float:
        """Return the standard deviation of the mean over that of independent directions."""
        return (1.0 - self.samples / dimension) ** 0.5


@dataclass(frozen=True, slots=True)
class Coordinates(_Random):
    r"""A random subset of the coordinates, without replacement, scaled by $\sqrt{D}$: exact when $S = D$.

    Never costs more than the exact operator, and is the cheapest in many dimensions, where the first layer of a network
    only picks S columns of its matrix.

    Raises:
        ValueError: When it draws more samples than there are dimensions.

    Reference: Z. Hu et al., Stochastic dimension gradient descent, 2024; Z. Shi et al., Stochastic Taylor derivative
    estimator, 2024.
    """

    def subset(self, dimension: int, device: torch.device) -> Tensor:
        """Return the numbers of S coordinates."""
        _check_subset(self.samples, dimension)
        return torch.randperm(dimension, generator=self.generator, device=device)[: self.samples]

    def spread(self, dimension: int) -> float:
        """Return the standard deviation of the mean over that of independent directions."""
        return (1.0 - self.samples / dimension) ** 0.5

    def draw(self, dimension: int, batch: tuple[int, ...], like: Tensor) -> Tensor:
        """Return scaled unit vectors."""
        rows = math.prod(batch)
        if rows == 0:
            return like.new_zeros((self.samples, *batch, dimension))
        subsets = torch.stack([self.subset(dimension, like.device) for _ in range(rows)], dim=1)
        directions = like.new_zeros((self.samples, rows, dimension))
        directions.scatter_(-1, subsets.unsqueeze(-1), dimension**0.5)
        return directions.reshape(self.samples, *batch, dimension)


def _normal(shape: tuple[int, ...], generator: torch.Generator | None, like: Tensor) -> Tensor:
    """Draw real numbers, for complex points too: complex directions have E[v v^T] = 0. At least in single precision."""
    dtype = torch.promote_types(like.dtype.to_real(), torch.float32)
    return torch.randn(shape, generator=generator, device=like.device, dtype=dtype)


def _check_subset(samples: int, dimension: int) -> None:
    if samples > dimension:
        raise ValueError(f"Expected at most {dimension} samples, one per dimension (then exact), got {samples}.")


def spread_of_mean(estimator: Estimator | None, dimension: int, *, standard_error: bool) -> float | None:
    """Return the factor of the standard error, None if none is asked for; raise if there is none."""
    if not standard_error:
        return None
    if estimator is None:
        raise ValueError("Expected an estimator together with `standard_error`: the exact operator has no error.")
    if estimator.samples < 2:
        raise ValueError(f"Expected at least 2 samples for a standard error, got {estimator.samples}.")
    return estimator.spread(dimension)
