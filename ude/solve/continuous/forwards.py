"""Sensitivities: the derivatives of the state, solved beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ude import ad
from ude.problems import ODEProblem, Solution
from ude.solve.engines import Task


def sensitivities(
    task: Task,
    y0: Tensor,
    span: tuple[Tensor, Tensor],
    times: Tensor,
    parameters: Sequence[Tensor],
    solve: Callable[..., Solution],
) -> Callable[[Tensor], list[Tensor]]:
    r"""Solve $\dot S = f_y S + f_p$ and return what takes cotangents of the saved states to those of the inputs.

    Args:
        task: The solve.
        y0: Initial state, shape `(batch, state)`; S begins as the identity if it requires a gradient.
        span: Start and end, detached.
        times: Times to save at, shape `(times, batch)`.
        parameters: Everything the vector field can be differentiated by; all of it must be in `task.p`.
        solve: The door.

    Raises:
        ValueError: If the vector field depends on a parameter that is not in `p`.
    """
    given = [x for x in pytree.tree_leaves(task.p) if isinstance(x, Tensor) and x.requires_grad]
    known = {id(x) for x in given}
    for parameter in parameters:
        if id(parameter) not in known:
            raise ValueError(
                f"`Forward()` needs every parameter in the problem's `p` as it is, got a vector field that depends on "
                f"a tensor of shape {tuple(parameter.shape)} elsewhere. Hand it over in `p`, or use `Gauss()`."
            )
    n = y0.shape[-1]
    of_state = n if y0.requires_grad else 0
    columns = of_state + sum(x.numel() for x in parameters)
    field = _sensitivity_field(task, parameters, of_state)
    start = torch.zeros(len(y0), columns, n, dtype=y0.dtype, device=y0.device)
    start[:, :of_state] = torch.eye(n, dtype=y0.dtype, device=y0.device)[:of_state]
    limits = task.limits
    with torch.no_grad():
        joint = solve(
            ODEProblem(field, {"y": y0.detach(), "s": start}, span, batched=True),
            task.method,
            save_at=times,
            rtol=_tree(limits.rtol),
            atol=_tree(limits.atol),
            dense=False,
        )
    matrix = joint.ys["s"]

    def pullback(cotangent: Tensor) -> list[Tensor]:
        products = torch.einsum("tbcn,tbn->bc", matrix, cotangent)
        results = [products[:, :of_state]] if of_state else []
        sums = products[:, of_state:].sum(0).split([x.numel() for x in parameters])
        return [*results, *(part.reshape(x.shape) for part, x in zip(sums, parameters, strict=True))]

    return pullback


def _tree(tolerance: Tensor) -> dict[str, Tensor]:
    return {"y": tolerance, "s": tolerance.unsqueeze(1) if tolerance.ndim else tolerance}


def _sensitivity_field(task: Task, parameters: Sequence[Tensor], of_state: int) -> Callable[..., dict[str, Any]]:
    sizes = [x.numel() for x in parameters]
    columns = of_state + sum(sizes)
    place = {id(x): i for i, x in enumerate(parameters)}
    values = [x.detach() for x in parameters]
    seeds, offset = [], of_state
    for x in values:
        own = torch.zeros(columns, x.numel(), dtype=x.dtype, device=x.device)
        own[offset : offset + x.numel()] = torch.eye(x.numel(), dtype=x.dtype, device=x.device)
        seeds.append(own.reshape(columns, *x.shape))
        offset += x.numel()

    def field(t: Tensor, state: dict[str, Tensor]) -> dict[str, Tensor]:
        ts = t.reshape(-1)

        def of_all(y: Tensor, *ps: Tensor) -> Tensor:
            p = pytree.tree_map(lambda x: ps[place[id(x)]] if id(x) in place else x, task.p)
            return task.layout.bind(task.vector_field, p)(ts, y)

        value, slopes = ad.pushforward(of_all, [state["y"], *values], [state["s"].movedim(1, 0), *seeds])
        return {"y": value, "s": slopes.movedim(0, 1)}

    return field
