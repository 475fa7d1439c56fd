"""Adam on many members at once, with a guard against divergence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ude.fit.optimizer import OptimizerState, is_usable, track_best


@dataclass(frozen=True, slots=True, kw_only=True)
class Adam:
    r"""Adam per member, $\theta \leftarrow \theta - \eta\, \hat m / (\sqrt{\hat v} + \epsilon)$.

    A member whose loss or gradient is not finite goes back to its best point (or, before it has one, halves its
    parameters), forgets its moments and halves its learning rate; the others do not notice. The phase ends
    early when no member has lowered its best loss by the fraction `stall_decrease` in `patience` iterations.

    Args:
        iterations: Largest number of steps.
        lr: Learning rate at the start.
        final_lr: Fraction of `lr` that is left at the end of a cosine schedule; 1 keeps it constant.
        clip: Largest Euclidean norm of the gradient of one member.
        betas: Decay of the first and the second moment.
        eps: Keeps the division finite.
        patience: Iterations without progress after which the next phase begins.
        stall_decrease: What counts as progress.

    Reference:
        Kingma and Ba (2015), Adam: a method for stochastic optimization, algorithm 1.
    """

    iterations: int = 1000
    lr: float = 0.02
    final_lr: float = 0.05
    clip: float = 10.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-12
    patience: int = 200
    stall_decrease: float = 0.02

    @property
    def name(self) -> str:
        """Name of the phase in the history."""
        return "Adam"

    def init(self, theta: Tensor) -> OptimizerState:
        """Return the state before the first evaluation."""
        members = theta.shape[0]
        infinite = theta.new_full((members,), torch.inf)
        return {
            "theta": theta,
            "best": theta,
            "best_loss": infinite,
            "iteration": torch.zeros((), dtype=torch.int64),
            "first_moment": torch.zeros_like(theta),
            "second_moment": torch.zeros_like(theta),
            "age": theta.new_zeros(members),
            "rate": theta.new_ones(members),
            "mark": infinite,
            "since_mark": torch.zeros(members, dtype=torch.int64),
        }

    def update(self, state: Mapping[str, Tensor], loss: Tensor, grad: Tensor) -> OptimizerState:
        """Take one step of every member."""
        ok = is_usable(loss, grad)
        best, best_loss = track_best(state, loss, ok)
        grad = torch.where(ok[:, None], grad, 0.0)
        grad = grad * (self.clip / grad.norm(dim=1, keepdim=True).clamp_min(self.clip))
        b1, b2 = self.betas
        m = b1 * state["first_moment"] + (1 - b1) * grad
        v = b2 * state["second_moment"] + (1 - b2) * grad**2
        age, rate = state["age"] + 1, torch.where(ok, state["rate"], state["rate"] / 2)
        m_hat = m / (1 - b1 ** age[:, None])
        v_hat = v / (1 - b2 ** age[:, None])
        stepped = state["theta"] - (self._lr(state) * rate)[:, None] * m_hat / (v_hat.sqrt() + self.eps)
        restart = torch.where(best_loss.isfinite()[:, None], best, state["theta"] / 2)
        progressed = best_loss < (1 - self.stall_decrease) * state["mark"]
        return {
            "theta": torch.where(ok[:, None], stepped, restart),
            "best": best,
            "best_loss": best_loss,
            "iteration": state["iteration"] + 1,
            "first_moment": torch.where(ok[:, None], m, 0.0),
            "second_moment": torch.where(ok[:, None], v, 0.0),
            "age": torch.where(ok, age, 0.0),
            "rate": rate,
            "mark": torch.where(progressed, best_loss, state["mark"]),
            "since_mark": torch.where(progressed, 0, state["since_mark"] + 1),
        }

    def is_finished(self, state: Mapping[str, Tensor]) -> bool:
        """Return True after `iterations`, or when no member makes progress."""
        return int(state["iteration"]) >= self.iterations or bool((state["since_mark"] >= self.patience).all())

    def _lr(self, state: Mapping[str, Tensor]) -> float:
        fraction = int(state["iteration"]) / max(self.iterations, 1)
        return self.lr * (self.final_lr + (1 - self.final_lr) * (1 + math.cos(math.pi * fraction)) / 2)
