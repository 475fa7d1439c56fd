"""The same derivatives by JAX, where it is installed: folx (forward Laplacian) and jax.experimental.jet."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

Run = Callable[[], object]
Weights = list[tuple[Any, Any]]


def operator_runs(operator: str, net: torch.nn.Sequential, x: torch.Tensor) -> dict[str, tuple[Run, Run]]:
    """Return jitted forward and gradient runs of an operator by library, on the same weights and points."""
    jax = _jax(x.dtype)
    if jax is None:
        return {}
    weights, points = _weights(net), jax.numpy.asarray(x.numpy())
    forms = {"folx (jit)": _folx(operator), "jax.jet (jit)": _jet_laplacian if operator == "laplacian" else None}
    runs = {}
    for name, form in forms.items():
        if form is not None:

            def value(w: Weights, form: Any = form) -> Any:
                return jax.vmap(form(lambda point: _network(w, point)[0]))(points)

            runs[name] = _forward_and_gradient(value, weights)
    return runs


def series_runs(net: torch.nn.Sequential, y: torch.Tensor, order: int) -> dict[str, tuple[Run, Run]]:
    """Return jitted forward and gradient runs of the derivative y^(K) by the recursion of jets of growing length."""
    jax = _jax(y.dtype)
    if jax is None:
        return {}
    from jax.experimental.jet import jet

    weights, start = _weights(net), jax.numpy.asarray(y.numpy())

    def value(w: Weights) -> Any:
        def f(z: Any) -> Any:
            return _network(w, z)

        derivatives = [f(start)]
        while len(derivatives) < order:
            derivatives = [derivatives[0], *jet(f, (start,), (derivatives,))[1]]
        return derivatives[-1]

    return {"jax.jet recursion (jit)": _forward_and_gradient(value, weights)}


def _jax(dtype: torch.dtype) -> Any:
    """Return JAX with this number format and one thread, None where it is not installed."""
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
    try:
        import jax
    except ImportError:
        return None
    jax.config.update("jax_enable_x64", dtype == torch.float64)
    return jax


def _folx(operator: str) -> Any:
    """Return the operator by folx, nested for the biharmonic; None where folx is not installed."""
    try:
        import folx
    except ImportError:
        return None

    def laplacian(f: Any) -> Any:
        return lambda point: folx.forward_laplacian(f)(point).laplacian

    return laplacian if operator == "laplacian" else (lambda f: laplacian(laplacian(f)))


def _jet_laplacian(f: Any) -> Any:
    import jax
    from jax.experimental.jet import jet

    def at(point: Any) -> Any:
        def second(v: Any) -> Any:
            return jet(f, (point,), ([v, jax.numpy.zeros_like(v)],))[1][1]

        return jax.vmap(second)(jax.numpy.eye(len(point), dtype=point.dtype)).sum()

    return at


def _weights(net: torch.nn.Sequential) -> Weights:
    import jax.numpy as jnp

    layers = [layer for layer in net if isinstance(layer, torch.nn.Linear)]
    return [(jnp.asarray(layer.weight.detach().numpy()), jnp.asarray(layer.bias.detach().numpy())) for layer in layers]


def _network(weights: Weights, x: Any) -> Any:
    import jax.numpy as jnp

    for weight, bias in weights[:-1]:
        x = jnp.tanh(x @ weight.T + bias)
    return x @ weights[-1][0].T + weights[-1][1]


def _forward_and_gradient(value: Callable[[Weights], Any], weights: Weights) -> tuple[Run, Run]:
    import jax

    forward = jax.jit(value)
    gradient = jax.jit(jax.grad(lambda w: jax.numpy.mean(value(w) ** 2)))
    return lambda: forward(weights).block_until_ready(), lambda: jax.block_until_ready(gradient(weights))
