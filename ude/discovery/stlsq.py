"""Sequentially thresholded least squares."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ude.discovery.least_squares import (
    Problems,
    Questions,
    allowed_columns,
    column_lengths,
    distinct,
    flatten_batch,
    least_squares,
    reduce_rows,
    ridge_regression,
)
from ude.discovery.sparse_fit import SparseFit


@dataclass(frozen=True, slots=True, kw_only=True)
class STLSQ:
    r"""Sequentially thresholded ridge regression.

    Repeats until the support $S$ of each target no longer changes: minimise
    $|y - \Theta_S w|^2 + \alpha |w|^2$, then drop from $S$ every coefficient with $|w_i|$ below the
    threshold. Thresholds, data sets (bootstraps, replicates) and targets are solved together, each distinct support
    once; supports are those of pysindy's `STLSQ`. The coefficients are differentiable with respect to features and
    targets, the supports held fixed.

    Args:
        threshold: Smallest magnitude of a coefficient, in the unit of target / feature; one value, or one per target.
        alpha: Ridge penalty, in the unit of feature squared.
        max_iter: Largest number of ridge regressions.
        normalize: Whether threshold and ridge apply to columns scaled to unit length.
        unbias: Whether the final coefficients are refitted on their support without ridge.
        rcond: In that refit, singular values of the columns below this share of the largest count as zero, in the
            unit of the columns that the threshold applies to. The default is scikit-learn's, and so pysindy's.

    Raises:
        ValueError: If an option is negative.

    Example:
        >>> x = torch.linspace(-1, 1, 50, dtype=torch.float64)
        >>> features = torch.stack([torch.ones_like(x), x, x**2, x**3], dim=-1)
        >>> STLSQ(threshold=0.2).fit(features, (2 * x - 0.5 * x**3).unsqueeze(-1)).coefficients.round(decimals=6)
        tensor([[ 0.0000,  2.0000,  0.0000, -0.5000]], dtype=torch.float64)

    Reference:
        Brunton, Proctor and Kutz (2016), Discovering governing equations from data by sparse identification of
        nonlinear dynamical systems.
    """

    threshold: float | tuple[float, ...] = 0.1
    alpha: float = 0.05
    max_iter: int = 20
    normalize: bool = False
    unbias: bool = True
    rcond: float = 1e-6

    def __post_init__(self) -> None:
        smallest = min(self.threshold) if isinstance(self.threshold, tuple) else self.threshold
        if smallest < 0 or self.alpha < 0 or self.max_iter < 1:
            raise ValueError(
                f"`threshold` and `alpha` must not be negative and `max_iter` at least 1, got {self.threshold}, "
                f"{self.alpha} and {self.max_iter}."
            )

    def fit(self, features: Tensor, targets: Tensor, *, allowed: Tensor | None = None) -> SparseFit:
        """Fit sparse coefficients.

        Args:
            features: Library values, shape `(*batch, samples, features)`.
            targets: Values to explain, shape `(*batch, samples, targets)`.
            allowed: Which features may explain which target, bool, shape `(targets, features)`; all by default.

        Returns:
            Coefficients of shape `(*batch, targets, features)`.
        """
        threshold = torch.as_tensor(self.threshold, dtype=torch.float64, device=features.device)
        path = self.path(features, targets, threshold.reshape(1, -1), allowed=allowed)
        return SparseFit(path.coefficients[0], path.support[0], path.converged[0])

    def path(
        self, features: Tensor, targets: Tensor, thresholds: Tensor, *, allowed: Tensor | None = None
    ) -> SparseFit:
        """Fit sparse coefficients for many thresholds; `self.threshold` is not used.

        Args:
            features: Library values, shape `(*batch, samples, features)`.
            targets: Values to explain, shape `(*batch, samples, targets)`.
            thresholds: Shape `(path,)`, or `(path, targets)` for one threshold per target.
            allowed: Which features may explain which target, bool, shape `(targets, features)`; all by default.

        Returns:
            Coefficients of shape `(path, *batch, targets, features)`.
        """
        dtype = features.dtype
        batch, features, targets = flatten_batch(features, targets)
        problems = reduce_rows(features, targets)
        columns = thresholds.to(features).reshape(len(thresholds), -1)
        shape = (len(columns), len(features), targets.shape[-1], features.shape[-1])
        if columns.shape[-1] not in (1, shape[2]):
            raise ValueError(f"Expected one threshold, or one per target ({shape[2]}), got {columns.shape[-1]}.")
        search = self._search(
            problems, columns.unsqueeze(1).expand(shape[:-1]), allowed_columns(allowed, problems).expand(shape).clone()
        )
        coefficients = self._coefficients(problems, search)
        return SparseFit(
            coefficients.to(dtype).reshape(len(columns), *batch, *shape[2:]),
            search.found.support.reshape(len(columns), *batch, *shape[2:]),
            search.converged.reshape(len(columns), *batch, shape[2]),
        )

    @torch.no_grad()
    def _search(self, problems: Problems, thresholds: Tensor, start: Tensor) -> _Search:
        """Find the supports; a row is one threshold, problem and target."""
        bound, rows = thresholds.flatten(), Questions.of(start)
        support, regressed = rows.support, rows.support.clone()
        active = torch.arange(len(bound), device=bound.device)
        for _ in range(self.max_iter):
            first, inverse = distinct(rows[active])
            asked = rows[active[first]]
            size = (self._regress(problems, asked) * self._units(problems)[asked.which]).abs()[inverse]
            regressed[active] = support[active]
            kept = (size >= bound[active].unsqueeze(-1)) & support[active]
            changed = (kept != support[active]).any(-1)
            support[active] = kept
            active = active[changed & kept.any(-1)]
            if not len(active):
                break
        converged = torch.ones_like(bound, dtype=torch.bool)
        converged[active] = False
        return _Search(rows, Questions(rows.which, rows.target, regressed), converged)

    def _coefficients(self, problems: Problems, search: _Search) -> Tensor:
        """Solve once per distinct support."""
        rows = search.found if self.unbias else search.regressed
        first, inverse = distinct(rows)
        if self.unbias:
            solved = least_squares(problems, rows[first], self._units(problems), self.rcond)
        else:
            solved = self._regress(problems, rows[first])
        return solved[inverse] * search.found.support

    def _regress(self, problems: Problems, rows: Questions) -> Tensor:
        units = self._units(problems)
        if self.alpha > 0:
            return ridge_regression(problems, rows, self.alpha * units**2)
        rank_limit = max(problems.features.shape[-2:]) * torch.finfo(units.dtype).eps
        return least_squares(problems, rows, units, rank_limit)

    def _units(self, problems: Problems) -> Tensor:
        return column_lengths(problems.features) if self.normalize else torch.ones_like(problems.scale)


@dataclass(frozen=True, slots=True)
class _Search:
    """Final supports by row, and those of the last regression."""

    found: Questions
    regressed: Questions
    converged: Tensor
