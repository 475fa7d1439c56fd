"""Sums of products over axes: einsum, convolutions, and products of matrices with something added."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from ude.ad.rules.kinds import is_lifted, joined, multiplied, value_of
from ude.ad.rules.table import register, register_names


def einsum(equation: Any, *operands: Any) -> Any:
    """Sum products of any number of tensors, two at a time."""
    if not isinstance(equation, str):
        equation, operands = _from_lists((equation, *operands))
    elif len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = tuple(operands[0])
    left, _, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    output = right if "->" in equation else _implicit(terms)
    rest = list(zip(terms, operands, strict=True))
    while len(rest) > 2:
        (a, x), (b, y) = rest.pop(0), rest.pop(0)
        # What neither the output nor a later operand needs is summed now.
        needed = set(output).union(*(set(term) for term, _ in rest))
        kept = "".join(c for c in dict.fromkeys(a + b) if c != "." and c in needed)
        kept = ("..." if "..." in a + "," + b else "") + kept
        rest.insert(0, (kept, _pair(f"{a},{b}->{kept}", x, y)))
    if len(rest) == 1:
        return joined(lambda x: torch.einsum(f"{rest[0][0]}->{output}", x), rest[0][1])
    return _pair(f"{rest[0][0]},{rest[1][0]}->{output}", rest[0][1], rest[1][1])


def _pair(equation: str, x: Any, y: Any) -> Any:
    if not is_lifted(x) and not is_lifted(y):
        return torch.einsum(equation, x, y)
    return multiplied(lambda a, b: torch.einsum(equation, a, b), x, y)


def _implicit(terms: Sequence[str]) -> str:
    """Return the output that an equation without an arrow means: the letters that occur once, in order."""
    letters = "".join(terms).replace(".", "")
    return ("..." if any("..." in term for term in terms) else "") + "".join(
        sorted(c for c in set(letters) if letters.count(c) == 1)
    )


def _from_lists(arguments: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
    """Return the equation of the form with lists of axis numbers, `einsum(x, [0, 1], y, [1], [0])`."""

    def term(axes: Sequence[Any]) -> str:
        return "".join(
            "..." if axis is Ellipsis else chr(ord("A") + axis if axis < 26 else ord("a") + axis - 26) for axis in axes
        )

    pairs = len(arguments) // 2
    equation = ",".join(term(arguments[2 * i + 1]) for i in range(pairs))
    if len(arguments) % 2:
        equation += "->" + term(arguments[-1])
    return equation, tuple(arguments[2 * i] for i in range(pairs))


# Products with something added


def _added(product: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Make the rule of beta c + alpha (a b)."""

    def handler(input: Any, a: Any, b: Any, *, beta: float = 1.0, alpha: float = 1.0) -> Any:
        result = product(a, b)
        result = result if alpha == 1.0 else result * alpha
        if beta == 0.0:
            return result
        return result + (input if beta == 1.0 else input * beta)

    return handler


def _summed_product(a: Any, b: Any) -> Any:
    return torch.bmm(a, b).sum(0)


def _addmm_activation(
    input: Any, a: Any, b: Any, *, beta: float = 1.0, alpha: float = 1.0, use_gelu: bool = False
) -> Any:
    total = _added(torch.matmul)(input, a, b, beta=beta, alpha=alpha)
    return F.gelu(total) if use_gelu else torch.relu(total)


def bilinear_layer(input1: Any, input2: Any, weight: Any, bias: Any = None) -> Any:
    r"""Return $x_i W_{oij} y_j + b_o$."""
    result = einsum("...i,oij,...j->...o", input1, weight, input2)
    return result if bias is None else result + bias


# Convolutions


def convolution(name: str, count: int) -> Callable[..., Any]:
    """Make the rule of a convolution over `count` axes, from that of torch without bias."""
    function = getattr(torch, name)

    def handler(input: Any, weight: Any, bias: Any = None, *args: Any, **kwargs: Any) -> Any:
        result = multiplied(lambda x, w: function(x, w, None, *args, **kwargs), input, weight)
        return _with_bias(result, bias, count)

    return handler


def _with_bias(result: Any, bias: Any, count: int) -> Any:
    return result if bias is None else result + bias.reshape(-1, *(1,) * count)


def _convolution(
    input: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool, output_padding: Any,
    groups: int, *_: Any,
) -> Any:  # fmt: skip
    options = (stride, padding, dilation, transposed, output_padding, groups)
    result = multiplied(lambda x, w: torch.convolution(x, w, None, *options), input, weight)
    return _with_bias(result, bias, value_of(input).ndim - 2)


def install() -> None:
    """Enter the rules of this file."""
    for function in (torch.einsum, torch.functional.einsum):
        register(function, einsum)
    for name, product in {
        "addmm": torch.matmul, "addmv": torch.matmul, "addr": torch.outer, "baddbmm": torch.bmm,
        "addbmm": _summed_product
    }.items():  # fmt: skip
        register_names(_added(product), name)
    register_names(_addmm_activation, "_addmm_activation")
    register_names(bilinear_layer, "bilinear")
    for count in (1, 2, 3):
        register_names(convolution(f"conv{count}d", count), f"conv{count}d")
        register_names(convolution(f"conv_transpose{count}d", count), f"conv_transpose{count}d")
    register_names(_convolution, "convolution", "_convolution")
