"""Differential operators of a scalar tanh network, against nested differentiation and two forms of Taylor mode.

Forward: the operator at all points; backward: the gradient of its mean square with respect to the parameters. Nested
differentiation is taken in whichever form is fastest; it is not compiled, because inductor cannot (zero tensors).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad, hessian, vmap

from benchmarks.speed import jax_peers
from benchmarks.speed.baselines import (
    keep_memory,
    mlp,
    nested_biharmonics,
    nested_laplacians,
    peak_mib,
    taylor_biharmonic,
    taylor_laplacian,
)
from benchmarks.speed.measure import Row, once, side_by_side
from ude import ad

Operator = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One operator on one network: ours, its peers, and the ratios peer / ours that are aimed at."""

    name: str
    net: torch.nn.Sequential
    x: Tensor
    ours: Operator
    taylor: dict[str, Operator]
    nested: dict[str, Operator]
    targets: dict[str, float]
    memory: dict[str, float]
    compiled: bool = True
    jax: str = ""


def biharmonic(width: int, batch: int, dtype: torch.dtype) -> Case:
    net, x = mlp(5, width, dtype=dtype), torch.randn(batch, 5, dtype=dtype)
    return Case(
        name=f"biharmonic D=5, width {width}, B={batch}",
        net=net,
        x=x,
        ours=lambda y: ad.biharmonic(net, y).operator,
        taylor={
            "collapsed Taylor": lambda y: taylor_biharmonic(net, y, collapsed=True),
            "standard Taylor": lambda y: taylor_biharmonic(net, y, collapsed=False),
        },
        nested=nested_biharmonics(net, x),
        targets={"collapsed Taylor": 1 / 0.35, "nested": 10.0},
        memory={"collapsed Taylor": 0.6},
        jax="biharmonic",
    )


def laplacian(dimension: int, width: int, batch: int, hidden: int, dtype: torch.dtype) -> Case:
    net, x = mlp(dimension, width, hidden, dtype), torch.randn(batch, dimension, dtype=dtype)
    return Case(
        name=f"Laplacian D={dimension}, width {width}, {hidden} layers, B={batch}",
        net=net,
        x=x,
        ours=lambda y: ad.laplacian(net, y).operator,
        taylor={
            "collapsed Taylor": lambda y: taylor_laplacian(net, y, collapsed=True),
            "standard Taylor": lambda y: taylor_laplacian(net, y, collapsed=False),
        },
        nested=nested_laplacians(net, x),
        targets={"collapsed Taylor": 1.0, "nested": 1 / 0.45},
        memory={"collapsed Taylor": 0.6, "nested": 0.35},
        jax="laplacian",
    )


def generator(dimension: int, width: int, batch: int, dtype: torch.dtype) -> Case:
    """u_t + mu.grad u + 1/2 tr(sigma sigma^T Hess u) and sigma^T grad u, with sigma(x) of full rank."""
    net = mlp(dimension + 1, width, dtype=dtype)
    x, t = torch.randn(batch, dimension, dtype=dtype), torch.rand(batch, 1, dtype=dtype)
    mu, sigma = torch.randn(batch, dimension, dtype=dtype), torch.randn(batch, dimension, dimension, dtype=dtype)

    def u(time: Tensor, y: Tensor) -> Tensor:
        return net(torch.cat([time, y], -1))

    def ours(y: Tensor) -> Tensor:
        result = ad.generator(u, y, drift=mu, diffusion=sigma, t=t)
        return torch.cat([result.operator, result.directional.squeeze(-2)], -1)

    def nested() -> Tensor:
        def scalar(z: Tensor) -> Tensor:
            return net(z).squeeze(-1)

        z = torch.cat([t, x], -1)
        first, second = vmap(grad(scalar))(z), vmap(hessian(scalar))(z)[:, 1:, 1:]
        operator = first[:, 0] + (first[:, 1:] * mu).sum(-1) + 0.5 * ((second @ sigma) * sigma).sum((-2, -1))
        return torch.cat([operator[:, None], (first[:, None, 1:] @ sigma).squeeze(1)], -1)

    return Case(
        name=f"generator with drift, time and sigma^T grad u, D=R={dimension}, width {width}, B={batch}",
        net=net,
        x=x,
        ours=ours,
        taylor={},
        nested={"grad and hessian": nested},
        targets={"nested": 1 / 0.35},
        memory={},
    )


