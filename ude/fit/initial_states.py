"""Where every trajectory starts: measured, given or learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ude._checks import InputError
from ude.fit.smoothing import SmoothCurves
from ude.problems import Trajectories


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialStates:
    """Which initial states are given and which are learned.

    A state that is neither given nor measured at the first time starts at its smoothed curve, and is learned.

    Args:
        values: Given initial values: state name to a number or a tensor `(groups,)`; or one tensor of shape
            `(states,)`, `(groups, states)` or `(replicates, groups, states)`, NaN where the data decide. A
            state that was never measured needs a value, if only as a guess to learn from.
        learn: Names of the states whose start is learned; True for all, False for none but those that have
            to be.

    Example:
        >>> InitialStates(values={"exposed": 10.0}, learn=("exposed",)).learn
        ('exposed',)
    """

    values: Mapping[str, float | Tensor] | Tensor | None = None
    learn: bool | tuple[str, ...] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Initial states with a mask of those that are learned.

    Args:
        values: Shape `(data sets, groups, states)`; there is one data set, or one per replicate.
        is_learned: Shape `(groups, states)`.
    """

    values: Tensor
    is_learned: Tensor


def resolve_start(
    spec: Literal["data", "learn"] | Tensor | InitialStates,
    data: Sequence[Trajectories],
    curves: Sequence[SmoothCurves],
) -> Start:
    """Return the initial states that `spec` describes.

    Raises:
        InputError: If a state was never measured and has no value.
        ValueError: If a name or a shape does not fit.
    """
    if isinstance(spec, str):
        if spec not in ("data", "learn"):
            raise ValueError(f"`y0` must be 'data', 'learn', a tensor or `InitialStates`, got {spec!r}.")
        spec = InitialStates(learn=spec == "learn")
    elif isinstance(spec, Tensor):
        spec = InitialStates(values=spec)
    states, first = data[0].states, torch.stack([d.ys[:, 0] for d in data])
    smoothed = torch.stack([c.ys[:, 0] for c in curves])
    given = _given(spec.values, states, first)
    values = torch.where(given.isnan(), torch.where(first.isnan(), smoothed, first), given)
    lost = values.isnan().any(dim=0).any(dim=0)
    if bool(lost.any()):
        names = [name for name, is_lost in zip(states, lost.tolist(), strict=True) if is_lost]
        raise InputError(
            f"The initial value of {', '.join(names)} is unknown: it was never measured. Give it, for example as "
            f"`y0=InitialStates(values={{{names[0]!r}: 1.0}})`, with `learn=({names[0]!r},)` if it is only a guess."
        )
    is_learned = (given.isnan() & first.isnan()).any(dim=0)
    return Start(values=values, is_learned=is_learned | _chosen(spec.learn, states))


def _given(values: Mapping[str, float | Tensor] | Tensor | None, states: tuple[str, ...], like: Tensor) -> Tensor:
    """Return the given values, NaN where none, shape `(1 or replicates, groups, states)`."""
    if isinstance(values, Tensor):
        shapes = [(len(states),), tuple(like.shape[1:])]
        if tuple(values.shape) not in shapes and tuple(values.shape[-2:]) != shapes[1]:
            raise ValueError(
                f"`y0` must have shape (states,), (groups, states) or (replicates, groups, states) with "
                f"{len(states)} states and {like.shape[1]} groups, got {tuple(values.shape)}."
            )
        return values.detach().to(like).expand(*values.shape[:-2], *like.shape[-2:]).reshape(-1, *like.shape[1:])
    result = torch.full_like(like[:1], torch.nan)
    for name, value in (values or {}).items():
        if name not in states:
            raise ValueError(f"`y0` names {name!r}, which is not among the states {states}.")
        result[..., states.index(name)] = torch.as_tensor(value).to(like)
    return result


def _chosen(learn: bool | tuple[str, ...], states: tuple[str, ...]) -> Tensor:
    if isinstance(learn, bool):
        return torch.full((len(states),), learn)
    strange = [name for name in learn if name not in states]
    if strange:
        raise ValueError(f"`learn` names {strange}, which are not among the states {states}.")
    return torch.tensor([name in learn for name in states])
