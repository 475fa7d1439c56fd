"""Everything about a solve that does not depend on its state: interval, times, tolerances, bounds of steps."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ude._typing import State
from ude.ad.recording import is_transformed
from ude.problems import Problem
from ude.solve.events import Event, schedule
from ude.solve.events.schedule import Schedule
from ude.solve.flatten import Layout, broadcast_tolerance
from ude.solve.step import Limits
from ude.solve.times import MANY, Span, read_save_at, read_span


class Frame(NamedTuple):
    """What a solve stays within.

    Args:
        span: The interval.
        times: Times to save at, shape `(times, batch)`; None for the ends of all steps.
        stops: Times at which steps must end.
        limits: Those and the tolerances, as a step needs them.
    """

    span: Span
    times: Tensor | None
    stops: Schedule
    limits: Limits


class Bounds(NamedTuple):
    """Arguments of `solve` that a frame is made of."""

    stop_at: Tensor | Sequence[float] | None
    events: Sequence[Event]
    rtol: float | State
    atol: float | State
    min_step: float
    max_step: float


def read_frame(
    problem: Problem, layout: Layout, y0: Tensor, save_at: Tensor | Sequence[float] | None, bounds: Bounds
) -> tuple[Tensor | None, Frame]:
    """Return the times to save at in the user's shape, and the frame, having checked it.

    Frames of small problems given by numbers are kept by their numbers: training solves in the same one over and
    over, and making it anew would take as long as a short solve by compiled steps.

    Raises:
        ValueError: If a time, a tolerance or a bound cannot be used.
    """
    given = None if save_at is None else torch.as_tensor(save_at, dtype=y0.real.dtype, device=y0.device)
    key = _key(problem, y0, given, bounds)
    if key is None:
        return given, _make(problem, layout, y0, given, bounds)
    frame, version = _kept.get(key, (None, None))
    # The vector field is given views of these times: one that writes into them has spoilt them for others.
    if frame is None or version != _version(frame):
        with torch.inference_mode(False), torch.no_grad():
            frame = _make(problem, layout, y0, None if given is None else given.clone(), bounds)
        with _lock:
            _kept[key] = frame, _version(frame)
            while len(_kept) > KEPT:
                _kept.popitem(last=False)
    return given, frame


KEPT = 32
"""Frames that are kept, the latest ones."""
SMALL = 1_024
"""Most samples of a frame that is kept."""

_kept: OrderedDict[Hashable, tuple[Frame, int]] = OrderedDict()
_lock = threading.Lock()


def _version(frame: Frame) -> int:
    """Return a number that grows when anything is written into a tensor of the frame."""
    span, times, stops, limits = frame
    tensors = (span.t0, span.t1, span.direction, times, stops.times, stops.before, *limits)
    return sum(x._version for x in tensors if x is not None)


def _key(problem: Problem, y0: Tensor, given: Tensor | None, bounds: Bounds) -> Hashable | None:
    """Return the numbers that a frame is made of, None if it is not made of few numbers alone."""
    stop_at, events, *numbers = bounds
    numbers += problem.t_span
    if stop_at is not None or len(events) or len(y0) > SMALL or not all(isinstance(x, int | float) for x in numbers):
        return None
    if given is not None and (given.ndim != 1 or len(given) > MANY or given.requires_grad):
        return None
    if type(y0) is not Tensor or is_transformed():  # what is made now may not outlive the transform
        return None
    times = None if given is None else tuple(given.tolist())
    return (*numbers, times, len(y0), y0.dtype, y0.device, problem.batched)


def _make(problem: Problem, layout: Layout, y0: Tensor, given: Tensor | None, bounds: Bounds) -> Frame:
    span = read_span(problem, y0)
    times = read_save_at(given, span, batched=problem.batched)
    stops = schedule(span.t0.detach(), span.t1.detach(), bounds.stop_at, bounds.events)
    return Frame(span, times, stops, _limits(problem.y0, layout, span.t0.detach(), stops, bounds))


def _limits(y0: State, layout: Layout, t0: Tensor, stops: Schedule, bounds: Bounds) -> Limits:
    min_step, max_step = bounds.min_step, bounds.max_step
    if not 0.0 <= min_step <= max_step or max_step == 0.0 or min_step == math.inf:
        raise ValueError(
            f"Steps need 0 <= min_step <= max_step, min_step finite, max_step positive, got {min_step}, {max_step}."
        )
    return Limits(
        stops=stops.times,
        before=stops.before,
        floor=torch.finfo(t0.dtype).eps ** 2 * (stops.times[-1] - t0).abs(),
        rtol=broadcast_tolerance("rtol", bounds.rtol, layout, y0, t0),
        atol=broadcast_tolerance("atol", bounds.atol, layout, y0, t0),
        shortest=t0.new_full((), min_step),
        longest=t0.new_full((), max_step),
    )
