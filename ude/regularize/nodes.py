"""Where along a trajectory a cost is evaluated, and with which weights: integrals over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ude._typing import FlatField
from ude.ad.recording import is_transformed
from ude.problems import Solution
from ude.solve.flatten import Layout

RULES = ("random", "accepted", "quadrature", "saved")
RANDOM_NODES, QUADRATURE_NODES = 4, 8
"""How many there are unless the user says otherwise."""


class Nodes(NamedTuple):
    r"""Points of a trajectory with weights such that $\sum_i w_i\, g(t_i, y_i)$ stands for $\int g\, dt$.

    Args:
        t: Times, shape `(nodes, batch)`.
        y: States, shape `(nodes, batch, state)`.
        weight: $w_i$, positive in both directions of time, shape `(nodes, batch)`; without gradient.
    """

    t: Tensor
    y: Tensor
    weight: Tensor


@dataclass(frozen=True, slots=True)
class Path:
    """A trajectory as integrals need it.

    Args:
        field: Its vector field, on `(batch, state)`.
        layout: Between the user's state and `(batch, state)`.
        solution: What was solved.
    """

    field: FlatField
    layout: Layout
    solution: Solution

    @classmethod
    def of(cls, solution: Solution) -> Path:
        """Return the path of a solution.

        Raises:
            ValueError: If the solution does not know its problem.
        """
        problem = solution.problem
        if problem is None:
            raise ValueError(
                "This solution does not know its vector field. Use what `ude.solve` returned, or hand field, times and "
                "states to the regularizer's `along`."
            )
        layout = Layout.of(problem.y0, batched=problem.batched)
        return cls(layout.bind(problem.vector_field, problem.p), layout, solution)

    def at(self, t: Tensor, rule: str) -> Tensor:
        """Return the states at times of shape `(nodes, batch)`, from the continuous solution."""
        if self.solution.interpolant is None:
            raise ValueError(
                f"`nodes={rule!r}` needs the continuous solution, which this solve did not keep. Solve with "
                "`dense=True` and `adjoint=Direct()`, or use `nodes='saved'`, the states at `save_at`."
            )
        return self.layout.flatten(self.solution(t if self.layout.batched else t[:, 0]), lead=1)

    def saved(self) -> Tensor:
        """Return the times of the saved states, shape `(times, batch)`; without gradient."""
        ts = self.solution.ts.detach()
        batch = len(pytree.tree_leaves(self.solution.ys)[0][0]) if self.layout.batched else 1
        return ts if ts.ndim == 2 else ts.unsqueeze(-1).expand(-1, batch)

    def ends(self) -> Tensor:
        """Return the start and the ends of all attempts, shape `(attempts + 1, batch)`; without gradient.

        An attempt that was rejected, or of a sample that had finished, ends where it began.
        """
        steps = self.solution.steps
        if len(steps.t) == 0:
            ts = self.saved()
            return torch.stack([ts[0], ts[-1]])
        t, dt, accepted = (x if x.ndim == 2 else x.unsqueeze(-1) for x in (steps.t, steps.dt.detach(), steps.accepted))
        return torch.cat([t[:1], torch.where(accepted, t + dt, t)])

    def interval(self) -> tuple[Tensor, Tensor]:
        """Return where the solve began and how far it came, shape `(batch,)`; without gradient."""
        ends = self.ends()
        return ends[0], ends[-1]

    def by_rows(self, nodes: Nodes) -> tuple[FlatField, Nodes]:
        """Return vector field and nodes with the first axis of the state as the batch.

        Raises:
            ValueError: If the field does not act on the rows by themselves.
        """
        problem = self.solution.problem
        assert problem is not None  # a path has one
        if self.layout.batched:
            field, rows = self.field, nodes
        else:
            try:
                layout = Layout.of(problem.y0, batched=True)
            except ValueError as error:
                raise ValueError(f"`independent_rows` needs a state with rows. {error}") from error
            y = layout.flatten(self.layout.unflatten(nodes.y), lead=1)
            shape = y.shape[:2]
            field = layout.bind(problem.vector_field, problem.p)
            rows = Nodes(nodes.t.expand(shape), y, nodes.weight.expand(shape))
        _check_rows(self, field, nodes, rows)
        return field, rows


def _check_rows(path: Path, field: FlatField, nodes: Nodes, rows: Nodes) -> None:
    """Raise unless two nodes together have the derivatives that the first has alone."""
    if is_transformed():
        return
    two = slice(0, 2)
    with torch.no_grad():
        alone = path.layout.unflatten(path.field(nodes.t[0], nodes.y[0]))
        try:
            together = field(rows.t[two].flatten(), rows.y[two].flatten(0, 1))[: rows.t.shape[1]]
        except (RuntimeError, ValueError, IndexError) as error:
            raise ValueError(
                f"`independent_rows` needs a vector field that takes any number of rows: {error} Leave it out."
            ) from error
        expected = Layout.of(alone, batched=True).flatten(alone)
        largest = expected.abs().max()
        rounding = 1e3 * torch.finfo(expected.dtype).eps
        if not bool(((together - expected).abs() <= rounding * largest).all()):
            raise ValueError(
                "`independent_rows` needs a vector field that acts on each row by itself: with other rows beside them "
                "the derivatives of these came out different. Leave it out."
            )


def nodes_of(
    path: Path, rule: str | Tensor, samples: int | None, generator: torch.Generator | None, *, detach: bool
) -> Nodes:
    """Choose nodes on a path.

    Args:
        path: The trajectory.
        rule: One of `RULES`, or times.
        samples: How many; None for what is usual: all where there is a set of them.
        generator: Source of randomness.
        detach: Cut the states off the graph, so that only the vector field gets a gradient.
    """
    if not isinstance(rule, Tensor) and rule == "saved":
        return saved_nodes(
            path.saved(), path.layout.flatten(path.solution.ys, lead=1), samples, generator, detach=detach
        )
    t, weight = _given_times(path, rule) if isinstance(rule, Tensor) else _times_of(path, rule, samples, generator)
    y = path.at(t, "times" if isinstance(rule, Tensor) else rule)
    return Nodes(t, y.detach() if detach else y, weight)


def saved_nodes(
    ts: Tensor, ys: Tensor, samples: int | None, generator: torch.Generator | None, *, detach: bool
) -> Nodes:
    """Return nodes of the trapezoidal rule, or a draw, from times `(times, batch)`, states `(times, batch, state)`."""
    weight = _trapezoid(ts)
    ys = ys.detach() if detach else ys
    if samples is None:
        return Nodes(ts, ys, weight)
    index, share = _drawn(ts, weight, samples, generator)
    sample = torch.arange(ts.shape[1], device=ts.device)
    return Nodes(ts[index, sample], ys[index, sample], share)


def _times_of(path: Path, rule: str, samples: int | None, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Return nodes and weights of a rule that needs no states."""
    if rule == "accepted":
        ends = path.ends()
        weight = _trapezoid(ends)
        if samples is None:
            return ends, weight
        index, share = _drawn(ends, weight, samples, generator)
        return ends.gather(0, index), share
    start, end = path.interval()
    length = end - start
    if rule == "random":
        count = RANDOM_NODES if samples is None else samples
        place = uniform((count, len(start)), start, generator)
        return start + length * place, (length.abs() / count).expand(count, -1)
    points, weights = np.polynomial.legendre.leggauss(QUADRATURE_NODES if samples is None else samples)
    place, share = start.new_tensor((points + 1.0) / 2.0), start.new_tensor(weights / 2.0)
    return start + place.unsqueeze(-1) * length, share.unsqueeze(-1) * length.abs()


