"""How often a structure is chosen when the measurements are drawn again."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from ude.discovery.candidates import Learned, Structure
from ude.discovery.refit import LevenbergMarquardt
from ude.discovery.selection import NoiseModel, Refitted, Search, sum_of_squares
from ude.discovery.shooting import Shooting

CONTENDERS = 6


def bootstrap(
    search: Search,
    shooting: Shooting,
    learned: Learned,
    noise: NoiseModel,
    table: dict[Structure, Refitted],
    free: Tensor,
    samples: int,
    generator: torch.Generator | None,
) -> dict[Structure, float]:
    """Let the best candidates compete on resampled data; return the share of the samples that each of them wins.

    Every sample draws as many measurements of each state as there are, with replacement. All samples and candidates
    are fitted as one batch.
    """
    solvable = [c for c in table.values() if bool(c.sse.isfinite().all())]
    ranked = sorted(solvable, key=lambda c: search.score(c, noise, learned))[:CONTENDERS]
    drawn = _draw(shooting.is_measured, samples, generator)
    emphasis = drawn.repeat_interleave(len(ranked), dim=0)
    weights = shooting.weights.amax((0, 1))
    weighted = Shooting(shooting.model, shooting.data, weights, shooting.dt, signal=shooting.signal, emphasis=emphasis)
    theta = torch.stack([c.theta for c in ranked]).repeat(samples, 1)
    may_change = torch.stack([free.clone() for _ in ranked])
    for row, candidate in zip(may_change, ranked, strict=True):
        row[list(candidate.structure)] = True
    method = LevenbergMarquardt(max_iter=10, tolerance=1e-4)
    minimum = method.minimize(weighted, theta, may_change.repeat(samples, 1))
    sse = sum_of_squares(weighted, minimum.residuals).reshape(samples, len(ranked), -1)
    wins: Counter[Structure] = Counter()
    for row in sse:
        refitted = [
            Refitted(structure=c.structure, theta=c.theta, sse=s, converged=True)
            for c, s in zip(ranked, row, strict=True)
        ]
        wins[search.choose(refitted, noise, learned).structure] += 1
    return {structure: count / samples for structure, count in wins.items()}


def _draw(is_measured: Tensor, samples: int, generator: torch.Generator | None) -> Tensor:
    """Return how often each measurement occurs in each sample, shape `(samples, groups, times, states)`."""
    result = torch.zeros(samples, *is_measured.shape, dtype=torch.float64)
    for state in range(is_measured.shape[-1]):
        places = is_measured[..., state].flatten().nonzero()[:, 0]
        if len(places):
            picks = torch.randint(len(places), (samples, len(places)), generator=generator)
            column = torch.zeros(samples, is_measured[..., state].numel(), dtype=torch.float64)
            column.scatter_add_(1, places[picks], torch.ones_like(picks, dtype=torch.float64))
            result[..., state] = column.reshape(samples, *is_measured.shape[:2])
    return result
