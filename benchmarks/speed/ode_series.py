"""Taylor coefficients of the solution of a neural ODE: the K-th derivative and its gradient.

y' = f(y), f = 16-64-64-16 tanh, batch 256; forward: y^(K); gradient: of the mean square of y^(K) with respect to the
parameters. Against nested differentiation as it is usually written, in the same process.
"""

from __future__ import annotations

import math

import torch
import torch._functorch.config
from torch import nn

from benchmarks.speed import jax_peers
from benchmarks.speed.measure import Row, once, side_by_side
from ude.ad import ode_series

WIDTH, STATE, BATCH = 64, 16, 256
ORDERS = (2, 4, 6, 8)
LONGEST = {"nested grad": 6, "nested jvp": 4}  # beyond, one run takes seconds


def nested_grad(f, y, order):
    """Each derivative along the field by two reverse modes, J v = d/dw (J^T w) v: the fastest nested form."""
    if not y.requires_grad:
        y = y.detach().requires_grad_()
    with torch.enable_grad():
        slope = f(None, y)
        derivative = slope
        for _ in range(order - 1):
            weight = torch.zeros_like(derivative, requires_grad=True)
            (reverse,) = torch.autograd.grad(derivative, y, weight, create_graph=True)
            (derivative,) = torch.autograd.grad(reverse, weight, slope, create_graph=True)
    return derivative


def nested_jvp(f, y, order):
    """Forward mode over forward mode."""

    def following(g):
        return lambda y: torch.func.jvp(g, (y,), (f(None, y),))[1]

    derivative = lambda y: f(None, y)  # noqa: E731
    for _ in range(order - 1):
        derivative = following(derivative)
    return derivative(y)


def ours(f, y, order):
    return ode_series(f, 0.0, y, order)[order] * math.factorial(order)


def forward(derivative, f, y, order):
    def run():
        with torch.no_grad():
            return derivative(f, y, order)

    return run


def gradient(derivative, net, f, y, order):
    def run():
        for p in net.parameters():
            p.grad = None
        derivative(f, y, order).square().mean().backward()
        return torch.cat([p.grad.flatten() for p in net.parameters()])

    return run


def compiled(f, order):
    """The whole computation as one compiled function."""

    def last(y):
        return ode_series(f, y.new_zeros(()), y, order)[order] * math.factorial(order)

    function = torch.compile(last, fullgraph=True, dynamic=False)
    return lambda f, y, order: function(y)


def case(net, f, y, order, repeats, compile_too):
    forms = {"eager": ours, "nested grad": nested_grad, "nested jvp": nested_jvp}
    forms = {name: form for name, form in forms.items() if order <= LONGEST.get(name, order)}
    note = {}
    if compile_too:
        torch._dynamo.reset()
        forms["compiled"] = compiled(f, order)
        seconds = once(gradient(forms["compiled"], net, f, y, order))
        note["compiled"] = f"compile {seconds:.0f} s once"
    forwards = {name: forward(form, f, y, order) for name, form in forms.items()}
    gradients = {name: gradient(form, net, f, y, order) for name, form in forms.items()}
    gradients["f itself"] = gradient(lambda f, y, order: f(None, y), net, f, y, order)
    reference = gradients["eager"]()
    for name in forms:
        gap = (gradients[name]() - reference).norm() / reference.norm()
        note[name] = f"{note.get(name, '')} gradients differ by {float(gap):.0e}".strip()
    for name, (jax_forward, jax_gradient) in jax_peers.series_runs(net, y, order).items():
        forwards[name], gradients[name], note[name] = jax_forward, jax_gradient, ""
    return side_by_side(forwards, repeats), side_by_side(gradients, repeats), note


def rows_for(order, dtype, repeats, compile_too):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(STATE, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, STATE))
    net, y = net.to(dtype), torch.randn(BATCH, STATE, dtype=dtype)
    forward_seconds, gradient_seconds, note = case(net, lambda t, y: net(y), y, order, repeats, compile_too)
    width = str(dtype).removeprefix("torch.")
    engines = ["eager", "compiled"] if compile_too else ["eager"]
    rows = []
    for what, seconds in (("forward", forward_seconds), ("gradient", gradient_seconds)):
        for peer in [name for name in seconds if name not in ("eager", "compiled", "f itself")]:
            rows += [
                Row(
                    task=f"y^({order}) {what}, {width}, {engine}",
                    ours=seconds[engine],
                    peer=seconds[peer],
                    peer_name=peer,
                    target=">= 2.2" if (what, order, peer, engine) == ("gradient", 4, "nested grad", "eager") else "",
                    note=note[peer],
                )
                for engine in engines
            ]
    rows += [
        Row(
            task=f"y^({order}) gradient, {width}, {engine}",
            ours=gradient_seconds[engine],
            peer=gradient_seconds["f itself"],
            peer_name="f's own gradient",
            target=f">= 1/{order + 1}",
            note=f"{gradient_seconds[engine] / gradient_seconds['f itself']:.1f} times; {note[engine]}",
        )
        for engine in engines
    ]
    return rows


def run(*, smoke: bool) -> list[Row]:
    if smoke:
        return rows_for(2, torch.float32, 1, False)
    rows = []
    # Backward code that may overwrite saved tensors gives wrong gradients of parameters of batches (torch 2.13).
    with torch._functorch.config.patch(donated_buffer=False):
        for dtype in (torch.float32, torch.float64):
            for order in ORDERS:
                rows += rows_for(order, dtype, 15, True)
    return rows
