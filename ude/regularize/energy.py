"""Costs that are integrals over time of what the vector field does on the trajectory."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ude import ad
from ude._typing import FlatField, State, VectorField
from ude.problems import ODEProblem, Solution
from ude.regularize.nodes import RULES, Nodes, Path, nodes_of, saved_nodes
from ude.regularize.regularizer import Regularizer, Times, check_choice
from ude.regularize.state import augmented, energy_of, without_energy
from ude.solve.flatten import Layout

NodeRule: TypeAlias = Literal["random", "accepted", "quadrature", "saved", "state"] | Sequence[float] | Tensor

ROWS = 1_024
"""Rows that are evaluated together where they are independent: more do not stay in the cache of a processor."""
HIGHEST = 10
"""Highest order of a derivative: to here the rules are tested; factorials then leave little to single precision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrajectoryIntegral(Regularizer):
    r"""A cost $\int g(t, y(t))\, dt$, the integrand being a mean over the components of the state.

    Args:
        nodes: Where to evaluate the integrand.
            `"random"`: at times drawn uniformly, the same for all steps of a solve, on the continuous solution;
            unbiased. `"accepted"`: at the ends of the steps, by the trapezoidal rule. `"quadrature"`: at
            Gauss-Legendre points of the interval. `"saved"`: at the saved states, by the trapezoidal rule; the only
            one that works with checkpoints, continuous adjoints and backends. `"state"`: as one more state that is
            integrated along, for comparison: it enters the error control and is evaluated at every stage. Let
            `prepare` change the problem before the solve. Times, as a sequence of numbers or a tensor of shape
            `(nodes,)` or `(nodes, batch)`: the mean over these, times the length of the interval.
        samples: Number of nodes; of `"accepted"` and `"saved"`, how many to draw, weighted so that the sum stays
            unbiased. By default 4 random ones, 8 of quadrature, and all others.
        detach: Take the states at the nodes as constants: the gradient goes to the vector field alone, and costs less.
        generator: Source of randomness; torch's own if not given.
        independent_rows: The vector field acts on the rows of the state, its first axis, each by itself, and on any
            number of them, with `t` in one more column then; so does a network on a mini-batch. Several nodes are then
            evaluated together, which is faster for many nodes. Checked at the first node.
    """

    nodes: NodeRule = "random"
    samples: int | None = None
    detach: bool = False
    generator: torch.Generator | None = field(default=None, repr=False, compare=False)
    independent_rows: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.nodes, list | tuple):
            object.__setattr__(self, "nodes", _times(self.nodes))
        if not isinstance(self.nodes, Tensor):
            check_choice("nodes", self.nodes, (*RULES, "state"))
        if self.samples is not None and (not isinstance(self.samples, int) or self.samples < 1):
            raise ValueError(f"`samples` must be an integer of at least 1, or None, got {self.samples!r}.")
        if self.samples is not None and (isinstance(self.nodes, Tensor) or self.nodes == "state"):
            raise ValueError(f"`samples` has no meaning with `nodes={self.nodes!r}`: leave it out.")

    @abstractmethod
    def integrand(self, f: FlatField, t: Tensor, y: Tensor) -> Tensor:
        """Return $g$ at times `(batch,)` and states `(batch, state)`, one number per sample."""

    def measure(self, solution: Solution) -> Tensor:
        """Return the cost."""
        if self._is_state:
            return energy_of(solution, self)
        path = Path.of(solution)
        assert isinstance(self.nodes, str | Tensor)  # sequences have become tensors
        nodes = nodes_of(path, self.nodes, self.samples, self.generator, detach=self.detach)
        return self.over_rows(path, nodes) if self.independent_rows else self.over(path.field, nodes)

    def along(self, f: VectorField, ts: Tensor, ys: State) -> Tensor:
        r"""Return the cost of a trajectory that came from elsewhere, such as another library, from the saved states.

        Args:
            f: Its vector field, or the drift of a stochastic equation, called as `f(t, y)` with `t` of shape `()`.
            ts: Times in order, shape `(times,)`.
            ys: States, shape `(times, *state)`, or a pytree of such; a batch is part of the state.

        Raises:
            ValueError: If the shapes do not fit together, or the cost is not finite.

        Example:
            >>> ts = torch.linspace(0.0, 1.0, 11)
            >>> KineticEnergy().along(lambda t, y: 2.0 + 0.0 * y, ts, (2.0 * ts).unsqueeze(-1))
            tensor(4.0000)
        """
        saved = pytree.tree_leaves(ys)
        if ts.ndim != 1 or not saved or any(x.ndim == 0 or len(x) != len(ts) for x in saved):
            shapes = [tuple(x.shape) for x in saved]
            raise ValueError(
                f"`ts` must have shape (times,) and `ys` (times, *state), got {tuple(ts.shape)}, {shapes}."
            )
        layout = Layout.of(pytree.tree_map(lambda x: x[0], ys), batched=False)
        flat = layout.flatten(ys, lead=1)
        nodes = saved_nodes(
            ts.detach().to(flat.real).unsqueeze(-1), flat, self.samples, self.generator, detach=self.detach
        )
        return self.checked(self.over(layout.bind(f, None), nodes))

    def over(self, f: FlatField, nodes: Nodes) -> Tensor:
        """Return the weighted sum over nodes, mean over the samples."""
        rows = [self.integrand(f, t, y) for t, y in zip(nodes.t, nodes.y, strict=True)]
        return (torch.stack(rows) * nodes.weight).sum(0).mean()

    def over_rows(self, path: Path, nodes: Nodes) -> Tensor:
        """Return the same sum, several nodes at a time."""
        f, rows = path.by_rows(nodes)
        together = max(1, ROWS // rows.t.shape[1])
        values = [
            self.integrand(f, t.flatten(), y.flatten(0, 1)).reshape(t.shape)
            for t, y in zip(rows.t.split(together), rows.y.split(together), strict=True)
        ]
        return (torch.cat(values) * rows.weight).sum(0).mean()

    def prepare(self, problem: ODEProblem, save_at: Times = None) -> tuple[ODEProblem, Times]:
        """Return the problem with the integral as one more state, if `nodes="state"`."""
        return (augmented(problem, self) if self._is_state else problem), save_at

    def restore(self, solution: Solution) -> Solution:
        """Return the solution without that state."""
        return without_energy(solution, self) if self._is_state else solution

    @property
    def _is_state(self) -> bool:
        return isinstance(self.nodes, str) and self.nodes == "state"


@dataclass(frozen=True, slots=True, kw_only=True)
class KineticEnergy(TrajectoryIntegral):
    r"""$\int \frac1n \lVert f(t, y) \rVert^2\, dt$: straight, slow trajectories; one evaluation per node.

    Args:
        nodes, samples, detach, generator, independent_rows: As for `TrajectoryIntegral`.

    Example:
        >>> import torch, ude
        >>> decay = ude.ODEProblem(lambda t, y: -y, torch.ones(2), (0.0, 1.0))
        >>> round(float(KineticEnergy(nodes="quadrature")(ude.solve(decay, ude.Tsit5()))), 4)  # (1 - exp(-2)) / 2
        0.4323

    Reference:
        Finlay, Jacobsen, Nurbekyan & Oberman (2020), How to train your neural ODE, equation 8.
    """

    def integrand(self, f: FlatField, t: Tensor, y: Tensor) -> Tensor:
        """Return the mean square of the vector field."""
        return mean_square(f(t, y))


@dataclass(frozen=True, slots=True, kw_only=True)
class JacobianFrobenius(TrajectoryIntegral):
    r"""$\int \frac1n \lVert J(t, y) \rVert_F^2\, dt$ with the Jacobian $J = \partial f / \partial y$: smooth dynamics.

    Estimated by $\frac1n \lVert \varepsilon^T J \rVert^2$ with random signs $\varepsilon$ (Hutchinson), without bias;
    one evaluation and one reverse product per node and direction. For an unbatched problem whose state holds a batch of
    rows that do not see each other, it is the mean over the rows.

    Args:
        nodes, samples, detach, generator, independent_rows: As for `TrajectoryIntegral`; the generator draws the
            directions too.
        directions: Directions $\varepsilon$, of independent signs, at every node.

    Reference:
        Finlay, Jacobsen, Nurbekyan & Oberman (2020), How to train your neural ODE, equation 9.
    """

    directions: int = 1

    def __post_init__(self) -> None:
        TrajectoryIntegral.__post_init__(self)
        if not isinstance(self.directions, int) or self.directions < 1:
            raise ValueError(f"`directions` must be an integer of at least 1, got {self.directions!r}.")

    def integrand(self, f: FlatField, t: Tensor, y: Tensor) -> Tensor:
        """Return the estimate at one time."""
        draws = ad.Rademacher(self.directions, generator=self.generator, per_sample=True)
        signs = draws.draw(y.shape[-1], tuple(y.shape[:-1]), y)
        with torch.enable_grad():
            at = y if y.requires_grad else y.detach().requires_grad_()
            slope = f(t, at)
            record = torch.is_grad_enabled()
            rows = [
                mean_square(ad.grad(slope, [at], sign, create_graph=record, retain_graph=True)[0]) for sign in signs
            ]
        return torch.stack(rows).mean(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaylorEnergy(TrajectoryIntegral):
    r"""$R_K = \int \frac1n \lVert y^{(K)}(t) \rVert^2\, dt$: solutions that are nearly polynomials of degree below K.

    The derivative comes from the Taylor series of the solution through every node, in K passes through the field (see
    `ude.ad.ode_series`). Evaluated on the finished trajectory it never enters the error control, so that the solve
    takes the same steps with it as without.

    Args:
        order: $K$, from 1 (the kinetic energy) to 10.
        nodes, samples, detach, generator, independent_rows: As for `TrajectoryIntegral`.

    Raises:
        ValueError: If an argument cannot be used; when called, if the nodes need what the solve did not keep, or lie
            outside of its interval.

    Example:
        >>> import torch, ude
        >>> decay = ude.ODEProblem(lambda t, y: -2.0 * y, torch.ones(2), (0.0, 1.0))
        >>> cost = TaylorEnergy(order=3, nodes="quadrature")  # 64 times the integral of exp(-4 t)
        >>> round(float(cost(ude.solve(decay, ude.Tsit5()))), 2)
        15.71

    Reference:
        Kelly, Bettencourt, Johnson & Duvenaud (2020), Learning differential equations that are easy to solve, equation
        2. Their code takes the integral as a state, with `order=3` and weights 0.01 (PhysioNet) and 6e-5 (images).
    """

    order: int = field(default=3, kw_only=False)

    def __post_init__(self) -> None:
        TrajectoryIntegral.__post_init__(self)
        if not isinstance(self.order, int) or isinstance(self.order, bool) or not 1 <= self.order <= HIGHEST:
            raise ValueError(
                f"`order` must be an integer from 1 to {HIGHEST}, got {self.order!r}. The published orders are 2 to 6; "
                "`ErrorEstimate` penalises the order of the method itself at no cost."
            )

    def integrand(self, f: FlatField, t: Tensor, y: Tensor) -> Tensor:
        """Return the mean square of the derivative."""
        series = ad.ode_series(f, t, y, self.order)
        return mean_square(series[-1]) * float(math.factorial(self.order)) ** 2


def mean_square(x: Tensor) -> Tensor:
    """Return the mean square of the components, shape `(batch,)`."""
    return (x * x.conj()).real.mean(-1)


def _times(nodes: Sequence[float]) -> Tensor:
    try:
        return torch.tensor(nodes, dtype=torch.float64)
    except (TypeError, ValueError):
        raise ValueError(f"`nodes` must be a rule, such as 'random', or times, got {nodes!r}.") from None
