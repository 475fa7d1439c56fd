"""Steps of torchdiffeq's methods made once more, and checked against what the solver did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ude._typing import FlatField, VectorField
from ude.methods.explicit import ExplicitRungeKutta
from ude.methods.method import StepResult, Tolerances
from ude.regularize.single_step import SingleStep, repeat_step
from ude.regularize.steps import root_mean_square
from ude.regularize.told_steps import ToldSolve, ToldStep

Norm: TypeAlias = Callable[[Any], Any]
"""Size of a scaled error, given in the form of the state."""

OTHERS = {"step_t", "jump_t", "dtype", "max_num_steps", "step_size", "grid_constructor", "interp", "perturb"} | {
    "max_order",
    "max_iters",
}
"""Options of torchdiffeq that matter to neither."""
SLACK = 0.05
"""How far the error ratio of a repeated step may be from that of the solver: a wrong tolerance or method is farther."""
ROUNDING = 10.0
"""Roundings of the state and of its change in one step that an error estimate may hold, in units of the last place. On
networks of up to 512 units in single precision 1.3 were seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOptions:
    """What of torchdiffeq's `options` a step, and the length of the one after it, depend on; the names are its own."""

    norm: Norm | None = None
    safety: float = 0.9
    ifactor: float = 10.0
    dfactor: float = 0.2
    min_step: float = 0.0
    max_step: float = float("inf")
    first_step: float | Tensor | None = None

    @classmethod
    def read(cls, given: Mapping[str, Any] | None) -> StepOptions:
        """Return what matters of torchdiffeq's `options`.

        Raises:
            ValueError: If torchdiffeq has no such option.
        """
        names = {field.name for field in fields(cls)}
        unknown = set(given or {}) - names - OTHERS
        if unknown:
            raise ValueError(
                f"torchdiffeq has no options {', '.join(sorted(unknown))}. Give `attach` the `options` of the solve, "
                f"among them {', '.join(sorted(names))}."
            )
        return cls(**{name: value for name, value in (given or {}).items() if name in names})

    def ratios(self, dt: float, following: float | None, order: int, *, is_cut: bool = False) -> tuple[float, float]:
        r"""Return the least and the greatest error ratio $E$ that explain what the solver did after a step it took.

        It goes on with $s E^{-1/k}$ times the length, within bounds.

        Args:
            dt: Length of the step.
            following: That of the next one; None if there was none.
            order: $k$.
            is_cut: The next one may have been made shorter so as to end with the solve.
        """
        most = float("inf") if dt <= float(self.min_step) else 1.0
        if following is None or dt == 0.0:
            return 0.0, most
        factor, near = following / dt, 1e-6
        implied = (float(self.safety) / factor) ** order
        # A length at a bound only says on which side the ratio lies; an error above 1 lets the step shrink.
        at_most = following >= float(self.max_step) * (1 - near) or factor >= float(self.ifactor) * (1 - near)
        at_least = (
            following <= float(self.min_step) * (1 + near) or min(abs(factor - x) for x in (1.0, self.dfactor)) <= near
        )
        at_most = at_most or is_cut
        # Only at the end is a step that follows an accepted one shorter than that.
        if (at_most and at_least) or (is_cut and factor < 1.0):
            return 0.0, most
        return 0.0 if at_most else implied, most if at_least else implied


