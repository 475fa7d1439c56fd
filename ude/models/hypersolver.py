"""A cheap method with constant steps and a network that knows its error."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ude._typing import FlatField, VectorField
from ude.methods import Euler
from ude.methods.combination import combination
from ude.methods.explicit import ExplicitRungeKutta
from ude.methods.method import Carry, StepResult
from ude.methods.tableau import cubic_hermite


class Hypersolver(nn.Module):
    r"""Method with a learned correction, $y_1 = \Phi_{\Delta t}(y_0) + \Delta t^{p+1}\, g(t, \Delta t, y_0, \dot y_0)$.

    $\Phi$ is a step of an explicit method of order $p$, and $g$ stands for its residual
    $R = (y(t + \Delta t) - \Phi_{\Delta t}(y(t))) / \Delta t^{p+1}$. With the exact residual at $\Delta t \to 0$ the
    order is $p + 1$; with a trained one the error constant is that of the fit. For a field that is solved often, such
    as that of a trained neural ODE: train the correction with `residual_loss` along accurate solutions, then give the
    hypersolver as the method of an `Integrator` with `dt`.

    It costs what the base method costs, and one evaluation more for methods that take over the last stage of the step
    before, which the correction makes invalid. There is no error estimate.

    Args:
        correction: Called as `g(t, dt, y, dy)` with `y` and the rate `dy` of shape `(batch, features)`, time and signed
            step length of shape `(batch, 1)`; returns what looks like `y`. `ResidualNetwork` is one.
        base: The method that is corrected.
        features: Numbers per sample where a mini-batch is solved as one state; None where the solve is batched.

    Raises:
        ValueError: If the base is no explicit Runge-Kutta method, or the correction cannot be called.

    Example:
        For $\dot y = y$ the residual of Euler's method is $y / 2 + O(\Delta t)$:

        >>> method = Hypersolver(lambda t, dt, y, dy: y / 2)
        >>> t, dt, y = torch.zeros(1), torch.ones(1), torch.ones(1, 1)
        >>> method.step(lambda t, y: y, t, dt, y, ()).y1
        tensor([[2.5000]])

    Reference:
        Poli, Massaroli, Yamashita, Asama & Park (2020), Hypersolvers: toward fast continuous-depth models,
        arXiv:2007.09601, section 3.
    """

    def __init__(
        self,
        correction: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
        base: ExplicitRungeKutta = Euler(),  # noqa: B008
        *,
        features: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(base, ExplicitRungeKutta):
            raise ValueError(f"`base` must be an explicit Runge-Kutta method such as `Euler()`, got {base!r}.")
        if not callable(correction) or isinstance(correction, type):
            raise ValueError(f"`correction` must be a module or function g(t, dt, y, dy), got {correction!r}.")
        if features is not None and features < 1:
            raise ValueError(f"`features` must be at least 1, got {features}.")
        self.correction, self.base, self.features = correction, base, features

    def __str__(self) -> str:
        return f"Hypersolver({self.base})"

    @property
    def order(self) -> int:
        """Order of the base method; with the exact residual one more."""
        return self.base.order

    @property
    def error_order(self) -> None:
        """There is no error estimate."""
        return

    @property
    def evaluations(self) -> int:
        """Evaluations of the vector field in one step."""
        return len(self.base.tableau.b)

    @property
    def init_evaluations(self) -> int:
        """Evaluations of the vector field in `init`."""
        return 0

    @property
    def dense_evaluations(self) -> int:
        """One, at the end of the step, for the cubic that is the continuous extension."""
        return 1

    def init(self, f: FlatField, t: Tensor, y: Tensor) -> Carry:
        """Return nothing: the correction moves the end of the step away from where the last stage was evaluated."""
        return ()

    def step(self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, carry: Carry) -> StepResult:
        """Take one step from `t` to `t + dt`; the last stage is the correction, as a rate.

        Args:
            f: Vector field, called as `f(t, y)`.
            t: Start of the step, shape `(batch,)`.
            dt: Signed length of the step, shape `(batch,)`.
            y: State at `t`, shape `(batch, state)`.
            carry: Nothing.
        """
        step = self.base.step(f, t, dt, y, self.base.init(f, t, y))
        length = dt.to(y.dtype).unsqueeze(-1)
        correction = length**self.base.order * self._correct(t, dt, y, step.stages[0])
        stages = (*step.stages, correction)
        y1 = torch.addcmul(step.y1, length, correction)
        return StepResult(y1=y1, error=None, stiffness=step.stiffness, stages=stages, carry=())

    def dense_stages(self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, step: StepResult) -> tuple[Tensor, ...]:
        """Return the stages that `dense_weights` refers to; one evaluation."""
        y1 = torch.addcmul(y, dt.to(y.dtype).unsqueeze(-1), combination(self._weights, step.stages))
        return (*step.stages, f(t + dt, y1))

    def dense_weights(self, theta: Tensor) -> Tensor:
        r"""Weights of the cubic with the values and slopes at both ends, shape `(stages, *theta.shape)`.

        Args:
            theta: Fraction of the step, between 0 and 1; real, any shape.
        """
        rows = cubic_hermite((*self._weights, 0.0))
        powers = torch.stack([theta, theta.square(), theta**3])
        return torch.tensordot(theta.new_tensor(rows), powers, dims=1)

    def residual_loss(self, field: VectorField, ts: Tensor, ys: Tensor) -> Tensor:
        r"""Mean square of $g - R$ over the steps of a grid, to be minimised in the parameters of $g$.

        Field and states are taken as they are: only the correction gets a gradient.

        Args:
            field: Called as `f(t, y)`.
            ts: Times of the grid, shape `(times,)`.
            ys: Accurate states there, shape `(times, *batch, features)`.

        Raises:
            ValueError: If there is no step or shapes do not fit together.
        """
        if ys.ndim < 2 or ts.shape != ys.shape[:1] or len(ts) < 2:
            raise ValueError(
                "`ts` must hold at least 2 times and `ys` the states there, (times, *batch, features), got shapes "
                f"{tuple(ts.shape)} and {tuple(ys.shape)}."
            )
        flat: FlatField = lambda t, y: field(t.reshape(()), y.reshape(ys.shape[1:])).reshape(1, -1)  # noqa: E731
        losses = []
        for t, t1, y, y1 in zip(ts[:-1], ts[1:], ys[:-1].detach(), ys[1:].detach(), strict=True):
            start, dt, state = t.reshape(1), (t1 - t).reshape(1), y.reshape(1, -1)
            with torch.no_grad():
                step = self.base.step(flat, start, dt, state, self.base.init(flat, start, state))
                residual = (y1.reshape(1, -1) - step.y1) / dt ** (self.base.order + 1)
            rows, rates, residuals = (x.reshape(-1, ys.shape[-1]) for x in (state, step.stages[0], residual))
            values = self.correction(start.expand(len(rows), 1), dt.expand(len(rows), 1), rows, rates)
            losses.append((values - residuals).square().mean())
        return torch.stack(losses).mean()

    @property
    def _weights(self) -> tuple[float, ...]:
        """Those of the solution: of the base, and of the correction."""
        return (*self.base.tableau.b, 1.0)

    def _correct(self, t: Tensor, dt: Tensor, y: Tensor, rate: Tensor) -> Tensor:
        """Return the correction of the state, `(batch, state)`, whose rows may hold several samples."""
        features = y.shape[-1] if self.features is None else self.features
        if y.shape[-1] % features:
            raise ValueError(
                f"A state of {y.shape[-1]} numbers does not divide into samples of `features` = {features} numbers."
            )
        samples = y.shape[-1] // features
        times, lengths = (x.to(y.dtype).repeat_interleave(samples).unsqueeze(-1) for x in (t, dt))
        correction = self.correction(times, lengths, y.reshape(-1, features), rate.reshape(-1, features))
        if correction.shape != (len(y) * samples, features):
            raise ValueError(
                f"`correction` must return what looks like its `y`, of shape {(len(y) * samples, features)}, got "
                f"{tuple(correction.shape)}."
            )
        return correction.reshape(y.shape)


class ResidualNetwork(nn.Module):
    r"""Correction of a `Hypersolver`, $g(t, \Delta t, y, \dot y) = N(y, \dot y, t, \Delta t)$, all side by side.

    Args:
        network: From `(batch, 2 * features + 2)` to `(batch, features)`, such as `MLP(2 * d + 2, d)`.

    Example:
        >>> from ude.models.mlp import MLP
        >>> net, y, t = ResidualNetwork(MLP(6, 2)), torch.ones(5, 2).double(), torch.zeros(5, 1).double()
        >>> net(t, t, y, y).shape
        torch.Size([5, 2])
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, t: Tensor, dt: Tensor, y: Tensor, dy: Tensor) -> Tensor:
        """Return the network's residual."""
        return self.network(torch.cat([y, dy, t, dt], dim=-1))
