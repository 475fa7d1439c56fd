"""The engine that runs generated code."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ude.methods.explicit import ExplicitRungeKutta
from ude.solve.compilation import kept_for
from ude.solve.controllers import Controller
from ude.solve.engines import Beginning, Task
from ude.solve.native.bound import Bound, bind, rows_for_samples
from ude.solve.native.build import NoCompiler
from ude.solve.native.kernel import run
from ude.solve.native.libraries import forward_library, write_backward
from ude.solve.step import NOT_BEGUN, Point
from ude.solve.trace import Trace
from ude.solve.traced import Unsupported

logger = logging.getLogger("ude")

COMPONENTS = 256
"""Most numbers in the state of one sample: beyond it, the library's products of matrices are faster."""


@dataclass(frozen=True, slots=True)
class Native:
    """Generated code and what it works on; made by `Loop` for one solve.

    Args:
        bound: The program and its inputs.
    """

    bound: Bound

    @property
    def block(self) -> int:
        """Attempts are counted one by one."""
        return 1

    @property
    def handles_events(self) -> bool:
        """It does not come back after every attempt."""
        return False

    @property
    def forgets(self) -> bool:
        """States of attempts are written down only if they are wanted."""
        return True

    def start(self, task: Task, t: Tensor, y: Tensor) -> Beginning:
        """Return a point that the code itself is to begin from."""
        return Beginning(self, _not_begun(task, t, y), torch.is_grad_enabled())

    def advance(self, task: Task, point: Point, attempts: int) -> tuple[Point, Trace]:
        """Run up to `attempts` attempts."""
        assert isinstance(task.method, ExplicitRungeKutta)
        on_the_way = task.save is not None and not task.method.dense_evaluations
        return run(self.bound, task, point, attempts, keep_states=task.keep_states and not on_the_way)


def begin_natively(task: Task, t: Tensor, y: Tensor) -> Beginning | None:
    """Return the beginning of a solve by generated code, None if it does not take the problem."""
    reason = _reason_against(task, t, y)
    if reason is not None:
        logger.debug("No code of its own for this solve: %s.", reason)
        return None
    point, key = _not_begun(task, t, y), (task.layout, task.method, task.controller)
    refusals = kept_for(task.vector_field, _refusals)
    if key in refusals:
        return None
    try:
        bound = _bind(task, point, refusals, key)
        forward_library(bound)
        if torch.is_grad_enabled() and (y.requires_grad or bound.wanted):
            write_backward(bound)
    except (Unsupported, NoCompiler) as error:
        refusals.add(key)
        name = getattr(task.vector_field, "__name__", type(task.vector_field).__name__)
        logger.info("No code of its own for %s: %s", name, str(error).strip().partition("\n")[0])
        return None
    return Beginning(Native(bound), point, torch.is_grad_enabled())


_refusals: dict[int, tuple[Any, set[Any]]] = {}
"""Solves that cannot be made by generated code, by vector field."""


def _bind(task: Task, point: Point, refusals: set[Any], key: Any) -> Bound:
    """Bind the program; parameters with as many rows as there are samples have one for each, if that works."""
    if rows_for_samples(task, len(point.t)) and (key, "rows") not in refusals:
        try:
            return bind(task, point, by_rows=True)
        except Unsupported:
            refusals.add((key, "rows"))
    return bind(task, point, by_rows=False)


def _reason_against(task: Task, t: Tensor, y: Tensor) -> str | None:
    if not isinstance(task.method, ExplicitRungeKutta):
        return f"{task.method} is not an explicit method"
    if y.device.type != "cpu" or y.dtype not in (torch.float32, torch.float64):
        return f"the state is {y.dtype} on {y.device}"
    if not 0 < y.shape[-1] <= COMPONENTS or len(y) == 0:
        return f"the state has shape {tuple(y.shape)}"
    if t.requires_grad:
        return "the start time carries a gradient"
    return None


def _not_begun(task: Task, t: Tensor, y: Tensor) -> Point:
    """Return a point whose step and carry are still to be made."""
    dt, carry, memory, status, stop = _blank(task.method.init_evaluations, task.controller, *y.shape, y.dtype)
    return Point(t=t, dt=dt, y=y, carry=carry, memory=memory, status=status, stop=stop)


@functools.lru_cache(maxsize=64)
def _blank(carries: int, controller: Controller, batch: int, dimension: int, dtype: torch.dtype) -> tuple[Any, ...]:
    """Return step, carry, memory, status and stop of samples before the code begins; one number in memory each."""
    with torch.inference_mode(False), torch.no_grad():
        zero, one = torch.zeros(1, dtype=dtype), torch.ones(1, dtype=dtype)
        carry = tuple(zero.expand(batch, dimension) for _ in range(carries))
        memory = tuple(x.expand(batch) for x in controller.init(one))
        status, stop = torch.full((1,), NOT_BEGUN).expand(batch), torch.zeros(1, dtype=torch.int64).expand(batch)
        return zero.expand(batch), carry, memory, status, stop
