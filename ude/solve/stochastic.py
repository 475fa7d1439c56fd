"""Stochastic problems at the door: checks, the Brownian path, drift and diffusion as methods see them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ude._typing import VectorField
from ude.ad import is_tensor
from ude.brownian import BoundGrid, BoundPath, BrownianGrid, BrownianTree, Increment, RecordedPath
from ude.methods.stochastic_steps import StochasticMethod
from ude.problems import Noise, SDEProblem
from ude.solve.adjoints import Adjoint
from ude.solve.continuous import ContinuousAdjoint
from ude.solve.controllers import Controller
from ude.solve.flatten import BoundField, Layout
from ude.solve.march import timetable
from ude.solve.step import Limits
from ude.solve.times import Span

AXES: dict[Noise, tuple[bool, bool]] = {
    "diagonal": (True, False),
    "scalar": (True, False),
    "additive": (True, True),
    "commutative": (False, True),
    "general": (False, True),
}
"""Whether the diffusion may have the shape of the state, and whether it may have one axis more."""


CELLS = 16
"""Finest cells of a tree that the shortest step has: its increments then have their variance to 1 %."""


class StochasticArguments(NamedTuple):
    """What drift and diffusion need besides time and state, and what else a step needs.

    Args:
        p: The user's parameters.
        diffusion: The user's diffusion.
        path: The Brownian path.
    """

    p: Any
    diffusion: VectorField
    path: BoundPath


@dataclass(frozen=True, slots=True, kw_only=True)
class StochasticLayout(Layout):
    """How state and noise are laid out.

    Args:
        noise: Kind of the noise.
        is_diagonal: Diffusions have the shape of the state.
        components: Brownian motions per sample.
    """

    noise: Noise
    is_diagonal: bool
    components: int

    @classmethod
    def read(cls, problem: SDEProblem) -> StochasticLayout:
        """Return the layout of a problem, having looked at its diffusion at the start.

        Raises:
            ValueError: If the diffusion does not have the shape that its kind of noise has, or is additive and depends
                on the state.
        """
        plain = Layout.of(problem.y0, batched=problem.batched)
        y = plain.flatten(problem.y0).detach()
        if y.is_complex():
            raise ValueError("An `SDEProblem` needs a real state. Use real and imaginary parts.")
        leaves = _diffusion_at(problem, plain, y)
        lead = tuple(y.shape[:1]) if plain.batched else ()
        extra = _extra_axes(leaves, [(*lead, *shape) for shape in plain.shapes])
        may_be_diagonal, may_be_matrix = AXES[problem.noise]
        if not (extra == () and may_be_diagonal) and not (extra is not None and len(extra) == 1 and may_be_matrix):
            shape = "the shape of the state" if may_be_diagonal else "one axis more than the state, that of the noise"
            raise ValueError(
                f"With `noise={problem.noise!r}` the diffusion must return {shape}, the state being "
                f"{[(*lead, *shape) for shape in plain.shapes]}, got {[tuple(leaf.shape) for leaf in leaves]}."
            )
        if problem.noise == "additive":
            moved = _diffusion_at(problem, plain, 1.1 * y + 0.5)
            if not all(torch.equal(one, other) for one, other in zip(leaves, moved, strict=True)):
                raise ValueError(
                    '`noise="additive"` means that the diffusion does not depend on the state, and this one does. '
                    'Use `noise="diagonal"` or `noise="general"`.'
                )
        return cls(
            shapes=plain.shapes,
            spec=plain.spec,
            batched=plain.batched,
            noise=problem.noise,
            is_diagonal=extra == (),
            components=1 if problem.noise == "scalar" else extra[0] if extra else y.shape[-1],
        )

    def bind(self, vector_field: VectorField, p: Any, arrange: Callable[[Tensor], Tensor] | None = None) -> BoundField:
        """Return drift, diffusion and path as methods see them; the drift alone without a path.

        Args:
            vector_field: The user's drift.
            p: `StochasticArguments`, or the user's parameters.
            arrange: Applied to every drift, to choose its place in memory.
        """
        if not isinstance(p, StochasticArguments):
            return BoundField(self, vector_field, () if p is None else (p,), arrange)
        arguments = () if p.p is None else (p.p,)
        return BoundTerms(self, vector_field, arguments, arrange, p.diffusion, p.path)


@dataclass(frozen=True, slots=True)
class BoundTerms(BoundField):
    """Drift, diffusion and path as methods see them, a `StochasticField`.

    Args:
        layout: Between the user's state and `(batch, state)`.
        vector_field: The user's drift.
        arguments: What drift and diffusion take besides time and state.
        arrange: Applied to every drift.
        spread_function: The user's diffusion.
        path: The Brownian path.
    """

    spread_function: VectorField
    path: BoundPath

    @property
    def is_diagonal(self) -> bool:
        """Diffusions have the shape of the state."""
        return self._layout.is_diagonal

    def diffusion(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the diffusion, shape `(batch, state)` if it is diagonal, else `(batch, state, noise)`."""
        layout = self._layout
        value = self.spread_function(layout.time(t), layout.unflatten(y), *self.arguments)
        if layout.is_diagonal:
            layout.check_derivative(value, y)
            return layout.flatten(value)
        leaves = _leaves(layout, value)
        lead = tuple(y.shape[:1]) if layout.batched else ()
        for leaf, shape in zip(leaves, layout.shapes, strict=True):
            wanted = (*lead, *shape, layout.components)
            if leaf.shape != wanted or leaf.dtype != y.dtype:
                raise ValueError(
                    f"The diffusion must return shape {wanted}, {y.dtype}, got {tuple(leaf.shape)}, {leaf.dtype}."
                )
        rows = [leaf.reshape(len(y), -1, layout.components) for leaf in leaves]
        return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)

    def wiener(self, t: Tensor, dt: Tensor) -> Tensor:
        """Return the increment of the path in a step."""
        return self.path.wiener(t, dt)

    def increment(self, t: Tensor, dt: Tensor) -> Increment:
        """Return increment and area of the path in a step."""
        return self.path.increment(t, dt)

    @property
    def _layout(self) -> StochasticLayout:
        assert isinstance(self.layout, StochasticLayout)
        return self.layout