def _given_times(path: Path, times: Tensor) -> tuple[Tensor, Tensor]:
    start, end = path.interval()
    ts = times.detach().to(start)
    if ts.ndim not in (1, 2) or len(ts) == 0 or (ts.ndim == 2 and ts.shape[1] != len(start)):
        raise ValueError(f"`nodes` must have shape (nodes,) or (nodes, batch), got {tuple(times.shape)}.")
    ts = ts if ts.ndim == 2 else ts.unsqueeze(-1).expand(-1, len(start))
    low, high = torch.minimum(start, end), torch.maximum(start, end)
    slack = 8 * torch.finfo(ts.dtype).eps * torch.maximum(low.abs(), high.abs())
    outside = (ts < low - slack) | (ts > high + slack)
    if bool(outside.any()):
        row, sample = outside.nonzero()[0].tolist()
        raise ValueError(
            f"`nodes` must lie in the interval of the solution, [{low[sample]:.6g}, {high[sample]:.6g}], got "
            f"{ts[row, sample]:.6g}. Drop these times, or use `nodes='random'`, which follow the solution."
        )
    return ts.clamp(low, high), ((end - start).abs() / len(ts)).expand(len(ts), -1)


def _trapezoid(t: Tensor) -> Tensor:
    """Return the weights of the trapezoidal rule at these times, shape `(times, batch)`."""
    half = 0.5 * t.diff(dim=0).abs()
    nothing = half.new_zeros(1, t.shape[1])
    return torch.cat([half, nothing]) + torch.cat([nothing, half])


def _drawn(t: Tensor, weight: Tensor, samples: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Draw nodes with chances in proportion to their weights, which leaves every integral as it is on average.

    Returns:
        Which ones, and their weights, both of shape `(samples, batch)`.
    """
    total = weight.sum(0)
    shared = bool((t == t[:, :1]).all())
    # Where an interval is empty all of its nodes are one point. Shared times stay shared.
    index = draw(torch.where(total > 0, weight, 1.0)[:, : 1 if shared else None], samples, generator)
    return index.expand(-1, t.shape[1]), (total / samples).expand(samples, -1)


def draw(chances: Tensor, samples: int, generator: torch.Generator | None) -> Tensor:
    """Draw rows with these chances, shape `(rows, batch)`, for every column; shape `(samples, batch)`."""
    columns = chances.T if generator is None else chances.T.to(generator.device)
    return torch.multinomial(columns, samples, replacement=True, generator=generator).to(chances.device).T


def uniform(shape: Sequence[int], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw numbers uniformly from [0, 1)."""
    device = like.device if generator is None else generator.device
    return torch.rand(shape, dtype=like.dtype, device=device, generator=generator).to(like.device)
