"""The same by JAX, where it is installed: derivatives by folx and jax.experimental.jet, solves by diffrax."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.speed.measure import Run

Weights = list[tuple[Any, Any]]


def operator_runs(operator: str, net: torch.nn.Sequential, x: torch.Tensor) -> dict[str, tuple[Run, Run]]:
    """Return jitted forward and gradient runs of an operator by library, on the same weights and points."""
    jax = _jax(x.dtype)
    if jax is None:
        return {}
    weights, points = layer_weights(net), array(x)
    forms = {"folx (jit)": _folx(operator), "jax.jet (jit)": _jet_laplacian if operator == "laplacian" else None}
    runs = {}
    for name, form in forms.items():
        if form is not None:

            def value(w: Weights, form: Any = form) -> Any:
                return jax.vmap(form(lambda point: network(w, point)[0]))(points)

            runs[name] = _forward_and_gradient(value, weights)
    return runs


def series_runs(net: torch.nn.Sequential, y: torch.Tensor, order: int) -> dict[str, tuple[Run, Run]]:
    """Return jitted forward and gradient runs of the derivative y^(K) by the recursion of jets of growing length."""
    jax = _jax(y.dtype)
    if jax is None:
        return {}
    from jax.experimental.jet import jet

    weights, start = layer_weights(net), array(y)

    def value(w: Weights) -> Any:
        def f(z: Any) -> Any:
            return network(w, z)

        derivatives = [f(start)]
        while len(derivatives) < order:
            derivatives = [derivatives[0], *jet(f, (start,), (derivatives,))[1]]
        return derivatives[-1]

    return {"jax.jet recursion (jit)": _forward_and_gradient(value, weights)}


def configured(dtype: torch.dtype) -> Any:
    """Return JAX with this number format and, if this is its first use in the process, one thread."""
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
    import jax

    jax.config.update("jax_enable_x64", dtype == torch.float64)
    return jax


def diffrax_dopri5(
    field: Callable[[Any, Any, Any], Any],
    t_span: tuple[float, float],
    save_at: torch.Tensor | None = None,
    *,
    first_step: float | None = None,
    rtol: float,
    atol: float,
) -> Callable[..., Any]:
    """Return diffrax's solve of y' = field(t, y, w), called as `(y0, w)`: states at `save_at`, or at the end."""
    import diffrax

    saved = diffrax.SaveAt(t1=True) if save_at is None else diffrax.SaveAt(ts=array(save_at))
    term, controller = diffrax.ODETerm(field), diffrax.PIDController(rtol=rtol, atol=atol)

    def states(y0: Any, w: Any = None) -> Any:
        return diffrax.diffeqsolve(
            term, diffrax.Dopri5(), *t_span, first_step, y0, w, saveat=saved, stepsize_controller=controller
        ).ys

    return states


def jitted(function: Callable[..., Any], *arguments: Any) -> Run:
    """Return a run of the compiled function that ends when its result is there."""
    import jax

    compiled = jax.jit(function)
    return lambda: jax.block_until_ready(compiled(*arguments))


def array(x: torch.Tensor) -> Any:
    """The same numbers as a JAX array."""
    import jax.numpy as jnp

    return jnp.asarray(x.detach().numpy())


def layer_weights(net: torch.nn.Module) -> Weights:
    """Weight and bias of each linear layer, in the order of definition."""
    return [(array(m.weight), array(m.bias)) for m in net.modules() if isinstance(m, torch.nn.Linear)]


def network(weights: Weights, x: Any, activation: Callable[[Any], Any] | None = None) -> Any:
    """The linear layers with an activation, tanh by default, between them."""
    import jax.numpy as jnp

    for weight, bias in weights[:-1]:
        x = (activation or jnp.tanh)(x @ weight.T + bias)
    return x @ weights[-1][0].T + weights[-1][1]


def _jax(dtype: torch.dtype) -> Any:
    """Return JAX with this number format, None where it is not installed."""
    try:
        return configured(dtype)
    except ModuleNotFoundError:
        return None


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


def _forward_and_gradient(value: Callable[[Weights], Any], weights: Weights) -> tuple[Run, Run]:
    import jax

    return jitted(value, weights), jitted(jax.grad(lambda w: jax.numpy.mean(value(w) ** 2)), weights)
