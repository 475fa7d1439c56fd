"""The training loop: one for every strategy and every optimizer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ude.fit.checkpoint import Saver
from ude.fit.optimizer import Optimizer, OptimizerState
from ude.fit.variables import Variables


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One objective handed to one optimizer.

    Args:
        strategy: Name of the objective, for the history.
        losses: Computes the loss of every member, shape `(members,)`, from the current variables.
        optimizer: Minimises them.
        variables: What it may change.
    """

    strategy: str
    losses: Callable[[], Tensor]
    optimizer: Optimizer
    variables: Variables

    @property
    def name(self) -> str:
        """Strategy and optimizer, such as "single shooting, Adam"."""
        return f"{self.strategy}, {self.optimizer.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The course of a fit, one row per evaluation of all members.

    Args:
        phase: Strategy and optimizer of each row.
        iteration: Evaluations before this one within its phase, shape `(rows,)`.
        loss: Loss of every member, shape `(rows, members)`.
        seconds: Computing time since the start, without that of other sessions' pauses, shape `(rows,)`.
    """

    phase: tuple[str, ...]
    iteration: Tensor
    loss: Tensor
    seconds: Tensor


@dataclass(slots=True)
class Training:
    """Runs phases one after the other, remembers their course, and can be saved after any evaluation.

    Args:
        phases: What to do.
        members: Number of replicates.
        saver: Writes checkpoints when due.
        extra: What else a checkpoint holds.
        progress: Show a progress bar.
    """

    phases: list[Phase]
    members: int
    saver: Saver
    extra: dict[str, Any]
    progress: bool = False
    current: int = 0
    state: OptimizerState | None = None
    has_stalled: bool = False
    rows: list[tuple[int, str, int, list[float], float]] = field(default_factory=list)
    seconds_before: float = 0.0

    def run(self) -> None:
        """Run all phases that are not yet done; on interruption (Ctrl-C) save a checkpoint first, then let it pass."""
        self.seconds_before = self.rows[-1][4] if self.rows else 0.0
        started = time.monotonic()
        with _Bar(self.progress, self.phases[self.current :]) as bar:
            try:
                while self.current < len(self.phases):
                    self._run_phase(self.phases[self.current], started, bar)
            except KeyboardInterrupt:
                self.saver.save(self.content())
                self._settle()
                raise

    def _run_phase(self, phase: Phase, started: float, bar: _Bar) -> None:
        optimizer, variables = phase.optimizer, phase.variables
        if self.state is None:
            self.state = optimizer.init(variables.read())
        state = self.state
        while not optimizer.is_finished(state):
            loss, grad = evaluate(phase, state["theta"])
            row = (self.current, phase.name, int(state["iteration"]), loss.tolist(), self._seconds(started))
            state = optimizer.update(state, loss, grad)
            self.rows.append(row)
            self.state = state
            bar.advance(phase, state)
            if self.saver.is_due(len(self.rows)):
                self.saver.save(self.content())
        self._settle()
        self.has_stalled = bool(state.get("stalled", torch.tensor(False)).any())
        self.current, self.state = self.current + 1, None

    def _settle(self) -> None:
        """Set the variables to the best that the present phase has found."""
        if self.state is not None:
            has_best = self.state["best_loss"].isfinite()[:, None]
            best = torch.where(has_best, self.state["best"], self.state["theta"])
            self.phases[self.current].variables.write(best)

    @property
    def is_ahead(self) -> bool:
        """True if a checkpoint has led to phases that are still to be added."""
        return self.current > len(self.phases) or (self.current == len(self.phases) and self.state is not None)

    def content(self) -> dict[str, Any]:
        """Return all that is needed to continue from the last complete evaluation."""
        leaves: dict[str, Tensor] = {}
        for phase in self.phases:
            leaves |= phase.variables.leaves
        done = sum(1 for row in self.rows if row[0] < self.current)
        kept = done + (0 if self.state is None else int(self.state["iteration"]))
        return {
            **self.extra,
            "phase": self.current,
            "state": self.state,
            "leaves": {name: leaf.detach().clone() for name, leaf in leaves.items()},
            "rows": self.rows[:kept],
        }

    def restore(self, content: dict[str, Any]) -> None:
        """Continue from what `content` returned."""
        self.current, self.state = content["phase"], content["state"]
        self.rows = [tuple(row) for row in content["rows"]]
        for phase in self.phases:
            for name, leaf in phase.variables.leaves.items():
                with torch.no_grad():
                    leaf.copy_(content["leaves"][name])

    def history(self) -> History:
        """Return the course so far."""
        return History(
            phase=tuple(row[1] for row in self.rows),
            iteration=torch.tensor([row[2] for row in self.rows], dtype=torch.int64),
            loss=torch.tensor([row[3] for row in self.rows], dtype=torch.float64).reshape(-1, self.members),
            seconds=torch.tensor([row[4] for row in self.rows], dtype=torch.float64),
        )

    def _seconds(self, started: float) -> float:
        return self.seconds_before + time.monotonic() - started


def evaluate(phase: Phase, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Return the losses `(members,)` and their gradients `(members, parameters)` at `theta`.

    Each loss depends on its own row only, so that the gradient of the sum is the stack of the gradients. Where a
    loss is not finite it is left out of the sum: its row of the gradient may be anything, the others are exact.
    """
    variables = phase.variables
    variables.write(theta)
    variables.clear_gradient()
    losses = phase.losses()
    torch.where(losses.isfinite(), losses, 0.0).sum().backward()
    return losses.detach(), variables.gradient()


class _Bar:
    """A progress bar over all phases, or nothing."""

    def __init__(self, is_shown: bool, phases: Sequence[Phase]) -> None:
        self._bar: Any = None
        if is_shown:
            from tqdm import tqdm

            self._bar = tqdm(total=sum(phase.optimizer.iterations for phase in phases), unit="it")

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, phase: Phase, state: OptimizerState) -> None:
        """Show one more evaluation, and the best loss of the best and of the median member."""
        if self._bar is not None:
            best = state["best_loss"]
            self._bar.set_description(phase.name, refresh=False)
            self._bar.set_postfix(best=f"{best.min():.3g}", median=f"{best.median():.3g}", refresh=False)
            self._bar.update()
