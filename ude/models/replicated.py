"""K independent copies of any module, evaluated as one."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from ude.ad import functional_call, vmap


@runtime_checkable
class Replicable(Protocol):
    """A module that brings its own way to become K modules with a leading axis K."""

    def replicate(self, replicates: int, generator: torch.Generator | None = None) -> nn.Module:
        """Return K freshly drawn copies as one module."""
        ...


class Replicated(nn.Module):
    """K modules of one architecture evaluated as one: member k maps row k of the input.

    Every parameter and buffer is stacked along a leading axis K, and the evaluation is a `vmap` over it.

    Args:
        members: The modules; their parameters are copied.

    Example:
        >>> pair = Replicated([nn.Linear(2, 1), nn.Linear(2, 1)])
        >>> pair(torch.zeros(2, 5, 2)).shape
        torch.Size([2, 5, 1])
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        template = copy.deepcopy(members[0])
        self.replicates = len(members)
        self._template = (template,)  # in a tuple: its parameters are placeholders, not parameters of this module
        self._names = tuple(name for name, _ in template.named_parameters())
        self._buffer_names = tuple(name for name, _ in template.named_buffers())
        rows = [dict(member.named_parameters()) for member in members]
        self.stacked = nn.ParameterList([torch.stack([row[name].detach() for row in rows]) for name in self._names])
        buffers = [dict(member.named_buffers()) for member in members]
        for i, name in enumerate(self._buffer_names):
            self.register_buffer(f"buffer{i}", torch.stack([row[name] for row in buffers]))

    def forward(self, x: Tensor) -> Tensor:
        """Evaluate member k at `x[k]`, for all k; `x` has shape `(K, *batch, in)`."""
        return vmap(self._call, randomness="different")(self._tensors(), x)

    def member(self, index: int) -> nn.Module:
        """Return member `index` as an ordinary module; its parameters are copies."""
        single = copy.deepcopy(self._template[0])
        rows = self._tensors()
        with torch.no_grad():
            for name, tensor in (*single.named_parameters(), *single.named_buffers()):
                tensor.data = rows[name][index].detach().clone()
        return single

    def replicate(self, replicates: int, generator: torch.Generator | None = None) -> nn.Module:
        """Return K freshly drawn copies of one member as one module."""
        return replicate(self._template[0], replicates, generator)

    def _call(self, tensors: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(self._template[0], tensors, (x,))

    def _tensors(self) -> dict[str, Tensor]:
        buffers = {name: cast("Tensor", getattr(self, f"buffer{i}")) for i, name in enumerate(self._buffer_names)}
        return dict(zip(self._names, self.stacked, strict=True)) | buffers


def replicate(module: nn.Module, replicates: int, generator: torch.Generator | None = None) -> nn.Module:
    """Return K freshly initialised copies of `module` as one module, which maps `(K, *batch, in)` row by row.

    A module with a method `replicate(K, generator)` does it itself. Any other is copied K times, and every
    submodule that owns parameters is drawn again through its `reset_parameters()`, as all layers of torch have.

    Args:
        module: What to replicate.
        replicates: K.
        generator: Source of randomness; the global one of torch if not given.

    Raises:
        ValueError: If a submodule owns parameters but has no `reset_parameters`.

    Example:
        >>> replicate(nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)), 3).replicates
        3
    """
    if isinstance(module, Replicable):
        return module.replicate(replicates, generator)
    seeds = torch.randint(2**62, (replicates,), generator=generator).tolist()
    return Replicated([_redrawn(module, seed) for seed in seeds])


def member(module: nn.Module, index: int) -> nn.Module:
    """Return member `index` of a replicated module."""
    return cast("Any", module).member(index)


def _redrawn(module: nn.Module, seed: int) -> nn.Module:
    fresh = copy.deepcopy(module)
    # Layers of torch draw from the global generator: seed it for the draw and put it back.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, part in fresh.named_modules():
            if hasattr(part, "reset_parameters"):
                cast("Any", part).reset_parameters()
            elif next(part.parameters(recurse=False), None) is not None:
                raise ValueError(
                    f"Cannot draw new parameters for {type(part).__name__} ({name or 'the module itself'}). Give it "
                    "a method `reset_parameters()`, or a method `replicate(replicates, generator)`."
                )
    return fresh
