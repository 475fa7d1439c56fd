"""The training loop of all methods."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ude._checks import positive

_LOOK_EVERY = 50
"""Iterations after which losses are looked at, which makes a device wait."""


@runtime_checkable
class Schedule(Protocol):
    """A learning rate that falls in the course of a training."""

    def factor(self, fraction: float) -> float:
        """Return the part of the first learning rate that is left after a fraction of the iterations."""
        ...


@dataclass(frozen=True, slots=True)
class Cosine:
    """Half a period of a cosine, from 1 to `final`."""

    final: float = 0.01

    def factor(self, fraction: float) -> float:
        """Return the part that is left."""
        return self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * fraction))


@dataclass(frozen=True, slots=True)
class Exponential:
    """An exponential, from 1 to `final`."""

    final: float = 0.01

    def factor(self, fraction: float) -> float:
        """Return the part that is left."""
        return self.final**fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How long and how fast Adam trains.

    Args:
        iterations: Number of steps; of each network, where there is one after the other.
        paths: Fresh paths of each step.
        lr: Learning rate at the start.
        schedule: How it falls.

    Raises:
        ValueError: If a number is not positive.
    """

    iterations: int = 500
    paths: int = 128
    lr: float = 0.01
    schedule: Schedule = field(default_factory=Cosine)

    def __post_init__(self) -> None:
        for name in ("iterations", "paths", "lr"):
            positive(name, getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The course of a training, one entry per iteration.

    Args:
        loss: Mean squared mismatch in units of the variance of g, shape `(iterations,)`.
        u0: Guess of u at the start, likewise; NaN while the method has none.
        seconds: Time from the start to the end of the training.
    """

    loss: Tensor
    u0: Tensor
    seconds: float


class TrainingError(RuntimeError):
    """The training has left the finite numbers."""


class Course:
    """A training under way: remembers losses, shows a progress bar.

    Args:
        iterations: Of all networks together.
        progress: Show the bar.
    """

    def __init__(self, iterations: int, *, progress: bool) -> None:
        self._started = time.perf_counter()
        self._losses: list[Tensor] = []
        self._guesses: list[Tensor] = []
        self._bar: Any = None
        if progress:
            from tqdm import tqdm

            self._bar = tqdm(total=iterations, unit="it")

    def minimise(
        self,
        loss: Callable[[], Tensor],
        guess: Callable[[], Tensor],
        groups: Iterable[tuple[Iterable[Tensor], float]],
        training: Training,
    ) -> None:
        """Minimise a random loss by Adam.

        Args:
            loss: Draws paths and returns the loss.
            guess: Returns the present guess of u at the start.
            groups: Parameters, and factors on their learning rate.
            training: How long and how fast.

        Raises:
            TrainingError: If a loss is not finite.
        """
        rates = [(list(parameters), factor * training.lr) for parameters, factor in groups]
        optimizer = torch.optim.Adam([{"params": parameters, "lr": lr} for parameters, lr in rates])
        for i in range(training.iterations):
            left = training.schedule.factor(i / training.iterations)
            for group, (_, lr) in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = lr * left
            optimizer.zero_grad()
            value = loss()
            value.backward()
            optimizer.step()
            self._losses.append(value.detach())
            self._guesses.append(guess().detach())
            if (i + 1) % _LOOK_EVERY == 0 or i + 1 == training.iterations:
                self._look()
            if self._bar is not None:
                self._bar.update()

    def _look(self) -> None:
        recent = torch.stack(self._losses[-_LOOK_EVERY:])
        if not bool(recent.isfinite().all()):
            first = len(self._losses) - len(recent) + int(recent.isfinite().int().argmin())
            raise TrainingError(
                f"The loss is {float(self._losses[first])} at iteration {first + 1}: u or its gradient outgrow the "
                "driver `f`. Take more steps, a lower learning rate, or check signs by `check_solution`."
            )
        if self._bar is not None:
            guess = f"{float(self._guesses[-1]):.6g}"
            self._bar.set_postfix(loss=f"{float(recent.mean()):.3g}", u0=guess, refresh=False)

    def close(self) -> History:
        """Remove the bar and return the course."""
        if self._bar is not None:
            self._bar.close()
        empty = torch.zeros(0)
        return History(
            loss=torch.stack(self._losses).cpu() if self._losses else empty,
            u0=torch.stack(self._guesses).cpu() if self._guesses else empty,
            seconds=time.perf_counter() - self._started,
        )