def check_stochastic(
    problem: SDEProblem, method: object, layout: StochasticLayout, adjoint: Adjoint | ContinuousAdjoint
) -> None:
    """Raise unless a method solves problems of this kind, and time runs forward.

    Raises:
        ValueError: If it does not, or the adjoint does not go with noise.
    """
    if not isinstance(method, StochasticMethod):
        raise ValueError(
            f"An `SDEProblem` needs a method for stochastic equations such as `EulerMaruyama()`, got {method}."
        )
    noises = method.noises
    kind = (
        "diagonal" if problem.noise == "additive" and layout.is_diagonal and "additive" not in noises else problem.noise
    )
    if kind not in noises:
        raise ValueError(
            f"{method} solves problems with noise of the kinds {', '.join(map(repr, noises))}, got {problem.noise!r}. "
            "`EulerMaruyama()`, or `EulerHeun()` for Stratonovich integrals, takes all kinds."
        )
    same = problem.noise == "additive"  # without the state in the diffusion both integrals are one
    if method.interpretation not in (None, problem.interpretation) and not same:
        raise ValueError(
            f"{method} approximates the {method.interpretation!r} integral, and the problem has "
            f"`interpretation={problem.interpretation!r}`. Choose another method, or convert the drift."
        )
    if isinstance(adjoint, ContinuousAdjoint):
        raise ValueError(f"{adjoint} is for ordinary equations. Use `Direct()` or `Checkpointed()`.")


