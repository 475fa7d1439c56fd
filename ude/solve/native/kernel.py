"""Generated code at work: memory for its results, its calls, and the way back."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ude import ad
from ude.solve.engines import Task
from ude.solve.native.bound import Bound
from ude.solve.native.libraries import backward_library, forward_library
from ude.solve.saving import AtTimes
from ude.solve.step import NOT_BEGUN, Point
from ude.solve.trace import PackedAttempts, Saved, Trace


class Outputs(NamedTuple):
    """Times to save at, and where.

    Args:
        save: The times; None if there are none.
        values: Shape `(times, batch, state)`.
        earliest: Number of the first time that was saved, shape `(batch,)`.
        following: Number of the first one after the last, likewise.
    """

    save: AtTimes | None
    values: Tensor
    earliest: Tensor
    following: Tensor


class Chunk(NamedTuple):
    """What one call left.

    Args:
        start: Times at which it began, shape `(batch,)`; None where no way back is wanted.
        begun: Samples whose first point it made, likewise; None if there are none.
        numbers: `t`, `dt`, `t1`, error and stiffness, shape `(attempts, 5, batch)`.
        flags: Active and accepted, shape `(attempts, 2, batch)`.
        states: Shape `(attempts, 2 + stages, batch, state)`; no rows if not wanted.
        history: State and carry at the start of every attempt, `(attempts, numbers, batch)`; likewise.
        made: Attempts of every group of samples.
        unfinished: Some sample is not done.
        complete: All times to save at have been saved.
    """

    start: Tensor | None
    begun: Tensor | None
    numbers: Tensor
    flags: Tensor
    states: Tensor
    history: Tensor
    made: Tensor
    unfinished: bool
    complete: bool


def run(bound: Bound, task: Task, point: Point, attempts: int, *, keep_states: bool) -> tuple[Point, Trace]:
    """Make up to `attempts` attempts.

    Args:
        bound: The program and its inputs.
        task: The solve.
        point: Where to begin.
        attempts: At most so many for each sample.
        keep_states: Write down states and stages of every attempt.
    """
    library = forward_library(bound)
    differentiate = task.differentiate and (point.y.requires_grad or len(bound.wanted) > 0)
    differentiate = differentiate or (task.differentiate and any(x.requires_grad for x in point.carry))
    save = task.save if not keep_states else None
    outputs = _outputs(save, point)
    with torch.no_grad():
        state = _copied(point)
        kept = {"keep_states": keep_states, "keep_history": differentiate}
        chunks: list[Chunk] = []
        while attempts > 0 and (not chunks or chunks[-1].unfinished):
            rows = min(attempts, _rows(bound, chunks, len(state.t)))
            chunk = _call_forward(bound, library, state, outputs, rows, first=not chunks, **kept)
            chunks.append(chunk)
            attempts -= len(chunk.numbers)
            if task.report is not None:
                task.report(state.t)
    total = sum(len(chunk.numbers) for chunk in chunks)
    bound.program.rows = total + total // 8 + 1
    numbers, flags, states = (
        _joined([getattr(chunk, name) for chunk in chunks]) for name in ("numbers", "flags", "states")
    )
    if differentiate:
        numbers, flags = numbers.clone(), flags.clone()  # the record of the way back is not the user's to change
    t, dt, t1, error, stiffness = numbers.unbind(1)
    active, accepted = flags.unbind(1)
    values = outputs.values
    if differentiate:
        given = [point.y, *point.carry, *(bound.wholes[i] for i in bound.wanted)]
        results = [values, state.y, *state.carry, error, stiffness, states]
        unchanged = _unchanged(bound)

        def way_back(cotangents: Sequence[Tensor | None]) -> list[Tensor]:
            unchanged()
            return _pull_back(bound, chunks, outputs, cotangents)

        values, y, *carry, error, stiffness, states = ad.attach_all(results, given, way_back)
        state = state._replace(y=y, carry=tuple(carry))
    trace = Trace(
        t=t,
        dt=dt,
        t1=t1,
        error=error,
        stiffness=stiffness,
        active=active,
        accepted=accepted,
        store=PackedAttempts(states),
        saved=None if save is None else _saved(outputs._replace(values=values), complete=chunks[-1].complete),
    )
    return state, trace


def _unchanged(bound: Bound) -> Callable[[], None]:
    """Return a check that nothing the vector field reads was changed in place since now."""
    read = [x for x in (bound.wholes[i] for i in bound.code.fixed) if not x.is_inference()]
    versions = [x._version for x in read]

    def check() -> None:
        if any(x._version != version for x, version in zip(read, versions, strict=True)):
            raise RuntimeError(
                "A tensor that the vector field reads was changed in place between the solve and its backward pass, "
                "which would give a wrong gradient. Change parameters after `backward()`, or hand in a copy."
            )

    return check


MEMORY = 64 * 2**20
"""Bytes for the numbers and states of all attempts of one call, from which on there are further calls."""


def _rows(bound: Bound, chunks: Sequence[Chunk], batch: int) -> int:
    """Return for how many attempts to set memory aside: what the last solve needed, then more and more."""
    signature = bound.code.signature
    wanted = 2 * len(chunks[-1].numbers) if chunks else bound.program.rows
    numbers = batch * (5 + signature.history + (2 + signature.stages) * signature.dimension)
    return max(min(wanted, MEMORY // (numbers * signature.dtype.itemsize)), 4)


def _copied(point: Point) -> Point:
    def copies(tensors: Sequence[Tensor]) -> list[Tensor]:
        return [x.clone(memory_format=torch.contiguous_format) for x in tensors]

    t, dt, y, status, stop = copies([point.t, point.dt, point.y, point.status, point.stop])
    return Point(t, dt, y, tuple(copies(point.carry)), tuple(copies(point.memory)), status, stop)


def _memory(state: Point) -> list[Tensor]:
    return [state.t, state.dt, state.y, *state.carry, *state.memory, state.status, state.stop]


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _outputs(save: AtTimes | None, point: Point) -> Outputs:
    count = 0 if save is None else len(save.ts)
    values = point.y.new_empty(count, *point.y.shape, requires_grad=False)
    earliest, following = (torch.empty(len(point.t), dtype=torch.int64) for _ in range(2))
    return Outputs(save, values, earliest, following)


def _saved(outputs: Outputs, *, complete: bool) -> Saved:
    if complete:
        return Saved(outputs.values, None)
    place = torch.arange(len(outputs.values)).unsqueeze(-1)
    done = (place >= outputs.earliest) & (place < outputs.following)
    return Saved(outputs.values, torch.where(done, place, -1))


def _call_forward(
    bound: Bound,
    library: Any,
    state: Point,
    outputs: Outputs,
    rows: int,
    *,
    keep_states: bool,
    keep_history: bool,
    first: bool,
) -> Chunk:
    """Make up to `rows` attempts; `state` and `outputs` are overwritten."""
    signature = bound.code.signature
    batch, y = len(state.t), state.y
    numbers = y.new_empty(rows, 5, batch)
    flags = torch.empty(rows, 2, batch, dtype=torch.bool)
    states = y.new_empty(rows if keep_states else 0, 2 + signature.stages, *y.shape)
    history = y.new_empty(rows if keep_history else 0, signature.history, batch)
    made = torch.empty(-(-batch // signature.lanes), dtype=torch.int64)
    report = (ctypes.c_int64 * 2)()
    start, begun = (state.t.clone(), _begun(state)) if keep_history else (None, None)
    size, times = _sizes(batch, rows, outputs, first=first)
    pointers = [
        *times,
        outputs.following,
        outputs.values,
        outputs.earliest,
        _origin(outputs, state),
        numbers,
        flags,
        states,
        history,
        made,
        report,
        *_memory(state),
        *bound.fixed,
    ]
    most = _call(library.forward, size, pointers)
    if len(made) > 1:
        _call(library.level, [0, batch, batch, most], [numbers, flags, made, state.t])
    unfinished, incomplete = report
    if most < rows:
        numbers, flags = numbers[:most], flags[:most]
        states, history = states[:most] if keep_states else states, history[:most] if keep_history else history
    return Chunk(start, begun, numbers, flags, states, history, made, bool(unfinished), not incomplete)


def _begun(state: Point) -> Tensor | None:
    # Samples begin together.
    return torch.ones_like(state.status, dtype=torch.bool) if state.status[0].item() == NOT_BEGUN else None


def _origin(outputs: Outputs, state: Point) -> Tensor:
    return state.t if outputs.save is None else outputs.save.t0


def _sizes(batch: int, rows: int, outputs: Outputs, *, first: bool) -> tuple[list[int], list[Tensor]]:
    save = outputs.save
    if save is None:
        nothing = outputs.values
        return [0, batch, batch, rows, 0, 0, 0, int(first)], [nothing, torch.ones(batch, dtype=nothing.dtype)]
    strides = save.ts.stride()
    return [0, batch, batch, rows, len(save.ts), *strides, int(first)], [save.ts, save.direction]


def _call(function: Any, size: Sequence[int], places: Sequence[Any]) -> int:
    """Call generated code with numbers and places in memory; None, or a tensor without numbers, is a null pointer."""
    pointers = [_address(x) for x in places]
    sizes = (ctypes.c_int64 * len(size))(*size)
    return function(sizes, (ctypes.c_void_p * len(pointers))(*pointers))


def _address(x: Tensor | ctypes.Array[Any] | None) -> int:
    if x is None:
        return 0
    return x.data_ptr() if isinstance(x, Tensor) else ctypes.addressof(x)


def _pull_back(
    bound: Bound, chunks: Sequence[Chunk], outputs: Outputs, cotangents: Sequence[Tensor | None]
) -> list[Tensor]:
    """Return the cotangents of state and carry at the start, and of the inputs that carry a gradient."""
    library, signature = backward_library(bound), bound.code.signature
    wholes = [bound.wholes[i] for i in bound.wanted]
    batch, carries = len(outputs.following), signature.carries
    values, y, *rest = cotangents
    carry, (error, stiffness, states) = rest[:carries], rest[carries:]

    def fresh(x: Tensor | None) -> Tensor:
        if x is None:
            return torch.zeros(batch, signature.dimension, dtype=signature.dtype)
        return x.clone(memory_format=torch.contiguous_format)

    ends = [fresh(y), *(fresh(x) for x in carry)]
    sums = [torch.zeros(x.shape, dtype=x.dtype) for x in wholes]
    # What samples have of their own is written, not added to: it is summed over the calls here.
    own = [(i, torch.zeros_like(sums[i])) for i, slot in enumerate(bound.slots) if not slot.shared]
    following = outputs.following.clone()
    values = None if values is None else values.contiguous()
    stop = sum(len(chunk.numbers) for chunk in chunks)
    for i in range(len(chunks) - 1, -1, -1):
        chunk = chunks[i]
        assert chunk.start is not None  # it was kept for the way back
        rows = slice(stop - len(chunk.numbers), stop)
        stop = rows.start
        size, times = _sizes(batch, len(chunk.numbers), outputs, first=i == 0)
        pointers = [
            *times,
            following,
            outputs.save.t0 if outputs.save is not None else chunk.start,
            chunk.start,
            chunk.numbers,
            chunk.flags,
            chunk.history,
            chunk.made,
            values,
            *(None if x is None else x[rows].contiguous() for x in (error, stiffness, states)),
            chunk.begun,
            *ends,
            *sums,
            *bound.fixed,
        ]
        _call(library.backward, size, pointers)
        for number, total in own:
            total += sums[number]
            sums[number].zero_()
    for number, total in own:
        sums[number] = total
    return [*ends, *sums]
