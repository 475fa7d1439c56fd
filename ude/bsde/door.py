"""The door: an equation and a point in, the value of the solution there out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ude._checks import positive
from ude.bsde.deep_bsde import DeepBSDE
from ude.bsde.equation import SemilinearPDE
from ude.bsde.networks import Model, Start, ValueModel
from ude.bsde.paths import Paths, Sampler
from ude.bsde.rollout import estimate
from ude.bsde.training import Course, History


class Method(Protocol):
    """A way to learn the gradient of the solution: `DeepBSDE`, `ForwardBackward` or `DeepSplitting`."""

    @property
    def paths(self) -> Sampler:
        """How forward paths are drawn."""
        ...

    @property
    def iterations(self) -> int:
        """Iterations altogether."""
        ...

    def build(self, start: Start, weights: torch.Generator) -> Any:
        """Return a `Model` before training."""
        ...

    def train(self, model: Any, start: Start, course: Course, generator: torch.Generator | None) -> None:
        """Train it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PDESolution:
    r"""The solution of a semilinear equation at one point, and what was learned on the way.

    Args:
        u0: $u(t_0, x_0)$.
        standard_error: Of `u0` over the fresh paths that it was estimated from. It does not know of the error of the
            time step, nor of that which a wrong gradient makes through f.
        mismatch: Root mean square over these paths by which u misses g at their end. The error of `u0` is bounded by a
            multiple of it and of the square root of the time step (Han and Long 2020, theorem 1).
        model: What was trained.
        history: The course of the training.
    """

    u0: float
    standard_error: float
    mismatch: float
    model: Model
    history: History

    def gradient(self, t: Tensor | float, x: Tensor) -> Tensor:
        r"""Return the learned $\nabla u(t, x)$, shape `(*batch, d)`.

        Args:
            t: Time, a number or a tensor of shape `(*batch, 1)`.
            x: Points, shape `(*batch, d)`.
        """
        with torch.no_grad():
            return self.model.gradient(_column(t, x), x)

    def u(self, t: Tensor | float, x: Tensor) -> Tensor:
        """Return the learned solution at other points, shape `(*batch, 1)`.

        Args:
            t: Time, a number or a tensor of shape `(*batch, 1)`.
            x: Points, shape `(*batch, d)`.

        Raises:
            TypeError: If the method learns the gradient only.
        """
        if not isinstance(self.model, ValueModel):
            raise TypeError(
                "This method has learned the gradient, and u at the start only. Take `ForwardBackward()` for u(t, x)."
            )
        return self.model(_column(t, x), x)


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C during the training; `solution` is what had been learned until then."""

    def __init__(self, solution: PDESolution) -> None:
        super().__init__(
            f"The training was interrupted after {len(solution.history.loss)} iterations; "
            f"u0 = {solution.u0:.6g} +- {solution.standard_error:.1g} so far."
        )
        self.solution = solution


def solve(
    pde: SemilinearPDE,
    x0: Tensor,
    method: Method | None = None,
    *,
    t0: float = 0.0,
    estimation_paths: int = 8192,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> PDESolution:
    r"""Return $u(t_0, x_0)$ of a semilinear parabolic equation in many dimensions.

    A network learns $\nabla u$ along paths of the forward process. Then fresh paths give $u(t_0, x_0)$: with the
    gradient at hand almost all of their scatter is known and taken off, so that few are enough, and what is left is an
    error bar.

    Args:
        pde: The equation.
        x0: The point, shape `(d,)`; its dtype and device are those of the computation. Single precision is enough.
        method: `DeepBSDE()` if left out.
        t0: The time.
        estimation_paths: Fresh paths for the final value.
        generator: Source of paths and weights, on the device of x0: the same seed gives the same result. Torch's
            default one if left out.
        progress: Show a progress bar.

    Returns:
        The value with its standard error, the learned gradient, and the course of the training.

    Raises:
        ValueError: If something does not fit the point, or the forward process leaves the finite numbers.
        TrainingError: If the training does.
        TrainingInterrupted: On Ctrl-C, with the solution so far.

    Example:
        >>> from ude.bsde import Training
        >>> heat = SemilinearPDE(
        ...     drift=0.0, diffusion=1.0, f=lambda t, x, u, p: torch.zeros_like(u), g=lambda x: (x**2).sum(-1), t1=1.0
        ... )
        >>> method = DeepBSDE(training=Training(iterations=50))
        >>> solution = solve(heat, torch.zeros(5), method, generator=torch.Generator().manual_seed(0))
        >>> abs(solution.u0 - 5.0) < 4 * solution.standard_error < 0.2  # E|W_1|^2
        True

    Reference: J. Han and J. Long (2020), Convergence of the deep BSDE method for coupled FBSDEs.
    """
    pde.check(x0, t0)
    positive("estimation_paths", estimation_paths)
    if generator is not None and generator.device.type != x0.device.type:
        raise ValueError(
            f"`generator` must be on the device of `x0`, {x0.device}, got {generator.device}. "
            f"Make it with `torch.Generator({x0.device.type!r})`."
        )
    method = DeepBSDE() if method is None else method

    def draw(count: int) -> Paths:
        return method.paths.draw(pde, x0, t0, count, generator)

    weights = _weights(generator)
    start = Start.of(pde, x0, t0, draw)
    model = method.build(start, weights)
    course = Course(method.iterations, progress=progress)
    interrupted = False
    try:
        method.train(model, start, course, generator)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        history = course.close()
        model.requires_grad_(False)
    solution = _solution(pde, model, draw, estimation_paths, history)
    if interrupted:
        raise TrainingInterrupted(solution)
    return solution


def _solution(
    pde: SemilinearPDE, model: Model, draw: Callable[[int], Paths], count: int, history: History
) -> PDESolution:
    found = estimate(pde, model, draw, count)
    return PDESolution(
        u0=found.u0,
        standard_error=found.standard_error,
        mismatch=found.mismatch,
        model=model,
        history=history,
    )


def _weights(generator: torch.Generator | None) -> torch.Generator:
    """Return a source of initial weights, which are always drawn on the CPU."""
    device = "cpu" if generator is None else generator.device
    seed = int(torch.randint(2**62, (), generator=generator, device=device))
    return torch.Generator().manual_seed(seed)


def _column(t: Tensor | float, x: Tensor) -> Tensor:
    return torch.full_like(x[..., :1], t) if isinstance(t, int | float) else t
