"""Exogenous inputs as functions of time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Signal:
    r"""Piecewise cubic functions of time, $\sum_k c_{ik} (t - t_i)^k$ on $[t_i, t_{i+1})$, one set per group.

    Before the first and after the last time the value there is held. Made by `linear`, `previous`, `pchip` or
    `natural_cubic`.

    Args:
        ts: Knots, non-decreasing along each row, shape `(groups, times)`.
        coefficients: $c_{ik}$ of the interval that starts at each knot but the last, shape
            `(4, groups, times - 1, inputs)`.

    Example:
        >>> ts, values = torch.tensor([[0.0, 1.0, 3.0]]), torch.tensor([[[0.0], [2.0], [0.0]]])
        >>> Signal.linear(ts, values)(torch.tensor([0.5, 2.0]))
        tensor([[1.],
                [1.]])
    """

    ts: Tensor
    coefficients: Tensor

    @classmethod
    def linear(cls, ts: Tensor, values: Tensor) -> Signal:
        """Join the values by straight lines.

        Args:
            ts: Times, non-decreasing along each row, shape `(groups, times)`. At a time that occurs twice
                the signal jumps.
            values: Values, shape `(groups, times, inputs)`.
        """
        _check(ts, values)
        zero = torch.zeros_like(values[:, 1:])
        return cls(ts, torch.stack([values[:, :-1], _slopes(ts, values), zero, zero]))

    @classmethod
    def previous(cls, ts: Tensor, values: Tensor) -> Signal:
        """Hold every value until the next one; arguments as for `linear`."""
        _check(ts, values)
        zero = torch.zeros_like(values)
        # An interval without length at the end: from the last time on it is the one that is looked up.
        return cls(torch.cat([ts, ts[:, -1:]], dim=1), torch.stack([values, zero, zero, zero]))

    @classmethod
    def pchip(cls, ts: Tensor, values: Tensor) -> Signal:
        """Join the values smoothly without overshooting them; arguments as for `linear`.

        Piecewise cubic Hermite interpolation with a continuous first derivative; monotone between the knots
        wherever the values are.

        Reference:
            F. N. Fritsch and J. Butland, A method for constructing local monotone piecewise cubic
            interpolants, SIAM J. Sci. Stat. Comput. 5 (1984), 300-304.
        """
        _check(ts, values)
        return _hermite(ts, values, _monotone_derivatives(ts, values))

    @classmethod
    def natural_cubic(cls, ts: Tensor, values: Tensor) -> Signal:
        """Join the values by the cubic spline with no curvature at the ends; arguments as for `linear`.

        A time that occurs twice ends one spline and begins another.
        """
        _check(ts, values)
        return _hermite(ts, values, _spline_derivatives(ts, values))

    def __call__(self, t: Tensor) -> Tensor:
        """Evaluate at `t`, differentiable in `t` and in the values.

        Args:
            t: Times. Of any shape for a signal of one group. For G groups a scalar, which stands for all
                groups; or with a last axis of length G, or of length K * G for K replicates with the
                groups of one replicate side by side.

        Returns:
            Values, shape `(*t.shape, inputs)`; for a scalar `t` and G > 1 groups `(G, inputs)`.

        Raises:
            ValueError: If the shape of `t` does not fit the groups.
        """
        groups, shape = len(self.ts), t.shape
        if groups > 1 and not shape:
            shape = torch.Size([groups])
        if groups > 1 and shape[-1] % groups:
            raise ValueError(
                f"The last axis of `t` must have length {groups}, one per group, or a multiple, got {tuple(shape)}."
            )
        rows = t.to(self.ts).expand(shape).reshape(-1, groups).mT.contiguous()
        inside = rows.clamp(self.ts[:, :1], self.ts[:, -1:])
        last = self.ts.shape[1] - 2
        index = (torch.searchsorted(self.ts.contiguous(), inside.detach(), right=True) - 1).clamp(0, last)
        s = (inside - self.ts.gather(1, index)).unsqueeze(-1)
        width = self.coefficients.shape[-1]
        at = index.unsqueeze(-1).expand(-1, -1, width)
        c0, c1, c2, c3 = (c.gather(1, at) for c in self.coefficients.unbind(0))
        values = c0 + s * (c1 + s * (c2 + s * c3))
        return values.movedim(0, 1).reshape(*shape, width)

    def take(self, groups: Tensor) -> Signal:
        """Return the signal whose groups are these of the present ones, by index and in this order."""
        return Signal(self.ts[groups], self.coefficients[:, groups])


def _check(ts: Tensor, values: Tensor) -> None:
    if ts.ndim != 2 or values.ndim != 3 or values.shape[:2] != ts.shape or ts.shape[1] < 2:
        raise ValueError(
            "A signal needs `ts` of shape (groups, times) and `values` of shape (groups, times, inputs) with at least "
            f"two times, got {tuple(ts.shape)} and {tuple(values.shape)}."
        )


def _slopes(ts: Tensor, values: Tensor) -> Tensor:
    """Return the slope on every interval, zero on one without length."""
    h = ts.diff(dim=1).unsqueeze(-1)
    return torch.where(h > 0, values.diff(dim=1) / torch.where(h > 0, h, 1.0), 0.0)


def _hermite(ts: Tensor, values: Tensor, derivatives: Tensor) -> Signal:
    h, slopes = ts.diff(dim=1).unsqueeze(-1), _slopes(ts, values)
    safe = torch.where(h > 0, h, 1.0)
    left, right = derivatives[:, :-1], derivatives[:, 1:]
    c2 = (3 * slopes - 2 * left - right) / safe
    c3 = (left + right - 2 * slopes) / safe.square()
    return Signal(ts, torch.stack([values[:, :-1], left, c2, c3]))


def _monotone_derivatives(ts: Tensor, values: Tensor) -> Tensor:
    """Harmonic mean of the slopes on both sides of a knot, one-sided where one of them has no length."""
    h = torch.nn.functional.pad(ts.diff(dim=1), (2, 2)).unsqueeze(-1)
    d = torch.nn.functional.pad(_slopes(ts, values), (0, 0, 2, 2))
    (h_before, h_left, h_right, h_after), (before, left, right, after) = (
        [x[:, i : x.shape[1] - 3 + i] for i in range(4)] for x in (h, d)
    )
    w_left, w_right = 2 * h_right + h_left, h_right + 2 * h_left
    agree = left * right > 0
    safe_left, safe_right = torch.where(agree, left, 1.0), torch.where(agree, right, 1.0)
    weights = torch.where(agree, w_left + w_right, 0.0)
    inner = weights / torch.where(agree, w_left / safe_left + w_right / safe_right, 1.0)
    from_left = _end_derivative(h_left, h_before, left, before)
    from_right = _end_derivative(h_right, h_after, right, after)
    return torch.where(h_left > 0, torch.where(h_right > 0, inner, from_left), from_right)


def _end_derivative(h0: Tensor, h1: Tensor, d0: Tensor, d1: Tensor) -> Tensor:
    """One-sided three-point slope, cut back so that the end interval stays monotone."""
    slope = ((2 * h0 + h1) * d0 - h0 * d1) / torch.where(h0 + h1 > 0, h0 + h1, 1.0)
    slope = torch.where(slope * d0 > 0, slope, 0.0)
    turns = (d0 * d1 <= 0) & (slope.abs() > 3 * d0.abs())
    return torch.where(h1 > 0, torch.where(turns, 3 * d0, slope), d0)


def _spline_derivatives(ts: Tensor, values: Tensor) -> Tensor:
    """Solve the tridiagonal system for the derivatives at the knots, as a dense batch: series are short."""
    h, d = ts.diff(dim=1), _slopes(ts, values)
    full = h > 0
    inverse = torch.where(full, 1.0 / torch.where(full, h, 1.0), 0.0)
    diagonal = torch.zeros_like(ts)
    diagonal[:, :-1] += 2 * inverse
    diagonal[:, 1:] += 2 * inverse
    # A knot between two intervals without length is padding: its row reads derivative = 0.
    diagonal = torch.where(diagonal > 0, diagonal, 1.0)
    matrix = torch.diag_embed(diagonal) + torch.diag_embed(inverse, 1) + torch.diag_embed(inverse, -1)
    weighted = 3 * inverse.unsqueeze(-1) * d
    side = torch.zeros_like(values[:, :1])
    return torch.linalg.solve(matrix, torch.cat([weighted, side], dim=1) + torch.cat([side, weighted], dim=1))
