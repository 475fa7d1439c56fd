"""Chunks of attempts that a GPU replays as one graph, without waiting for the host after each of them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ude._typing import VectorField
from ude.methods.explicit import ExplicitRungeKutta
from ude.methods.method import Method
from ude.solve.compilation import compiled_for, kept_for
from ude.solve.compiled import Compiled
from ude.solve.controllers import Controller
from ude.solve.engines import Beginning, Task
from ude.solve.flatten import Layout
from ude.solve.lowering import lower
from ude.solve.rows import Rows, numbers_of, states_of, trace_of
from ude.solve.step import RUNNING, Limits, Point, attempt
from ude.solve.trace import Trace
from ude.solve.traced import Traced, Unsupported, find

logger = logging.getLogger("ude")


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """Attempts in chunks, each one CUDA graph on memory of its own; what `Loop` is on a GPU.

    A chunk begins where the one before it ended, on the device. The host hears whether any sample is still running one
    chunk late, while the next one runs already: samples that are done stand still in it. Explicit methods without a
    gradient; others go to `Compiled()`. On a CPU the same chunks run without a graph.

    Args:
        chunk: Attempts in one graph.
    """

    chunk: int = 8

    @property
    def block(self) -> int:
        """Segments are multiples of so many attempts."""
        return self.chunk

    @property
    def handles_events(self) -> bool:
        """A chunk does not come back after every attempt."""
        return False

    @property
    def forgets(self) -> bool:
        """All attempts of a segment stay."""
        return False

    def start(self, task: Task, t: Tensor, y: Tensor) -> Beginning:
        """Return the point before the first step, and this engine where it takes the problem."""
        point, gradient = task.begin(t, y, probe=True)
        if gradient or not isinstance(task.method, ExplicitRungeKutta):
            return Beginning(Compiled(), point, gradient)
        refusals, key = kept_for(task.vector_field, _refusals), (task.layout, task.method, task.controller)
        if key in refusals:
            return Beginning(Compiled(), point, gradient)
        try:
            with torch.no_grad():
                self._machine(task, point)
        except Unsupported as error:
            refusals.add(key)
            name = getattr(task.vector_field, "__name__", type(task.vector_field).__name__)
            logger.info("No graph of attempts for %s: %s", name, str(error).strip().partition("\n")[0])
            return Beginning(Compiled(), point, gradient)
        return Beginning(self, point, gradient)

    def advance(self, task: Task, point: Point, attempts: int) -> tuple[Point, Trace]:
        """Run up to `attempts` attempts."""
        rows: list[Rows] = []
        last: _Answer | None = None
        with torch.no_grad():
            machine, inputs = self._machine(task, point)
            with machine.lock:
                machine.load(inputs)
                while attempts > 0:
                    count = min(self.chunk, attempts)
                    rows.append(machine.run(count))
                    attempts -= count
                    before, last = last, _Answer(machine.running)
                    if task.report is not None:
                        task.report(machine.point.t)
                    if before is not None and not before:
                        break
                point = pytree.tree_map(torch.clone, machine.point)
        return point, trace_of(rows)

    def _machine(self, task: Task, point: Point) -> tuple[_Machine, tuple[Tensor, ...]]:
        """Return the machine of a task, made when it is first asked for, and the tensors it is to work on."""
        configuration = ("replayed", task.layout, task.method, task.controller, task.keep_states, self.chunk)
        look = compiled_for(
            task.vector_field,
            configuration,
            lambda: _make(*configuration[1:5]),
            _Chunk.of,
            "ten seconds",
            thorough=True,
        )
        arguments = (task.p, task.limits, pytree.tree_map(torch.clone, point))
        chunk, inputs = find(look, task.vector_field, arguments)
        if chunk.machine is None:
            chunk.machine = _Machine(chunk, inputs, arguments, self.chunk)
        return chunk.machine, inputs


_refusals: dict[int, tuple[Any, set[Any]]] = {}
"""Solves that cannot be made of graphs, by vector field."""


class _Made(NamedTuple):
    """By one attempt."""

    following: Point
    numbers: Tensor
    states: tuple[Tensor, ...]


def _make(layout: Layout, method: Method, controller: Controller, keep_states: bool) -> Any:
    """Return the function that is traced. It must not hold the vector field, which would then never be freed."""

    def one_attempt(vector_field: VectorField, p: Any, limits: Limits, point: Point) -> _Made:
        field = layout.bind(vector_field, p)
        following, made = attempt(field, method, controller, limits, point)
        return _Made(following, numbers_of(made), (states_of(made),) if keep_states else ())

    return one_attempt


@dataclass(slots=True)
class _Chunk(Traced):
    """One attempt, and the machine that repeats it."""

    machine: Any = None


class _Machine:
    """Memory that stays where it is, and what makes the attempts of a chunk on it.

    Attributes:
        point: Where the integration stands.
        running: Whether any sample is not done.
        lock: To be held from `load` to the last look at the results.
    """

    def __init__(self, chunk: _Chunk, inputs: Sequence[Tensor], arguments: Any, size: int) -> None:
        device = arguments[-1].t.device
        if any(x.device != device for x in inputs):
            raise Unsupported(f"a tensor that is not on {device}, whose value a graph would keep for ever")
        self.lock, self._chunk, self._size = threading.Lock(), chunk, size
        self._given = [x.detach().clone() for x in inputs]
        points, first = pytree.tree_leaves(arguments[-1]), len(pytree.tree_leaves(arguments[:-1]))
        # Which input each tensor of the point is; one that is none stays as it is.
        self._places = {s - first: i for i, s in enumerate(chunk.sources) if s is not None and s >= first}
        leaves = [self._given[self._places[k]] if k in self._places else x.clone() for k, x in enumerate(points)]
        self.point: Point = pytree.tree_unflatten(leaves, pytree.tree_structure(arguments[-1]))
        self.running = torch.ones((), dtype=torch.bool, device=device)
        try:
            self._step = lower(chunk.graph, self._given)
            made = self._attempt(self._given)
        except Exception as error:  # whatever the compiler may raise; other engines say it better
            raise Unsupported(f"it cannot be compiled: {error}") from error
        self._numbers = made.numbers.new_empty(size, *made.numbers.shape)
        self._states = [x.new_empty(size, *x.shape) for x in made.states]
        self._replay = _captured(lambda: self._attempts(size), device)

    def load(self, inputs: Sequence[Tensor]) -> None:
        """Take over the tensors of a solve: those of its point and those that stay the same."""
        torch._foreach_copy_(self._given, [x.detach() for x in inputs])

    def run(self, count: int) -> Rows:
        """Make so many attempts, as one graph where they are a whole chunk."""
        if count == self._size:
            self._replay()
        else:
            self._attempts(count)
        states = self._states[0][:count].clone() if self._states else self._numbers.new_empty(0)
        return Rows(self._numbers[:count].clone(), states)

    def _attempts(self, count: int) -> None:
        given = list(self._given)
        following = self.point
        for row in range(count):
            following, numbers, states = self._attempt(given)
            self._numbers[row].copy_(numbers)
            for buffer, x in zip(self._states, states, strict=True):
                buffer[row].copy_(x)
            leaves = pytree.tree_leaves(following)
            for leaf, place in self._places.items():
                given[place] = leaves[leaf]
        for own, new in zip(pytree.tree_leaves(self.point), pytree.tree_leaves(following), strict=True):
            own.copy_(new)
        self.running.copy_((self.point.status == RUNNING).any())

    def _attempt(self, given: Sequence[Tensor]) -> _Made:
        return self._chunk.named(self._step(*given), given)


def _captured(run: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Return what repeats a function on the device without the host; the function itself where there is no GPU.

    Raises:
        Unsupported: If it does something that a graph cannot hold.
    """
    if device.type != "cuda":
        return run
    try:
        with torch.cuda.device(device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                run()  # what is made when it is first used must not be made while the graph is captured
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                run()
    except RuntimeError as error:
        raise Unsupported(f"it cannot be captured: {error}") from error
    return graph.replay


class _Answer:
    """A truth value on its way from the device."""

    def __init__(self, value: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if value.device.type == "cuda":
            self._value = torch.empty((), dtype=torch.bool, pin_memory=True)
            self._value.copy_(value, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(value.device))
        else:
            self._value = value.clone()

    def __bool__(self) -> bool:
        """Wait for it."""
        if self._event is not None:
            self._event.synchronize()
        return bool(self._value)
