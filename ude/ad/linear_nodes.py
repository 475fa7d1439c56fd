"""Nodes of a tape that are linear or bilinear functions of whole tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from ude.ad.nodes import Captured, Cotangents, Kept, Node, adjoint, chosen, full
from ude.ad.series import Coefficient, Series, given


class Layer(Node):
    r"""$x W^T + b$; the gradient of $W$ is one product of all coefficients of $x$ with all cotangents."""

    __slots__ = ("bias", "bias_number", "weight", "weight_number")

    def __init__(
        self, operand: Node, weight: Tensor, bias: Tensor | None, numbers: tuple[int | None, int | None]
    ) -> None:
        super().__init__(operand)
        self.weight, self.bias = weight, bias
        self.weight_number, self.bias_number = numbers

    def build(self, operands: Sequence[Series], captured: Captured) -> Series:
        r"""Return $x_0 W^T + b, x_1 W^T, \dots$."""
        x, shape = operands[0], self.operands[0].shape
        weight = chosen(self.weight, self.weight_number, captured)
        bias = chosen(self.bias, self.bias_number, captured)

        def step(k: int) -> Coefficient:
            coefficient = x[k]
            if coefficient is None:
                return None
            return functional.linear(full(coefficient, shape, weight), weight, bias if k == 0 else None)

        return Series(step)

    def kept(self) -> list[Series]:
        """Return what the cotangents are multiplied with."""
        return [] if self.weight_number is None else [self.operands[0].series]

    def reread(self) -> Sequence[Any]:
        """Return the weight."""
        return (self.weight,) if self.weight_number is None else ()

    def pull(self, k: int, bars: Cotangents, kept: Kept) -> None:
        r"""Add $\bar y_k W$ to $\bar x_k$, $\bar y_k^T x_k$ to $\bar W$ and $\bar y_0$ to $\bar b$."""
        bar = bars.coefficients[self.place][k]
        if bar is None:
            return
        weight = chosen(self.weight, self.weight_number, bars.values)
        if bar.dtype != weight.dtype:  # under autocast
            bar = bar.to(weight.dtype)
        bars.add(self.operands[0], k, torch.matmul(bar, adjoint(weight)))
        if k == 0 and self.bias_number is not None:
            bars.add_captured(self.bias_number, bar)
        if self.weight_number is not None and kept[0][k] is not None:
            # One product for each order, added in place, measured as fast as one product of all orders put together.
            x = adjoint(full(kept[0][k], self.operands[0].shape, bar)).reshape(-1, weight.shape[1])
            bars.add_product(self.weight_number, bar.reshape(-1, weight.shape[0]), x)


class Reshaped(Node):
    """The same numbers in the same order, in another shape."""

    __slots__ = ("function",)

    is_opaque = True

    def __init__(self, function: Callable[[Tensor], Tensor], operand: Node) -> None:
        super().__init__(operand)
        self.function = function

    def build(self, operands: Sequence[Series], captured: Captured) -> Series:
        """Return every coefficient in the new shape."""
        x, operand, function = operands[0], self.operands[0], self.function

        def step(k: int) -> Coefficient:
            coefficient = x[k]
            return coefficient if coefficient is None else function(full(coefficient, operand.shape, x.primal))

        return Series(step)

    def pull(self, k: int, bars: Cotangents, kept: Kept) -> None:
        """Return the cotangent to the old shape."""
        bar = bars.coefficients[self.place][k]
        if bar is not None:
            bars.add(self.operands[0], k, bar.reshape(self.operands[0].shape))


class Linear(Node):
    """A function that is linear in its operands together, or affine with a given linear part.

    Its transpose is autograd's; nothing is known about the function. Tensors that it closes over are found in the graph
    that autograd records for its value.

    Args:
        function: Called with tensors.
        derivative: Its linear part; None if it is linear.
        arguments: What it is called with: nodes, or tensors that do not change with time.
        numbers: The number of every argument that is a tensor with a gradient.
    """

    __slots__ = ("arguments", "derivative", "first", "function", "hidden", "leaves", "numbers", "outputs", "parts")

    def __init__(
        self,
        function: Callable[..., Any],
        derivative: Callable[..., Any] | None,
        arguments: Sequence[Node | Tensor],
        numbers: Sequence[int | None],
    ) -> None:
        super().__init__(*(argument for argument in arguments if isinstance(argument, Node)))
        self.function, self.derivative = function, derivative or function
        self.arguments, self.numbers = tuple(arguments), tuple(numbers)
        self.first: Any = None
        self.hidden: dict[int, Tensor] = {}
        self.parts: tuple[int, ...] = ()  # places of the results, if there are several
        self.outputs: tuple[Tensor, ...] = ()
        self.leaves: list[Tensor] = []

    def build(self, operands: Sequence[Series], captured: Captured) -> Series:
        """Return the function of coefficients k, zeros where there are none."""
        series = iter(operands)
        rows = [
            next(series) if isinstance(argument, Node) else given([chosen(argument, number, captured)])
            for argument, number in zip(self.arguments, self.numbers, strict=True)
        ]

        def step(k: int) -> Any:
            if k == 0 and captured is None and self.first is not None:
                return self.first
            coefficients = [row[k] for row in rows]
            if all(coefficient is None for coefficient in coefficients):
                return None
            tensors = [
                torch.zeros_like(row.primal) if x is None else full(x, row.primal.shape, row.primal)
                for x, row in zip(coefficients, rows, strict=True)
            ]
            with self._substituted(captured):
                return (self.derivative if k else self.function)(*tensors)

        return Series(step)

    def kept(self) -> list[Series]:
        """Return what the cotangents are multiplied with."""
        return [operand.series for operand in self.operands] if self.hidden else []

    def pull(self, k: int, bars: Cotangents, kept: Kept) -> None:
        r"""Add what autograd makes of $\bar y_k$."""
        ends = [bars.coefficients[place] for place in self.parts or (self.place,)]
        rows = [end[k] if k < len(end) else None for end in ends]
        used = [i for i, row in enumerate(rows) if row is not None and self.outputs[i].requires_grad]
        if not used:
            return
        cotangents = [cast(Tensor, rows[i]) for i in used]
        if self.hidden:
            self._pull_hidden(k, used, cotangents, bars, kept)
            return
        places = [
            i for i, x in enumerate(self.leaves) if x.requires_grad and (k == 0 or isinstance(self.arguments[i], Node))
        ]
        outputs = [self.outputs[i] for i in used]
        self._add(k, places, _gradients(outputs, [self.leaves[i] for i in places], cotangents), bars)

    def _pull_hidden(self, k: int, used: list[int], cotangents: Any, bars: Cotangents, kept: Kept) -> None:
        """Do so with another evaluation, since the transpose with respect to what is hidden depends on the argument."""
        coefficients = iter(kept)
        with torch.enable_grad():
            leaves = [torch.zeros_like(x) if k else x.detach() for x in self.leaves]
            for i, argument in enumerate(self.arguments):
                if isinstance(argument, Node):
                    x = next(coefficients)[k]
                    leaves[i] = leaves[i] if x is None else full(x, argument.shape, leaves[i]).detach()
                leaves[i].requires_grad_(self.leaves[i].requires_grad)
            weights = [tensor.detach().requires_grad_() for tensor in bars.values]
            with self._substituted(weights), bars.autocast():
                result = (self.derivative if k else self.function)(*leaves)
        outputs = list(tensors_of(result))
        places = [
            i for i, x in enumerate(self.leaves) if x.requires_grad and (k == 0 or isinstance(self.arguments[i], Node))
        ]
        inputs = [*(leaves[i] for i in places), *(weights[i] for i in self.hidden)]
        gradients = _gradients([outputs[i] for i in used], inputs, cotangents)
        self._add(k, places, gradients[: len(places)], bars)
        for number, bar in zip(self.hidden, gradients[len(places) :], strict=True):
            if bar is not None:
                bars.add_captured(number, bar)

    def _add(self, k: int, places: list[int], gradients: Sequence[Tensor | None], bars: Cotangents) -> None:
        for i, bar in zip(places, gradients, strict=True):
            argument = self.arguments[i]
            if bar is None:
                continue
            if isinstance(argument, Node):
                bars.add(argument, k, bar)
            else:
                number = self.numbers[i]
                assert number is not None  # only these have a gradient
                bars.add_captured(number, bar)

    def _substituted(self, captured: Captured) -> Any:
        if captured is None or not self.hidden:
            return nullcontext()
        return Substituted({id(original): captured[number] for number, original in self.hidden.items()})


class Part(Node):
    """One of several results of a linear function."""

    __slots__ = ("index",)

    def __init__(self, whole: Linear, index: int) -> None:
        super().__init__(whole)
        self.index = index

    def build(self, operands: Sequence[Series], captured: Captured) -> Series:
        """Return one of the results."""
        whole, index = operands[0], self.index

        def step(k: int) -> Any:
            results = whole[k]
            return None if results is None else tensors_of(results)[index]

        return Series(step)


class Bilinear(Node):
    """A function that is linear in each of two operands."""

    __slots__ = ("function",)

    is_opaque = True

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], a: Node, b: Node) -> None:
        super().__init__(a, b)
        self.function = function

    def build(self, operands: Sequence[Series], captured: Captured) -> Series:
        r"""Return $c_k = \sum_j B(a_j, b_{k-j})$."""
        (a, b), function = operands, self.function

        def step(k: int) -> Coefficient:
            total: Tensor | None = None
            for j in range(k + 1):
                x, y = a[j], b[k - j]
                if x is not None and y is not None:
                    term = function(full(x, a.primal.shape, a.primal), full(y, b.primal.shape, b.primal))
                    total = term if total is None else total + term
            return total

        return Series(step)

    def kept(self) -> list[Series]:
        """Return what the cotangents are multiplied with."""
        return [operand.series for operand in self.operands]

    def pull(self, k: int, bars: Cotangents, kept: Kept) -> None:
        """Add the cotangents of every product in $c_k$."""
        bar = bars.coefficients[self.place][k]
        if bar is None:
            return
        a, b = self.operands
        for j in range(k + 1):
            x, y = kept[0][j], kept[1][k - j]
            if x is not None and y is not None:
                factors = full(x, a.shape, bar).to(a.dtype), full(y, b.shape, bar).to(b.dtype)
                with bars.autocast():
                    left, right = self.transposed(*factors, bar)
                bars.add(a, j, left)
                bars.add(b, k - j, right)

    def transposed(self, x: Tensor, y: Tensor, bar: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cotangents of both factors of one product."""
        with torch.enable_grad():
            x, y = x.detach().requires_grad_(), y.detach().requires_grad_()
            gradients = torch.autograd.grad(self.function(x, y), (x, y), bar, materialize_grads=True)
        return gradients[0], gradients[1]


