"""The code made of a program, each part when it is first asked for."""

from __future__ import annotations

from typing import Any

from ude.methods.explicit import ExplicitRungeKutta
from ude.solve.native.backwards import backward_source
from ude.solve.native.bound import Bound
from ude.solve.native.build import load
from ude.solve.native.forwards import forward_source
from ude.solve.native.program import (
    Differentiable,
    Polynomial,
    trace_attempt,
    trace_polynomial,
    trace_pullback,
    trace_start,
)


def forward_library(bound: Bound) -> Any:
    """Return the library that makes attempts."""
    program, key = bound.program, ("forward", bound.signature)
    if key not in program.made:
        if "attempt" not in program.made:
            program.made["start"] = trace_start(program, bound.samples)
            program.made["attempt"] = trace_attempt(program, bound.samples)
        graphs = program.made["start"], program.made["attempt"]
        program.made[key] = load(forward_source(bound.signature, *graphs, _polynomial(bound)))
    return program.made[key]


def backward_library(bound: Bound) -> Any:
    """Return the library that carries cotangents back."""
    slots = tuple(one.slot for one in bound.wanted)
    program, key = bound.program, ("backward", bound.signature, slots)
    if key not in program.made:
        names = [one.slot.name for one in bound.inputs]
        carries = [f"carry{i}" for i in range(bound.signature.carries)]
        wanted = [names.index(slot.name) for slot in slots]
        start = None
        if carries:
            start = trace_pullback(program, bound.samples, [names.index("y"), *wanted], lambda x: x.start.carry)
        moving = [names.index(name) for name in ("y", *carries)]
        step = trace_pullback(program, bound.samples, [*moving, *wanted], Differentiable.of)
        program.made[key] = load(backward_source(bound.signature, start, step, slots, _polynomial(bound)))
    return program.made[key]


def _polynomial(bound: Bound) -> Polynomial | None:
    """Return the graphs of the continuous extension, None for a method whose extension takes further stages."""
    method, kernels, signature = bound.task.method, bound.program.made, bound.signature
    assert isinstance(method, ExplicitRungeKutta)
    if method.dense_evaluations:
        return None
    if "polynomial" not in kernels:
        kernels["polynomial"] = trace_polynomial(method, signature.dimension, signature.dtype)
    return kernels["polynomial"]
