"""Code that makes attempts."""

from __future__ import annotations

from collections.abc import Sequence

from torch.fx import GraphModule

from ude.solve.native.emitter import Emitter
from ude.solve.native.program import Polynomial
from ude.solve.native.source import Signature, Slot, elements, leaf_names, scalar
from ude.solve.native.templates import fill
from ude.solve.native.values import KINDS, Value


def forward_source(signature: Signature, start: GraphModule, attempt: GraphModule, between: Polynomial | None) -> str:
    """Return code that makes attempts until all samples of a range are done.

    It defines `forward(size, ptr)`, which returns the most attempts of any sample, and `level(size, ptr)`, which
    fills the rows of samples that were done before others.

    Args:
        signature: What an attempt reads.
        start: Graph of the first point.
        attempt: Graph of an attempt.
        between: Graphs of the continuous extension; None if the code is never to save between steps.
    """
    s, names = signature, leaf_names(signature.carries, signature.memories)
    point = dict(zip(names, s.state, strict=True))
    body = Emitter("a", s.lanes)
    outputs = [body.evaluated(x) for x in body.run(attempt, s.values())]
    following, record = dict(zip(names, outputs, strict=False)), outputs[len(names) :]
    t, dt, t1, y0, y1, *stages = record[: 5 + s.stages]
    error, stiffness, active, accepted, _ = record[5 + s.stages :]
    code = fill(
        "forward.cpp",
        saving=fill("saving.hpp"),
        shared=s.shared(),
        load=[*_loaded(s), *s.own()],
        start=_started(s, start, point),
        history=_history(s),
        attempt=body.lines,
        numbers=[
            f"store_row({x.at([0])}, to + {i} * batch, count);" for i, x in enumerate((t, dt, t1, error, stiffness))
        ],
        flags=[f"store({x.at([0])}, signs + {i} * batch, 1, first, count);" for i, x in enumerate((active, accepted))],
        states=_states((y1, y0, *stages)),
        save="" if between is None else _saved(s, between, (t, dt, t1, y0, y1), stages, accepted),
        following=_moved(point, following),
        store=[slot.stored(f"memory[{i}]") for i, slot in enumerate(s.state)],
    )
    return s.begins() + code


def _loaded(s: Signature) -> list[str]:
    lines = []
    for i, slot in enumerate(s.state):
        lines += [slot.declared(""), slot.loaded(f"memory[{i}]")]
    return lines


def _started(s: Signature, graph: GraphModule, point: dict[str, Slot]) -> list[str]:
    """Return the statements that make the first point of samples that have none."""
    emitter = Emitter("d", s.lanes)
    values = dict(zip(point, (emitter.evaluated(x) for x in emitter.run(graph, s.values())), strict=True))
    before, after = ["const B fresh = eq(status[0], i64(NOT_BEGUN));"], []
    for name in ("dt", *s.moving[1:], "status"):
        slot = point[name]
        before.append(f"{KINDS[slot.dtype]} first_{name}[{slot.size}];")
        before += [f"first_{name}[{i}] = {x};" for i, x in enumerate(elements(values[name]))]
        after.append(f"for (int i = 0; i < {slot.size}; ++i) {name}[i] = choose(fresh, first_{name}[i], {name}[i]);")
    return [*emitter.lines, *before, *after]


def _history(s: Signature) -> list[str]:
    return [
        f"for (int i = 0; i < D; ++i) store_row({name}[i], to + ({j} * D + i) * batch, count);"
        for j, name in enumerate(s.moving)
    ]


def _states(values: Sequence[Value]) -> list[str]:
    return [
        f"store({x}, to + {i} * batch * D + {k}, D, first, count);"
        for i, value in enumerate(values)
        for k, x in enumerate(elements(value))
    ]


def _saved(s: Signature, between: Polynomial, record: Sequence[Value], stages: Sequence[Value], accepted: Value) -> str:
    """Return the statements that save all states within the step just made."""
    t, dt, t1, y0, y1 = record
    first, each = Emitter("b", s.lanes), Emitter("c", s.lanes)
    totals = [first.stored(x) for x in first.run(between.coefficients, stages)]
    (state,) = each.run(between.state, [scalar("theta", s.dtype), dt, y0, *totals])
    states = zip(elements(y1), elements(each.evaluated(state)), strict=True)
    return "\n".join(
        [
            "{",
            f"const Num until = {t1.at([0])}, since = {t.at([0])}, length = {dt.at([0])};",
            f"const B taken = {accepted.at([0])};",
            fill(
                "save.hpp",
                coefficients=first.lines,
                state=each.lines,
                result=[f"spill(choose(ends, {end}, {inner}), result[{k}]);" for k, (end, inner) in enumerate(states)],
            ),
            "}",
        ]
    )


def _moved(point: dict[str, Slot], following: dict[str, Value]) -> list[str]:
    """Return the statements that move to the next point, through new variables, since they may change places."""
    before, after = [], []
    for name, slot in point.items():
        before.append(f"{KINDS[slot.dtype]} new_{name}[{slot.size}];")
        before += [f"new_{name}[{i}] = {x};" for i, x in enumerate(elements(following[name]))]
        after.append(f"for (int i = 0; i < {slot.size}; ++i) {name}[i] = new_{name}[i];")
    return before + after
