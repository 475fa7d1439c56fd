"""Attempts compiled in blocks by `torch.compile`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ude._typing import VectorField
from ude.methods.method import Method
from ude.solve.compilation import compiled_for
from ude.solve.controllers import Controller
from ude.solve.engines import Beginning, Task
from ude.solve.flatten import Layout
from ude.solve.step import RUNNING, Attempt, Limits, Point, attempt, evaluations_of
from ude.solve.trace import PackedAttempts, Trace


class Packed(NamedTuple):
    """The record of a block in few tensors, since every output of a compiled function costs time.

    Args:
        times: `t`, `dt`, `t1`, shape `(3, block, batch)`.
        quality: `error`, `stiffness`, shape `(2, block, batch)`.
        flags: `active`, `accepted`, `finite`, shape `(3, block, batch)`.
        states: `y1`, `y0` and the stages, shape `(block, 2 + stages, batch, state)`; no rows if they are not needed.
        evaluations: Shape `(block, batch)`; None if every active sample needed `Method.evaluations`.
    """

    times: Tensor
    quality: Tensor
    flags: Tensor
    states: Tensor
    evaluations: Tensor | None


VECTOR = 16
"""Numbers that a processor handles at once."""

Block: TypeAlias = Callable[[VectorField, Any, Limits, Point, Tensor], tuple[Point, Packed]]
"""Runs as many attempts as the last argument, the blocked samples `(block, batch)`, has rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """Attempts compiled into blocks, for vector fields that are cheap against the overhead of PyTorch.

    The first solve with a vector field takes some ten seconds or more, which the logger `ude` announces. Later
    solves with the same function or module, the same method and the same shapes use the result again, whatever the
    values, tolerances and time spans. The vector field must be traceable by `torch.compile(fullgraph=True)`; second
    derivatives need the eager engine. Hooks that are added to a module, or methods of it that are replaced, after its
    first solve are not noticed.

    Args:
        unroll: Attempts in one compiled block. More run faster, and compile more slowly.
        check_every: Attempts between two looks at whether any sample is still running, rounded up to whole
            blocks. Attempts beyond the end change nothing but take time; on a GPU every look makes the host wait.
    """

    unroll: int = 2
    check_every: int = 4

    def __post_init__(self) -> None:
        if self.unroll < 1 or self.check_every < 1:
            raise ValueError(f"`unroll` and `check_every` must be at least 1, got {self.unroll}, {self.check_every}.")

    @property
    def block(self) -> int:
        """Segments are multiples of so many attempts."""
        return self.unroll

    @property
    def handles_events(self) -> bool:
        """A block does not come back after every attempt."""
        return False

    @property
    def forgets(self) -> bool:
        """All attempts of a segment stay."""
        return False

    def start(self, task: Task, t: Tensor, y: Tensor) -> Beginning:
        """Return the point before the first step; a graph is compiled for a gradient or without."""
        return Beginning(self, *task.begin(t, y, probe=True))

    def advance(self, task: Task, point: Point, attempts: int) -> tuple[Point, Trace]:
        """Run up to `attempts` attempts in blocks; a remainder shorter than a block is not compiled."""
        with torch.set_grad_enabled(task.differentiate):
            point = _fresh(point, task.differentiate)
            records: list[Packed] = []
            group = -(-self.check_every // self.unroll)
            block = _block(task, compiled=attempts >= self.unroll)
            while attempts > 0 and (not records or bool((point.status == RUNNING).any())):
                whole = attempts >= self.unroll
                count = min(group, attempts // self.unroll) if whole else 1
                size = self.unroll if whole else attempts
                block = block if whole else _block(task, compiled=False)
                point, new = _run_group(block, task, point, count, size)
                records += new
                attempts -= count * size
                if task.report is not None:
                    task.report(point.t)
        return point, _trace(task.method, records)


def _run_group(block: Block, task: Task, point: Point, count: int, size: int) -> tuple[Point, list[Packed]]:
    """Run `count` blocks of `size` attempts, again if a number was not finite and a gradient is wanted."""
    start = point
    free = torch.zeros(size, len(point.t), dtype=torch.bool, device=point.t.device)

    def run(blocked: list[Tensor]) -> tuple[Point, list[Packed]]:
        point, records = start, []
        for rows in blocked:
            point, packed = block(task.vector_field, task.p, task.limits, point, rows)
            records.append(packed)
        return point, records

    point, records = run([free] * count)
    if task.differentiate and not all(bool(packed.flags[2].all()) for packed in records):
        # Values stay the same; the backward pass no longer meets the infinite derivatives of these attempts.
        again = run([~packed.flags[2] for packed in records])
        failed = ~torch.cat([packed.flags[2] for packed in records]).all(0)
        return again[0], [_made_twice(task.method, *both, failed) for both in zip(records, again[1], strict=True)]
    return point, records


def _made_twice(method: Method, first: Packed, second: Packed, failed: Tensor) -> Packed:
    """Return a block that was made again, with the evaluations of both times for the samples that failed."""
    before = torch.where(failed, _evaluations(method, first), 0)
    return second._replace(evaluations=_evaluations(method, second) + before)


def _evaluations(method: Method, packed: Packed) -> Tensor:
    return packed.flags[0] * method.evaluations if packed.evaluations is None else packed.evaluations


def _block(task: Task, *, compiled: bool) -> Block:
    configuration = (task.layout, task.method, task.controller, task.keep_states)
    if not compiled:
        return _make_block(*configuration)
    return compiled_for(task.vector_field, configuration, lambda: _make_block(*configuration), repeats=True)


def _make_block(layout: Layout, method: Method, controller: Controller, keep_states: bool) -> Block:
    """Return the function that is compiled. It must not hold the vector field, which would then never be freed."""

    def block(vector_field: VectorField, p: Any, limits: Limits, point: Point, blocked: Tensor) -> tuple[Point, Packed]:
        field = layout.bind(vector_field, p, _arrange)
        records = []
        for rows in blocked.unbind():
            point = _rearrange(point)
            point, record = attempt(field, method, controller, limits, point, rows)
            records.append(record)
        packed = Packed(
            times=_stack([r.t for r in records], [r.dt for r in records], [r.t1 for r in records]),
            quality=_stack([r.error for r in records], [r.stiffness for r in records]),
            flags=_stack([r.active for r in records], [r.accepted for r in records], [r.finite for r in records]),
            states=_stack(*([r.y1, r.y0, *r.stages] for r in records)) if keep_states else point.y.new_empty(0),
            evaluations=_counts(method, records),
        )
        return point, packed

    return block


def _stack(*rows: list[Tensor]) -> Tensor:
    """Stack rows of tensors along two new axes, in one copy."""
    return torch.stack([x for row in rows for x in row]).unflatten(0, (len(rows), len(rows[0])))


def _counts(method: Method, records: list[Attempt]) -> Tensor | None:
    """Return the evaluations of every attempt, None if they all took what is usual."""
    if not any(r.evaluations for r in records):
        return None
    return torch.stack([evaluations_of(method, r) for r in records])


def _fresh(point: Point, differentiate: bool) -> Point:
    """Return copies that look to the compiler as the blocks' own outputs do, so that it is asked only once.

    They share no memory, carry a gradient if the end will carry one, and have a layout that suits the compiler:
    small states of a large batch lie in memory component by component, so that its loops run over the batch.
    """
    point = pytree.tree_map(lambda x: _arrange(x.clone(memory_format=torch.contiguous_format)), point)
    if not differentiate:
        return point
    seed = point.dt.new_zeros((), requires_grad=True)
    return point._replace(y=point.y + seed, carry=tuple(stage + seed for stage in point.carry))


def _lies_across(x: Tensor) -> bool:
    return x.ndim == 2 and x.shape[1] < VECTOR <= x.shape[0]


def _arrange(x: Tensor) -> Tensor:
    """Put small states of a large batch into memory component by component."""
    return x.T.clone(memory_format=torch.contiguous_format).T if _lies_across(x) else x


def _rearrange(point: Point) -> Point:
    """Do so again, without effect on the numbers: after an attempt or two the compiler loses the layout.

    It would see through a copy; a choice that depends on the (always finite) time it has to make.
    """
    is_finite = point.t < torch.inf

    def kept(x: Tensor) -> Tensor:
        return torch.where(is_finite, x.T, 0.0).T if _lies_across(x) else x

    return point._replace(y=kept(point.y), carry=tuple(kept(stage) for stage in point.carry))


def _trace(method: Method, records: list[Packed]) -> Trace:
    """Join blocks, without the attempts that were made after every sample had come to its end."""
    times, quality, flags = (
        torch.cat([getattr(packed, name) for packed in records], dim=1) for name in ("times", "quality", "flags")
    )
    states = torch.cat([packed.states for packed in records])
    count = int(flags[0].any(-1).sum())
    t, dt, t1 = times[:, :count].unbind()
    error, stiffness = quality[:, :count].unbind()
    active, accepted, _ = flags[:, :count].unbind()
    evaluations = None
    if any(packed.evaluations is not None for packed in records):
        evaluations = torch.cat([_evaluations(method, packed) for packed in records])[:count]
    return Trace(
        t=t,
        dt=dt.detach(),
        t1=t1.detach(),
        error=error,
        stiffness=stiffness,
        active=active,
        accepted=accepted,
        store=PackedAttempts(states[:count]),
        evaluations=evaluations,
    )
