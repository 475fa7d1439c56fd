"""What the generated code reads and returns, and how it names it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import torch

from ude.solve.native.templates import constants, fill
from ude.solve.native.values import KINDS, SMALL, Block, Cells, Value
from ude.solve.step import NOT_BEGUN, RUNNING

C_TYPES = {
    torch.float32: "float",
    torch.float64: "double",
    torch.int64: "int64_t",
    torch.int32: "int32_t",
    torch.bool: "bool",
}
MAKERS = {"F32": "f32", "F64": "f64", "I64": "i64", "B": "truth"}


class Slot(NamedTuple):
    """A tensor that the code reads.

    Args:
        name: Of the array of the code.
        shape: For one sample, with a batch axis of one where there is a batch axis.
        dtype: Kind of number.
        shared: All samples share it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    shared: bool

    @property
    def size(self) -> int:
        """Numbers per sample."""
        return max(torch.Size(self.shape).numel(), 1)

    def value(self) -> Value:
        """Return it as the emitter takes it."""
        view, kind = torch.empty(self.shape, device="meta"), KINDS[self.dtype]
        template = f"{MAKERS[kind]}({self.name}[{{}}])" if self.shared else self.name + "[{}]"
        if self.size <= SMALL:
            return Value(Cells(tuple(template.format(i) for i in range(self.size))), view, self.dtype)
        return Value(Block(template), view, self.dtype)

    def declared(self, pointer: str) -> str:
        """Return the statement that makes a shared one known, or the memory of one per sample."""
        if self.shared:
            return f"const {C_TYPES[self.dtype]}* {self.name} = (const {C_TYPES[self.dtype]}*){pointer};"
        return f"{KINDS[self.dtype]} {self.name}[{self.size}];"

    def loaded(self, pointer: str) -> str:
        """Return the statement that reads the numbers of a group of samples."""
        source = f"(const {C_TYPES[self.dtype]}*){pointer}"
        return f"for (int i = 0; i < {self.size}; ++i) load({self.name}[i], {source} + i, {self.size}, sample);"

    def stored(self, pointer: str) -> str:
        """Return the statement that writes them."""
        target = f"({C_TYPES[self.dtype]}*){pointer}"
        return f"for (int i = 0; i < {self.size}; ++i) store({self.name}[i], {target} + i, {self.size}, first, count);"


@dataclass(frozen=True, slots=True)
class Signature:
    """What an attempt reads and returns.

    Args:
        inputs: Everything it reads, in the order of its graph.
        state: Which input each tensor of a `Point` is, in the order of its leaves; its name if it is no input.
        carries: Tensors in the carry.
        memories: Tensors in the memory of the controller.
        stages: Stages of a step.
        dtype: Of time and state.
        dimension: Numbers in the state.
        lanes: Samples worked on at once.
    """

    inputs: tuple[Slot, ...]
    state: tuple[Slot, ...]
    carries: int
    memories: int
    stages: int
    dtype: torch.dtype
    dimension: int
    lanes: int

    @property
    def moving(self) -> list[str]:
        """Names of what a gradient goes through from attempt to attempt."""
        return ["y", *(f"carry{i}" for i in range(self.carries))]

    @property
    def history(self) -> int:
        """Numbers kept of every attempt and sample for the way back: state and carry."""
        return self.dimension * len(self.moving)

    @property
    def fixed(self) -> list[Slot]:
        """Inputs that stay the same from attempt to attempt."""
        return [slot for slot in self.inputs if slot not in self.state]

    def values(self) -> list[Value]:
        """Return the inputs as the emitter takes them."""
        return [slot.value() for slot in self.inputs]

    def begins(self, **numbers: int) -> str:
        """Return the beginning of all code.

        Args:
            numbers: Further ones that the code knows by name.
        """
        kind, real = KINDS[self.dtype], C_TYPES[self.dtype]
        known = constants(
            D=self.dimension,
            H=self.history,
            STAGES=self.stages,
            POINTS=len(self.state),
            RUNNING=RUNNING,
            NOT_BEGUN=NOT_BEGUN,
            **numbers,
        )
        return "\n".join(
            [
                f"#define LANES {self.lanes}",
                fill("numbers.hpp"),
                f"typedef {real} Real; typedef {kind} Num; inline Num num(Real x) {{ return {MAKERS[kind]}(x); }}",
                known,
            ]
        )

    def shared(self) -> list[str]:
        """Return the statements that make known what all samples share."""
        return [slot.declared(f"given[{i}]") for i, slot in enumerate(self.fixed) if slot.shared]

    def own(self) -> list[str]:
        """Return the statements that read what samples have of their own and do not change."""
        lines = []
        for i, slot in enumerate(self.fixed):
            if not slot.shared:
                lines += [slot.declared(""), slot.loaded(f"given[{i}]")]
        return lines


def leaf_names(carries: int, memories: int) -> list[str]:
    """Return the names of the tensors of a `Point`, in the order of its leaves."""
    carry = [f"carry{i}" for i in range(carries)]
    return ["t", "dt", "y", *carry, *(f"memory{i}" for i in range(memories)), "status", "stop"]


def elements(value: Value) -> list[str]:
    """Return the expressions of all elements."""
    return [value.at(index) for index in itertools.product(*map(range, value.shape))]


def array(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Value:
    """Return an array of the code as the emitter takes it."""
    view, size = torch.empty(shape, device="meta"), max(torch.Size(shape).numel(), 1)
    if size > SMALL:
        return Value(Block(name + "[{}]"), view, dtype)
    return Value(Cells(tuple(f"{name}[{i}]" for i in range(size))), view, dtype)


def scalar(name: str, dtype: torch.dtype) -> Value:
    """Return a variable of the code, of shape `(1,)`, as the emitter takes it."""
    return Value(Cells((name,)), torch.empty(1, device="meta"), dtype)
