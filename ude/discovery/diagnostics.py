"""Signs that recovered equations should not be trusted."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# One false alarm in a hundred, over all states together.
FALSE_ALARM = 0.01


def correlated_states(residuals: Tensor, floor: Tensor) -> list[int]:
    r"""Return the states whose residuals follow each other more than noise does.

    Under independent noise the lag-one autocorrelation $r_1$ of $n$ residuals is close to normal with mean $-1/n$
    and variance $1/n$.

    Args:
        residuals: In the order of time, NaN where not measured, shape `(groups, times, states)`.
        floor: Errors of this size are the solver's, shape `(states,)`.
    """
    limit = _normal_quantile(1 - FALSE_ALARM / residuals.shape[-1])
    found = []
    for state, smallest in enumerate(floor.tolist()):
        above = below = 0.0
        count = 0
        for row in residuals[..., state]:
            known = row[~row.isnan()]
            above += float((known[1:] * known[:-1]).sum())
            below += float(known.square().sum())
            count += len(known)
        if count >= 8 and below > count * (3 * smallest) ** 2:
            z = (above / below + 1 / count) * math.sqrt(count)
            if z > limit:
                found.append(state)
    return found


def is_worse(sse: Tensor, reference: Tensor, counts: Tensor, spent: int) -> bool:
    """Whether residuals are significantly larger than those of the network, by an F test of each state.

    The network may follow part of the noise; its freedom is not known and taken to be that of the equations.

    Args:
        sse: Sum of squared errors of every state, of the equations.
        reference: The same of the network.
        counts: Number of measurements of every state.
        spent: Number of fitted numbers in the equations.
    """
    from scipy.stats import f

    measured = counts > 0
    for a, b, n in zip(sse[measured].tolist(), reference[measured].tolist(), counts[measured].tolist(), strict=True):
        freedom = max(n * (1 - spent / float(counts.sum())), 1.0)
        if a > b * float(f.ppf(1 - FALSE_ALARM / int(measured.sum()), freedom, freedom)):
            return True
    return False


def _normal_quantile(p: float) -> float:
    return float(torch.special.ndtri(torch.tensor(p, dtype=torch.float64)))
