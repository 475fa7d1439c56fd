"""The same operators by folx, a forward Laplacian for JAX, where it is installed."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch


def runs(operator: str | None, net: torch.nn.Sequential, x: torch.Tensor) -> dict[str, Callable[[], object]] | None:
    """Return jitted forward and gradient runs on the same weights and points; None without folx."""
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
    try:
        import folx
        import jax
        import jax.numpy as jnp
    except ImportError:
        return None
    jax.config.update("jax_enable_x64", x.dtype == torch.float64)
    weights = [
        (jnp.asarray(layer.weight.detach().numpy()), jnp.asarray(layer.bias.detach().numpy()))
        for layer in net
        if isinstance(layer, torch.nn.Linear)
    ]
    points = jnp.asarray(x.numpy())

    def network(w, point):
        for weight, bias in w[:-1]:
            point = jnp.tanh(weight @ point + bias)
        return (w[-1][0] @ point + w[-1][1])[0]

    def once(f):
        return lambda point: folx.forward_laplacian(f)(point).laplacian

    def value(w):
        f = once(lambda point: network(w, point))
        return jax.vmap(once(f) if operator == "biharmonic" else f)(points)

    forward = jax.jit(value)
    gradient = jax.jit(jax.grad(lambda w: jnp.mean(value(w) ** 2)))
    return {
        "forward": lambda: forward(weights).block_until_ready(),
        "forward and backward": lambda: jax.block_until_ready(gradient(weights)),
    }
