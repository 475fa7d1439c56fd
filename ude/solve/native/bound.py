"""A program and the tensors it is to work on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ude.methods.explicit import ExplicitRungeKutta
from ude.solve.engines import Task
from ude.solve.native.program import Arguments, Program, look_up
from ude.solve.native.separate import check_separate
from ude.solve.native.source import Signature, Slot, leaf_names
from ude.solve.native.values import KINDS
from ude.solve.step import RUNNING, Limits, Point
from ude.solve.traced import Unsupported

LARGE = 2**17
"""Most numbers that the vector field may read, and most sums that the way back may keep."""


@dataclass(slots=True, eq=False)
class Code:
    """What was made of a program for a number of samples at once.

    Args:
        signature: What it reads and returns.
        fixed: Which inputs stay the same from attempt to attempt.
        turned: Inputs whose last axis is that of the samples.
        forward: The library that makes attempts; None until it is asked for.
        backward: Those that carry cotangents back, or yet their source, by the inputs that carry a gradient.
        separate: Samples of a batch were found not to depend on each other.
        fitting: Inputs that carry a gradient with which it was found to be of a size for generated code.
    """

    signature: Signature
    fixed: tuple[int, ...]
    turned: frozenset[int]
    forward: Any = None
    backward: dict[tuple[int, ...], Any] = field(default_factory=dict)
    separate: bool = False
    fitting: set[tuple[int, ...]] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Bound:
    """A program and what it is to work on.

    Args:
        task: The solve.
        program: Start and attempt of one sample.
        code: What was made of it.
        samples: Its inputs for one sample.
        wholes: Its inputs for all samples, one below the other where they do not share them.
        fixed: Those that stay the same, as they lie in memory.
        wanted: Which of those carry a gradient.
    """

    task: Task
    program: Program
    code: Code
    samples: tuple[Tensor, ...]
    wholes: tuple[Tensor, ...]
    fixed: tuple[Tensor, ...]
    wanted: tuple[int, ...]

    @property
    def slots(self) -> list[Slot]:
        """How the code sees the inputs that carry a gradient."""
        return [self.code.signature.inputs[i] for i in self.wanted]


def rows_for_samples(task: Task, batch: int) -> bool:
    """Whether some of the user's parameters have as many rows as there are samples."""
    if task.p is None or batch == 1 or not task.layout.batched:
        return False
    return any(_has_rows(x, batch) for x in pytree.tree_leaves(task.p))


def _has_rows(x: Any, batch: int) -> bool:
    return isinstance(x, Tensor) and x.ndim > 0 and x.shape[0] == batch


def bind(task: Task, point: Point, *, by_rows: bool) -> Bound:
    """Find the program of a task and put its inputs in order.

    Args:
        task: The solve.
        point: Start of all samples.
        by_rows: Parameters with as many rows as there are samples have one for each.

    Raises:
        Unsupported: If the task is not for generated code.
    """
    batch, p, limits = len(point.t), pytree.tree_leaves(task.p), task.limits
    single = _one_sample(task, point, by_rows=by_rows)
    program, samples = look_up(task, single)
    leaves = (
        *p,
        *limits,
        point.t,
        point.dt,
        point.y,
        *point.carry,
        *point.memory,
        point.status,
        point.stop,
        task.first,
    )
    wholes: tuple[Any, ...] = tuple(
        x if i is None else leaves[i] for i, x in zip(program.sources, samples, strict=True)
    )
    own = tuple(x is not y for x, y in zip(pytree.tree_leaves(single.p), p, strict=True))
    key = (lanes(batch, point.y.dtype), own, limits.rtol.ndim, limits.atol.ndim)
    code = program.codes.get(key)
    if code is None:
        code = program.codes[key] = _code(task, point, program, samples, own)
    wanted = tuple(i for i in code.fixed if wholes[i].requires_grad)
    fixed = tuple(_in_memory(_turned(wholes[i]) if i in code.turned else wholes[i]) for i in code.fixed)
    bound = Bound(task, program, code, samples, wholes, fixed, wanted)
    carried = wanted if torch.is_grad_enabled() else ()
    if carried not in code.fitting:
        _check_size(bound, carried)
        code.fitting.add(carried)
    if batch > 1 and not code.separate:
        named = [(slot.name, x, slot.shared) for slot, x in zip(code.signature.inputs, wholes, strict=True)]
        check_separate(task, program, named, own, point)
        code.separate = True
    return bound


def _turned(x: Tensor) -> Tensor:
    return x.T if len(x) > 1 else x


def _in_memory(x: Tensor) -> Tensor:
    return x if x.is_contiguous() else x.detach().contiguous()


