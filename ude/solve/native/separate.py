"""Whether the samples of a batch depend on each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ude.solve.engines import Task
from ude.solve.native.program import Program
from ude.solve.native.values import Unsupported
from ude.solve.start import start
from ude.solve.step import Point, attempt


@torch.no_grad()
def check_separate(task: Task, program: Program, inputs: Sequence[tuple[str, Tensor, bool]], point: Point) -> None:
    """Raise unless an attempt on the whole batch moves three of its samples as attempts on them alone do.

    Args:
        task: The solve.
        program: An attempt on one sample.
        inputs: Its inputs: a name, the numbers of all samples, and whether all share them.
        point: Start of all samples.

    Raises:
        Unsupported: If samples depend on each other.
    """
    try:
        begun = _begun(task, _moved_apart(point.y.detach()), point)
    except Exception:  # the vector field may not be defined there
        begun = _begun(task, point.y.detach(), point)
    names = ["t", "dt", "y", *(f"carry{i}" for i in range(len(begun.carry)))]
    state = dict(zip(names, pytree.tree_leaves(begun), strict=False))
    state |= {f"memory{i}": x for i, x in enumerate(begun.memory)} | {"status": begun.status, "stop": begun.stop}
    together = attempt(task.field, task.method, task.controller, task.limits, begun)[1]
    for k in {0, len(point.t) // 2, len(point.t) - 1}:
        one = slice(k, k + 1)
        own = [whole if shared else _of(name, state.get(name, whole), one) for name, whole, shared in inputs]
        alone = program.outputs(own).record
        _compare(alone.y1[0] - begun.y[k], together.y1[k] - begun.y[k], begun.y[k])


def _begun(task: Task, y: Tensor, point: Point) -> Point:
    return start(task.field, task.method, task.controller, task.limits, point.t.detach(), y, task.first)


def _moved_apart(y: Tensor) -> Tensor:
    """Return states that differ from each other even where all samples begin alike."""
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=y.dtype)
    return y + noise * (0.01 * y.abs() + 0.01 * y.abs().mean() + 1e-3)


def _of(name: str, whole: Tensor, one: slice) -> Tensor:
    return whole[:, one] if name in ("stops", "before") else whole[one]


def _compare(alone: Tensor, together: Tensor, y: Tensor) -> None:
    rounding = 100 * torch.finfo(y.dtype).eps * y.abs().amax()
    allowed = 1e-2 * torch.maximum(alone.abs().amax(), together.abs().amax()) + rounding
    if bool(((alone - together).abs() > allowed).any()) or bool((alone.isnan() != together.isnan()).any()):
        raise Unsupported("a batch whose samples depend on each other")
