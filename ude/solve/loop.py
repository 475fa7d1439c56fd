"""The whole solve in one compiled loop: by generated code where that takes it, else by `torch.while_loop`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ude._typing import VectorField
from ude.methods.explicit import ExplicitRungeKutta
from ude.methods.method import Method
from ude.solve.compilation import compiled_for
from ude.solve.compiled import Compiled
from ude.solve.controllers import Controller
from ude.solve.engines import Beginning, Task
from ude.solve.flatten import Layout
from ude.solve.lowering import lower_natively
from ude.solve.native import begin_natively
from ude.solve.replayed import Replayed
from ude.solve.rows import NUMBERS, Rows, numbers_of, states_of, trace_of
from ude.solve.step import RUNNING, Limits, Point, attempt
from ude.solve.trace import Trace

MEMORY = 64 * 2**20
"""Bytes that one call of the loop may fill with states and stages."""


Run: TypeAlias = Callable[[VectorField, Any, Limits, Point, Rows, Tensor], tuple[Tensor, Point]]
"""Makes at most as many attempts as the last argument says; returns their number and where they led."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """All attempts as one piece of machine code, without Python in between: the fastest engine for many solves.

    On a CPU, with an explicit method and up to 256 numbers per sample, C++ is generated from the operations of an
    attempt on one sample. Several samples go through it side by side, each with its own steps; states are saved on the
    way, and the gradient goes back over the record of the attempts by generated code too, for one derivative.
    The first solve takes some seconds, which the logger `ude` announces; later solves with the same function or module,
    method and shapes reuse the result, whatever the values, tolerances and time spans, and later processes find the
    machine code on disk. The vector field must be traceable by `torch.compile(fullgraph=True)`.

    What the generated code does not take, such as samples that depend on each other, random numbers or large networks,
    goes through `torch.while_loop`, whose first solve takes ten seconds or more; and through `Compiled()` if it
    carries a gradient or the method is not explicit. The logger says why at the level INFO.

    On a GPU, a solve by an explicit method without a gradient runs in CUDA graphs of eight attempts each, on memory of
    their own; the device goes on with the next while the host still waits to hear whether any sample is running.
    Other solves go through `Compiled()`.

    Args:
        capacity: Most attempts in one call of `torch.while_loop`, for which memory is set aside; fewer for large
            states.
    """

    capacity: int = 256

    def __post_init__(self) -> None:
        if not isinstance(self.capacity, int) or self.capacity < 1:
            raise ValueError(f"`capacity` must be an integer of at least 1, got {self.capacity!r}.")

    @property
    def block(self) -> int:
        """Attempts are counted one by one."""
        return 1

    @property
    def handles_events(self) -> bool:
        """The loop does not come back after every attempt."""
        return False

    @property
    def forgets(self) -> bool:
        """All attempts of a segment stay."""
        return False

    def start(self, task: Task, t: Tensor, y: Tensor) -> Beginning:
        """Return the point before the first step, and generated code where it takes the problem."""
        if y.device.type == "cuda":
            return Replayed().start(task, t, y)
        beginning = begin_natively(task, t, y)
        if beginning is not None:
            return beginning
        point, gradient = task.begin(t, y, probe=True)
        loops = isinstance(task.method, ExplicitRungeKutta) and not gradient
        return Beginning(self if loops else Compiled(), point, gradient)

    def advance(self, task: Task, point: Point, attempts: int) -> tuple[Point, Trace]:
        """Run up to `attempts` attempts, in as many calls as memory asks for."""
        with torch.no_grad():
            records: list[Rows] = []
            run, rows = _run(task), self._rows(task, point)
            while attempts > 0 and (not records or bool((point.status == RUNNING).any())):
                record = _empty(task, point, rows)
                limit = torch.tensor(min(rows, attempts), device=point.t.device)
                count, point = run(task.vector_field, task.p, task.limits, _separate(point), record, limit)
                made = int(count)
                records.append(Rows(*(buffer[:made] for buffer in record)))
                attempts -= made
                if task.report is not None:
                    task.report(point.t)
        return point, trace_of(records)

    def _rows(self, task: Task, point: Point) -> int:
        row = point.y.numel() * point.y.element_size() * _stored(task)
        return max(min(self.capacity, MEMORY // max(row, 1)), 1)


def _stored(task: Task) -> int:
    """Return how many states of every attempt are written."""
    method = task.method
    stages = len(method.dense_weights(torch.zeros(()))) - method.dense_evaluations
    return 2 + stages if task.keep_states else 0


def _empty(task: Task, point: Point, rows: int) -> Rows:
    states = point.y.new_empty(rows, _stored(task), *point.y.shape) if task.keep_states else point.y.new_empty(0)
    return Rows(point.dt.new_empty(rows, NUMBERS, len(point.dt)), states)


def _separate(point: Point) -> Point:
    """Return copies that share no memory, as the compiler wants them."""
    return pytree.tree_map(lambda x: x.clone(memory_format=torch.contiguous_format), point)


def _run(task: Task) -> Run:
    configuration = ("loop", task.layout, task.method, task.controller, task.keep_states)
    return compiled_for(task.vector_field, configuration, lambda: _make(*configuration[1:]), lower_natively)


def _make(layout: Layout, method: Method, controller: Controller, keep_states: bool) -> Run:
    """Return the function that is compiled. It must not hold the vector field, which would then never be freed."""

    def loop(
        vector_field: VectorField, p: Any, limits: Limits, point: Point, record: Rows, limit: Tensor
    ) -> tuple[Tensor, Point]:
        field = layout.bind(vector_field, p)
        carries, memories = len(point.carry), len(point.memory)

        def unpacked(flat: tuple[Tensor, ...]) -> Point:
            t, dt, y, status, stop, *rest = flat
            return Point(t, dt, y, tuple(rest[:carries]), tuple(rest[carries:]), status, stop)

        def runs(count: Tensor, *flat: Tensor) -> Tensor:
            return (flat[3] == RUNNING).any() & (count < limit)

        def body(count: Tensor, *flat: Tensor) -> tuple[Tensor, ...]:
            following, made = attempt(field, method, controller, limits, unpacked(flat))
            row = count.reshape(1)
            record.numbers.index_copy_(0, row, numbers_of(made).unsqueeze(0))
            if keep_states:
                record.states.index_copy_(0, row, states_of(made).unsqueeze(0))
            return (count + 1, *(x.clone() for x in packed(following)))

        def packed(point: Point) -> tuple[Tensor, ...]:
            return (point.t, point.dt, point.y, point.status, point.stop, *point.carry, *point.memory)

        start = torch.zeros_like(limit)
        assert len(point.memory) == memories
        count, *flat = torch.while_loop(runs, body, (start, *packed(point)))
        return count, unpacked(tuple(flat))

    return loop
