"""Limited-memory BFGS on many members at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ude.fit.line_search import Bracket, judge, new_bracket
from ude.fit.optimizer import OptimizerState, is_usable, track_best

_SMALLEST_CURVATURE = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class LBFGS:
    r"""Limited-memory BFGS with a strong Wolfe line search, each member with its own history and step.

    The direction is $p = -H \nabla L$, where $H$ is the inverse Hessian that the last `memory` pairs
    $s = \Delta\theta$, $y = \Delta\nabla L$ suggest (two-loop recursion). All members are evaluated
    together, but none waits for another: while one still searches along its line, the next one already has a new
    direction. A member is frozen when it has converged, or when not even steepest descent lowers its loss.

    Args:
        iterations: Largest number of evaluations of the loss and its gradient.
        memory: Pairs to remember.
        tolerance: A member has converged when its loss fell by less than this fraction in `patience` accepted
            steps, or the largest component of its gradient is below `gradient_tolerance`.
        patience: See `tolerance`.
        gradient_tolerance: See `tolerance`.
        max_step: Largest Euclidean length of the first step that is tried along a direction, as a
            multiple of `1 + |theta|`.

    Reference:
        Nocedal and Wright (2006), Numerical Optimization, algorithms 7.4 and 7.5.
    """

    iterations: int = 500
    memory: int = 30
    tolerance: float = 1e-3
    patience: int = 30
    gradient_tolerance: float = 1e-10
    max_step: float = 1.0

    @property
    def name(self) -> str:
        """Name of the phase in the history."""
        return "L-BFGS"

    def init(self, theta: Tensor) -> OptimizerState:
        """Return the state before the first evaluation."""
        members, size = theta.shape
        zero, infinite = theta.new_zeros(members), theta.new_full((members,), torch.inf)
        count, pairs = torch.zeros(members, dtype=torch.int64), theta.new_zeros(members, self.memory, size)
        return {
            "theta": theta,
            "best": theta,
            "best_loss": infinite,
            "iteration": torch.zeros((), dtype=torch.int64),
            "base": theta,
            "loss": infinite,
            "grad": torch.zeros_like(theta),
            "direction": torch.zeros_like(theta),
            "step": zero,
            "low_grad": torch.zeros_like(theta),
            **new_bracket(infinite, zero)._asdict(),
            "s": pairs,
            "y": pairs,
            "stored": count,
            "mark": infinite,
            "since_mark": count,
            "frozen": torch.zeros(members, dtype=torch.bool),
            "stalled": torch.zeros(members, dtype=torch.bool),
        }

    def update(self, state: Mapping[str, Tensor], loss: Tensor, grad: Tensor) -> OptimizerState:
        """Take in one evaluation of every member; each goes on with its search or with its next direction."""
        ok = is_usable(loss, grad)
        loss, grad = torch.where(ok, loss, torch.inf), torch.where(ok[:, None], grad, 0.0)
        best, best_loss = track_best(state, loss, ok)
        is_first = state["loss"].isinf()
        slope0 = _dot(state["grad"], state["direction"])
        bracket = Bracket(*(state[name] for name in Bracket._fields))
        verdict = judge(bracket, state["step"], loss, _dot(grad, state["direction"]), state["loss"], slope0)
        active = ~state["frozen"] & ~is_first
        low_grad = torch.where((active & verdict.is_new_low)[:, None], grad, state["low_grad"])
        new = {
            **state,
            **verdict.bracket._asdict(),
            "best": best,
            "best_loss": best_loss,
            "iteration": state["iteration"] + 1,
            "step": verdict.next_step,
            "low_grad": low_grad,
        }
        moved = active & (verdict.accept_trial | verdict.accept_low)
        landing = (
            state["base"]
            + torch.where(verdict.accept_trial, state["step"], verdict.bracket.low)[:, None] * (state["direction"])
        )
        # When `low` is taken its loss and gradient were kept; the accepted trial is always the newest `low`.
        self._remember(new, moved, landing, low_grad)
        _select(new, moved, base=landing, loss=verdict.bracket.low_loss, grad=low_grad)
        _select(new, is_first, loss=loss, grad=grad)
        failed = active & verdict.failed
        self._freeze(new, moved, failed | (is_first & ~ok))
        self._aim(new, (is_first | moved | failed) & ~new["frozen"])
        trial = new["base"] + new["step"][:, None] * new["direction"]
        new["theta"] = torch.where(new["frozen"][:, None], new["base"], trial)
        return new

    def is_finished(self, state: Mapping[str, Tensor]) -> bool:
        """Return True after `iterations`, or when every member is frozen."""
        return int(state["iteration"]) >= self.iterations or bool(state["frozen"].all())

    def _remember(self, new: OptimizerState, moved: Tensor, landing: Tensor, grad: Tensor) -> None:
        """Store the pair of members that moved, in place of their oldest one."""
        s, y = landing - new["base"], grad - new["grad"]
        rows = (moved & (_dot(s, y) > _SMALLEST_CURVATURE * _dot(y, y))).nonzero()[:, 0]
        slots = new["stored"][rows] % self.memory
        new["s"] = new["s"].index_put((rows, slots), s[rows])
        new["y"] = new["y"].index_put((rows, slots), y[rows])
        new["stored"] = new["stored"].index_add(0, rows, torch.ones_like(rows))

    def _freeze(self, new: OptimizerState, moved: Tensor, failed: Tensor) -> None:
        """Stop members that converged, and those that fail without a history; drop the history of the others."""
        progressed = moved & ~(new["loss"] >= (1 - self.tolerance) * new["mark"])
        since = torch.where(progressed, 0, new["since_mark"] + moved.long())
        stationary = new["loss"].isfinite() & (new["grad"].abs().amax(dim=1) <= self.gradient_tolerance)
        new["mark"] = torch.where(progressed, new["loss"], new["mark"])
        new["since_mark"] = since
        stalled = failed & (new["stored"] == 0) & (since < self.patience // 2) & ~stationary
        new["stalled"] = new["stalled"] | stalled
        new["frozen"] = new["frozen"] | (since >= self.patience) | stationary | (failed & (new["stored"] == 0))
        new["stored"] = torch.where(failed, 0, new["stored"])

    def _aim(self, new: OptimizerState, chosen: Tensor) -> None:
        """Give the chosen members a new direction and a first step along it."""
        rows = chosen.nonzero()[:, 0]
        grad, stored = new["grad"][rows], new["stored"][rows]
        direction = -_two_loop(new["s"][rows], new["y"][rows], stored, grad)
        slope = _dot(direction, grad)
        uphill = ~(slope < 0)
        direction = torch.where(uphill[:, None], -grad, direction)
        slope = torch.where(uphill, -_dot(grad, grad), slope)
        length = direction.norm(dim=1)
        # Without a history the length of the gradient says nothing about the distance to the minimum.
        first = torch.where((stored == 0) | uphill, (1 / grad.abs().sum(dim=1)).clamp_max(1.0), 1.0)
        longest = self.max_step * (1 + new["base"][rows].norm(dim=1)) / length
        new["direction"] = new["direction"].index_put((rows,), direction)
        new["step"] = new["step"].index_put((rows,), torch.minimum(first, longest))
        for name, values in new_bracket(new["loss"][rows], slope)._asdict().items():
            new[name] = new[name].index_put((rows,), values)


def _two_loop(s: Tensor, y: Tensor, stored: Tensor, grad: Tensor) -> Tensor:
    """Return the inverse Hessian of the stored pairs, `(rows, memory, parameters)`, times the gradient."""
    rows, memory = torch.arange(len(grad)), s.shape[1]
    available = stored.clamp_max(memory)
    weights: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    q = grad
    for age in range(int(available.max()) if len(rows) else 0):
        slot = (stored - 1 - age) % memory
        s_i, y_i = s[rows, slot], y[rows, slot]
        rho = torch.where(age < available, 1 / _dot(s_i, y_i), 0.0)
        a = rho * _dot(s_i, q)
        q = q - a[:, None] * y_i * (age < available)[:, None]
        weights.append((a, rho, s_i, y_i))
    if weights:
        _, _, s_i, y_i = weights[0]
        gamma = torch.where(available > 0, _dot(s_i, y_i) / _dot(y_i, y_i), 1.0)
        q = gamma[:, None] * q
    for a, rho, s_i, y_i in reversed(weights):
        q = q + (a - rho * _dot(y_i, q))[:, None] * s_i
    return q


def _select(new: OptimizerState, mask: Tensor, **values: Tensor) -> None:
    """Overwrite the masked members of the named entries."""
    for name, value in values.items():
        new[name] = torch.where(mask[:, None] if value.ndim == 2 else mask, value, new[name])


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=1)
