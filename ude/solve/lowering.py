"""How compiled blocks are turned into machine code."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

SMALL = 16_384
"""Products of at most so many multiplications are written out, so that they fuse with their neighbours.

A call of the library's product costs a few microseconds whatever its size, which for the small networks of universal
differential equations is most of the time of a step.
"""

COMPONENTS = 4
"""States of at most so many components are put together by selection instead of copies."""


def lower_natively(graph: Any, inputs: list[Any]) -> Any:
    """Compile a graph, on a CPU with C++ around its kernels too: a loop then runs without Python in between."""
    return lower(graph, inputs, {"cpp_wrapper": True} if _on_cpu(inputs) else None)


def _on_cpu(inputs: list[Any]) -> bool:
    return all(x.device.type == "cpu" for x in inputs if isinstance(x, Tensor))


def lower(graph: Any, inputs: list[Any], options: dict[str, Any] | None = None) -> Any:
    """Compile a graph with inductor; on a CPU with small matrix products written out as sums."""
    import torch._functorch.config
    from torch._inductor.compile_fx import compile_fx

    # Backward code that may overwrite saved tensors gave wrong gradients of parameters of batches (torch 2.13).
    with torch._functorch.config.patch(donated_buffer=False):
        if _on_cpu(inputs):
            return compile_fx(graph, inputs, decompositions=_decompositions(), config_patches=options)
        return compile_fx(graph, inputs, config_patches=options)


@functools.cache
def _decompositions() -> dict[Any, Callable[..., Any]]:
    """Return inductor's table with our rules for products of matrices and what else it makes slow code of."""
    from torch._inductor.decomposition import select_decomp_table

    aten = torch.ops.aten
    table = dict(select_decomp_table())

    def product(a: Tensor, b: Tensor) -> Any:
        return (a.unsqueeze(-1) * b.unsqueeze(-3)).sum(-2) if _is_small(a, b) else NotImplemented

    def affine(c: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
        return c + product(a, b) if _is_small(a, b) and alpha == beta == 1 else NotImplemented

    table[aten.mm.default] = _first(product, table.get(aten.mm.default))
    table[aten.bmm.default] = _first(product, table.get(aten.bmm.default))
    table[aten.addmm.default] = _first(affine, table.get(aten.addmm.default))

    def concatenation(tensors: list[Tensor], dim: int = 0) -> Any:
        return _select(tensors) if _are_components(tensors, dim) else NotImplemented

    table[aten.cat.default] = _first(concatenation, table.get(aten.cat.default))
    table[aten.tanh.default] = _first(_tanh, table.get(aten.tanh.default))
    return table


def _tanh(x: Tensor) -> Any:
    """Return tanh(x), within two units of rounding, by a ratio of polynomials near zero, elsewhere by the exponential.

    It takes half the time of the library's (AVX-512, double precision), and networks are made of it.

    Reference:
        S. L. Moshier, Cephes mathematical library, tanh.c.
    """
    if x.dtype not in (torch.float32, torch.float64):
        return NotImplemented
    s, size = x * x, x.abs()
    above = (-9.64399179425052238628e-1 * s - 9.92877231001918586564e1) * s - 1.61468768441708447952e3
    below = ((s + 1.12811678491632931402e2) * s + 2.23548839060100448583e3) * s + 4.84406305325125486048e3
    far = 1.0 - 2.0 / (torch.exp(2.0 * size) + 1.0)
    return torch.where(size < 0.625, x + x * (s * (above / below)), torch.where(x < 0.0, -far, far))


def _select(tensors: list[Tensor]) -> Tensor:
    """Return the components side by side, chosen by their index: unlike copies this fuses with its neighbours."""
    index = torch.arange(len(tensors), device=tensors[0].device)
    result = tensors[-1]
    for i in range(len(tensors) - 2, -1, -1):
        result = torch.where(index == i, tensors[i], result)
    return result


def _are_components(tensors: list[Tensor], dim: int) -> bool:
    """Whether these are the components of a small state, as in `torch.stack([dx, dy], -1)`."""
    first = tensors[0]
    return 1 < len(tensors) <= COMPONENTS and all(
        x.ndim and dim % x.ndim == x.ndim - 1 and x.shape[-1] == 1 and x.dtype == first.dtype and not x.is_complex()
        for x in tensors
    )


def _is_small(a: Tensor, b: Tensor) -> bool:
    real = not (a.is_complex() or b.is_complex())
    return real and a.dtype == b.dtype and a.numel() * b.shape[-1] <= SMALL


def _first(rule: Callable[..., Any], fallback: Callable[..., Any] | None) -> Callable[..., Any]:
    """Apply a rule, and where it does not apply inductor's own."""

    def apply(*args: Any, **kwargs: Any) -> Any:
        result = NotImplemented if kwargs.get("out_dtype") is not None else rule(*args, **kwargs)
        return fallback(*args, **kwargs) if result is NotImplemented and fallback is not None else result

    return apply
