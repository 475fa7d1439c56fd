"""The Taylor energy of stochastic trajectories: powers of the generator in the place of time derivatives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from ude import ad
from ude._typing import FlatField
from ude.problems import SDEProblem, Solution
from ude.regularize.energy import TrajectoryIntegral, mean_square
from ude.regularize.nodes import Path, nodes_of
from ude.solve.flatten import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorEnergy(TrajectoryIntegral):
    r"""$\int E\, \frac1n \lVert (L^K \varphi)(y_t) \rVert^2\, dt$ of an Ito equation, with the coordinates $\varphi$.

    The expected state has the Taylor series $E\, y_{t+h} = \sum_k \frac{h^k}{k!} L^k \varphi(y_t)$ with the generator
    $L = f \cdot \nabla + \frac12 \sum_j g_j^2\, \partial_j^2$ of a diagonal diffusion. So $L \varphi = f$, whose mean
    square is the kinetic energy of the drift, and $L^2 \varphi = L f$, the drift of the drift. Without noise it is the
    `TaylorEnergy` of the same order.

    With $K = 2$ one pass through the drift with a slot per component of the noise, exact, at every node.

    Args:
        order: $K$, 1 or 2.
        nodes, samples, detach, generator: As for `TrajectoryIntegral`; the expectation is the mean over the samples.

    Raises:
        ValueError: If the order is neither, or, when called, the solution is not that of an Ito equation with diagonal
            noise, whose drift does not see the time, from a mini-batch of rows that do not see each other.

    Example:
        >>> import ude
        >>> problem = ude.SDEProblem(lambda t, y: -2.0 * y, lambda t, y: 0.1 * y, torch.ones(4, 1), (0.0, 1.0))
        >>> GeneratorEnergy(2, nodes=[0.0])(ude.solve(problem))  # L f = 4 y
        tensor(16.)

    Reference:
        Kloeden & Platen (1992), Numerical solution of stochastic differential equations, section 5.1.
    """

    order: int = field(default=2, kw_only=False)

    def __post_init__(self) -> None:
        TrajectoryIntegral.__post_init__(self)
        if self.order not in (1, 2):
            raise ValueError(f"`order` must be 1 or 2, got {self.order!r}.")
        if isinstance(self.nodes, str) and self.nodes == "state":
            raise ValueError("`GeneratorEnergy` is no state of the equation. Use `nodes='random'`.")

    def integrand(self, f: FlatField, t: Tensor, y: Tensor) -> Tensor:
        """Raise `ValueError`: a drift alone has no generator."""
        raise ValueError("`GeneratorEnergy` needs the diffusion too: call it with a solution.")

    def measure(self, solution: Solution) -> Tensor:
        """Return the cost."""
        problem, path = solution.problem, Path.of(solution)
        if not isinstance(problem, SDEProblem) or problem.noise != "diagonal" or problem.interpretation != "ito":
            raise ValueError("`GeneratorEnergy` needs the solution of an Ito equation with diagonal noise.")
        assert isinstance(self.nodes, str | Tensor)  # sequences have become tensors
        nodes = nodes_of(path, self.nodes, self.samples, self.generator, detach=self.detach)
        drift, rows = path.by_rows(nodes)
        spread = Layout.of(problem.y0, batched=True).bind(problem.diffusion, problem.p)
        values = [_square(drift, spread, t, y, self.order) for t, y in zip(rows.t, rows.y, strict=True)]
        return (torch.stack(values) * rows.weight).sum(0).mean()


def _square(drift: FlatField, spread: FlatField, t: Tensor, y: Tensor, order: int) -> Tensor:
    """Return the mean square of the power of the generator, shape `(rows,)`."""
    rate = drift(t, y)
    if order == 1:
        return mean_square(rate)
    directions = torch.diag_embed(spread(t, y))
    change = ad.generator(lambda x: drift(t, x), y, drift=rate, diffusion=directions).operator
    return mean_square(cast("Tensor", change))
