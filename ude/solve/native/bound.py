"""A program and the tensors it is to work on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ude.methods.explicit import ExplicitRungeKutta
from ude.solve.engines import Task
from ude.solve.native.program import Arguments, Program, look_up
from ude.solve.native.separate import check_separate
from ude.solve.native.source import Signature, Slot, leaf_names
from ude.solve.native.values import KINDS, Unsupported
from ude.solve.step import RUNNING, Limits, Point

LARGE = 2**17
"""Most numbers that the vector field may read, and most sums that the way back may keep."""


class Input(NamedTuple):
    """An input of the program: how the code sees it, and the numbers of all samples.

    Args:
        slot: Name, shape and type.
        whole: All samples one below the other, or what they share.
    """

    slot: Slot
    whole: Tensor


@dataclass(frozen=True, slots=True)
class Bound:
    """A program and what it is to work on.

    Args:
        task: The solve.
        program: Start and attempt of one sample.
        samples: Its inputs for one sample.
        inputs: Its inputs for all of them.
        signature: What the code reads and returns.
    """

    task: Task
    program: Program
    samples: tuple[Tensor, ...]
    inputs: tuple[Input, ...]
    signature: Signature

    @property
    def fixed(self) -> list[Input]:
        """Inputs that stay the same from attempt to attempt."""
        return [one for one in self.inputs if one.slot not in self.signature.state]

    @property
    def wanted(self) -> list[Input]:
        """Inputs among them that carry a gradient."""
        return [one for one in self.fixed if one.whole.requires_grad]


def rows_for_samples(task: Task, batch: int) -> bool:
    """Whether some of the user's parameters have as many rows as there are samples."""
    return batch > 1 and task.layout.batched and any(_has_rows(x, batch) for x in pytree.tree_leaves(task.p))


def _has_rows(x: Any, batch: int) -> bool:
    return isinstance(x, Tensor) and x.ndim > 0 and x.shape[0] == batch


def bind(task: Task, point: Point, *, by_rows: bool) -> Bound:
    """Find the program of a task and put its inputs in order.

    Args:
        task: The solve.
        point: Start of all samples.
        by_rows: Parameters with as many rows as there are samples have one for each.

    Raises:
        Unsupported: If the task is not for generated code.
    """
    method, batch = task.method, len(point.t)
    assert isinstance(method, ExplicitRungeKutta)
    single = _one_sample(task, point, by_rows=by_rows)
    program, samples = look_up(task, single)
    names = _names(task, point)
    singles, wholes = _leaves(single), _leaves(Arguments(task.p, task.limits, point, task.first))
    inputs = []
    for i, (source, x) in enumerate(zip(program.sources, samples, strict=True)):
        if x.dtype not in KINDS or x.device.type != "cpu":
            raise Unsupported(f"an input of type {x.dtype} on {x.device}")
        if source is None:
            inputs.append(Input(Slot(f"fixed{i}", tuple(x.shape), x.dtype, True), x))
            continue
        name, whole = names[source], wholes[source]
        # A parameter with a row for every sample differs from that of one sample; at a batch of one all are alike.
        shared = singles[source] is whole if name.startswith("p") else name in SHARED and whole.ndim == 0
        inputs.append(
            Input(Slot(name, tuple(x.shape), x.dtype, shared), whole.T if name in ("stops", "before") else whole)
        )
    known = {one.slot.name: one.slot for one in inputs}
    leaves = pytree.tree_leaves(single.point)
    of_point = leaf_names(len(point.carry), len(point.memory))
    state = tuple(
        known.get(name) or Slot(name, tuple(x.shape), x.dtype, False) for name, x in zip(of_point, leaves, strict=True)
    )
    signature = Signature(
        inputs=tuple(one.slot for one in inputs),
        state=state,
        carries=len(point.carry),
        memories=len(point.memory),
        stages=len(method.tableau.b),
        dtype=point.y.dtype,
        dimension=point.y.shape[-1],
        lanes=lanes(batch, point.y.dtype),
    )
    bound = Bound(task, program, samples, tuple(inputs), signature)
    _check_size(bound)
    if batch > 1 and not program.separate:
        check_separate(task, program, [(one.slot.name, one.whole, one.slot.shared) for one in inputs], point)
        program.separate = True
    return bound


def _check_size(bound: Bound) -> None:
    """Raise where the library's products of large matrices are faster than code for one sample after the other."""
    read = sum(one.slot.size for one in bound.fixed)
    summed = sum(one.slot.size for one in bound.wanted) if torch.is_grad_enabled() else 0
    if read > LARGE or summed * bound.signature.lanes > LARGE:
        raise Unsupported(f"a vector field with {read} numbers, {summed} of which carry a gradient")


def lanes(batch: int, dtype: torch.dtype) -> int:
    """Return how many samples are worked on at once: what a processor holds in one or two registers."""
    most = 16 if dtype == torch.float32 else 8
    return min(most, 1 << (batch - 1).bit_length())


SHARED = ("shortest", "longest", "rtol", "atol")
"""Limits that all samples may share."""


def _leaves(arguments: Arguments) -> list[Any]:
    return pytree.tree_leaves(arguments)


def _names(task: Task, point: Point) -> list[str]:
    """Return the names of the leaves of `Arguments`."""
    p = [f"p{i}" for i in range(len(pytree.tree_leaves(task.p)))]
    return [*p, *Limits._fields, *leaf_names(len(point.carry), len(point.memory)), "first_step"]


def _one_sample(task: Task, point: Point, *, by_rows: bool) -> Arguments:
    """Return arguments for one sample, every tensor an object of its own.

    Their values do not matter, but those of parameters that all samples share must be the parameters themselves.
    """
    batch = len(point.t)

    def first(x: Any) -> Any:
        return x[:1].detach() if by_rows and _has_rows(x, batch) else x

    key = (task.layout, task.controller, point.y.dtype, len(point.carry), len(task.limits.stops))
    key += (task.limits.rtol.ndim, task.limits.atol.ndim, task.first is None)
    if key not in _singles:
        _singles[key] = _typical(task, point)
    typical = _singles[key]
    return typical._replace(p=None if task.p is None else pytree.tree_map(first, task.p))


_singles: dict[Any, Arguments] = {}


def _typical(task: Task, point: Point) -> Arguments:
    """Return arguments for one sample that begins with a step of a tenth of a short interval."""
    t = torch.zeros(1, dtype=point.t.dtype)
    limits, ones = task.limits, torch.ones_like(t)
    loose = torch.full((1, point.y.shape[-1]), 1e-3, dtype=t.dtype)
    return Arguments(
        p=None,
        limits=Limits(
            stops=torch.ones(len(limits.stops), 1, dtype=t.dtype),
            before=torch.ones(len(limits.stops), 1, dtype=t.dtype),
            floor=torch.zeros_like(t),
            rtol=loose if limits.rtol.ndim else loose[0, 0].clone(),
            atol=loose.clone() if limits.atol.ndim else loose[0, 0].clone(),
            shortest=torch.zeros((), dtype=t.dtype),
            longest=torch.full((), torch.inf, dtype=t.dtype),
        ),
        point=Point(
            t=t,
            dt=0.1 * ones,
            y=0.5 * torch.ones(1, point.y.shape[-1], dtype=point.y.dtype),
            carry=tuple(0.5 * torch.ones(1, point.y.shape[-1], dtype=point.y.dtype) for _ in point.carry),
            memory=task.controller.init(ones),
            status=torch.full((1,), RUNNING),
            stop=torch.zeros(1, dtype=torch.int64),
        ),
        first=None if task.first is None else 0.1 * ones,
    )
