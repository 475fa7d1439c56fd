"""What a call of `sdeint` asks for, checked and brought into one form."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ude.brownian import BrownianGrid, BrownianTree
from ude.compat.errors import ArgumentError, SdeintError
from ude.compat.stochastic_control import Together
from ude.compat.stochastic_equation import Equation
from ude.compat.stochastic_names import default_name, read_method
from ude.compat.stochastic_path import Driven, ForeignPath
from ude.methods import StochasticMethod
from ude.problems import SDEProblem, SolveError
from ude.solve import Checkpointed, Direct, FixedStep, solve
from ude.solve.stochastic import CELLS

DEEPEST = 30
UNBOUNDED = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOptions:
    """How long the steps are.

    Args:
        dt: Length of the steps, or of the first one.
        adaptive: Choose the others by the tolerances.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        dt_min: Least step; it is taken whatever its error.
    """

    dt: float
    adaptive: bool
    rtol: float
    atol: float
    dt_min: float

    @classmethod
    def read(cls, dt: Any, adaptive: bool, rtol: Any, atol: Any, dt_min: Any) -> StepOptions:
        """Return the numbers.

        Raises:
            ArgumentError: If one requires a gradient, or the step is not positive.
        """
        given = {"dt": dt, "rtol": rtol, "atol": atol, "dt_min": dt_min}
        for name, value in given.items():
            if isinstance(value, Tensor) and value.requires_grad:
                raise ArgumentError(f"`{name}` must not require a gradient. Use `{name}.detach()`.")
        numbers = {name: float(value) for name, value in given.items()}
        if not 0.0 < numbers["dt"] < math.inf:
            raise ArgumentError(f"`dt`, the length of a step, must be positive and finite, got {dt}.")
        return cls(adaptive=bool(adaptive), **numbers)


@dataclass(frozen=True, slots=True, kw_only=True)
class SDECall:
    """A call of `sdeint`.

    Args:
        equation: What to solve.
        y0: Initial state, shape `(batch, state)`.
        ts: Times, strictly increasing, shape `(times,)`.
        bm: The Brownian motion; None to draw one.
        method: Makes the steps; None if torchsde has to.
        steps: Their lengths.
    """

    equation: Equation
    y0: Tensor
    ts: Tensor
    bm: Any
    method: StochasticMethod | None
    steps: StepOptions

    @classmethod
    def read(
        cls,
        sde: Any,
        y0: Tensor,
        ts: Tensor | Sequence[float],
        bm: Any,
        method: Any,
        steps: StepOptions,
        options: Mapping[str, Any] | None,
        names: Mapping[str, str] | None,
        *,
        logqp: bool,
    ) -> SDECall:
        """Check the arguments of a call; with `logqp` the log-ratio is the last component of the state.

        Raises:
            ArgumentError: If an argument cannot be used.
        """
        if not isinstance(y0, Tensor) or y0.ndim != 2 or not y0.is_floating_point():
            got = tuple(y0.shape) if isinstance(y0, Tensor) else type(y0).__name__
            raise ArgumentError(f"`y0` must be a real tensor of shape (batch, state), got {got}.")
        times = _times(ts, y0)
        shape = _shape(bm)
        equation = Equation.read(sde, names, None if shape is None else shape[1])
        count = equation.check(times[0], y0)
        if logqp:
            equation = equation.with_log_ratio()
            y0 = torch.cat([y0, torch.zeros_like(y0[:, :1])], 1)
            count = equation.check(times[0], y0)
        if shape not in (None, (len(y0), count)):
            hint = ", one of them for the log-ratio," if logqp and equation.noise == "diagonal" else ""
            raise ArgumentError(f"`bm` must have the shape (batch, noise) = {(len(y0), count)}{hint} got {shape}.")
        name = default_name(equation) if method is None else method
        return cls(
            equation=equation,
            y0=y0,
            ts=times,
            bm=bm,
            method=read_method(name, equation, adaptive=steps.adaptive, grad_free=_grad_free(options)),
            steps=steps,
        )

    def solve(self, adjoint: Direct | Checkpointed) -> Tensor:
        """Return the states at all times, shape `(times, batch, state)`.

        Raises:
            SdeintError: If steps that are chosen come to no end.
        """
        assert self.method is not None
        if len(self.ts) == 1:
            return self.y0.unsqueeze(0)
        equation, steps = self.equation, self.steps
        is_scalar = equation.noise == "scalar"  # one axis less in this library

        def drift(t: Tensor, y: Tensor) -> Tensor:
            return equation.drift(_now(t), y)

        def diffusion(t: Tensor, y: Tensor) -> Tensor:
            g = equation.diffusion(_now(t), y)
            return g.squeeze(-1) if is_scalar else g

        method, path = self._driven()
        problem = SDEProblem(
            drift,
            diffusion,
            self.y0,
            (self.ts[0].item(), self.ts[-1].item()),
            noise=equation.noise,
            interpretation=equation.interpretation,
            batched=True,
            path=path,
        )
        try:
            return solve(
                problem,
                method,
                save_at=self.ts,
                rtol=steps.rtol,
                atol=steps.atol,
                dt=steps.dt,
                controller=Together() if steps.adaptive else FixedStep(),
                adjoint=adjoint,
                dense=False,
                max_steps=self._most(),
                min_step=steps.dt_min if steps.adaptive else 0.0,
                throw=steps.adaptive,
            ).ys
        except SolveError as error:
            raise SdeintError(str(error), error.solution) from error

    def _most(self) -> int:
        """Return a number of attempts that no solve needs whose steps have at least their least length."""
        if not self.steps.adaptive or self.steps.dt_min == 0.0:
            return UNBOUNDED
        span = float(self.ts[-1] - self.ts[0])
        return min(1_000 + int(10 * (len(self.ts) + span / self.steps.dt_min)), UNBOUNDED)

    def _driven(self) -> tuple[StochasticMethod, BrownianTree | BrownianGrid | None]:
        """Return the method and the path of the problem."""
        assert self.method is not None
        if isinstance(self.bm, BrownianTree | BrownianGrid):
            return self.method, self.bm
        steps = self.steps
        if self.bm is None:
            if not steps.adaptive:
                return self.method, None
            cells = CELLS * float(self.ts[-1] - self.ts[0]) / max(steps.dt_min, 1e-300)
            depth = min(max(22, math.ceil(math.log2(cells))), DEEPEST)  # so that the least step can be made
            return self.method, BrownianTree.drawn(depth=depth)
        # The path of the problem is not looked at.
        unused = BrownianTree(0, DEEPEST) if steps.adaptive else BrownianGrid(0)
        return Driven(self.method, ForeignPath(self.bm, tuple(self.ts.tolist()))), unused


def _now(t: Tensor) -> Tensor:
    """Return the one time of a batch: a row that has failed stays behind."""
    return t.max()


def _times(ts: Tensor | Sequence[float], y0: Tensor) -> Tensor:
    """Return the times, having checked them."""
    if isinstance(ts, Tensor) and ts.requires_grad:
        raise ArgumentError("`ts` must not require a gradient. Use `ts.detach()`.")
    times = torch.as_tensor(ts, dtype=y0.dtype, device=y0.device)
    if times.ndim != 1 or not len(times):
        raise ArgumentError(f"`ts` must be one-dimensional with at least one time, got shape {tuple(times.shape)}.")
    if not bool((times.diff() > 0).all()):
        raise ArgumentError("`ts` must be strictly increasing. Sort it and drop repeated times.")
    return times


def _shape(bm: Any) -> tuple[int, int] | None:
    """Return rows and components of a Brownian motion if it has its own."""
    if bm is None or isinstance(bm, BrownianTree | BrownianGrid):
        return None
    shape = getattr(bm, "shape", None)
    if not callable(bm) or shape is None or len(shape) != 2:
        raise ArgumentError(
            "`bm` must be a `ude.BrownianTree`, a `ude.BrownianGrid`, or a Brownian motion of torchsde of shape "
            f"(batch, noise), got {type(bm).__name__} of shape {None if shape is None else tuple(shape)}."
        )
    return int(shape[0]), int(shape[1])


def _grad_free(options: Mapping[str, Any] | None) -> bool:
    """Return the one option there is; warn of others."""
    unknown = {name: value for name, value in (options or {}).items() if name != "grad_free"}
    if unknown:
        warnings.warn(f"sdeint: Unexpected options {unknown}. There is `grad_free`.", stacklevel=4)
    return bool((options or {}).get("grad_free", False))
