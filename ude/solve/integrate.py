"""One solve by one engine: start, segments, and the solution made of them."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from ude.problems import Solution
from ude.solve.adjoints import Adjoint, segment_runner
from ude.solve.assemble import assemble
from ude.solve.engines import Engine, Task
from ude.solve.progress import progress_bar
from ude.solve.saving import AtEnd, AtTimes, EveryStep, Saver
from ude.solve.start import start_evaluations
from ude.solve.times import Span


class Given(NamedTuple):
    """What the solution depends on, besides parameters.

    Args:
        y0: Flat initial state, shape `(batch, state)`.
        span: The interval.
        times: Times to save at, shape `(times, batch)`; None for the ends of all steps.
    """

    y0: Tensor
    span: Span
    times: Tensor | None


class Plan(NamedTuple):
    """How long the loop may run, and what it keeps and shows.

    Args:
        max_steps: Most attempts per sample.
        dense: Keep the continuous solution.
        progress: Show a progress bar.
    """

    max_steps: int
    dense: bool
    progress: bool


def integrate(task: Task, engine: Engine, adjoint: Adjoint, plan: Plan, given: Given) -> Solution:
    """Run the loop over segments and put the result together.

    Raises:
        ValueError: If the engine cannot look for the events of the task.
    """
    y0, span, times = given
    if task.handler is not None and not engine.handles_events:
        raise ValueError(
            f'`events` need `engine="eager"`, got {engine}: compiled steps cannot look for them. '
            "Times to stop at without an effect can be given as `stop_at`."
        )
    engine, point, carries_gradient = engine.start(task, span.t0, y0)
    evaluations = start_evaluations(task.method, chooses=task.first is None and span.moves)
    if task.handler is not None:
        watch, looks = task.handler.watch(point.t, point.y)
        point, evaluations = point._replace(watch=watch), evaluations + looks
        carries_gradient = task.differentiate
    saver = _saver(times, span)
    dense = plan.dense and adjoint.keeps_trace
    with progress_bar(span.t0, span.t1) if plan.progress else nullcontext() as report:
        keep_states = dense or saver.needs_states
        # Saving on the way makes room for all times in every segment: only where there is one.
        on_the_way = isinstance(saver, AtTimes) and not saver.differentiable and adjoint.keeps_trace and not dense
        save = saver if on_the_way else None
        task = replace(task, differentiate=carries_gradient, keep_states=keep_states, report=report, save=save)
        run = segment_runner(task, engine, saver, keep_trace=dense)
        segments = adjoint.run(run, point, plan.max_steps, engine.block, dense=dense or engine.forgets)
    only_end = isinstance(saver, AtEnd)
    return assemble(task, point, segments, times, span, evaluations, only_end=only_end, dense=dense)


def _saver(times: Tensor | None, span: Span) -> Saver:
    moving = span.carries_gradient or (times is not None and times.requires_grad)
    if times is None:
        return EveryStep(end=span.t1 if moving else None)
    if not moving and len(times) == 1 and bool((times[0] == span.t1).all()):
        return AtEnd()
    return AtTimes(ts=times, direction=span.direction, t0=span.t0.detach(), differentiable=moving)