def stochastic(dimension: int, samples: int, width: int, batch: int, dtype: torch.dtype) -> Case:
    """The mean of S second directional derivatives along shared probes, against S separate jets of order two."""
    net, x = mlp(dimension, width, dtype=dtype), torch.randn(batch, dimension, dtype=dtype)
    probes = ad.Rademacher(samples, torch.Generator().manual_seed(0)).draw(dimension, (1,), x)

    def separate(y: Tensor) -> Tensor:
        zero = torch.zeros_like(y)
        jets = [ad.jet(net, (y, probe.expand_as(y), zero))[2] for probe in probes]
        return 2 * sum(jets[1:], jets[0])

    return Case(
        name=f"stochastic Laplacian, {samples} probes, D={dimension}, width {width}, B={batch}",
        net=net,
        x=x,
        ours=lambda y: ad.weighted_laplacian(net, y, probes.squeeze(1).T).operator,
        taylor={f"{samples} separate 2-jets": separate},
        nested={},
        targets={f"{samples} separate 2-jets": 1 / 0.55},
        memory={},
        compiled=False,
    )


def cases(dtype: torch.dtype, *, smoke: bool) -> list[Case]:
    if smoke:
        return [biharmonic(8, 4, dtype), laplacian(3, 8, 4, 2, dtype), generator(3, 8, 4, dtype)]
    return [
        biharmonic(64, 256, dtype),
        biharmonic(256, 64, dtype),
        laplacian(10, 64, 256, 3, dtype),
        laplacian(50, 256, 64, 4, dtype),
        generator(20, 64, 256, dtype),
        stochastic(100, 16, 64, 256, dtype),
    ]


def run(*, smoke: bool) -> list[Row]:
    keep_memory()
    rows = []
    for dtype in (torch.float32, torch.float64)[: 1 if smoke else 2]:
        for case in cases(dtype, smoke=smoke):
            rows += measured(case, smoke=smoke)
    return rows + ([] if smoke else coordinates() + first_calls())


def measured(case: Case, *, smoke: bool) -> list[Row]:
    """Measure one case in eager mode and compiled."""
    runs: dict[str, Operator] = {"ours": case.ours, **case.taylor}
    agree = {name: difference(case, run) for name, run in runs.items()}
    nested = fastest(case.nested)
    if nested is not None:
        runs["nested"] = lambda _: nested()
        agree["nested"] = difference(case, runs["nested"])
    width = "float32" if case.x.dtype == torch.float32 else "float64"
    repeats = 3 if smoke else 9
    memory = {name: peak_mib(backward(case, run)) for name, run in runs.items()}
    rows = []
    for direction, seconds in both(case, runs, repeats).items():
        peers = [name for name in runs if name != "ours"]
        rows += [row(case, f"{width}, eager, {direction}", seconds, name, memory, agree[name]) for name in peers]
    engines = {"eager": case.ours}
    if case.compiled and not smoke:
        torch._dynamo.reset()
        engines["compiled"] = torch.compile(case.ours, fullgraph=True)
        rows += measured_compiled(case, engines["compiled"], width, repeats, nested)
    if case.jax and not smoke:
        rows += jax_rows(case, engines, width, repeats)
    return rows


def measured_compiled(
    case: Case, ours: Operator, width: str, repeats: int, nested: Callable[[], Tensor] | None
) -> list[Row]:
    """Measure compiled operators, and nested differentiation, which cannot be compiled, as it is."""
    runs = {"ours": ours}
    runs |= {name: torch.compile(run, fullgraph=True) for name, run in case.taylor.items() if name.startswith("coll")}
    seconds_to_compile = once(backward(case, ours)) + once(forward(case, ours))
    if nested is not None:
        runs["nested"] = lambda _: nested()
    memory = {name: peak_mib(backward(case, run)) for name, run in runs.items()}
    agree = {name: difference(case, run) for name, run in runs.items()}
    note, rows = f"compile {seconds_to_compile:.0f} s once", []
    for direction, seconds in both(case, runs, repeats).items():
        how = f"{width}, compiled, {direction}"
        for name in [name for name in runs if name != "ours"]:
            extra = note + ("; nested not compiled" if name == "nested" else "")
            rows.append(row(case, how, seconds, name, memory, agree[name], extra=extra))
    return rows


def jax_rows(case: Case, engines: dict[str, Operator], width: str, repeats: int) -> list[Row]:
    rows = []
    for name, runs in jax_peers.operator_runs(case.jax, case.net, case.x).items():
        for direction, make, peer in zip(("forward", "forward and backward"), (forward, backward), runs, strict=True):
            ours = {engine: make(case, operator) for engine, operator in engines.items()}
            seconds = side_by_side({**ours, name: peer}, repeats=repeats)
            for engine in engines:
                how = f"{width}, {engine}, {direction}"
                rows.append(Row(task=task(case, how), ours=seconds[engine], peer=seconds[name], peer_name=name))
    return rows


