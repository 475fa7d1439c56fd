"""torchsde behind the same door."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ude.brownian import BoundPath, BrownianGrid, BrownianTree
from ude.problems import SDEProblem
from ude.solve.backend import BackendTask, NoiseTask, Result
from ude.solve.stochastic import BoundTerms, StochasticArguments, StochasticLayout
from ude.solve.times import Span


@dataclass(frozen=True, slots=True)
class TorchSDE:
    """A method of torchsde by its name there, for an `SDEProblem`; the gradient is that of its `sdeint`.

    `dt` of `solve` is the length of its steps, which begin at `t0`; states at times between them are on the line from
    one to the next. With a `BrownianTree` as the path of the problem torchsde follows it, else a path of its own, which
    is seeded by NumPy's generator. The whole batch takes the same steps. There are no `Steps`, no continuous solution,
    and `Stats` counts only evaluations of the drift.

    Args:
        name: `"euler"`, `"milstein"` or `"srk"` for integrals of Ito; `"midpoint"`, `"heun"`, `"euler_heun"`,
            `"reversible_heun"`, `"milstein"` or `"log_ode"` for those of Stratonovich.
        adaptive: Choose the steps by doubling them; `dt` is then the length of the first one.
        dt_min: Least step of these; taken whatever its error.
        grad_free: Milstein's method with differences instead of derivatives.

    Example:
        >>> TorchSDE("srk").name
        'srk'
    """

    name: str = "euler"
    adaptive: bool = field(default=False, kw_only=True)
    dt_min: float = field(default=1e-5, kw_only=True)
    grad_free: bool = field(default=False, kw_only=True)

    def integrate(self, task: BackendTask) -> Result:
        """Call `torchsde.sdeint`.

        Raises:
            ValueError: If torchsde does not solve such a problem by this method.
            ImportError: If torchsde is not installed.
        """
        noise = task.noise
        assert noise is not None  # the door lets no other problem through
        bm = None if noise.path is None else BoundBrownian(noise.path, (len(task.y0), noise.components), task.y0)
        try:
            ys = import_torchsde().sdeint(
                _Equation(task, noise),
                task.y0,
                task.ts,
                bm=bm,
                method=self.name,
                dt=noise.dt,
                adaptive=self.adaptive,
                rtol=task.rtol,
                atol=task.atol,
                dt_min=self.dt_min,
                options={"grad_free": self.grad_free},
            )
        except AssertionError as error:
            return Result(task.y0.unsqueeze(0), f"torchsde: {error}")
        finite = int(ys.detach().isfinite().flatten(1).all(-1).cumprod(0).sum())
        return Result(ys[:finite], "" if finite == len(ys) else "torchsde: a state is infinite or NaN")


@dataclass(frozen=True, slots=True)
class BoundBrownian:
    """A path of this library as torchsde asks for it.

    Args:
        path: The path.
        shape: Rows and components.
        like: A tensor of the dtype and device of the state.
        levy_area_approximation: What torchsde may ask for beyond increments.
    """

    path: BoundPath
    shape: tuple[int, int]
    like: Tensor
    levy_area_approximation: str = "space-time"

    @property
    def dtype(self) -> torch.dtype:
        """That of the increments."""
        return self.like.dtype

    @property
    def device(self) -> torch.device:
        """That of the increments."""
        return self.like.device

    def size(self) -> tuple[int, int]:
        """Return rows and components."""
        return self.shape

    def __call__(
        self, ta: float | Tensor, tb: float | Tensor, return_U: bool = False, return_A: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return the increments from `ta` to `tb`, and the integrals of what comes up to each time between them.

        Raises:
            ValueError: If areas between components are asked for.
        """
        if return_A:
            raise ValueError("A `BrownianTree` has no Levy areas between components. Leave `path` out of the problem.")
        start = torch.as_tensor(ta).to(self.like).expand(self.shape[0])
        length = torch.as_tensor(tb).to(self.like) - start
        if not return_U:
            return self.path.wiener(start, length)
        w, h = self.path.increment(start, length)
        return w, length.unsqueeze(-1) * (0.5 * w + h)


class _Equation:
    """A problem as torchsde sees it."""

    def __init__(self, task: BackendTask, noise: NoiseTask) -> None:
        self.task, self.noise = task, noise
        self.noise_type = "general" if noise.noise == "commutative" else noise.noise
        self.sde_type = noise.interpretation

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the drift."""
        return self.task.field(self._times(t, y), y)

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        """Return the diffusion, a matrix per row but for diagonal noise."""
        value = self.noise.diffusion(self._times(t, y), y)
        if value.ndim == 3 or self.noise_type == "diagonal":
            return value
        return value.unsqueeze(-1) if self.noise_type == "scalar" else torch.diag_embed(value)

    def _times(self, t: Tensor, y: Tensor) -> Tensor:
        return t.to(self.task.ts.dtype).expand(len(y))


def read_noise(problem: SDEProblem, layout: StochasticLayout, span: Span, dt: float | Tensor | None) -> NoiseTask:
    """Return what drives the state of a problem.

    Raises:
        ValueError: If there is no one length of the steps, or the path is a `BrownianGrid`.
    """
    if dt is None or torch.as_tensor(dt).numel() != 1 or not float(dt) > 0.0:
        raise ValueError(f"`TorchSDE` needs the length of its steps, one positive number: give `dt`, got {dt}.")
    if isinstance(problem.path, BrownianGrid):
        raise ValueError("torchsde makes other steps than those of a `BrownianGrid`. Use a `BrownianTree`.")
    tree = BrownianTree(0) if problem.path is None else problem.path
    path = tree.bind(span.t0.detach(), span.t1.detach(), layout.components)
    terms = layout.bind(problem.drift, StochasticArguments(problem.p, problem.diffusion, path))
    assert isinstance(terms, BoundTerms)
    return NoiseTask(
        diffusion=terms.diffusion,
        noise=problem.noise,
        interpretation=problem.interpretation,
        components=layout.components,
        path=None if problem.path is None else path,
        dt=float(dt),
    )


def check_backend(problem: object, backend: object) -> None:
    """Raise unless a backend is for problems of this kind: others would leave out the noise."""
    if isinstance(problem, SDEProblem) != isinstance(backend, TorchSDE):
        raise ValueError(
            f"{backend} does not solve an `{type(problem).__name__}`. `TorchSDE(...)` is for an `SDEProblem`, "
            "`TorchDiffEq(...)` and `SciPy(...)` are for an `ODEProblem`."
        )


def import_torchsde() -> Any:
    """Return torchsde.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        import torchsde
    except ImportError as error:
        raise ImportError("torchsde has to make these steps. Install it: `pip install torchsde`.") from error
    return torchsde