class Matmul(Bilinear):
    """The product of two matrices, or of two stacks of matrices."""

    __slots__ = ()

    is_opaque = False

    def __init__(self, a: Node, b: Node) -> None:
        super().__init__(torch.matmul, a, b)

    def transposed(self, x: Tensor, y: Tensor, bar: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return $\bar z\, y^H$ and $x^H \bar z$."""
        return bar.to(y.dtype) @ y.mH, x.mH @ bar.to(x.dtype)  # they differ under autocast


class Substituted(TorchFunctionMode):
    """Lets functions that close over tensors see others in their place.

    Args:
        replacements: By the identity of what they replace.
    """

    def __init__(self, replacements: dict[int, Tensor]) -> None:
        super().__init__()
        self.replacements = replacements

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function with the replacements."""
        exchange: Callable[[Tensor], Tensor] = lambda x: self.replacements.get(id(x), x)  # noqa: E731
        args, kwargs = pytree.tree_map_only(Tensor, exchange, (args, kwargs or {}))
        return func(*args, **kwargs)


def tensors_of(result: Any) -> Sequence[Tensor]:
    """Return the result of a function as a sequence."""
    return (result,) if isinstance(result, Tensor) else result


def _gradients(outputs: Sequence[Tensor], inputs: Sequence[Tensor], bars: Sequence[Tensor]) -> Sequence[Tensor | None]:
    if not inputs:
        return ()
    return torch.autograd.grad(outputs, inputs, bars, retain_graph=True, allow_unused=True)
