r"""Residuals of many candidate equations against the data, and their exact derivative.

Candidates differ in which coefficients of the library are free and in their values, not in shape: all are solved
as one batch, with constant steps on a grid that contains the times of the data. Each step is a map
$y_{n+1} = \Phi_n(y_n, \theta)$. The derivatives $A_n = \partial\Phi_n / \partial y$ and
$B_n = \partial\Phi_n / \partial\theta$ of all steps of all candidates come from one batched reverse pass, and the
sensitivities from the recursion $S_{n+1} = A_n S_n + B_n$. To rounding this is the derivative of the discrete
solution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ude.ad import functional_call, vjp
from ude.discovery.sparse_term import SparseTerm
from ude.methods import Method, Tsit5
from ude.models import UDE, Signal
from ude.problems import Trajectories


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Constant steps between the times of the data.

    Args:
        t: Start of every step, shape `(steps, groups)`.
        dt: Its length, zero where a trajectory has ended, same shape.
        at: Number of steps before each time of the data, shape `(times,)`.
    """

    t: Tensor
    dt: Tensor
    at: Tensor

    @classmethod
    def of(cls, ts: Tensor, dt: float) -> Grid:
        """Divide the intervals between `ts` of shape `(groups, times)` into steps no longer than `dt`."""
        widths = ts.diff(dim=1)
        counts = [max(1, math.ceil(width / dt - 1e-9)) for width in widths.amax(0).tolist()]
        starts, lengths = [], []
        for j, count in enumerate(counts):
            length = widths[:, j] / count
            starts += [ts[:, j] + i * length for i in range(count)]
            lengths += [length] * count
        at = torch.tensor([0, *counts]).cumsum(0)
        return cls(t=torch.stack(starts), dt=torch.stack(lengths), at=at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Which entry of a parameter vector is what: library coefficients, physical parameters, initial states.

    Args:
        terms: Name of every unknown term with its numbers of outputs and features.
        physical: Number of learnable physical parameters.
        groups: Number of trajectories.
        states: Number of states.
    """

    terms: tuple[tuple[str, int, int], ...]
    physical: int
    groups: int
    states: int

    @property
    def coefficients(self) -> int:
        """Number of library coefficients of all terms."""
        return sum(outputs * features for _, outputs, features in self.terms)

    @property
    def shared(self) -> int:
        """Number of parameters that all trajectories share: coefficients and physical parameters."""
        return self.coefficients + self.physical

    @property
    def size(self) -> int:
        """Length of a parameter vector."""
        return self.shared + self.groups * self.states

    def tensors(self, shared: Tensor) -> dict[str, Tensor]:
        """Return coefficients and physical parameters `(rows, shared)` by their names in the model."""
        result, start = {}, 0
        for name, outputs, features in self.terms:
            stop = start + outputs * features
            block = shared[:, start:stop].reshape(-1, outputs, features)
            result[f"model.terms.{name}.network.coefficients"] = block
            start = stop
        if self.physical:
            result["model.physical.raw"] = shared[:, start:]
        return result


class _Steps(nn.Module):
    """Steps of the model, one row per replicate."""

    def __init__(self, model: UDE, method: Method, signal: Signal | None) -> None:
        super().__init__()
        self.model, self.method, self.signal = model, method, signal
        self.field = model.latent_field()

    def forward(self, t: Tensor, dt: Tensor, z: Tensor) -> Tensor:
        """Return the states after every step, shape `(steps, rows, states)`.

        Args:
            t: Start of every step, shape `(steps, rows)`.
            dt: Its length, same shape.
            z: States at the first `t`, shape `(rows, states)`.
        """
        carry, path = self.method.init(self._rate, t[0], z), []
        for start, length in zip(t, dt, strict=True):
            step = self.method.step(self._rate, start, length, z, carry)
            z, carry = step.y1, step.carry
            path.append(z)
        return torch.stack(path)

    def _rate(self, t: Tensor, z: Tensor) -> Tensor:
        return self.field(t, z, None if self.signal is None else self.signal(t))


class Shooting:
    """Residuals of candidates, as `LevenbergMarquardt` asks for them.

    Args:
        model: The model with a `SparseTerm` in place of every unknown term.
        data: Measurements.
        weights: One over the standard deviation of the noise of each state, shape `(states,)`.
        dt: Longest step.
        signal: Exogenous inputs, one group per trajectory.
        ys: Measurements in place of those of `data`, a set for every problem, shape
            `(problems, groups, times, states)`; NaN where those of `data` are.
        emphasis: Weight of every squared residual of every problem, shape `(problems, groups, times, states)`: how
            often a bootstrap sample contains it. All one if not given.
    """

    def __init__(
        self,
        model: UDE,
        data: Trajectories,
        weights: Tensor,
        dt: float,
        *,
        signal: Signal | None = None,
        ys: Tensor | None = None,
        emphasis: Tensor | None = None,
    ) -> None:
        self.model, self.data, self.signal, self.dt = model, data, signal, dt
        self.method = Tsit5()
        self.grid = Grid.of(data.ts, dt)
        self.layout = layout_of(model, len(data.ts))
        self.is_measured = ~data.ys.isnan()
        self.set_weights(weights)
        self.emphasis = None if emphasis is None else emphasis.sqrt()
        self._ys = (data.ys if ys is None else ys).nan_to_num(nan=0.0)
        self._built: dict[int, _Steps] = {}

    def set_weights(self, weights: Tensor) -> None:
        """Multiply the errors of every state by its weight, shape `(states,)`."""
        self.weights = torch.where(self.is_measured, weights, 0.0)

    def halved(self) -> Shooting:
        """Return the same residuals with steps of half the length."""
        other = Shooting(self.model, self.data, self.weights.amax((0, 1)), self.dt / 2, signal=self.signal)
        other._ys, other.emphasis = self._ys, self.emphasis
        return other

    @torch.no_grad()
    def nodes(self, theta: Tensor) -> Tensor:
        """Solve every candidate, shape `(problems, steps + 1, groups, states)`, in the model's coordinates."""
        count, groups = len(theta), self.layout.groups
        shared = theta[:, : self.layout.shared].repeat_interleave(groups, dim=0)
        z = theta[:, self.layout.shared :].reshape(count * groups, -1)
        t, dt = self.grid.t.repeat(1, count), self.grid.dt.repeat(1, count)
        path = functional_call(self._steps(len(shared)), self.layout.tensors(shared), (t, dt, z))
        return torch.cat([z.unsqueeze(0), path]).reshape(-1, count, groups, z.shape[-1]).movedim(0, 1)

    def states(self, nodes: Tensor) -> Tensor:
        """Return the states at the times of the data, shape `(problems, groups, times, states)`."""
        return self.model.coordinates.decode(nodes[:, self.grid.at]).movedim(1, 2)

    def residuals(self, theta: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return weighted residuals, and the states after every step."""
        nodes = self.nodes(theta)
        ys = self._ys if self._ys.ndim == 3 else self._ys[rows]
        difference = (self.states(nodes) - ys) * self._weights(rows)
        # Values that were not measured do not count, even where the solution is not finite.
        flat = torch.where(self.is_measured, difference, 0.0).flatten(1)
        broken = ~nodes.flatten(1).isfinite().all(1)
        return torch.where(broken.unsqueeze(1), torch.nan, flat), nodes

    def jacobian(self, theta: Tensor, rows: Tensor, memo: Tensor) -> Tensor:
        """Return the derivative of the weighted residuals; `memo` are the states after every step."""
        layout = self.layout
        by_state, by_shared = self._step_derivatives(theta, memo)
        sensitivity = torch.zeros(len(theta), layout.groups, layout.states, layout.shared + layout.states).to(theta)
        sensitivity[..., layout.shared :] = torch.eye(layout.states).to(theta)
        path = [sensitivity]
        for a, b in zip(by_state.unbind(1), by_shared.unbind(1), strict=True):
            sensitivity = a @ sensitivity
            sensitivity[..., : layout.shared] += b
            path.append(sensitivity)
        at_data = torch.stack([path[i] for i in self.grid.at.tolist()], dim=2)
        states = self.states(memo)
        chain = self._weights(rows) / self.model.coordinates.velocity(states, torch.ones_like(states))
        scaled = at_data * chain.unsqueeze(-1)
        return self._assemble(scaled)

    def _assemble(self, sensitivity: Tensor) -> Tensor:
        """Give every trajectory columns of its own for its initial states."""
        count, groups, times, states, _ = sensitivity.shape
        shared, own = sensitivity.split([self.layout.shared, states], dim=-1)
        starts = own.new_zeros(count, groups, times, states, groups, states)
        for g in range(groups):
            starts[:, g, :, :, g] = own[:, g]
        return torch.cat([shared, starts.flatten(-2)], dim=-1).flatten(1, 3)

    def _step_derivatives(self, theta: Tensor, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Derivatives of every step, shapes `(problems, steps, groups, states, states)` and `(..., shared)`."""
        count, layout = len(theta), self.layout
        steps = len(self.grid.t)
        shared = theta[:, : layout.shared].repeat_interleave(steps * layout.groups, dim=0)
        t, dt = self.grid.t.reshape(1, -1).repeat(1, count), self.grid.dt.reshape(1, -1).repeat(1, count)
        z = nodes[:, :-1].reshape(-1, layout.states)
        module = self._steps(len(z))
        value, pullback = vjp(
            lambda z, shared: functional_call(module, layout.tensors(shared), (t, dt, z))[0], z, shared
        )
        rows = [pullback(direction.expand_as(value)) for direction in torch.eye(layout.states).to(value)]
        shape = (count, steps, layout.groups, layout.states, -1)
        by_state, by_shared = (torch.stack(parts, dim=1).reshape(shape) for parts in zip(*rows, strict=True))
        return by_state, by_shared

    def _steps(self, rows: int) -> _Steps:
        if rows not in self._built:
            # Only the structure is used: parameters come with every call.
            generator = torch.Generator().manual_seed(0)
            self._built[rows] = _Steps(self.model.replicate(rows, generator), self.method, self.signal)
        return self._built[rows]

    def _weights(self, rows: Tensor) -> Tensor:
        return self.weights if self.emphasis is None else self.weights * self.emphasis[rows]


def layout_of(model: UDE, groups: int) -> Layout:
    """Return the layout of the parameters of a model whose unknown terms are all `SparseTerm`."""
    terms = []
    for name, term in model.terms.items():
        network = term.get_submodule("network")
        assert isinstance(network, SparseTerm)
        terms.append((name, *network.coefficients.shape[-2:]))
    return Layout(
        terms=tuple(terms),
        physical=len(model.physical.names),
        groups=groups,
        states=len(model.states),
    )
