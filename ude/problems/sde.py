"""What is to be solved where noise drives the state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from torch import Tensor

from ude._typing import State, VectorField
from ude.brownian import BrownianGrid, BrownianTree

Noise: TypeAlias = Literal["diagonal", "additive", "scalar", "commutative", "general"]
"""How the diffusion depends on the state and on the components of the noise."""
Interpretation: TypeAlias = Literal["ito", "stratonovich"]
NOISES = ("diagonal", "additive", "scalar", "commutative", "general")
INTERPRETATIONS = ("ito", "stratonovich")


@dataclass(frozen=True, slots=True)
class SDEProblem:
    r"""A stochastic initial value problem $dy = f(t, y)\, dt + g(t, y)\, dW$ with $y(t_0) = y_0$, forward in time.

    Args:
        drift: $f$, called as `f(t, y)`, or `f(t, y, p)` when `p` is given; returns the structure of `y`.
        diffusion: $g$, called likewise; what it returns depends on `noise`.
        y0: State at `t_span[0]`: a tensor of any shape, or a nested tuple, list or dict of tensors.
        t_span: Start and end time, the end not before the start. With `batched=True` each may be a tensor of shape
            `(batch,)`.
        noise: `"diagonal"`: $g$ returns the shape of the state, every component has a Brownian motion of its own and
            $g_i$ depends on $y_i$ alone. `"additive"`: $g$ does not depend on the state; it returns the shape of the
            state, as with diagonal noise, or one more axis at the end, the components of the noise. `"scalar"`: one
            Brownian motion for all components of a sample; the shape of the state. `"general"`: one more axis at the
            end. `"commutative"`: the same, and $\sum_i g_{ij} \partial_i g_{\cdot k}$ is symmetric in $j, k$, which
            better methods need.
        interpretation: Of the integral: `"ito"` or `"stratonovich"`.
        p: Anything drift and diffusion need besides time and state; handed to both unchanged.
        batched: The first axis of every tensor in `y0` is a batch of independent samples with noise, steps and status
            of their own; see `ODEProblem`. Without it a state of shape `(batch, n)` with diagonal noise is a batch with
            one step length for all, and with any other noise all rows share one Brownian motion.
        path: The Brownian path; by default a new one whose seed is drawn from torch's generator at every solve: a
            `BrownianGrid` for constant steps, else a `RecordedPath`, or a `BrownianTree` for compiled steps and for
            samples with steps of their own.

    Raises:
        ValueError: If `noise` or `interpretation` is none of these.

    Example:
        >>> import torch
        >>> growth = SDEProblem(lambda t, y: 0.1 * y, lambda t, y: 0.2 * y, torch.ones(1000), (0.0, 1.0))
        >>> growth.noise
        'diagonal'
    """

    drift: VectorField
    diffusion: VectorField
    y0: State
    t_span: tuple[float | Tensor, float | Tensor]
    noise: Noise = "diagonal"
    interpretation: Interpretation = "ito"
    p: Any = None
    batched: bool = False
    path: BrownianTree | BrownianGrid | None = None

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("noise", self.noise, NOISES),
            ("interpretation", self.interpretation, INTERPRETATIONS),
        ):
            if value not in choices:
                raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}, got {value!r}.")
        if not isinstance(self.path, BrownianTree | BrownianGrid | None):
            raise ValueError(f"`path` must be a `BrownianTree`, a `BrownianGrid` or None, got {self.path!r}.")

    @property
    def vector_field(self) -> VectorField:
        """The drift."""
        return self.drift

    @property
    def jacobian(self) -> None:
        """Of an SDE none is given."""
        return