def both(case: Case, runs: dict[str, Operator], repeats: int) -> dict[str, dict[str, float]]:
    return {
        "forward": side_by_side({name: forward(case, run) for name, run in runs.items()}, repeats=repeats),
        "forward and backward": side_by_side(
            {name: backward(case, run) for name, run in runs.items()}, repeats=repeats
        ),
    }


def forward(case: Case, operator: Operator) -> Callable[[], object]:
    def run() -> object:
        with torch.no_grad():
            return operator(case.x)

    return run


def backward(case: Case, operator: Operator) -> Callable[[], object]:
    parameters = list(case.net.parameters())
    return lambda: torch.autograd.grad(operator(case.x).square().mean(), parameters, materialize_grads=True)


def fastest(candidates: dict[str, Callable[[], Tensor]]) -> Callable[[], Tensor] | None:
    """Return the form that is fastest forward."""
    if not candidates:
        return None
    seconds = side_by_side(candidates, repeats=3, warm_up=1)
    return candidates[min(seconds, key=lambda name: seconds[name])]


def difference(case: Case, operator: Operator) -> float:
    """Largest difference from ours, relative to the largest value."""
    with torch.no_grad():
        ours, theirs = case.ours(case.x), operator(case.x)
    return float((ours - theirs.reshape(ours.shape)).abs().max() / ours.abs().max())


def task(case: Case, how: str) -> str:
    return f"{case.name}, {how}"


def row(
    case: Case,
    how: str,
    seconds: dict[str, float],
    name: str,
    memory: dict[str, float],
    agree: float,
    extra: str = "",
) -> Row:
    target = f">= {case.targets[name]:.2f}" if name in case.targets else ""
    notes = [extra] if extra else []
    if how.endswith("backward"):
        bound = f" (target {case.memory[name]})" if name in case.memory else ""
        ratio = memory["ours"] / memory[name]
        notes.append(f"peak {memory['ours']:.1f} of {memory[name]:.1f} MiB = {ratio:.2f}{bound}")
    notes.append(f"differ by {agree:.0e}")
    return Row(
        task=task(case, how),
        ours=seconds["ours"],
        peer=seconds[name],
        peer_name=name,
        target=target,
        note="; ".join(notes),
    )


def coordinates() -> list[Row]:
    """The Laplacian from 16 coordinates: what follows the first layer does not depend on the dimension."""
    samples, width, batch, rows = 16, 64, 256, []
    for dimension in (100, 10_000, 100_000):
        net, x = mlp(dimension, width), torch.randn(batch, dimension)
        estimator = ad.Coordinates(samples, torch.Generator().manual_seed(0))
        seeds = estimator.draw(dimension, (1,), x)
        with torch.no_grad():
            first = net[0](ad.Jet(ad.Directions(samples, 2), x, seeds))
            rest = net[1:]
            seconds = side_by_side(
                {
                    "rest": lambda rest=rest, first=first: rest(first),
                    "all": lambda net=net, x=x, e=estimator: ad.laplacian(net, x, estimator=e).operator,
                    "f": lambda net=net, x=x: net(x),
                }
            )
        note = f"all of it {1e3 * seconds['all']:.1f} ms, f alone {1e3 * seconds['f']:.1f} ms, forward"
        rows.append(
            Row(
                task=f"16 of {dimension:,} coordinates, after the first layer, float32", ours=seconds["rest"], note=note
            )
        )
    return rows


def first_calls() -> list[Row]:
    """What the first call of an operator costs beyond a later one, and a batch of another size: nothing is traced."""
    rows = []
    for name, operator in (("Laplacian", ad.laplacian), ("biharmonic", ad.biharmonic)):
        net = mlp(7, 64)  # a dimension that nothing before has used
        x, other = torch.randn(256, 7), torch.randn(100, 7)
        first = once(lambda o=operator, n=net, x=x: o(n, x))
        seconds = side_by_side({"later": lambda o=operator, n=net, x=x: o(n, x)})
        new = once(lambda o=operator, n=net, x=other: o(n, x))
        rows.append(
            Row(
                task=f"first call of the {name} D=7, eager",
                ours=first,
                peer=seconds["later"],
                peer_name="a later call",
                target=">= 0.33",
                note=f"a new batch size: {1e3 * new:.2f} ms",
            )
        )
    return rows
