r"""Taylor coefficients of the solution of an ordinary differential equation, one pass through the field for each.

From $y' = f(t, y)$ follows $(k + 1)\, y_{k+1} = f_k$ for the normalised coefficients $y_k = y^{(k)} / k!$, and $f_k$
needs $y_0, \dots, y_k$ only. The field is called once, on the value; what it does is recorded, and the coefficient k of
every intermediate result follows from lower ones: a product with each weight matrix per order, and $O(k)$ products of
numbers for each function. Nested differentiation is exponential in the order, and pushing longer and longer series
through the field is quadratic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ude._typing import State, VectorField
from ude.ad.jet import check_float
from ude.ad.lifted import Lifted
from ude.ad.nodes import Captured, Constant, Cotangents, Node, Root
from ude.ad.recording import is_transformed
from ude.ad.series import Coefficient, Pool, Series, given
from ude.ad.tape import Tape, Traced


def ode_series(f: VectorField, t: Tensor | float, y: State, order: int) -> State:
    r"""Taylor coefficients of the solution of $y' = f(t, y)$ through the point $(t, y)$.

    $$y(t + h) = \sum_{k=0}^{K} c_k h^k + O(h^{K+1}), \qquad c_k = y^{(k)}(t) / k!$$

    One call of `f` and K products with each of its weight matrices, $O(K^2)$ products of numbers for each function in
    it. The reverse mode of the result is a sweep of the same cost, with the gradient of each weight matrix as one
    product; under `torch.func`, `torch.compile` and for higher derivatives it is that of the single operations. So it
    is, after a second call of `f`, if `f` holds functions that compute with values outside the table of rules, such as
    `atan2` and `linalg.inv`. Weights and other tensors that `f` reads must not change in place before the reverse mode,
    which raises a `RuntimeError` if they did; under autocast it runs in the formats of the weights.
    Numbers that are not finite pass into the result as they do in `f`.

    Args:
        f: Vector field, called as `f(t, y)`. It may depend on values by control flow; the branch taken at `(t, y)`
            counts.
        t: Time: a number, a tensor of shape `()`, or any shape that `f` accepts, such as `(batch,)`.
        y: State: a tensor of any shape, or a pytree of such.
        order: The highest coefficient, $K \geq 1$.

    Returns:
        The coefficients $c_0, \dots, c_K$ on a new first axis: shape `(K + 1, *y.shape)` for every tensor in `y`.

    Raises:
        ValueError: If the order is less than 1, or the value of `f` differs from `y` in structure, shape or dtype.
        TypeError: If `t` or `y` holds anything but real or complex floats.

    Example:
        >>> ode_series(lambda t, y: y, 0.0, torch.tensor(1.0), 4)
        tensor([1.0000, 1.0000, 0.5000, 0.1667, 0.0417])
    """
    return _solve(None, f, t, y, order)


def total_derivatives(g: Callable[..., Any], f: VectorField, t: Tensor | float, y: State, order: int) -> Any:
    r"""Derivatives of $g(t, y(t))$ with respect to time, along the solution of $y' = f(t, y)$ through $(t, y)$.

    $$\frac{d^k g}{dt^k} = (\partial_t + f \cdot \partial_y)^k\, g, \qquad k = 0, \dots, K$$

    One call of `f` and of `g`, with K and K + 1 products with each of their weight matrices.

    Args:
        g: Function of `(t, y)`; its value is a tensor or a pytree of tensors.
        f: Vector field, called as `f(t, y)`.
        t: Time, as in `ode_series`.
        y: State, as in `ode_series`.
        order: The highest derivative, $K \geq 1$.

    Returns:
        The derivatives of order 0 to K, not divided by factorials, on a new first axis of every tensor in `g(t, y)`.

    Raises:
        ValueError: If the order is less than 1, or the value of `f` does not fit `y`.
        TypeError: If `t` or `y` holds anything but real or complex floats.

    Example:
        >>> y = torch.tensor([0.0, 1.0])
        >>> total_derivatives(lambda t, y: y.square().sum(), lambda t, y: -y, 0.0, y, 3)
        tensor([ 1., -2.,  4., -8.])
    """
    return pytree.tree_map(_unnormalised, _solve(g, f, t, y, order))


def mean_square_derivatives(series: State) -> Tensor:
    r"""Mean square over the components of every derivative, $\frac1n \lVert y^{(k)} \rVert^2$: the integrand of $R_k$.

    Args:
        series: Normalised coefficients from `ode_series`, shape `(order + 1, *batch, state)`, or a pytree of such with
            the same batch.

    Returns:
        One number for each order and sample, shape `(order + 1, *batch)`.

    Example:
        >>> series = ode_series(lambda t, y: 2.0 * y, 0.0, torch.ones(5, 3), 2)
        >>> mean_square_derivatives(series)[:, 0]
        tensor([ 1.,  4., 16.])

    Reference:
        Kelly, Bettencourt, Johnson & Duvenaud (2020), Learning differential equations that are easy to solve,
        arXiv:2007.04504, section 3.
    """
    leaves = [_unnormalised(leaf) for leaf in pytree.tree_leaves(series)]
    squares = [(leaf * leaf.conj()).real.sum(-1) for leaf in leaves]
    return torch.stack(squares).sum(0) / sum(leaf.shape[-1] for leaf in leaves)


def _unnormalised(coefficients: Tensor) -> Tensor:
    factors = [float(math.factorial(k)) for k in range(len(coefficients))]
    return coefficients * coefficients.new_tensor(factors).reshape(-1, *[1] * (coefficients.ndim - 1))


def _solve(g: Callable[..., Any] | None, f: VectorField, t: Tensor | float, y: State, order: int) -> Any:
    if not isinstance(order, int) or isinstance(order, bool) or order < 1:
        raise ValueError(f"Expected an order of at least 1, an integer, got {order!r}.")
    leaves, spec = pytree.tree_flatten(y)
    if not leaves:
        raise ValueError(f"Expected a tensor or a pytree of tensors for `y`, got {y!r}.")
    for leaf in leaves:
        check_float(leaf, "`y`")
    if not isinstance(t, Tensor):
        t = torch.as_tensor(t, dtype=leaves[0].real.dtype if leaves[0].is_complex() else leaves[0].dtype).to(
            leaves[0].device
        )
    check_float(t, "`t`")
    inputs = (t, *leaves)
    if torch.is_grad_enabled() and not is_transformed():
        series = _analytic(g, f, inputs, spec, order)
        if series is not None:
            return series
    tape = Tape(order if g is not None else order - 1, analytic=False)
    try:
        with tape.pool:
            plan, result_spec = _plan(tape, g, f, inputs, spec, order)
        return pytree.tree_unflatten(plan.sweep(), result_spec)
    finally:
        tape.forget()


def _analytic(
    g: Callable[..., Any] | None, f: VectorField, inputs: tuple[Tensor, ...], spec: Any, order: int
) -> Any | None:
    """Compute the series with its own reverse mode; None if a gradient might get lost."""
    tape = Tape(order if g is not None else order - 1, analytic=True)
    try:
        with tape.pool:
            plan, result_spec = _plan(tape, g, f, inputs, spec, order)
        if not tape.is_recorded:
            raise ValueError(
                "Expected a vector field that autograd may record from end to end, got one that uses `torch.no_grad`, "
                "whose meaning for higher derivatives is not defined. Use `.detach()` on what is to be constant, or "
                "call this function under `torch.no_grad` too."
            )
        if not tape.is_sound():
            return None
        if tape.captured or any(x.requires_grad for x in inputs):
            return pytree.tree_unflatten(list(_Solution.apply(plan, *inputs, *tape.captured)), result_spec)
        with torch.no_grad():
            return pytree.tree_unflatten(plan.sweep(), result_spec)
    finally:
        tape.forget()


class _Plan(NamedTuple):
    """What to compute.

    Args:
        tape: The fields, recorded.
        inputs: Nodes of the time and of the tensors of the state.
        slopes: Nodes of the tensors of the vector field.
        results: What is asked for.
        order: The highest coefficient of the results.
    """

    tape: Tape
    inputs: list[Node]
    slopes: list[Node]
    results: list[Node]
    order: int

    @property
    def used(self) -> list[Node]:
        """The nodes that matter, in order."""
        return [node for node in self.tape.nodes if node.count]

    def sweep(self) -> list[Tensor]:
        """Compute all coefficients, one order after the other, and return those asked for."""
        used = self.used
        for k in range(1, self.order + 1):
            for node in used:
                if k < node.count:
                    node.series[k]
        return [_stacked(node.series, node, self.order) for node in self.results]

    def replay(self, inputs: Sequence[Tensor], captured: Captured) -> list[Tensor]:
        """Compute the results at other values of everything, by the plain rules."""
        used = [node for node in self.used if not isinstance(node, Root)]
        pool = Pool()
        with pool:
            series: list[Series] = [given([])] * len(self.tape.nodes)
            _start(self.inputs, inputs, [lambda k, p=slope.place: series[p][k] for slope in self.slopes], series)
            for node in used:
                series[node.place] = node.build([series[operand.place] for operand in node.operands], captured)
        try:
            for k in range(self.order + 1):
                for node in used:
                    if k < node.count:
                        series[node.place][k]
            return [_stacked(series[node.place], node, self.order) for node in self.results]
        finally:
            pool.forget()


def _plan(
    tape: Tape, g: Callable[..., Any] | None, f: VectorField, inputs: Sequence[Tensor], spec: Any, order: int
) -> tuple[_Plan, Any]:
    """Call the field, and the other function, once and record what they do."""
    slopes: list[Node] = []
    values = [x.detach() for x in inputs] if tape.analytic else list(inputs)
    steps = [lambda k, i=i: slopes[i].series[k] for i in range(len(values) - 1)]
    series: list[Series] = [given([])] * len(values)
    roots = [tape.root(value, one) for value, one in zip(values, series, strict=True)]
    _start([root.node for root in roots], values, steps, series)
    for root, one in zip(roots, series, strict=True):
        root.node.series = one
    t, y = roots[0], pytree.tree_unflatten(roots[1:], spec)
    slopes += _checked_slopes(tape, f(t, y), roots[1:], spec)
    if g is None:
        results, result_spec = [root.node for root in roots[1:]], spec
    else:
        leaves, result_spec = pytree.tree_flatten(g(t, y), is_leaf=lambda x: isinstance(x, Traced))
        results = [_node_of(tape, leaf) for leaf in leaves]
    _count(tape, slopes, order)
    _count(tape, results, order + 1)
    return _Plan(tape, [root.node for root in roots], slopes, results, order), result_spec


def _start(
    nodes: Sequence[Node], values: Sequence[Tensor], steps: Sequence[Callable[[int], Coefficient]], series: list[Series]
) -> None:
    r"""Enter the series of the time, $(t, 1, 0, \dots)$, and of the state, from those of its derivative."""
    series[nodes[0].place] = given([values[0], torch.ones_like(values[0])])
    for node, value, step in zip(nodes[1:], values[1:], steps, strict=True):
        series[node.place] = _antiderivative(value, step)


def _antiderivative(value: Tensor, slope: Callable[[int], Coefficient]) -> Series:
    def step(k: int) -> Coefficient:
        if k == 0:
            return value
        coefficient = slope(k - 1)
        return coefficient if coefficient is None or k == 1 else coefficient * (1.0 / k)

    return Series(step)


def _checked_slopes(tape: Tape, result: Any, states: Sequence[Traced], spec: Any) -> list[Node]:
    leaves, result_spec = pytree.tree_flatten(result, is_leaf=lambda x: isinstance(x, Traced))
    if result_spec != spec:
        raise ValueError(f"Expected a vector field with a value of the structure of `y`, {spec}, got {result_spec}.")
    for leaf, state in zip(leaves, states, strict=True):
        if not isinstance(leaf, Tensor | Traced) or leaf.shape != state.shape or leaf.dtype != state.dtype:
            got = f"{tuple(leaf.shape)} {leaf.dtype}" if isinstance(leaf, Tensor | Lifted) else type(leaf).__name__
            raise ValueError(
                "Expected a vector field with a value of the shape and dtype of `y`, "
                f"{tuple(state.shape)} {state.dtype}, got {got}. A different shape usually comes from broadcasting "
                "with the time, a different dtype from a constant or a module in another precision."
            )
    return [_node_of(tape, leaf) for leaf in leaves]


def _node_of(tape: Tape, leaf: Any) -> Node:
    if isinstance(leaf, Traced):
        return leaf.node
    value = torch.as_tensor(leaf)
    return tape.add(Constant(value, tape.capture(value))).node


def _count(tape: Tape, ends: Sequence[Node], count: int) -> None:
    """Note how many coefficients are needed of everything that these nodes depend on."""
    waiting = list(ends)
    while waiting:
        node = waiting.pop()
        if node.count < count:
            node.count = count
            waiting += node.operands


def _stacked(series: Series, node: Node, order: int) -> Tensor:
    coefficients = [series[k] for k in range(order + 1)]
    value = series.primal
    zero = None
    rows = []
    for coefficient in coefficients:
        if isinstance(coefficient, Tensor):
            rows.append(coefficient.expand(node.shape).to(node.dtype))
        elif coefficient is None:
            zero = torch.zeros_like(value) if zero is None else zero
            rows.append(zero)
        else:
            rows.append(torch.full_like(value, coefficient))
    return torch.stack(rows)


class _Solution(torch.autograd.Function):
    """The coefficients as one node of autograd, with the adjoint of the recurrence."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, *tensors: Tensor) -> Any:
        results = plan.sweep()
        saved: list[Tensor] = []
        layout: list[tuple[Node, list[list[Any]]]] = []
        for node in plan.used:
            rows: list[list[Any]] = [[one[k] for k in range(node.count)] for one in node.kept()]
            layout.append((node, rows))
            for row in rows:
                for k, coefficient in enumerate(row):
                    if isinstance(coefficient, Tensor):
                        saved.append(coefficient)
                        row[k] = _SAVED
        ctx.plan, ctx.layout, ctx.inputs = plan, layout, len(plan.inputs)
        ctx.autocast = _autocast_now(tensors[0].device.type)
        ctx.save_for_backward(*tensors, *saved)
        ctx.set_materialize_grads(False)
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *bars: Tensor | None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        plan: _Plan = ctx.plan
        count = len(plan.inputs) + len(plan.tape.captured)
        kept = ctx.saved_tensors
        tensors, saved = kept[:count], iter(kept[count:])
        plan.tape.check_unchanged(replayed=torch.is_grad_enabled())
        if torch.is_grad_enabled():
            with ctx.autocast():
                return None, *_differentiable_pullback(plan, tensors, bars)
        layout = [
            (node, [[next(saved) if x is _SAVED else x for x in row] for row in rows]) for node, rows in ctx.layout
        ]
        with _without_autocast(tensors[0].device.type):  # the nodes see to the formats
            return None, *_pullback(plan, tensors, layout, bars, ctx.autocast)


