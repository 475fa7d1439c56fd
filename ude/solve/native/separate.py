"""Whether the samples of a batch depend on each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ude.solve.engines import Task
from ude.solve.native.program import Program
from ude.solve.native.source import leaf_names
from ude.solve.start import start
from ude.solve.step import Point, attempt
from ude.solve.traced import Unsupported


@torch.no_grad()
def check_separate(
    task: Task, program: Program, inputs: Sequence[tuple[str, Tensor, bool]], own: Sequence[bool], point: Point
) -> None:
    """Raise unless an attempt on the whole batch moves three of its samples as attempts on them alone do.

    Args:
        task: The solve.
        program: An attempt on one sample.
        inputs: Its inputs: a name, the numbers of all samples, and whether all share them.
        own: Parameters of the user's that have one row for every sample.
        point: Start of all samples.

    Raises:
        Unsupported: If samples depend on each other.
    """
    try:
        _compare_samples(_moved_apart(task, own), program, inputs, point._replace(y=_moved(point.y)))
    except Unsupported:
        raise
    except Exception:  # the vector field may not be defined there
        _compare_samples(task, program, inputs, point)


def _moved_apart(task: Task, own: Sequence[bool]) -> Task:
    """Return the task with other parameters for every sample, even where all of them begin alike."""
    leaves, spec = pytree.tree_flatten(task.p)
    moved = [_moved(x) if one and x.is_floating_point() else x for x, one in zip(leaves, own, strict=True)]
    p = pytree.tree_unflatten(moved, spec)
    return replace(task, p=p, field=task.layout.bind(task.vector_field, p))


def _moved(x: Tensor) -> Tensor:
    """Return numbers near those given that differ from row to row."""
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    return x.detach() + noise * (0.01 * x.abs() + 0.01 * x.abs().mean() + 1e-3)


def _compare_samples(task: Task, program: Program, inputs: Sequence[tuple[str, Tensor, bool]], point: Point) -> None:
    begun = start(task.field, task.method, task.controller, task.limits, point.t.detach(), point.y.detach(), task.first)
    state = dict(zip(leaf_names(len(begun.carry), len(begun.memory)), pytree.tree_leaves(begun), strict=True))
    state |= {f"p{i}": x for i, x in enumerate(pytree.tree_leaves(task.p))}
    together = attempt(task.field, task.method, task.controller, task.limits, begun)[1]
    for k in {0, len(point.t) // 2, len(point.t) - 1}:
        one = slice(k, k + 1)
        samples = [whole if shared else _of(name, state.get(name, whole), one) for name, whole, shared in inputs]
        alone = program.outputs(samples).record
        _compare(alone.y1[0] - begun.y[k], together.y1[k] - begun.y[k], begun.y[k])


def _of(name: str, whole: Tensor, one: slice) -> Tensor:
    return whole[:, one] if name in ("stops", "before") else whole[one]


def _compare(alone: Tensor, together: Tensor, y: Tensor) -> None:
    rounding = 100 * torch.finfo(y.dtype).eps * y.abs().amax()
    allowed = 1e-2 * torch.maximum(alone.abs().amax(), together.abs().amax()) + rounding
    if bool(((alone - together).abs() > allowed).any()) or bool((alone.isnan() != together.isnan()).any()):
        raise Unsupported("a batch whose samples depend on each other")
