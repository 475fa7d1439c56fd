"""Cut trajectories into short pieces that start on the learned ones: a first, robust fit of every candidate.

Over a long oscillating trajectory the sum of squares has many minima, and a fit that starts with the wrong period ends
in one of them. Pieces that are short beside the time in which the states change leave one, and are solved at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ude.discovery.learned import Case, Paths
from ude.models import Signal
from ude.problems import Trajectories

# Length of a piece in units of the time in which the states change by their standard deviation.
LENGTH = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """Pieces of trajectories.

    Args:
        data: The measurements of each piece as a trajectory of its own.
        y0s: State of the best fitted model at the start of each piece, shape `(pieces, states)`.
        signal: Exogenous inputs of each piece.
    """

    data: Trajectories
    y0s: Tensor
    signal: Signal | None


def cut(case: Case, paths: Paths) -> Segments:
    """Cut the trajectories of `case` where the best fitted model, whose solution is in `paths`, gives a start."""
    ts, ys, learned = case.data.ts, case.data.ys, paths.at_data[0]
    length = LENGTH * paths.time_scale
    pieces_t, pieces_y, starts, groups = [], [], [], []
    for group in range(len(ts)):
        count = int((ts[group] < ts[group, -1]).sum()) + 1
        first = 0
        while first < count - 1:
            inside = int((ts[group, :count] <= ts[group, first] + length).sum()) - 1
            last = min(max(inside, first + 1), count - 1)
            pieces_t.append(ts[group, first : last + 1])
            pieces_y.append(ys[group, first : last + 1])
            starts.append(learned[group, first])
            groups.append(group)
            first = last
    data = Trajectories.from_arrays(pieces_t, pieces_y, states=case.data.states, dtype=ys.dtype)
    signal = None if case.signal is None else case.signal.take(torch.tensor(groups))
    return Segments(data=data, y0s=torch.stack(starts), signal=signal)
