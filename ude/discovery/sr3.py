"""Sparse relaxed regularised regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ude.discovery.least_squares import (
    Problems,
    Questions,
    column_lengths,
    flatten_batch,
    least_squares,
    reduce_rows,
)
from ude.discovery.sparse_fit import SparseFit


@dataclass(frozen=True, slots=True, kw_only=True)
class SR3:
    r"""Sparse relaxed regularised regression.

    Minimises $\tfrac12 |y - \Theta w|^2 + \lambda R(v) + \tfrac{1}{2\nu} |w - v|^2$ over $w$ and $v$ in turns and
    returns the sparse $v$. $R$ counts the entries of $v$ (`norm=0`, which drops those below $\sqrt{2\lambda\nu}$) or
    sums their magnitudes (`norm=1`) or squares (`norm=2`). Steps and stopping rule are those of pysindy's `SR3`;
    weights, data sets and targets are iterated together, and coefficients are differentiable with respect to features
    and targets.

    Args:
        weight: Weight $\lambda$ of the regulariser.
        nu: Relaxation $\nu$; small values tie $v$ to $w$.
        norm: Which norm $R$ is.
        tol: The iteration ends when $v$ changes by less than `tol * nu`.
        max_iter: Largest number of turns.
        normalize: Whether columns are first scaled to unit length.
        unbias: Whether the final coefficients are refitted on their support by least squares.
        rcond: In that refit, singular values of the columns below this share of the largest count as zero.

    Raises:
        ValueError: If an option has the wrong sign.

    Example:
        >>> x = torch.linspace(-1, 1, 50, dtype=torch.float64)
        >>> features = torch.stack([torch.ones_like(x), x, x**2, x**3], dim=-1)
        >>> fit = SR3(weight=0.05, unbias=True).fit(features, (2 * x - 0.5 * x**2).unsqueeze(-1))
        >>> fit.coefficients.round(decimals=6)
        tensor([[ 0.0000,  2.0000, -0.5000,  0.0000]], dtype=torch.float64)

    Reference:
        Zheng, Askham, Brunton, Kutz and Aravkin (2019), A unified framework for sparse relaxed regularized
        regression: SR3.
    """

    weight: float = 0.005
    nu: float = 1.0
    norm: Literal[0, 1, 2] = 0
    tol: float = 1e-5
    max_iter: int = 30
    normalize: bool = False
    unbias: bool = False
    rcond: float = 1e-6

    def __post_init__(self) -> None:
        if self.weight < 0 or self.nu <= 0 or self.tol <= 0 or self.max_iter < 1:
            raise ValueError(
                "`weight` must not be negative, `nu` and `tol` must be positive and `max_iter` at least 1, got "
                f"{self.weight}, {self.nu}, {self.tol} and {self.max_iter}."
            )

    def fit(self, features: Tensor, targets: Tensor) -> SparseFit:
        """Fit sparse coefficients.

        Args:
            features: Library values, shape `(*batch, samples, features)`.
            targets: Values to explain, shape `(*batch, samples, targets)`.

        Returns:
            Coefficients of shape `(*batch, targets, features)`.
        """
        path = self.path(features, targets, features.new_tensor([self.weight], dtype=torch.float64))
        return SparseFit(path.coefficients[0], path.support[0], path.converged[0])

    def path(self, features: Tensor, targets: Tensor, weights: Tensor) -> SparseFit:
        """Fit sparse coefficients for many weights; `self.weight` is not used.

        Args:
            features: Library values, shape `(*batch, samples, features)`.
            targets: Values to explain, shape `(*batch, samples, targets)`.
            weights: Shape `(path,)`, or `(path, targets, features)` for one weight per coefficient.

        Returns:
            Coefficients of shape `(path, *batch, targets, features)`.
        """
        dtype = features.dtype
        batch, features, targets = flatten_batch(features, targets)
        units = column_lengths(features) if self.normalize else torch.ones_like(features[:, 0])
        problems = reduce_rows(features / units.unsqueeze(-2), targets)
        per_entry = weights.to(features).reshape(len(weights), 1, *(weights.shape[1:] or (1, 1)))
        sparse, converged = self._alternate(problems, per_entry)
        support = sparse.detach() != 0
        if self.unbias:
            sparse = least_squares(
                problems, Questions.of(support), torch.ones_like(problems.scale), self.rcond
            ).reshape(sparse.shape)
        shape = (len(weights), *batch, *sparse.shape[2:])
        return SparseFit(
            (sparse / units.unsqueeze(-2)).to(dtype).reshape(shape),
            support.reshape(shape),
            converged.reshape(shape[:-1]),
        )

    def _alternate(self, problems: Problems, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Minimise over w and v in turns; both have shape `(path, problems, targets, features)`."""
        features, targets = problems.features, problems.targets
        moment = (features.mT @ targets).mT
        eye = torch.eye(features.shape[-1], dtype=features.dtype, device=features.device)
        factor = torch.linalg.cholesky(features.mT @ features + eye / self.nu)
        all_columns = torch.ones_like(moment, dtype=torch.bool).unsqueeze(0)
        rank_limit = max(features.shape[-2:]) * torch.finfo(features.dtype).eps
        start = least_squares(problems, Questions.of(all_columns), torch.ones_like(problems.scale), rank_limit)
        sparse = start.reshape(all_columns.shape).expand(len(weights), -1, -1, -1)
        converged = torch.zeros(sparse.shape[:2], dtype=torch.bool, device=features.device)
        for _ in range(self.max_iter):
            full = torch.cholesky_solve((moment + sparse / self.nu).mT, factor).mT
            new = torch.where(converged[..., None, None], sparse, self._shrink(full, weights * self.nu))
            change = (new - sparse).detach().square().sum((-2, -1)).sqrt() / self.nu
            sparse, converged = new, converged | (change < self.tol)
            if bool(converged.all()):
                break
        return sparse, converged.unsqueeze(-1).expand(sparse.shape[:-1])

    def _shrink(self, full: Tensor, weight: Tensor) -> Tensor:
        """Minimise $weight R(v) + |v - full|^2 / 2$ over v."""
        if self.norm == 0:
            return torch.where(full.abs() > (2 * weight).sqrt(), full, 0.0)
        if self.norm == 1:
            return full.sign() * (full.abs() - weight).clamp(min=0)
        return full / (1 + 2 * weight)
