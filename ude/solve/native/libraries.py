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
    program, code = bound.program, bound.code
    if code.forward is None:
        start, attempt = (trace(program, bound.samples) for trace in (trace_start, trace_attempt))
        code.forward = load(forward_source(code.signature, start, attempt, _polynomial(bound)))
    return code.forward


def write_backward(bound: Bound) -> None:
    """Write the code that carries cotangents back, so that what cannot be written is known before the first step.

    Raises:
        Unsupported: If it cannot be written.
    """
    program, code, samples = bound.program, bound.code, bound.samples
    if bound.wanted not in code.backward:
        names, start = [slot.name for slot in code.signature.inputs], None
        y, *carry = (names.index(name) for name in code.signature.moving)
        if carry:
            start = trace_pullback(program, samples, [y, *bound.wanted], lambda results: results.start.carry)
        step = trace_pullback(program, samples, [y, *carry, *bound.wanted], Differentiable.of)
        code.backward[bound.wanted] = backward_source(code.signature, start, step, bound.slots, _polynomial(bound))


def backward_library(bound: Bound) -> Any:
    """Return the library that carries cotangents back."""
    write_backward(bound)
    made = bound.code.backward
    if isinstance(made[bound.wanted], str):
        made[bound.wanted] = load(made[bound.wanted])
    return made[bound.wanted]


def _polynomial(bound: Bound) -> Polynomial | None:
    """Return the graphs of the continuous extension, None for a method whose extension takes further stages."""
    method, signature = bound.task.method, bound.code.signature
    assert isinstance(method, ExplicitRungeKutta)
    return None if method.dense_evaluations else trace_polynomial(method, signature.dimension, signature.dtype)
