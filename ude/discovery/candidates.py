"""Candidate equations: which library functions enter which unknown term."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from ude._checks import InputError
from ude.discovery.forward import ForwardSelection
from ude.discovery.libraries import Custom, Library, Polynomial, Sum

Structure: TypeAlias = tuple[int, ...]
"""Columns that enter, in ascending order; see `Columns`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One coefficient of the recovered equations: a library function in one output of one unknown term."""

    term: str
    output: str
    feature: str
    slot: int
    """Number of the output among all outputs of all terms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    r"""What the networks have learned, and what the library could contribute in its place.

    Both are compared where they act, in the rates of the states: with coefficients $c_j$ and a change $\delta p$ of the
    physical parameters, $\sum_j c_j\, \partial f / \partial c_j + \partial f / \partial p\; \delta p$ is to match the
    contribution of the network, $f_{learned} - f_{c = 0}$. Whatever a physical parameter can take over is left to it.

    Args:
        columns: All coefficients, in the order of a parameter vector.
        features: For every output of every term the contribution of each of its functions, less what physical
            parameters can do, shape `(samples, functions)`.
        targets: The contribution of the learned output, treated alike, shape `(samples,)` each.
        derivative: Contribution of all coefficients and physical parameters, shape `(samples, parameters)`.
        contribution: Contribution of all networks together, shape `(samples,)`.
        usable: Whether a column is finite and not zero, shape `(columns,)`.
    """

    columns: tuple[Column, ...]
    features: tuple[Tensor, ...]
    targets: tuple[Tensor, ...]
    derivative: Tensor
    contribution: Tensor
    usable: Tensor

    @classmethod
    def of(cls, columns: Sequence[Column], derivative: Tensor, contributions: Tensor) -> Learned:
        """Prepare the comparison.

        Args:
            columns: All coefficients.
            derivative: Derivative of the scaled rates by coefficients and physical parameters, shape
                `(models, samples, parameters)`.
            contributions: Contribution of every learned output to the scaled rates, shape
                `(models, samples, outputs)`.
        """
        width = len(columns)
        usable = derivative[..., :width].isfinite().all(1).all(0) & (derivative[..., :width] != 0).any(1).any(0)
        functions, physical = torch.where(usable, derivative[..., :width], 0.0), derivative[..., width:]
        # Every model has physical parameters of its own, which may explain part of its own contribution.
        free_functions = _less(functions, physical).flatten(0, 1)
        targets = _less(contributions, physical).flatten(0, 1)
        slots = [c.slot for c in columns]
        blocks = [torch.tensor([s == slot for s in slots]) for slot in range(targets.shape[1])]
        result = cls(
            columns=tuple(columns),
            features=tuple(free_functions[:, block] for block in blocks),
            targets=tuple(targets.unbind(-1)),
            derivative=torch.cat([functions, physical], dim=-1)[0],
            contribution=contributions[0].sum(-1),
            usable=usable,
        )
        _check_usable(result)
        return result

    def offset(self, slot: int) -> int:
        """Return the first column of an output."""
        return sum(f.shape[1] for f in self.features[:slot])

    def offered(self, slot: int) -> int:
        """Return the number of usable columns of an output."""
        start = self.offset(slot)
        return int(self.usable[start : start + self.features[slot].shape[1]].sum())

    def counts(self, structure: Structure) -> list[int]:
        """Return the number of terms that a structure has in each output."""
        slots = [self.columns[c].slot for c in structure]
        return [slots.count(slot) for slot in range(len(self.targets))]

    def mismatch(self, theta: Tensor) -> list[float]:
        """Return how far each recovered output is from the learned one, relative to the size of the learned one.

        Args:
            theta: Coefficients, and possibly other parameters after them, shape `(parameters,)`.
        """
        found, start = [], 0
        for features, target in zip(self.features, self.targets, strict=True):
            recovered = features @ theta[start : start + features.shape[1]]
            found.append(float((recovered - target).norm() / target.norm().clamp(min=1e-300)))
            start += features.shape[1]
        return found

    def regress(self, structure: Structure) -> Tensor:
        """Return the coefficients and the change of the physical parameters that match the best model's networks.

        Returns:
            Shape `(parameters,)`, zero for coefficients outside the structure.
        """
        result = torch.zeros_like(self.derivative[0])
        chosen = torch.zeros_like(result, dtype=torch.bool)
        chosen[list(structure)] = True
        chosen[len(self.columns) :] = True
        matrix = self.derivative[:, chosen]
        size = matrix.square().mean(0).sqrt().clamp(min=1e-300)
        found = torch.linalg.lstsq(matrix / size, self.contribution.unsqueeze(-1), rcond=1e-9, driver="gelsd").solution
        result[chosen] = found.squeeze(-1) / size
        return result


