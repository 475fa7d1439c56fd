"""Functions that a program attaches to its vector field to be told of every step."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ude._typing import FlatField
from ude.compat.packing import Packing
from ude.compat.wrapped import Wrapped
from ude.methods import Carry, StepResult, Tolerances
from ude.methods.method import take_step

Callback: TypeAlias = Callable[[Tensor, Any, Tensor], object]
"""`callback(t0, y0, dt)`: start of the step, state there, positive length."""

NAMES = ("callback_step", "callback_accept_step", "callback_reject_step")


@dataclass(frozen=True, slots=True, kw_only=True)
class Callbacks:
    """What is to be called, and for whom.

    Args:
        functions: By the names in `NAMES`; those that the program gave.
        shape: Shape of the state the solver steps.
        packing: Between that state and the user's tuple; None for a tensor.
    """

    functions: dict[str, Callback]
    shape: torch.Size
    packing: Packing | None

    @classmethod
    def of(
        cls, owner: object, method: str, supported: Iterable[str], shape: torch.Size, packing: Packing | None
    ) -> Callbacks:
        """Find the callbacks of a vector field; warn of those that the method will not call."""
        functions = {name: getattr(owner, name) for name in NAMES if getattr(owner, name, None) is not None}
        unsupported = set(functions) - set(supported)
        if unsupported:
            warnings.warn(f"Solver '{method}' does not support callbacks {unsupported}", stacklevel=4)
        kept = {name: function for name, function in functions.items() if name not in unsupported}
        return cls(functions=kept, shape=shape, packing=packing)

    def call(self, name: str, t: Tensor, y: Tensor, dt: Tensor) -> None:
        """Call one of them, if it was given, with tensors in the user's form."""
        function = self.functions.get(name)
        if function is not None:
            state = y.reshape(self.shape)
            function(t.reshape(()), self.packing.unpack(state) if self.packing else state, dt.abs().reshape(()))


@dataclass(slots=True)
class Watch:
    """Tells the controller, which decides on a step, what the method knows of it.

    Args:
        callbacks: To be called.
        shortest: A step of at most this length is taken whatever its error.
        attempt: Start, state and length of the step that is being made.
    """

    callbacks: Callbacks
    shortest: float
    attempt: tuple[Tensor, Tensor, Tensor] | None = field(default=None, init=False)

    def begin(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        """Take note of a step; one of no length is the loop's second look at a step that failed."""
        if bool((dt != 0).any()):
            self.attempt = (t, y, dt)
            self.callbacks.call("callback_step", t, y, dt)

    def decided(self, *, accepted: bool) -> None:
        """Report what became of the step."""
        if self.attempt is not None:
            accepted = accepted or bool((self.attempt[2].abs() <= self.shortest).all())
            self.callbacks.call("callback_accept_step" if accepted else "callback_reject_step", *self.attempt)
            self.attempt = None


@dataclass(frozen=True, slots=True)
class Watched(Wrapped):
    """A method that is watched."""

    watch: Watch

    def step_within(
        self, f: FlatField, t: Tensor, dt: Tensor, y: Tensor, carry: Carry, tolerances: Tolerances
    ) -> StepResult:
        """Take one step from `t` to `t + dt`."""
        self.watch.begin(t, y, dt)
        return take_step(self.method, f, t, dt, y, carry, tolerances)
