"""What a fit gives back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ude.fit.scaling import Scales
from ude.fit.training import History
from ude.models import UDE, Signal
from ude.problems import ODEProblem, Trajectories
from ude.solve import solve


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Fitted models, best first where one is wanted, with the course of the fit.

    Args:
        members: The fitted models, K of them.
        losses: Weighted mean squared residual of each member over the whole trajectories, whatever the strategy
            was, shape `(K,)`; NaN where the solve fails.
        y0s: Fitted or given initial states, shape `(K, groups, states)`.
        data: What was fitted: one data set, or one per member.
        history: Loss of every member at every evaluation.
        scales: Typical sizes of states, rates and times.
        signal: Exogenous inputs; beyond the data the last value is held.
    """

    members: tuple[UDE, ...]
    losses: Tensor
    y0s: Tensor
    data_sets: tuple[Trajectories, ...]
    history: History
    scales: Scales
    signal: Signal | None = None

    @property
    def best(self) -> int:
        """Index of the member with the lowest loss."""
        return int(self.losses.nan_to_num(nan=torch.inf).argmin())

    @property
    def model(self) -> UDE:
        """The best member."""
        return self.members[self.best]

    @property
    def y0(self) -> Tensor:
        """Initial states of the best member, shape `(groups, states)`."""
        return self.y0s[self.best]

    @property
    def data(self) -> Trajectories:
        """What the best member was fitted to."""
        return self.data_of(self.best)

    def data_of(self, member: int) -> Trajectories:
        """What this member was fitted to."""
        return self.data_sets[member if len(self.data_sets) > 1 else 0]

    def predict(self, ts: Tensor, *, member: int | None = None, rtol: float = 1e-8) -> Trajectories:
        """Solve from the initial states to other times, which may lie beyond the data.

        Args:
            ts: Times, shape `(times,)` or `(groups, times)`, not before the first measurement.
            member: Which member; the best by default.
            rtol: Relative tolerance; the absolute one is `rtol` times the scale of each state.

        Returns:
            Predicted trajectories.
        """
        index = self.best if member is None else member
        data, model = self.data_of(index), self.members[index]
        ts = ts.to(data.ts).expand(len(data.groups), -1)
        start = data.ts[:, 0]
        problem = ODEProblem(
            model.latent_field(),
            model.coordinates.encode(self.y0s[index]),
            (start, ts[:, -1]),
            p=self.signal,
            batched=True,
        )
        with torch.no_grad():
            sol = solve(problem, save_at=ts.T, rtol=rtol, atol=rtol * self.scales.state, dense=False)
        ys = model.coordinates.decode(sol.ys).permute(1, 0, 2)
        return Trajectories(ts=ts, ys=ys, states=data.states, groups=data.groups, time=data.time)

    def residuals(self, member: int | None = None) -> Tensor:
        """Measured minus predicted values, NaN where not measured, shape `(groups, times, states)`."""
        data = self.data_of(self.best if member is None else member)
        return data.ys - self.predict(data.ts, member=member).ys

    @property
    def sse(self) -> float:
        """Sum of squared residuals of the best member in the units of the data."""
        return float(self.residuals().square().nansum())

    @property
    def noise(self) -> Tensor:
        """Root mean square residual of each state: an estimate of the measurement noise, shape `(states,)`."""
        return self.residuals().square().nanmean(dim=(0, 1)).sqrt()