def default_library(inputs: int) -> Library:
    """Return monomials up to degree 5, or as many degrees as keep the library below 60 functions."""
    degree = max((d for d in range(2, 6) if math.comb(inputs + d, d) <= 60), default=1)
    return Polynomial(degree=degree)


def finite_part(library: Library, x: Tensor) -> Library:
    """Return the library without the user's own functions that are not finite at the inputs `x`, `(samples, inputs)`.

    Such as a logarithm of a state that changes sign.

    Raises:
        InputError: If nothing is left.
    """
    if isinstance(library, Sum):
        parts = [part for part in library.libraries if bool(part(x).isfinite().any())]
        kept = [_finite_functions(part, x) if isinstance(part, Custom) else part for part in parts]
        kept = [part for part in kept if part is not None]
        found = Sum(tuple(kept)) if kept else None
    else:
        found = _finite_functions(library, x) if isinstance(library, Custom) else library
    if found is None:
        raise InputError(
            "No function of the library is finite along the learned trajectory. Leave out functions such as log or 1/x "
            "where the states vanish or change sign."
        )
    return found


def _finite_functions(library: Custom, x: Tensor) -> Custom | None:
    finite = [i for i, function in enumerate(library.functions) if bool(Custom((function,))(x).isfinite().all())]
    if not finite:
        return None
    pick = lambda values: None if values is None else tuple(values[i] for i in finite)  # noqa: E731
    functions = tuple(library.functions[i] for i in finite)
    return Custom(functions, pick(library.templates), pick(library.expressions))


def starting_structures(learned: Learned, max_terms: int, pool: int) -> list[Structure]:
    """Return the structures that describe the learned terms best.

    For every output the single functions are ranked by how much of the learned term they explain; the structures are
    the `pool` best combinations over the outputs, and the forward selections of 1, 2, ... `max_terms` functions.
    """
    ranked = [_ranked_singles(learned, slot) for slot in range(len(learned.targets))]
    found = [tuple(sorted(combination)) for combination in _best_combinations(ranked, pool)]
    path = [_forward_path(learned, slot, max_terms) for slot in range(len(learned.targets))]
    found += [tuple(sorted(itertools.chain(*(p[k] for p in path)))) for k in range(max_terms)]
    return list(dict.fromkeys(found))


def _ranked_singles(learned: Learned, slot: int) -> list[tuple[float, int]]:
    """Return the log of the unexplained part and the column of every usable function, best first."""
    theta, target = learned.features[slot], learned.targets[slot]
    offset = learned.offset(slot)
    usable = learned.usable[offset : offset + theta.shape[1]].nonzero()[:, 0]
    unit = theta[:, usable] / theta[:, usable].square().sum(0).sqrt().clamp(min=1e-300)
    total = target.square().sum()
    left = 1 - (unit.mT @ target).square() / total.clamp(min=1e-300)
    badness = left.clamp(min=1e-12).log().tolist()
    return sorted(zip(badness, (usable + offset).tolist(), strict=True))


def _best_combinations(ranked: list[list[tuple[float, int]]], pool: int) -> list[tuple[int, ...]]:
    """Return about the `pool` combinations of least total badness, one function for every output."""
    width = max(2, math.ceil(pool ** (1 / len(ranked))))
    shortest = [r[:width] for r in ranked]
    beam: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    for options in shortest:
        longer = [(a + b, (*chosen, column)) for a, chosen in beam for b, column in options]
        beam = sorted(longer)[:pool]
    return [chosen for _, chosen in beam]


def _forward_path(learned: Learned, slot: int, max_terms: int) -> list[tuple[int, ...]]:
    theta, offset = learned.features[slot], learned.offset(slot)
    usable = learned.usable[offset : offset + theta.shape[1]].nonzero()[:, 0]
    path = ForwardSelection(k_max=max_terms, orthogonal=True).fit(theta[:, usable], learned.targets[slot].unsqueeze(-1))
    return [tuple((usable[support[0]] + offset).tolist()) for support in path.support]


def _less(values: Tensor, nuisance: Tensor) -> Tensor:
    """Return `values` less their projection on the columns of `nuisance`, both `(models, samples, columns)`."""
    if not nuisance.shape[-1]:
        return values
    q = torch.linalg.qr(nuisance / nuisance.norm(dim=1, keepdim=True).clamp(min=1e-300)).Q
    return values - q @ (q.mT @ values)


def _check_usable(learned: Learned) -> None:
    for slot, target in enumerate(learned.targets):
        name = learned.columns[learned.offset(slot)].output
        if not learned.offered(slot):
            raise InputError(f"No function of the library has a finite effect on the rates through {name!r}.")
        if not bool(target.isfinite().all()):
            raise InputError(f"The learned {name!r} is not finite along its own trajectory. Fit the model again.")