def _code(task: Task, point: Point, program: Program, samples: tuple[Tensor, ...], own: tuple[bool, ...]) -> Code:
    """Return what is known of code before it is written; `own` names the parameters that samples have of their own."""
    method, limits = task.method, task.limits
    assert isinstance(method, ExplicitRungeKutta)
    of_point = leaf_names(len(point.carry), len(point.memory))
    names = [*(f"p{i}" for i in range(len(own))), *Limits._fields, *of_point, "first_step"]
    shared = {f"p{i}": not one for i, one in enumerate(own)} | {"shortest": True, "longest": True}
    shared |= {"rtol": limits.rtol.ndim == 0, "atol": limits.atol.ndim == 0}
    inputs = []
    for i, (source, x) in enumerate(zip(program.sources, samples, strict=True)):
        if x.dtype not in KINDS or x.device.type != "cpu":
            raise Unsupported(f"an input of type {x.dtype} on {x.device}")
        name = f"fixed{i}" if source is None else names[source]
        inputs.append(Slot(name, tuple(x.shape), x.dtype, source is None or shared.get(name, False)))
    known = {slot.name: slot for slot in inputs}
    single = pytree.tree_leaves(_typical(task, point).point)
    state = [known.get(n, Slot(n, tuple(x.shape), x.dtype, False)) for n, x in zip(of_point, single, strict=True)]
    signature = Signature(
        inputs=tuple(inputs),
        state=tuple(state),
        carries=len(point.carry),
        memories=len(point.memory),
        stages=len(method.tableau.b),
        dtype=point.y.dtype,
        dimension=point.y.shape[-1],
        lanes=lanes(len(point.t), point.y.dtype),
    )
    fixed = tuple(i for i, slot in enumerate(inputs) if slot.name not in of_point)
    return Code(signature, fixed, frozenset(i for i in fixed if inputs[i].name in ("stops", "before")))


def _check_size(bound: Bound, wanted: Sequence[int]) -> None:
    """Raise where the library's products of large matrices are faster than code for one sample after the other."""
    read = sum(bound.samples[i].numel() for i in bound.code.fixed)
    summed = sum(bound.samples[i].numel() for i in wanted)
    if read > LARGE or summed * bound.code.signature.lanes > LARGE:
        raise Unsupported(f"a vector field with {read} numbers, {summed} of which carry a gradient")


def lanes(batch: int, dtype: torch.dtype) -> int:
    """Return how many samples are worked on at once: what a processor holds in one or two registers."""
    most = 16 if dtype == torch.float32 else 8
    return min(most, 1 << (batch - 1).bit_length())


def _one_sample(task: Task, point: Point, *, by_rows: bool) -> Arguments:
    """Return arguments for one sample, every tensor an object of its own.

    Their values do not matter, but those of parameters that all samples share must be the parameters themselves.
    """
    batch = len(point.t)

    def first(x: Any) -> Any:
        return x[:1].detach() if by_rows and _has_rows(x, batch) else x

    key = (task.layout, task.controller, point.y.dtype, len(point.carry), len(task.limits.stops))
    key += (task.limits.rtol.ndim, task.limits.atol.ndim, task.first is None)
    if key not in _singles:
        _singles[key] = _typical(task, point)
    typical = _singles[key]
    return typical._replace(p=None if task.p is None else pytree.tree_map(first, task.p))


_singles: dict[Any, Arguments] = {}


def _typical(task: Task, point: Point) -> Arguments:
    """Return arguments for one sample that begins with a step of a tenth of a short interval."""
    t = torch.zeros(1, dtype=point.t.dtype)
    limits, ones = task.limits, torch.ones_like(t)
    loose = torch.full((1, point.y.shape[-1]), 1e-3, dtype=t.dtype)
    return Arguments(
        p=None,
        limits=Limits(
            stops=torch.ones(len(limits.stops), 1, dtype=t.dtype),
            before=torch.ones(len(limits.stops), 1, dtype=t.dtype),
            floor=torch.zeros_like(t),
            rtol=loose if limits.rtol.ndim else loose[0, 0].clone(),
            atol=loose.clone() if limits.atol.ndim else loose[0, 0].clone(),
            shortest=torch.zeros((), dtype=t.dtype),
            longest=torch.full((), torch.inf, dtype=t.dtype),
        ),
        point=Point(
            t=t,
            dt=0.1 * ones,
            y=0.5 * torch.ones(1, point.y.shape[-1], dtype=point.y.dtype),
            carry=tuple(0.5 * torch.ones(1, point.y.shape[-1], dtype=point.y.dtype) for _ in point.carry),
            memory=tuple(x.clone() for x in task.controller.init(ones)),
            status=torch.full((1,), RUNNING),
            stop=torch.zeros(1, dtype=torch.int64),
        ),
        first=None if task.first is None else 0.1 * ones,
    )
