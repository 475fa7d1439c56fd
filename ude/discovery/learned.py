"""What fitted networks say: their trajectories and the unknown terms along them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ude._checks import InputError
from ude.ad import functional_call, vjp
from ude.discovery.candidates import Column, Learned
from ude.discovery.shooting import Grid, layout_of
from ude.fit import Fit
from ude.methods import Tsit5
from ude.models import UDE, Signal, Term
from ude.problems import Trajectories

# A solution is accurate enough when its error is this part of the noise, or of the spread of the data.
ERROR_PER_NOISE = 0.02
ERROR_PER_SCALE = 1e-6
# Members that fit the data much worse than the best one have learned something else.
TOLERATED_LOSS = 4.0
# Points along the learned trajectories of each model at which networks and library are compared, at least half of it.
SAMPLES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Fitted models with the data they were fitted to.

    Args:
        models: Models, the best first.
        y0s: Their initial states, shape `(models, groups, states)`.
        data: Measurements.
        signal: Exogenous inputs.
    """

    models: tuple[UDE, ...]
    y0s: Tensor
    data: Trajectories
    signal: Signal | None

    @classmethod
    def of(cls, source: Fit | UDE | Sequence[UDE], data: Trajectories | None, y0: Tensor | None) -> Case:
        """Take the models out of what a user passes.

        Raises:
            InputError: If data or initial states are missing.
        """
        if isinstance(source, Fit):
            return _from_fit(source, data)
        models = (source,) if isinstance(source, UDE) else tuple(source)
        if data is None:
            raise ValueError("Pass the measurements, `discover(model, data)`, or a `Fit`, which holds them.")
        if not models:
            raise ValueError("`discover` needs at least one fitted model.")
        start = data.ys[:, 0] if y0 is None else y0.to(data.ys).expand(len(data.groups), -1)
        if bool(start.isnan().any()):
            raise InputError("Some initial states were not measured. Pass the fitted ones as `y0`, or pass a `Fit`.")
        return cls(models=models, y0s=start.expand(len(models), -1, -1), data=data, signal=_signal(models[0], data))

    @property
    def model(self) -> UDE:
        """The best model."""
        return self.models[0]

    @property
    def scale(self) -> Tensor:
        """Spread of every state, or its size where it does not vary, shape `(states,)`."""
        values = torch.cat([self.data.ys.flatten(0, 1), self.y0s[0]])
        spread = (values - values.nanmean(0)).square().nanmean(0).sqrt()
        size = values.nan_to_num(nan=0.0).abs().amax(0)
        return torch.where(spread > 1e-9 * size, spread, torch.where(size > 0, size, 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Solutions of the fitted models.

    Args:
        t: Times after every step, shape `(steps + 1, groups)`.
        ys: States there, shape `(models, steps + 1, groups, states)`.
        at: Which of these are the times of the data, shape `(times,)`.
        dt: Longest step.
    """

    t: Tensor
    ys: Tensor
    at: Tensor
    dt: float

    @property
    def time_scale(self) -> float:
        """Shortest time in which a state of the best solution changes by its standard deviation."""
        step = self.t.diff(dim=0).unsqueeze(-1)
        rates = self.ys[0].diff(dim=0) / torch.where(step > 0, step, torch.inf)
        size, spread = rates.square().mean((0, 1)).sqrt(), self.ys[0].flatten(0, 1).std(dim=0)
        moving = size > 0
        return float((spread[moving] / size[moving]).amin()) if bool(moving.any()) else float(self.t[-1].max())

    @property
    def at_data(self) -> Tensor:
        """States at the times of the data, shape `(models, groups, times, states)`."""
        return self.ys[:, self.at].transpose(1, 2)


@torch.no_grad()
def solve_learned(case: Case) -> Paths:
    """Solve the fitted models with steps short enough for the best of them.

    Raises:
        InputError: If the best model cannot be solved over the data.
    """
    ts = case.data.ts
    dt = float((ts[:, -1] - ts[:, 0]).max()) / max(ts.shape[1] - 1, 8)
    best = _path(case.model, case.y0s[0], Grid.of(ts, dt), case.signal)
    for _ in range(8):
        finer = _path(case.model, case.y0s[0], Grid.of(ts, dt / 2), case.signal)
        coarse, fine = best[Grid.of(ts, dt).at], finer[Grid.of(ts, dt / 2).at]
        noise = (fine.transpose(0, 1) - case.data.ys).square().nanmean((0, 1)).sqrt().nan_to_num(nan=0.0)
        error = (coarse - fine).abs().amax((0, 1))
        if bool((error <= torch.maximum(ERROR_PER_NOISE * noise, ERROR_PER_SCALE * case.scale)).all()):
            break
        dt, best = dt / 2, finer
    if not bool(best.isfinite().all()):
        raise InputError(
            "The fitted model cannot be solved over the times of the data: its solution grows without bound. Fit it "
            "again, for example with more replicates."
        )
    grid = Grid.of(ts, dt)
    others = [_path(m, y0, grid, case.signal) for m, y0 in zip(case.models[1:], case.y0s[1:], strict=True)]
    kept = [best, *(p for p in others if bool(p.isfinite().all()))]
    t = torch.cat([ts[:, :1].T, grid.t + grid.dt])
    return Paths(t=t, ys=torch.stack(kept), at=grid.at, dt=dt)


@torch.no_grad()
def learn(case: Case, paths: Paths, candidate: UDE, columns: Sequence[Column]) -> Learned:
    """Compare networks and library in the rates along the learned trajectories.

    Args:
        case: The fitted models.
        paths: Their solutions.
        candidate: The model with a `SparseTerm` in place of every unknown term.
        columns: All its coefficients.
    """
    stride = max(1, paths.t.numel() // SAMPLES)
    t = paths.t.flatten()[::stride]
    signal = None if case.signal is None else case.signal(paths.t).flatten(0, 1)[::stride]
    derivatives, contributions = [], []
    for model, ys in zip(case.models, paths.ys, strict=False):
        y = ys.flatten(0, 1)[::stride]
        rates = model(t, y, signal)
        size = rates.square().mean(0).sqrt()
        size = torch.where(size > 0, size, 1.0).unsqueeze(-1)
        derivative = _rate_derivative(candidate, model.physical.raw.detach(), t, y, signal)
        derivatives.append((derivative / size).flatten(0, 1))
        alone = [rates - _without(model, name, output)(t, y, signal) for name, output in _outputs(model)]
        contributions.append((torch.stack(alone, dim=-1) / size).flatten(0, 1))
    return Learned.of(columns, torch.stack(derivatives), torch.stack(contributions))


def _rate_derivative(candidate: UDE, raw: Tensor, t: Tensor, y: Tensor, signal: Tensor | None) -> Tensor:
    """Derivative of the rates by coefficients (at zero) and physical parameters, `(samples, states, parameters)`."""
    layout = layout_of(candidate, 1)
    rows = candidate.replicate(len(y), torch.Generator().manual_seed(0))
    shared = torch.cat([raw.new_zeros(layout.coefficients), raw]).to(y).expand(len(y), -1)

    def rates(shared: Tensor) -> Tensor:
        tensors = {name.removeprefix("model."): value for name, value in layout.tensors(shared).items()}
        return functional_call(rows, tensors, (t, y, signal))

    value, pullback = vjp(rates, shared)
    directions = torch.eye(value.shape[-1]).to(value)
    return torch.stack([pullback(direction.expand_as(value))[0] for direction in directions], dim=1)


def _outputs(model: UDE) -> list[tuple[str, int]]:
    return [(name, i) for name, term in model.terms.items() for i in range(len(cast("Term", term).outputs))]


def _without(model: UDE, name: str, output: int) -> UDE:
    """Return the model with one output of one term set to zero."""
    return model.replace(name, _Silenced(model.terms[name], output))


class _Silenced(nn.Module):
    def __init__(self, term: nn.Module, output: int) -> None:
        super().__init__()
        self.term, self.output = term, output

    def forward(self, x: Tensor) -> Tensor:
        value = self.term(x)
        kept = torch.arange(value.shape[-1], device=value.device) != self.output
        return torch.where(kept, value, 0.0)


def _path(model: UDE, y0: Tensor, grid: Grid, signal: Signal | None) -> Tensor:
    """Solve one model, shape `(steps + 1, groups, states)`."""
    field, method = model.latent_field(), Tsit5()

    def rate(t: Tensor, z: Tensor) -> Tensor:
        return field(t, z, None if signal is None else signal(t))

    z = model.coordinates.encode(y0)
    path = [z]
    for t, dt in zip(grid.t, grid.dt, strict=True):
        z = method.step(rate, t, dt, z, method.init(rate, t, z)).y1
        path.append(z)
    return model.coordinates.decode(torch.stack(path))


def _from_fit(fit: Fit, data: Trajectories | None) -> Case:
    if len(fit.data_sets) > 1:
        chosen = [fit.best]
    else:
        losses = fit.losses.nan_to_num(nan=torch.inf)
        order = losses.argsort().tolist()
        chosen = [i for i in order if float(losses[i]) <= TOLERATED_LOSS * float(losses[order[0]])] or order[:1]
    return Case(
        models=tuple(fit.members[i] for i in chosen),
        y0s=fit.y0s[chosen].detach(),
        data=fit.data if data is None else data,
        signal=fit.signal,
    )


def _signal(model: UDE, data: Trajectories) -> Signal | None:
    if not model.inputs:
        return None
    absent = [name for name in model.inputs if name not in data.input_names]
    if absent or data.inputs is None:
        raise InputError(f"The model needs the inputs {absent}, but the data have {data.input_names or 'none'}.")
    return Signal.linear(data.ts, data.inputs[..., [data.input_names.index(name) for name in model.inputs]])
