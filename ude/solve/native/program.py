"""One attempt on one sample, as a graph of tensor operations."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import functionalize
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from ude import ad
from ude._typing import VectorField
from ude.methods.explicit import ExplicitRungeKutta
from ude.methods.method import Method
from ude.solve.compilation import compiled_for
from ude.solve.controllers import Controller
from ude.solve.engines import Task
from ude.solve.flatten import Layout
from ude.solve.start import start
from ude.solve.step import Attempt, Limits, Point, attempt
from ude.solve.traced import Traced, Unsupported, find


class Arguments(NamedTuple):
    """Of the program: everything that has a batch axis has it with length one.

    Args:
        p: The user's parameters.
        limits: End of the interval and tolerances.
        point: Where the sample stands.
        first: Length of the first step; None to choose one.
    """

    p: Any
    limits: Limits
    point: Point
    first: Tensor | None


class Results(NamedTuple):
    """Of the program.

    Args:
        start: The point before the first step from the time and state given.
        following: The point after an attempt from the point given.
        record: Of that attempt.
    """

    start: Point
    following: Point
    record: Attempt


@dataclass(slots=True)
class Program(Traced):
    """The start and an attempt of one sample.

    Args:
        rows: Attempts that the last solve made, and some.
        codes: What was made of it, for several numbers of samples at once.
        is_plain: No `vmap` or the like is in it.
    """

    rows: int = 64
    codes: dict[Any, Any] = field(default_factory=dict)
    is_plain: bool = False

    def outputs(self, inputs: Sequence[Tensor]) -> Results:
        """Run the graph on plain tensors."""
        return self.named(self.graph(*inputs), inputs)


def look_up(task: Task, arguments: Arguments) -> tuple[Program, tuple[Tensor, ...]]:
    """Return the program of a task and the tensors that are its inputs now.

    Args:
        task: The solve.
        arguments: Those of one sample, every tensor an object of its own.

    Raises:
        Unsupported: If the vector field cannot be traced, or a result is no tensor that depends on the inputs.
    """
    configuration = ("native", task.layout, task.method, task.controller, arguments.first is None)
    look = compiled_for(
        task.vector_field, configuration, lambda: _make(*configuration[1:4]), Program.of, "seconds", thorough=True
    )
    # One program serves solves with and without a gradient.
    with nullcontext() if torch.is_grad_enabled() else torch.enable_grad():
        program, inputs = find(look, task.vector_field, arguments)
    if not program.is_plain:
        _write_out_transforms(program, inputs)
    return program, inputs


def _write_out_transforms(program: Program, inputs: Sequence[Tensor]) -> None:
    """Replace `vmap` and the like by what they do, which must be before the program is traced for anything else."""
    if any("functorch" in str(getattr(node.target, "__module__", "")) for node in program.graph.graph.nodes):
        graph = program.graph
        with torch.no_grad():
            program.graph = trace(lambda *x: list(graph(*x)), *inputs, pure=False)
    program.is_plain = True


def _make(layout: Layout, method: Method, controller: Controller) -> Any:
    """Return the function that is traced. It must not hold the vector field, which would then never be freed."""

    def sample(vector_field: VectorField, p: Any, limits: Limits, point: Point, first: Tensor | None) -> Results:
        field = layout.bind(vector_field, p)
        beginning = start(field, method, controller, limits, point.t, point.y, first)
        return Results(beginning, *attempt(field, method, controller, limits, point))

    return sample


def trace(function: Any, *inputs: Any, pure: bool = True) -> GraphModule:
    """Return the elementary operations that a function of tensors makes; `pure` to turn those in place into others.

    Raises:
        Unsupported: If it cannot be traced.
    """
    from torch.fx.experimental.proxy_tensor import make_fx  # late: it brings sympy with it

    # Tensors that are the same object would become one input.
    separate = pytree.tree_map_only(Tensor, torch.clone, inputs)
    function = functionalize(function, remove="mutations") if pure else function
    try:
        graph = make_fx(function, decomposition_table=_decompositions())(*separate)
    except Exception as error:  # whatever transforms inside of the vector field may raise
        raise Unsupported(f"its operations cannot be listed: {error}") from error
    graph.graph.eliminate_dead_code()
    return graph


@functools.cache
def _decompositions() -> dict[Any, Callable[..., Any]]:
    """Return inductor's table, and what inductor has kernels for but generated code has not."""
    from torch._decomp import get_decompositions
    from torch._inductor.decomposition import select_decomp_table

    aten = torch.ops.aten
    norms = get_decompositions([aten.native_layer_norm, aten.native_layer_norm_backward, aten.native_group_norm])
    variances = {aten.var_mean.correction: _var_mean, aten.var.correction: lambda *x, **kw: _var_mean(*x, **kw)[0]}
    table = {**select_decomp_table(), **norms, **variances}
    for name in (aten.select_backward.default, aten.slice_backward.default):
        table.pop(name, None)  # they would be made of operations in place
    return table


