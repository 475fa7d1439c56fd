"""Code that carries cotangents back over the record of attempts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import GraphModule

from ude.solve.native.emitter import Emitter
from ude.solve.native.program import Polynomial
from ude.solve.native.source import C_TYPES, MAKERS, Signature, Slot, array, elements, scalar
from ude.solve.native.templates import fill
from ude.solve.native.values import KINDS, SMALL, Value, flat_index


def backward_source(
    signature: Signature,
    start: GraphModule | None,
    step: GraphModule,
    wanted: Sequence[Slot],
    between: Polynomial | None,
) -> str:
    """Return code that carries cotangents of everything a solve returned back to its start.

    It defines `backward(size, ptr)`.

    Args:
        signature: What an attempt reads.
        start: Graph from the inputs of an attempt and cotangents of the first carry to those of the state and `wanted`;
            None if the method carries nothing.
        step: Graph from the inputs and the cotangents of `Differentiable` to those of state, carry and `wanted`.
        wanted: Inputs beyond state and carry whose cotangent is asked for.
        between: Graphs of the continuous extension.
    """
    s, d = signature, signature.dimension
    ends = [array(name, shape, s.dtype) for name, shape in (("of_end", (1, d)), ("of_error", (1,)))]
    ends += [array("of_stiffness", (1,), s.dtype)]
    ends += [array(f"of_stage[{j}]", (1, d), s.dtype) for j in range(s.stages)]
    body = Emitter("a", s.lanes)
    results = body.run(step, [*s.values(), *ends])
    moved = [body.evaluated(x) for x in results[: len(s.moving)]]
    degree = 0 if between is None else len(between.coefficients.graph.output_node().args[0])  # pyright: ignore
    code = fill(
        "backward.cpp",
        saving=fill("saving.hpp"),
        shared=s.shared(),
        load=[*_loaded(s, wanted), *s.own()],
        history=[
            f"for (int i = 0; i < D; ++i) load_row({name}[i], from + ({j} * D + i) * batch, count);"
            for j, name in enumerate(s.moving)
        ],
        carried="of_stage[STAGES - 1][i] = choose(taken, to_carry0[i], num(0));" if s.carries else "",
        saved="" if between is None else _saved(s, between, degree),
        typical=_typical(s),
        step=body.lines,
        moved=[*_moved(s, moved), *_summed(body, wanted, results[len(moved) :])],
        beginning="" if start is None else _beginning(s, start, wanted),
        store=_stored(s, wanted),
    )
    return s.begins(MOVING=len(s.moving), WANTED=len(wanted), DEGREE=degree) + code


def _loaded(s: Signature, wanted: Sequence[Slot]) -> list[str]:
    """Return the statements that make room for the point, and read what arrives at the end."""
    lines = [slot.declared("") for slot in s.state]
    for i, name in enumerate(s.moving):
        lines += [f"Num to_{name}[D]; for (int i = 0; i < D; ++i) load(to_{name}[i], (Real*)ends[{i}] + i, D, sample);"]
    for slot in wanted:
        zero = f"{MAKERS[KINDS[slot.dtype]]}(0)"
        lines += [f"{KINDS[slot.dtype]} sum_{slot.name}[{slot.size}];"]
        lines += [f"for (int i = 0; i < {slot.size}; ++i) sum_{slot.name}[i] = {zero};"]
    return lines


def _typical(s: Signature) -> list[str]:
    """Return the statements that set what an attempt needs beyond its record, so that it is made as it was."""
    lines = ["status[0] = i64(RUNNING); stop[0] = i64(0);"]
    for slot in s.state:
        if slot.name.startswith("memory"):
            value = "truth(0)" if slot.dtype == torch.bool else f"{MAKERS[KINDS[slot.dtype]]}(1)"
            lines += [f"for (int i = 0; i < {slot.size}; ++i) {slot.name}[i] = {value};"]
    for slot in s.fixed:
        if slot.name in ("stops", "before"):
            # No stop is near: the step is as long as it was.
            lines += [f"for (int i = 0; i < {slot.size}; ++i) {slot.name}[i] = t[0] + num(4) * dt[0];"]
    return lines


def _saved(s: Signature, between: Polynomial, degree: int) -> str:
    """Return the statements that add the cotangents of the states saved within one step."""
    d, shape = s.dimension, (1, s.dimension)
    last, each = Emitter("b", s.lanes), Emitter("c", s.lanes)
    # The continuous extension is linear in start and stages: their values do not matter.
    unused = [array("unused", shape, torch.float64) for _ in range(degree)]
    given = [scalar("theta", s.dtype), scalar("length", s.dtype), array("y", shape, s.dtype)]
    results = [
        each.evaluated(x) for x in each.run(between.state_back, [*given, *unused, array("incoming", shape, s.dtype)])
    ]
    totals = [array(f"of_total[{j}]", shape, torch.float64) for j in range(degree)]
    stages = last.run(between.stages_back, [*(array("unused", shape, s.dtype) for _ in range(s.stages)), *totals])
    targets = ["extra", *(f"of_total[{j}]" for j in range(degree))]
    added = [
        f"{target}[{i}] += {x};"
        for target, value in zip(targets, results, strict=True)
        for i, x in enumerate(elements(value))
    ]
    spread = [(j, elements(last.evaluated(value))) for j, value in enumerate(stages)]
    added_stages = [f"of_stage[{j}][{i}] += {x};" for j, values in spread for i, x in enumerate(values)]
    assert all(len(values) == d for _, values in spread)
    return fill("saved.hpp", state=each.lines, added=added, stages=[*last.lines, *added_stages])


def _moved(s: Signature, results: Sequence[Value]) -> list[str]:
    """Return the statements that bring the cotangents of state and carry to the start of the attempt."""
    lines = []
    for name, value in zip(s.moving, results, strict=True):
        extra = [f" + extra[{i}]" if name == "y" else "" for i in range(s.dimension)]
        lines += [
            f"const Num new_{name}_{i} = choose(good, {x}, num(0)){more};"
            for i, (x, more) in enumerate(zip(elements(value), extra, strict=True))
        ]
    for name in s.moving:
        lines += [
            f"to_{name}[{i}] = choose(taken, num(0), to_{name}[{i}]) + new_{name}_{i};" for i in range(s.dimension)
        ]
    return lines


def _beginning(s: Signature, start: GraphModule, wanted: Sequence[Slot]) -> list[str]:
    """Return the statements that carry cotangents of the first carry back to state and inputs."""
    emitter, carries = Emitter("e", s.lanes), s.moving[1:]
    cotangents = [array(f"to_{name}", (1, s.dimension), s.dtype) for name in carries]
    first, *others = emitter.run(start, [*s.values(), *cotangents])
    back = elements(emitter.evaluated(first))
    return [
        "B good; load(good, begun, 1, sample);",
        "for (int l = count; l < W; ++l) put(good, l, 0);",
        "load_row(t[0], numbers + first, count);",
        "for (int i = 0; i < D; ++i) {",
        "load_row(y[i], history + i * batch + first, count);",
        *(f"to_{name}[i] = choose(good, to_{name}[i], num(0));" for name in carries),
        "}",
        *emitter.lines,
        *(f"const Num back_{i} = choose(good, {x}, num(0));" for i, x in enumerate(back)),
        *(f"to_y[{i}] += back_{i};" for i in range(s.dimension)),
        *_summed(emitter, wanted, others),
        *(f"for (int i = 0; i < D; ++i) to_{name}[i] = num(0);" for name in carries),
    ]


def _summed(emitter: Emitter, wanted: Sequence[Slot], values: Sequence[Value]) -> list[str]:
    """Return the statements that add cotangents of inputs to their sums."""
    before = len(emitter.lines)
    for slot, value in zip(wanted, values, strict=True):
        name, zero = f"sum_{slot.name}", f"{MAKERS[KINDS[slot.dtype]]}(0)"
        if slot.size <= SMALL:
            cells = elements(emitter.evaluated(value))
            emitter.lines += [f"{name}[{i}] += choose(good, {x}, {zero});" for i, x in enumerate(cells)]
            continue
        view, source = torch.empty(slot.shape, device="meta"), emitter.symbolic(value)
        place = lambda index, view=view: flat_index(index, view.stride(), tuple(view.shape))  # noqa: E731
        emitter.loop(
            slot.shape,
            lambda index, name=name, source=source, zero=zero, place=place: (
                f"{name}[{place(index)}] += choose(good, {source.at(index)}, {zero});"
            ),
        )
    lines = emitter.lines[before:]
    del emitter.lines[before:]
    return lines


def _stored(s: Signature, wanted: Sequence[Slot]) -> list[str]:
    """Return the statements that write the results of a group of samples."""
    lines = [
        f"for (int i = 0; i < D; ++i) store(to_{name}[i], (Real*)ends[{i}] + i, D, first, count);"
        for i, name in enumerate(s.moving)
    ]
    for i, slot in enumerate(wanted):
        target, numbers = f"(({C_TYPES[slot.dtype]}*)sums[{i}])", f"for (int i = 0; i < {slot.size}; ++i)"
        if slot.shared:
            lines += [f"{numbers} for (int l = 0; l < count; ++l) {target}[i] += get(sum_{slot.name}[i], l);"]
        else:
            lines += [f"{numbers} store(sum_{slot.name}[i], {target} + i, {slot.size}, first, count);"]
    return lines