@dataclass(frozen=True, slots=True)
class Form:
    """Between the user's state, a tensor or a tuple, and `(1, state)`.

    Args:
        shapes: Of the tensors.
        is_tuple: The state is a tuple.
    """

    shapes: tuple[torch.Size, ...]
    is_tuple: bool

    @classmethod
    def of(cls, state: Any) -> Form:
        """Return the form of a state."""
        parts = (state,) if isinstance(state, Tensor) else tuple(state)
        return cls(tuple(part.shape for part in parts), not isinstance(state, Tensor))

    def flatten(self, state: Any) -> Tensor:
        """Return a state, or a derivative that broadcasts to one, as `(1, state)`."""
        parts = state if self.is_tuple else (state,)
        if self.is_tuple:
            return torch.cat([part.reshape(-1) for part in parts]).unsqueeze(0)
        return torch.broadcast_to(parts[0], self.shapes[0]).reshape(1, -1)

    def unflatten(self, flat: Tensor) -> Any:
        """Return `(1, state)` as a state."""
        parts = flat.reshape(-1).split([shape.numel() for shape in self.shapes])
        shaped = tuple(part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True))
        return shaped if self.is_tuple else shaped[0]

    def bind(self, func: VectorField) -> FlatField:
        """Return a vector field on `(1, state)`."""
        return lambda t, y: self.flatten(func(t.reshape(()), self.unflatten(y))).to(y.dtype)

    def tolerance(self, given: Any, like: Tensor) -> Tensor:
        """Return a tolerance, a number or a tensor or one per tensor of a tuple, as `()` or `(1, state)`."""
        if isinstance(given, int | float) or (isinstance(given, Tensor) and given.ndim == 0):
            return torch.as_tensor(given, dtype=like.dtype, device=like.device)
        parts = [
            torch.as_tensor(x, dtype=like.dtype, device=like.device) for x in (given if self.is_tuple else [given])
        ]
        shapes = [shape.numel() if self.is_tuple else shape for shape in self.shapes]
        rows = [part.expand(shape) for part, shape in zip(parts, shapes, strict=True)]
        return torch.cat([row.reshape(-1) for row in rows]).unsqueeze(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeater:
    """Makes steps again, on the autograd graph.

    Args:
        func: The user's vector field.
        method: Made the steps; None if it is none of this library.
        name: Its name.
        rtol: Relative tolerance of the solve, as torchdiffeq takes it.
        atol: Absolute tolerance, likewise.
        options: Of the solve.
    """

    func: VectorField
    method: ExplicitRungeKutta | None
    name: str
    rtol: Any
    atol: Any
    options: StepOptions

    def repeat(self, step: ToldStep, solve: ToldSolve, sign: int) -> SingleStep:
        """Make a step again, and compare its error ratio with what the solver did.

        Args:
            step: The step.
            solve: It belongs to this one.
            sign: Direction of time.

        Raises:
            ValueError: If they do not fit together.
        """
        assert self.method is not None  # a cost of steps is refused without it
        form = Form.of(step.y)
        y = form.flatten(step.y)
        real = y.detach().real
        t, dt = (x.to(real).reshape(1) for x in (step.t, sign * step.dt))
        field, ends = form.bind(self.func), (t, t + dt)
        # Inside of the step at both ends, as there: a jump at an end does not belong to it.
        low, high = sorted(torch.nextafter(a, b) for a, b in (ends, ends[::-1]))
        tolerances = Tolerances(form.tolerance(self.rtol, real), form.tolerance(self.atol, real))
        single, result = repeat_step(lambda t, y: field(t.clamp(low, high), y), self.method, tolerances, t, dt, y)
        if result.error is None:
            return single
        scale = tolerances.atol + tolerances.rtol * torch.maximum(y.abs(), result.y1.abs())
        if form.is_tuple or self.options.norm is not None:
            single = single._replace(error=self._size(form, result.error / scale).reshape(1))
        self._check(step, form, y, scale, single, result, is_cut=solve.ends_after(step))
        return single

    def _size(self, form: Form, scaled: Tensor) -> Tensor:
        """Return the norm of a scaled error."""
        parts = form.unflatten(scaled)
        if self.options.norm is not None:
            return torch.as_tensor(self.options.norm(parts)).abs()
        if form.is_tuple:
            return torch.stack([root_mean_square(part.reshape(-1)) for part in parts if part.numel()]).amax()
        return root_mean_square(scaled.reshape(-1))

    @torch.no_grad()
    def _check(
        self,
        step: ToldStep,
        form: Form,
        y: Tensor,
        scale: Tensor,
        single: SingleStep,
        result: StepResult,
        *,
        is_cut: bool,
    ) -> None:
        """Raise unless the error ratio of a repeated step explains what the solver did."""
        dt, following = float(step.dt), None if step.following is None else float(step.following)
        assert self.method is not None and self.method.error_order is not None  # there is an error  # noqa: PT018
        least, most = self.options.ratios(dt, following, self.method.error_order, is_cut=is_cut)
        got = float(single.error)
        change = dt * torch.stack([stage.abs() for stage in result.stages]).amax(0)
        unit = ROUNDING * torch.finfo(scale.dtype).eps
        noise = float(self._size(form, unit * (y.abs() + change) / scale))
        if least * (1 - SLACK) - noise <= got <= most * (1 + SLACK) + noise:
            return
        expected = f"{least:.3g}" if least == most else f"{least:.3g} to {most:.3g}"
        after = "the last step of its solve" if following is None else f"followed by one of {following:.4g}"
        raise ValueError(
            f"A step that the solver took, from t = {float(step.t):.6g} of length {dt:.4g} and {after}, must have had "
            f"an error ratio of {expected}; repeated with method={self.name!r}, rtol={_shown(self.rtol)}, "
            f"atol={_shown(self.atol)} it is {got:.3g}. Give `attach` the method, tolerances and options of the "
            "solve, and call `value` before the parameters change; a field that draws random numbers has no steps to "
            "repeat."
        )


def _shown(tolerance: Any) -> str:
    return f"{tolerance:g}" if isinstance(tolerance, int | float) else "(one per component)"
