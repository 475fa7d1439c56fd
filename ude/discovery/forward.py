"""Forward selection: one more term at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ude.discovery.least_squares import Problems, Questions, allowed_columns, flatten_batch, least_squares, reduce_rows
from ude.discovery.sparse_fit import SparseFit

# A column of unit length of which less than this is left beside the chosen ones adds nothing but rounding errors.
LEFTOVER = 1e-7


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardSelection:
    r"""Greedy forward selection of 1, 2, ..., `k_max` terms for each target.

    Orthogonal matching pursuit: the next term is the column $\theta_i$ of largest correlation with the residual,
    $|\theta_i^\top r| / |\theta_i|$, and all coefficients are refitted. With `orthogonal=True` the part of
    $\theta_i$ that the chosen terms do not already explain stands in for $\theta_i$, so the next term is
    the one that lowers the residual most (orthogonal least squares). It cannot keep a wrong column because a dense fit
    gave it a large coefficient, which makes it the better choice on learned, slightly wrong targets. Data sets and
    targets are handled together; coefficients are differentiable, the supports held fixed.

    Args:
        k_max: Largest number of terms per target.
        orthogonal: Whether to choose by the fall of the residual.

    Raises:
        ValueError: If `k_max` is less than 1.

    Example:
        >>> x = torch.linspace(-1, 1, 50, dtype=torch.float64)
        >>> features = torch.stack([torch.ones_like(x), x, x**2, x**3], dim=-1)
        >>> path = ForwardSelection(k_max=2).fit(features, (2 * x - 0.5 * x**2).unsqueeze(-1))
        >>> path.coefficients[:, 0].round(decimals=6)
        tensor([[ 0.0000,  2.0000,  0.0000,  0.0000],
                [ 0.0000,  2.0000, -0.5000,  0.0000]], dtype=torch.float64)

    Reference:
        Pati, Rezaiifar and Krishnaprasad (1993), Orthogonal matching pursuit; Chen, Billings and Luo (1989), Orthogonal
        least squares methods and their application to non-linear system identification.
    """

    k_max: int = 3
    orthogonal: bool = False

    def __post_init__(self) -> None:
        if self.k_max < 1:
            raise ValueError(f"`k_max` must be at least 1, got {self.k_max}.")

    def fit(self, features: Tensor, targets: Tensor, *, allowed: Tensor | None = None) -> SparseFit:
        """Fit the best greedy model of every size.

        Args:
            features: Library values, shape `(*batch, samples, features)`.
            targets: Values to explain, shape `(*batch, samples, targets)`.
            allowed: Which features may explain which target, bool, shape `(targets, features)`; all by default.

        Returns:
            Coefficients of shape `(k_max, *batch, targets, features)`; entry `k` has `k + 1` terms, or fewer where
            the remaining columns depend on the chosen ones or are not allowed.
        """
        dtype = features.dtype
        batch, features, targets = flatten_batch(features, targets)
        problems = reduce_rows(features, targets)
        support = self._supports(problems, allowed_columns(allowed, problems))
        found = least_squares(problems, Questions.of(support), problems.scale, LEFTOVER**2)
        shape = (self.k_max, *batch, *support.shape[2:])
        return SparseFit(
            found.to(dtype).reshape(shape),
            support.reshape(shape),
            torch.ones(shape[:-1], dtype=torch.bool, device=features.device),
        )

    @torch.no_grad()
    def _supports(self, problems: Problems, allowed: Tensor) -> Tensor:
        """Choose columns, shape `(k_max, problems, targets, features)`."""
        residual = problems.c.mT
        # What the chosen columns leave of each column, per target: shape (problems, targets, rows, features).
        left = problems.r.unsqueeze(1).expand(-1, residual.shape[1], -1, -1)
        support = torch.zeros_like(left[..., 0, :], dtype=torch.bool)
        path = []
        for _ in range(self.k_max):
            length = torch.linalg.vector_norm(left, dim=-2)
            # The residual is orthogonal to the chosen columns: what is left of a column correlates like the column.
            score = (left.mT @ residual.unsqueeze(-1)).squeeze(-1).abs()
            score = score / length.clamp(min=LEFTOVER) if self.orthogonal else score
            is_open = allowed & ~support & (length > LEFTOVER)
            best = torch.where(is_open, score, -1.0).argmax(-1, keepdim=True)
            support = support | (torch.zeros_like(support).scatter(-1, best, value=True) & is_open)
            direction = left.gather(-1, best.unsqueeze(-2).expand(-1, -1, left.shape[-2], 1)).squeeze(-1)
            direction = torch.where(is_open.gather(-1, best), direction / length.gather(-1, best), 0.0)
            residual = residual - direction * (direction * residual).sum(-1, keepdim=True)
            left = left - direction.unsqueeze(-1) * (direction.unsqueeze(-2) @ left)
            path.append(support)
        return torch.stack(path)