def save_stops(
    save_at: Tensor | Sequence[float] | None, stop_at: Tensor | Sequence[float] | None, end: object
) -> Tensor | Sequence[float] | None:
    """Return the times at which steps must end: states between the ends of steps would not follow the path."""
    if save_at is None:
        return stop_at
    times = torch.as_tensor(save_at, dtype=torch.float64 if not isinstance(save_at, Tensor) else None).detach()
    if stop_at is None:
        only_end = times.numel() == 1 and isinstance(end, int | float) and float(times) == end
        return None if only_end else times
    stops = torch.as_tensor(stop_at).detach().to(times)
    if times.ndim != stops.ndim:
        times = times if times.ndim == 2 else times.unsqueeze(-1).expand(-1, stops.shape[1])
        stops = stops if stops.ndim == 2 else stops.unsqueeze(-1).expand(-1, times.shape[1])
    return torch.cat([times, stops])


def with_path(
    problem: SDEProblem,
    layout: StochasticLayout,
    span: Span,
    limits: Limits,
    controller: Controller,
    first: Tensor | None,
    *,
    stored: bool,
) -> tuple[StochasticArguments, Limits]:
    """Return what is bound to the drift, and the limits: no step may be shorter than the path can answer.

    Args:
        problem: What is solved.
        layout: Of its state and noise.
        span: The interval.
        limits: Bounds of the steps.
        controller: Decides on them.
        first: Length of the first, None if it is chosen.
        stored: Paths along constant steps must be tensors, for compiled steps.

    Raises:
        ValueError: If a `BrownianGrid` is given for steps that are chosen on the way, or time runs backwards.
    """
    if bool((span.t1 < span.t0).any()):
        raise ValueError("An `SDEProblem` runs forward in time: `t_span` must not end before it starts.")
    given, start = problem.path, span.t0.detach()
    ahead = None
    if first is not None and not isinstance(given, BrownianTree):
        ahead = timetable(limits, controller, start, first)
    if ahead is not None:
        grid = given if isinstance(given, BrownianGrid) else BrownianGrid.drawn()
        path: BoundPath = grid.bind(ahead, start, layout.components)
        path = path.stored(area=True) if stored and isinstance(path, BoundGrid) else path
        return StochasticArguments(problem.p, problem.diffusion, path), limits
    if isinstance(given, BrownianGrid):
        raise ValueError(
            "A `BrownianGrid` needs constant steps, the same for all samples. Give `dt` and `controller=FixedStep()`, "
            "or use a `BrownianTree`."
        )
    tree = given
    if tree is None:
        # What is remembered is not for compiled steps, and samples with steps of their own have none in common.
        tree = (BrownianTree if stored or len(start) > 1 else RecordedPath).drawn()
    path = tree.bind(start, span.t1.detach(), layout.components)
    cells = CELLS if controller.needs_error else 0.99  # constant steps may be the cells themselves
    finest = cells * (span.t1.detach() - start) / 2.0**tree.depth
    limits = limits._replace(floor=torch.maximum(limits.floor, finest))
    return StochasticArguments(problem.p, problem.diffusion, path), limits


@torch.no_grad()
def _diffusion_at(problem: SDEProblem, layout: Layout, y: Tensor) -> list[Tensor]:
    """Return the tensors of the diffusion at the start time and a flat state."""
    t = torch.as_tensor(problem.t_span[0]).detach().to(y).expand(len(y))
    arguments = () if problem.p is None else (problem.p,)
    return _leaves(layout, problem.diffusion(layout.time(t), layout.unflatten(y), *arguments))


def _extra_axes(leaves: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...] | None:
    """Return the axes that all tensors have behind these shapes; None if they do not begin so, or differ."""
    extra = {tuple(leaf.shape[len(shape) :]) for leaf, shape in zip(leaves, shapes, strict=True)}
    begins = all(leaf.shape[: len(shape)] == shape for leaf, shape in zip(leaves, shapes, strict=True))
    return extra.pop() if begins and len(extra) == 1 else None


def _leaves(layout: Layout, value: Any) -> list[Tensor]:
    """Return the tensors of a diffusion."""
    leaves = [value] if layout.spec is None else pytree.tree_leaves(value, is_leaf=is_tensor)
    if len(leaves) != len(layout.shapes) or not all(is_tensor(leaf) for leaf in leaves):
        raise ValueError(
            f"The diffusion must return the structure of `y0`, got {type(value).__name__} with {len(leaves)} leaves."
        )
    return leaves
