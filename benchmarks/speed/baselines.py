"""What the kernel is measured against: nested differentiation, and Taylor mode by Faa di Bruno's formula.

The Taylor modes are written for networks of linear and tanh layers in plain operations, which autograd records one by
one: this is what a graph rewritten by torch-jet executes, without the cost of rewriting it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor
from torch.func import grad, hessian, jvp, vmap
from torch.profiler import ProfilerActivity, profile


def mlp(inputs: int, width: int, hidden: int = 3, dtype: torch.dtype = torch.float32) -> torch.nn.Sequential:
    """Return a scalar network with tanh layers."""
    torch.manual_seed(0)
    sizes = [inputs] + [width] * hidden
    layers: list[torch.nn.Module] = []
    for first, second in pairwise(sizes):
        layers += [torch.nn.Linear(first, second), torch.nn.Tanh()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(width, 1)).to(dtype)


# Nested differentiation


def nested_laplacians(f: Callable[[Tensor], Tensor], x: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Return the ways to nest two derivatives; the benchmark takes the fastest."""
    eye = torch.eye(x.shape[-1], dtype=x.dtype)

    def scalar(point: Tensor) -> Tensor:
        return f(point).squeeze(-1)

    def forward_forward(point: Tensor) -> Tensor:
        def second(v: Tensor) -> Tensor:
            return jvp(lambda y: jvp(scalar, (y,), (v,))[1], (point,), (v,))[1]

        return vmap(second)(eye).sum()

    def forward_reverse(point: Tensor) -> Tensor:
        return vmap(lambda v: (jvp(grad(scalar), (point,), (v,))[1] * v).sum())(eye).sum()

    return {
        "hessian": lambda: vmap(lambda point: hessian(scalar)(point).diagonal().sum())(x),
        "forward over reverse": lambda: vmap(forward_reverse)(x),
        "forward over forward": lambda: vmap(forward_forward)(x),
    }


def nested_biharmonics(f: Callable[[Tensor], Tensor], x: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Return the ways to nest four derivatives."""

    def scalar(point: Tensor) -> Tensor:
        return f(point).squeeze(-1)

    def trace(g: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda point: hessian(g)(point).diagonal().sum()

    eye = torch.eye(x.shape[-1], dtype=x.dtype)

    def along(g: Callable[[Tensor], Tensor], v: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda y: jvp(g, (y,), (v,))[1]

    def forward(point: Tensor) -> Tensor:
        def fourth(v: Tensor, w: Tensor) -> Tensor:
            return along(along(along(along(scalar, v), v), w), w)(point)

        return vmap(lambda v: vmap(lambda w: fourth(v, w))(eye))(eye).sum()

    return {
        "hessian of hessian": lambda: vmap(trace(trace(scalar)))(x),
        "four times forward": lambda: vmap(forward)(x),
    }


# Taylor mode by Faa di Bruno's formula, unnormalised coefficients


def tanh_jet(h: list[Tensor], collapsed: bool) -> list[Tensor]:
    """Put a jet of order 2 or 4 through tanh; coefficients after the first have a leading axis of directions."""
    y = torch.tanh(h[0])
    d1 = 1 - y * y
    d2 = -2 * y * d1
    last = len(h) - 1

    def total(terms: Tensor) -> Tensor:
        return terms.sum(0, keepdim=True) if collapsed else terms

    if last == 2:
        return [y, d1 * h[1], d1 * h[2] + d2 * total(h[1] * h[1])]
    d3 = -2 * (d1 * d1 + y * d2)
    d4 = -6 * d1 * d2 - 2 * y * d3
    square = h[1] * h[1]
    third = d1 * h[3] + 3 * d2 * h[1] * h[2] + d3 * square * h[1]
    fourth = d2 * total(4 * h[1] * h[3] + 3 * h[2] * h[2]) + 6 * d3 * total(square * h[2]) + d4 * total(square * square)
    return [y, d1 * h[1], d1 * h[2] + d2 * square, third, d1 * h[4] + fourth]


def taylor(net: torch.nn.Sequential, x: Tensor, families: list[Tensor], order: int, collapsed: bool) -> list[Tensor]:
    """Return the (summed) coefficients of highest order of each family of directions `(R, D)`."""
    base = x
    jets = []
    for family in families:
        seeds = family.unsqueeze(1).expand(-1, len(x), -1)
        top = torch.zeros_like(seeds[:1] if collapsed else seeds)
        jets.append([seeds, *[torch.zeros_like(seeds)] * (order - 2), top])
    for layer in net:
        if isinstance(layer, torch.nn.Linear):
            base = layer(base)
            jets = [[torch.nn.functional.linear(c, layer.weight) for c in jet] for jet in jets]
        else:
            pushed = [tanh_jet([base, *jet], collapsed) for jet in jets]
            base = pushed[0][0]
            jets = [jet[1:] for jet in pushed]
    return [jet[-1].sum(0) for jet in jets]


def taylor_laplacian(net: torch.nn.Sequential, x: Tensor, *, collapsed: bool) -> Tensor:
    """Return the Laplacian along the coordinates."""
    return taylor(net, x, [torch.eye(x.shape[-1], dtype=x.dtype)], 2, collapsed)[0]


def taylor_biharmonic(net: torch.nn.Sequential, x: Tensor, *, collapsed: bool) -> Tensor:
    """Return the biharmonic by the interpolation formula of Griewank, Utke and Walther, from three families."""
    dimension = x.shape[-1]
    eye = torch.eye(dimension, dtype=x.dtype)
    pairs = [(i, j) for i in range(dimension) for j in range(dimension) if i != j]
    lopsided = torch.stack([3 * eye[i] + eye[j] for i, j in pairs])
    even = torch.stack([2 * eye[i] + 2 * eye[j] for i, j in pairs if i < j])
    single, uneven, equal = taylor(net, x, [eye, lopsided, even], 4, collapsed)
    # gamma(2, 2): 13/192, -1/3 and 5/8, over 4!; each unordered pair counts twice.
    weight = 1 + 2 * (dimension - 1) * 256 * 13 / 192 / 24
    return weight * single - 2 / 3 / 24 * uneven + 2 * 5 / 8 / 24 * equal


# Memory


def keep_memory() -> None:
    """Have the C library keep freed memory, as it does in any longer run once a large tensor was freed.

    Otherwise it gives back and asks anew for every tensor of more than 128 KiB, which costs more than filling it.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8).fill_(1)


def peak_mib(run: Callable[[], object]) -> float:
    """Return the most memory that tensors made by `run` took at one time, from the allocator's own records."""
    run()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as records:
        run()
    events = [event for event in records.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak / 2**20