def _autocast_now(device: str) -> Callable[[], Any]:
    """Return what makes the state of autocast as it is now."""
    if not torch.amp.is_autocast_available(device):
        return nullcontext
    enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    return lambda: torch.autocast(device, dtype, enabled, cache_enabled=False)


def _without_autocast(device: str) -> Any:
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


_SAVED = object()
"""Stands for a tensor that autograd keeps."""


def _pullback(
    plan: _Plan, tensors: Sequence[Tensor], layout: Any, results: Sequence[Tensor | None], autocast: Callable[[], Any]
) -> list[Any]:
    """Return the cotangents of inputs and captured tensors: a sweep from the highest order to the lowest."""
    bars = Cotangents([node.count for node in plan.tape.nodes], tensors[len(plan.inputs) :], autocast)
    for node, result in zip(plan.results, results, strict=True):
        if result is not None:
            for k, bar in enumerate(result.unbind(0)):
                bars.add(node, k, bar)
    states = plan.inputs[1:]
    backwards = layout[::-1]
    for k in range(plan.order, -1, -1):
        for node, kept in backwards:
            if k < node.count:
                node.pull(k, bars, kept)
        for state, slope in zip(states, plan.slopes, strict=True):
            bar = bars.coefficients[state.place][k] if 0 < k < state.count else None
            if bar is not None:
                bars.add(slope, k - 1, bar if k == 1 else bar * (1.0 / k))
    return [*(bars.coefficients[node.place][0] if node.count else None for node in plan.inputs), *bars.captured]


def _differentiable_pullback(plan: _Plan, tensors: Sequence[Tensor], bars: Sequence[Tensor | None]) -> tuple[Any, ...]:
    """Do so by autograd, which can be differentiated again."""
    count = len(plan.inputs)

    def results(*values: Tensor) -> tuple[Tensor, ...]:
        return tuple(plan.replay(values[:count], values[count:]))

    values, pullback = torch.func.vjp(results, *tensors)[:2]
    return pullback(tuple(torch.zeros_like(x) if bar is None else bar for x, bar in zip(values, bars, strict=True)))