def _var_mean(
    x: Tensor, dim: Any = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    dims = list(range(x.ndim)) if dim is None else list(dim)
    count = math.prod(x.shape[d] for d in dims)
    mean = x.mean(dims, keepdim=True)
    variance = (x - mean).square().sum(dims, keepdim=keepdim) / (count - (1 if correction is None else correction))
    return variance, mean if keepdim else x.mean(dims)


def trace_start(program: Program, inputs: Sequence[Tensor]) -> GraphModule:
    """Return the graph of the start; its outputs are the leaves of the first point."""
    with torch.no_grad():
        return trace(lambda *x: pytree.tree_leaves(program.outputs(x).start), *inputs)


def trace_attempt(program: Program, inputs: Sequence[Tensor]) -> GraphModule:
    """Return the graph of an attempt; its outputs are the leaves of the next point and of the record."""
    with torch.no_grad():
        return trace(lambda *x: pytree.tree_leaves(program.outputs(x)[1:]), *inputs)


class Differentiable(NamedTuple):
    """What the gradient of a step goes through."""

    y1: Tensor
    error: Tensor
    stiffness: Tensor
    stages: tuple[Tensor, ...]

    @classmethod
    def of(cls, results: Results) -> Differentiable:
        """Return the part of the record of an attempt that depends on its start."""
        record = results.record
        return cls(record.y1, record.error, record.stiffness, record.stages)


def trace_pullback(
    program: Program, inputs: Sequence[Tensor], wanted: Sequence[int], choose: Callable[[Results], Any]
) -> GraphModule:
    """Return the graph from inputs and cotangents of some results to those of some inputs.

    Args:
        program: Start and attempt.
        inputs: Those of its graph.
        wanted: Numbers of the inputs to differentiate by.
        choose: Returns the results.
    """

    def pulled(inputs: Sequence[Tensor], cotangents: Any) -> tuple[Tensor, ...]:
        def step(*chosen: Tensor) -> Any:
            given = list(inputs)
            for i, x in zip(wanted, chosen, strict=True):
                given[i] = x
            return choose(program.outputs(given))

        return ad.vjp(step, *(inputs[i] for i in wanted))[1](cotangents)

    detached = [x.detach() for x in inputs]
    with torch.no_grad():
        ends = choose(program.outputs(detached))
    return trace(pulled, detached, pytree.tree_map(torch.zeros_like, ends))


class Polynomial(NamedTuple):
    """The graphs of the continuous extension, a polynomial in the fraction of a step.

    Args:
        coefficients: From the stages to its coefficients, in double precision.
        state: From fraction, step, state at the start and coefficients to a state between.
        stages_back: From stages and cotangents of the coefficients to those of the stages.
        state_back: From what `state` takes and the cotangent of its result to those of start and coefficients.
    """

    coefficients: GraphModule
    state: GraphModule
    stages_back: GraphModule
    state_back: GraphModule


@functools.cache
def trace_polynomial(method: ExplicitRungeKutta, dimension: int, dtype: torch.dtype) -> Polynomial:
    r"""Return the graphs of $y_0 + \Delta t \sum_j \theta^j \sum_i b_{ij} k_i$.

    Args:
        method: Knows the weights; it needs no further stages.
        dimension: Numbers in the state.
        dtype: Of the state.
    """
    weights = method.tableau.dense
    assert weights is not None  # every tableau has some

    def coefficients(stages: Sequence[Tensor]) -> list[Tensor]:
        totals = []
        for column in zip(*weights, strict=True):
            terms = [b * stage.double() for b, stage in zip(column, stages, strict=False) if b != 0.0]
            totals.append(sum(terms[1:], terms[0]) if terms else torch.zeros_like(stages[0], dtype=torch.float64))
        return totals

    def state(theta: Tensor, dt: Tensor, y0: Tensor, totals: Sequence[Tensor]) -> Tensor:
        theta = theta.double().unsqueeze(-1)
        slope = totals[-1]
        for total in reversed(totals[:-1]):
            slope = slope * theta + total
        return y0 + dt.unsqueeze(-1) * (slope * theta).to(y0.dtype)

    y = torch.zeros(1, dimension, dtype=dtype)
    stages = [y.clone() for _ in weights]
    totals = [y.double() for _ in weights[0]]
    half = torch.full((1,), 0.5, dtype=dtype)
    point = (half, half.clone(), y, totals)
    return Polynomial(
        coefficients=trace(coefficients, stages),
        state=trace(lambda *x: [state(*x)], *point),
        stages_back=trace(lambda k, c: list(ad.vjp(lambda *k: coefficients(k), *k)[1](c)), stages, totals),
        state_back=trace(
            lambda theta, dt, y0, c, g: list(ad.vjp(lambda y0, *c: state(theta, dt, y0, c), y0, *c)[1](g)), *point, y
        ),
    )
