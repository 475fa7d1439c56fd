"""From the arguments of `fit` to a task: checks, scales, initial states, replicates."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from ude._checks import InputError
from ude.fit.initial_states import InitialStates, resolve_start
from ude.fit.options import SolverOptions
from ude.fit.scaling import scales_of
from ude.fit.smoothing import SmoothCurves, smooth
from ude.fit.task import Task
from ude.models import UDE, Signal
from ude.problems import Trajectories


def data_sets(data: Trajectories | Sequence[Trajectories], model: UDE, dtype: torch.dtype) -> tuple[Trajectories, ...]:
    """Return the data sets, having checked that they fit the model and each other.

    Raises:
        InputError: If a trajectory is too short.
        ValueError: If names or times do not agree.
    """
    sets = (data,) if isinstance(data, Trajectories) else tuple(data)
    if not sets:
        raise ValueError("Expected at least one data set, got none.")
    for d in sets:
        if d.states != model.states:
            raise ValueError(f"The data have the states {d.states}, the model has {model.states}. Make them agree.")
        if d.ts.shape != sets[0].ts.shape or not torch.equal(d.ts, sets[0].ts):
            raise ValueError("The data sets of the replicates must share their times. Fit them one by one instead.")
    short = [name for name, ts in zip(sets[0].groups, sets[0].ts, strict=True) if not ts[-1] > ts[0]]
    if short:
        raise InputError(f"Trajectory {short[0]!r} has measurements at one time only. A fit needs at least two.")
    return tuple(_converted(d, dtype) for d in sets)


def _converted(data: Trajectories, dtype: torch.dtype) -> Trajectories:
    inputs = None if data.inputs is None else data.inputs.to(dtype)
    return dataclasses.replace(data, ts=data.ts.to(dtype), ys=data.ys.to(dtype), inputs=inputs)


def assemble(
    model: UDE,
    sets: tuple[Trajectories, ...],
    replicates: int | None,
    y0: Literal["data", "learn"] | Tensor | InitialStates,
    weights: Mapping[str, float] | Tensor | None,
    l2: float,
    solver: SolverOptions,
    generator: torch.Generator | None,
    dtype: torch.dtype,
) -> Task:
    """Return what `fit` works on; arguments as for `fit`."""
    curves = tuple(smooth(d) for d in sets)
    start = resolve_start(y0, sets, curves)
    scales = scales_of(sets, curves, start.values)
    model = (copy.deepcopy(model) if replicates is None else model.replicate(replicates, generator)).to(dtype)
    members = model.replicates or 1
    if len(sets) not in (1, members) or len(start.values) not in (1, members):
        raise ValueError(
            f"Expected one data set and one set of initial states, or one for each of the {members} replicates, got "
            f"{len(sets)} and {len(start.values)}. Set `replicates`."
        )
    signal = _signal(model, sets[0])
    _scale_terms(model, curves, signal, start.values, scales.rate)
    offset = torch.zeros(members, *start.values.shape[1:], dtype=dtype, requires_grad=True)
    return Task(
        model=model,
        field=model.latent_field(),
        members=members,
        data=sets,
        curves=curves,
        weights=_weights(weights, sets, scales.state),
        scales=scales,
        signal=signal,
        start=start,
        offset=offset,
        solver=solver,
        l2=l2,
    )


def _signal(model: UDE, data: Trajectories) -> Signal | None:
    """Return the exogenous inputs that the model names, joined by straight lines."""
    absent = [name for name in model.inputs if name not in data.input_names]
    if absent:
        raise InputError(f"The model needs the inputs {absent}, but the data have {data.input_names or 'none'}.")
    if not model.inputs or data.inputs is None:
        return None
    columns = [data.input_names.index(name) for name in model.inputs]
    return Signal.linear(data.ts, data.inputs[..., columns])


def _scale_terms(model: UDE, curves: Sequence[SmoothCurves], signal: Signal | None, y0: Tensor, rate: Tensor) -> None:
    states = y0.shape[-1]
    u = None if signal is None else signal(curves[0].ts.T).transpose(0, 1).flatten(0, 1).repeat(len(curves), 1)
    t = torch.cat([c.ts.reshape(-1) for c in curves])
    fallback = y0.expand(len(curves), -1, -1)[:, :, None]
    y = torch.cat(
        [torch.where(c.ys.isnan(), start, c.ys).reshape(-1, states) for c, start in zip(curves, fallback, strict=True)]
    )
    model.scale_terms(t, y, rate, u)


def _weights(weights: Mapping[str, float] | Tensor | None, sets: Sequence[Trajectories], scale: Tensor) -> Tensor:
    """Return the weights of the squared residuals, divided by the number of measured values of a data set."""
    ys = torch.stack([d.ys for d in sets])
    if isinstance(weights, Tensor):
        value = weights.to(ys)
    else:
        value = 1 / scale.square()
        for name, weight in (weights or {}).items():
            if name not in sets[0].states:
                raise ValueError(f"`weights` names {name!r}, which is not among the states {sets[0].states}.")
            value[sets[0].states.index(name)] = weight
    is_measured = ~ys.isnan()
    count = is_measured.sum(dim=(1, 2, 3), keepdim=True)
    if bool((count == 0).any()):
        raise InputError("There is not a single measured value to fit.")
    return value * is_measured / count
