"""Candidate equations: which library functions enter which unknown term."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from ude._checks import InputError
from ude.discovery.forward import ForwardSelection
from ude.discovery.libraries import Library, Polynomial

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
    """What the networks have learned, and the library at the same points.

    Args:
        columns: All coefficients, in the order of a parameter vector.
        features: For every output of every term the library along the learned trajectories, shape
            `(samples, features)`.
        targets: The learned output at the same points, shape `(samples,)` each.
        usable: Whether a column is finite and not zero along the trajectories, shape `(columns,)`.
    """

    columns: tuple[Column, ...]
    features: tuple[Tensor, ...]
    targets: tuple[Tensor, ...]
    usable: Tensor

    @classmethod
    def of(
        cls,
        recorded: Mapping[str, tuple[Tensor, Tensor]],
        libraries: Mapping[str, Library],
        names: Mapping[str, tuple[Sequence[str], Sequence[str]]],
    ) -> Learned:
        """Evaluate the libraries.

        Args:
            recorded: Inputs `(samples, inputs)` and outputs `(samples, outputs)` of every term.
            libraries: Library of every term.
            names: Names of the inputs and of the outputs of every term.
        """
        columns, features, targets, usable = [], [], [], []
        for term, (x, value) in recorded.items():
            inputs, outputs = names[term]
            theta = libraries[term](x)
            for i, output in enumerate(outputs):
                slot = len(targets)
                columns += [
                    Column(term=term, output=output, feature=f, slot=slot) for f in libraries[term].names(inputs)
                ]
                features.append(theta)
                targets.append(value[:, i])
                usable.append(theta.isfinite().all(0) & (theta != 0).any(0))
        result = cls(columns=tuple(columns), features=tuple(features), targets=tuple(targets), usable=torch.cat(usable))
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

    def regress(self, structure: Structure) -> Tensor:
        """Return the coefficients that explain the learned terms best, zero outside the structure, `(columns,)`."""
        result = self.targets[0].new_zeros(len(self.columns))
        for slot, target in enumerate(self.targets):
            chosen = [c for c in structure if self.columns[c].slot == slot]
            if chosen:
                theta = self.features[slot][:, [c - self.offset(slot) for c in chosen]]
                size = theta.square().mean(0).sqrt()
                found = torch.linalg.lstsq(theta / size, target.unsqueeze(-1), driver="gelsd").solution.squeeze(-1)
                result[list(chosen)] = found / size
        return result


def default_library(inputs: int) -> Library:
    """Return monomials up to degree 5, or as many degrees as keep the library below 60 functions."""
    degree = max((d for d in range(2, 6) if math.comb(inputs + d, d) <= 60), default=1)
    return Polynomial(degree=degree)


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
    unit = theta[:, usable] / theta[:, usable].square().sum(0).sqrt()
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


def _check_usable(learned: Learned) -> None:
    for slot, target in enumerate(learned.targets):
        if not learned.offered(slot):
            name = learned.columns[learned.offset(slot)].output
            raise InputError(
                f"No function of the library is finite along the learned trajectory, for {name!r}. Leave out functions "
                "such as log or 1/x where the states vanish or change sign."
            )
        if not bool(target.isfinite().all()):
            raise InputError("The learned term is not finite along its own trajectory. Fit the model again.")
