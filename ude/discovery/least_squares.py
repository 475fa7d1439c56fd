r"""Least squares restricted to many supports at once.

Every sparse regression here asks the same question many times: over the columns $S$ of a library matrix
$\Theta$, what minimises $|y - \Theta_S w|^2 + \alpha |w|^2$? The matrix is reduced once to a square
triangle, and all questions are answered together.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Normal equations lose the square of the condition number, QR only the number itself. Below this square they are
# used all the same, as they are faster: about ten digits are left.
SAFE_GRAM = 1e6


@dataclass(frozen=True, slots=True)
class Problems:
    r"""Least-squares problems reduced to a triangle: $|y - \Theta w|^2 = |c - R D w|^2 + \text{const}$.

    Args:
        features: Library matrices, shape `(problems, samples, features)`.
        targets: Right-hand sides, shape `(problems, samples, targets)`.
        r: Triangle of the columns scaled to unit length, shape `(problems, rows, features)`.
        c: Right-hand sides in the same rows, shape `(problems, rows, targets)`.
        scale: Lengths $D$ of the columns, 1 for a column of zeros, shape `(problems, features)`.
        is_safe: Whether the normal equations of every problem are accurate enough.
    """

    features: Tensor
    targets: Tensor
    r: Tensor
    c: Tensor
    scale: Tensor
    is_safe: bool


@dataclass(frozen=True, slots=True)
class Questions:
    """Which columns of which problem may explain which target.

    Args:
        which: Problem of each row, shape `(rows,)`.
        target: Target of each row, shape `(rows,)`.
        support: Allowed columns, bool, shape `(rows, features)`.
    """

    which: Tensor
    target: Tensor
    support: Tensor

    @classmethod
    def of(cls, support: Tensor) -> Questions:
        """Ask about supports of shape `(path, problems, targets, features)`, one row per path, problem and target."""
        _, n_problems, n_targets, n_features = support.shape
        index = torch.arange(support[..., 0].numel(), device=support.device)
        return cls(index // n_targets % n_problems, index % n_targets, support.reshape(-1, n_features))

    def __getitem__(self, rows: Tensor) -> Questions:
        return Questions(self.which[rows], self.target[rows], self.support[rows])


def flatten_batch(features: Tensor, targets: Tensor) -> tuple[torch.Size, Tensor, Tensor]:
    """Merge leading axes into one and compute in double precision, after checking that both belong together."""
    if features.ndim < 2 or targets.ndim < 2 or features.shape[-2] != targets.shape[-2]:
        raise ValueError(
            "Expected `features` of shape (*batch, samples, features) and `targets` of shape (*batch, samples, "
            f"targets), got {tuple(features.shape)} and {tuple(targets.shape)}."
        )
    if not bool(features.detach().isfinite().all() and targets.detach().isfinite().all()):
        raise ValueError("`features` and `targets` must be finite. Drop the samples with NaN or infinity first.")
    batch = torch.broadcast_shapes(features.shape[:-2], targets.shape[:-2])
    return (
        batch,
        features.double().expand(*batch, *features.shape[-2:]).reshape(-1, *features.shape[-2:]),
        targets.double().expand(*batch, *targets.shape[-2:]).reshape(-1, *targets.shape[-2:]),
    )


def allowed_columns(allowed: Tensor | None, problems: Problems) -> Tensor:
    """Return which features may explain which target, after checking the shape `(targets, features)`."""
    shape = (problems.c.shape[-1], problems.r.shape[-1])
    if allowed is None:
        return torch.ones(shape, dtype=torch.bool, device=problems.r.device)
    if allowed.shape != shape or allowed.dtype != torch.bool:
        raise ValueError(
            f"`allowed` must be a bool tensor of shape (targets, features) = {shape}, got {allowed.dtype} of shape "
            f"{tuple(allowed.shape)}."
        )
    return allowed.to(problems.r.device)


def column_lengths(features: Tensor) -> Tensor:
    """Return the Euclidean length of each column, 1 for a column of zeros."""
    lengths = torch.linalg.vector_norm(features, dim=-2)
    return torch.where(lengths > 0, lengths, 1.0)


@torch.no_grad()
def reduce_rows(features: Tensor, targets: Tensor) -> Problems:
    """Reduce least-squares problems by a QR decomposition, or by Cholesky of the Gram matrix where that is as good."""
    scale = column_lengths(features)
    unit = features / scale.unsqueeze(-2)
    gram = unit.mT @ unit
    eigenvalues = torch.linalg.eigvalsh(gram)
    is_safe = bool((eigenvalues[:, -1] < SAFE_GRAM * eigenvalues[:, 0]).all())
    if is_safe:
        r = torch.linalg.cholesky(gram).mT
        c = torch.linalg.solve_triangular(r.mT, unit.mT @ targets, upper=False)
    else:
        both = torch.linalg.qr(torch.cat([unit, targets], dim=-1), mode="r").R
        r, c = both.split([features.shape[-1], targets.shape[-1]], dim=-1)
    return Problems(features, targets, r, c, scale, is_safe)


def ridge_regression(problems: Problems, questions: Questions, penalty: Tensor) -> Tensor:
    r"""Minimise $|y - \Theta_S w|^2 + \sum_i p_i w_i^2$ for many supports $S$.

    Derivatives with respect to features and targets, of any order, are those of the minimiser with $S$ held fixed.

    Args:
        problems: The problems to choose from.
        questions: The supports.
        penalty: Positive penalties $p$, in the unit of features squared, shape `(problems, features)`.

    Returns:
        Coefficients, zero outside the support, shape `(rows, features)`.
    """
    solution = _ridge_reduced(problems, questions, penalty)
    return _with_derivatives(problems, questions, penalty, solution) if _is_wanted(problems) else solution


def least_squares(problems: Problems, questions: Questions, units: Tensor, rcond: float) -> Tensor:
    r"""Minimise $|y - \Theta_S w|^2$ for many supports $S$; among several minimisers take the one of least norm.

    Derivatives as in `ridge_regression`.

    Args:
        problems: The problems to choose from.
        questions: The supports.
        units: The columns, and with them the norm, are measured in these, shape `(problems, features)`.
        rcond: Singular values of $\Theta_S$ below this share of the largest count as zero.

    Returns:
        Coefficients, zero outside the support, shape `(rows, features)`.
    """
    deficient, least = _least_norm(problems, questions, units, rcond)
    regular = (~deficient).nonzero()[:, 0]
    no_penalty, rows = torch.zeros_like(problems.scale), questions[regular]
    solution = _ridge_reduced(problems, rows, no_penalty)
    if _is_wanted(problems):
        solution = _with_derivatives(problems, rows, no_penalty, solution)
        solutions = [
            _least_norm_with_derivatives(problems, questions[row], units, rcond) for row in deficient.nonzero()[:, 0]
        ]
        least = torch.stack(solutions) if solutions else least
    return least.new_zeros(questions.support.shape).index_put((regular,), solution).index_put((deficient,), least)


def _is_wanted(problems: Problems) -> bool:
    """Whether derivatives are."""
    return torch.is_grad_enabled() and (problems.features.requires_grad or problems.targets.requires_grad)


@torch.no_grad()
def _ridge_reduced(problems: Problems, questions: Questions, penalty: Tensor) -> Tensor:
    which, support = questions.which, questions.support
    r, scale = problems.r[which], problems.scale[which]
    c = problems.c.mT[which, questions.target].unsqueeze(-1)
    masked = r * support.unsqueeze(-2)
    # The diagonal holds the ridge, or a one that ties an excluded coefficient to zero.
    diagonal = torch.where(support, penalty[which] / scale**2, 1.0)
    if problems.is_safe:
        factor, _ = torch.linalg.cholesky_ex(masked.mT @ masked + torch.diag_embed(diagonal))
        scaled = torch.cholesky_solve(masked.mT @ c, factor)
    else:
        q, triangle = torch.linalg.qr(torch.cat([masked, torch.diag_embed(diagonal.sqrt())], dim=-2))
        scaled = torch.linalg.solve_triangular(triangle, q[:, : r.shape[-2]].mT @ c, upper=True)
    return torch.where(support, scaled.squeeze(-1) / scale, 0.0)


def _with_derivatives(problems: Problems, questions: Questions, penalty: Tensor, solution: Tensor) -> Tensor:
    """Attach the derivatives of the minimiser to its value.

    One step of iterative refinement from a constant point equals the minimiser identically in the data, so its
    derivatives are the right ones; only its value is less accurate than that of QR, and is discarded.
    """
    which, support, scale = questions.which, questions.support, problems.scale[questions.which]
    unit = problems.features / problems.scale.unsqueeze(-2)
    moment = (unit.mT @ problems.targets).mT[which, questions.target]
    diagonal = torch.where(support, penalty[which] / scale**2, 1.0)
    system = (unit.mT @ unit)[which] * (support.unsqueeze(-1) & support.unsqueeze(-2)) + torch.diag_embed(diagonal)
    start = torch.where(solution.isfinite(), solution * scale, 0.0).unsqueeze(-1)
    gradient = torch.where(support, moment, 0.0).unsqueeze(-1) - system @ start
    step = torch.linalg.solve_ex(system, gradient).result.squeeze(-1) / scale
    return solution + torch.where(support, step - step.detach(), 0.0)


@torch.no_grad()
def _least_norm(problems: Problems, questions: Questions, units: Tensor, rcond: float) -> tuple[Tensor, Tensor]:
    """Find the rows whose columns depend on each other (bool, per row), and the solutions of least norm of those."""
    weighted = problems.r * (problems.scale / units).unsqueeze(-2)
    values = torch.linalg.svdvals(weighted)
    # Taking columns away only brings the extreme singular values closer together: most rows need no second look.
    is_doubtful = (values[:, -1] <= rcond * values[:, 0]) | (weighted.shape[-2] < weighted.shape[-1])
    deficient = is_doubtful[questions.which]
    rows = deficient.nonzero()[:, 0]
    if len(rows) == 0:
        return deficient, units.new_zeros(0, units.shape[-1])
    asked = questions[rows]
    u, s, v = torch.linalg.svd(weighted[asked.which] * asked.support.unsqueeze(-2), full_matrices=False)
    used = s > rcond * s[:, :1]
    dependent = used.sum(-1) < asked.support.sum(-1)
    deficient[rows] = dependent
    inverse = torch.where(used, 1 / s, 0.0).unsqueeze(-1)
    projected = inverse * (u.mT @ problems.c.mT[asked.which, asked.target].unsqueeze(-1))
    least = (v.mT @ projected).squeeze(-1) / units[asked.which]
    return deficient, torch.where(asked.support, least, 0.0)[dependent]


def _least_norm_with_derivatives(problems: Problems, question: Questions, units: Tensor, rcond: float) -> Tensor:
    """Solve one such problem again; the singular values kept carry the derivative."""
    columns = question.support.nonzero()[:, 0]
    lengths = units[question.which, columns]
    u, s, v = torch.linalg.svd(problems.features[question.which][:, columns] / lengths, full_matrices=False)
    kept = int((s > rcond * s[0]).sum())
    y = problems.targets[question.which, :, question.target]
    least = v[:kept].mT @ ((u[:, :kept].mT @ y) / s[:kept])
    return y.new_zeros(len(question.support)).index_put((columns,), least / lengths)


def distinct(questions: Questions) -> tuple[Tensor, Tensor]:
    """Find distinct questions.

    Returns:
        Positions of one representative of each distinct question, and for every row the number of its representative.
    """
    n_targets = int(questions.target.max()) + 1
    inverse = questions.which * n_targets + questions.target
    for bits in questions.support.split(62, dim=-1):
        powers = 2 ** torch.arange(bits.shape[-1], device=bits.device)
        _, word = torch.unique((bits * powers).sum(-1), return_inverse=True)
        _, inverse = torch.unique(inverse * len(word) + word, return_inverse=True)
    first = inverse.new_zeros(int(inverse.max()) + 1)
    first.scatter_(0, inverse, torch.arange(len(inverse), device=inverse.device))
    return first, inverse
