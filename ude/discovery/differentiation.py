"""Time derivatives of measurements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override


class Differentiation(ABC):
    """A way to estimate the time derivative of one trajectory."""

    __slots__ = ()

    @abstractmethod
    def __call__(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Smooth and differentiate.

        Args:
            x: Values, shape `(times, columns)`.
            t: Increasing times, shape `(times,)`.

        Returns:
            The values to use in place of `x`, and their time derivative; both of the shape of `x`.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class FiniteDifference(Differentiation):
    r"""Derivative of the polynomial through the `order + 1` nearest points, on any spacing.

    Error $O(h^{\text{order}})$; centred inside, one-sided at the ends. The same numbers as pysindy's
    `FiniteDifference`. Differentiable with respect to values and times.

    Args:
        order: Order of accuracy; even.

    Raises:
        ValueError: If `order` is not a positive even number.

    Example:
        >>> t = torch.tensor([0.0, 0.1, 0.3, 0.4])
        >>> FiniteDifference()(t.square().unsqueeze(-1), t)[1].flatten().round(decimals=4)
        tensor([0.0000, 0.2000, 0.6000, 0.8000])
    """

    order: int = 2

    def __post_init__(self) -> None:
        if self.order < 2 or self.order % 2:
            raise ValueError(f"`order` must be 2, 4, 6, ..., got {self.order}.")

    @override
    def __call__(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        near, offsets = _windows(t, self.order + 1, "order")
        width = offsets.detach().abs().amax(-1, keepdim=True)
        powers = (offsets / width).unsqueeze(-2) ** torch.arange(self.order + 1, device=t.device).unsqueeze(-1)
        pick = torch.zeros_like(powers[0, 0])
        pick[1] = 1.0
        weights = torch.linalg.solve(powers, pick.expand(len(t), -1)) / width
        return x, (weights.unsqueeze(-1) * x[near]).sum(-2)


@dataclass(frozen=True, slots=True, kw_only=True)
class SavitzkyGolay(Differentiation):
    r"""Value and derivative of the least-squares polynomial through the `window` nearest points, on any spacing.

    Differentiable with respect to values and times.

    Args:
        window: Number of points; odd.
        degree: Degree of the polynomial.

    Raises:
        ValueError: If the window is even or too short for the degree.

    Example:
        >>> t = torch.linspace(0, 1, 20, dtype=torch.float64)
        >>> x, x_dot = SavitzkyGolay(window=7)(t.square().unsqueeze(-1), t)
        >>> bool((x_dot[:, 0] - 2 * t).abs().max() < 1e-12)
        True

    Reference:
        Savitzky and Golay (1964), Smoothing and differentiation of data by simplified least squares procedures.
    """

    window: int = 11
    degree: int = 3

    def __post_init__(self) -> None:
        if self.window % 2 == 0 or not 1 <= self.degree < self.window:
            raise ValueError(
                f"Expected an odd `window` greater than `degree` >= 1, got window={self.window}, degree={self.degree}."
            )

    @override
    def __call__(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        near, offsets = _windows(t, self.window, "window")
        width = offsets.detach().abs().amax(-1, keepdim=True)
        powers = (offsets / width).unsqueeze(-1) ** torch.arange(self.degree + 1, device=t.device)
        coefficients = torch.linalg.pinv(powers) @ x[near]
        return coefficients[:, 0], coefficients[:, 1] / width


@dataclass(frozen=True, slots=True, kw_only=True)
class SmoothingSpline(Differentiation):
    r"""Value and derivative of the cubic spline that minimises $\sum_i (x_i - s(t_i))^2 + \lambda \int s''(t)^2 dt$.

    Args:
        smoothing: $\lambda$, in units of time cubed; chosen by generalised cross-validation if None.
    """

    smoothing: float | None = None

    @override
    def __call__(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        from scipy.interpolate import make_smoothing_spline

        if len(t) < 5:
            raise ValueError(f"A smoothing spline needs at least 5 times, got {len(t)}. Use `FiniteDifference()`.")
        times, values = t.detach().cpu().numpy(), x.detach().cpu().numpy()
        splines = [make_smoothing_spline(times, column, lam=self.smoothing) for column in values.T]
        smooth = torch.stack([torch.from_numpy(spline(times)) for spline in splines], dim=-1)
        slope = torch.stack([torch.from_numpy(spline(times, 1)) for spline in splines], dim=-1)
        return smooth.to(x), slope.to(x)


@dataclass(frozen=True, slots=True)
class FromPySINDyDifferentiation(Differentiation):
    """Any differentiation method of pysindy, called as `method(x, t)`."""

    method: Any

    @override
    def __call__(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        slope = torch.from_numpy(self.method(x.detach().cpu().numpy(), t.detach().cpu().numpy()).__array__().copy())
        smooth = getattr(self.method, "smoothed_x_", None)
        return (x if smooth is None else torch.from_numpy(smooth.__array__().copy()).to(x)), slope.to(x)


def _windows(t: Tensor, width: int, option: str) -> tuple[Tensor, Tensor]:
    """Positions of the nearest `width` times to each time, and how far off they are."""
    if len(t) < width:
        raise ValueError(f"At least {width} times are needed, got {len(t)}. Lower `{option}` or add measurements.")
    start = (torch.arange(len(t), device=t.device) - width // 2).clamp(0, len(t) - width)
    near = start.unsqueeze(-1) + torch.arange(width, device=t.device)
    return near, t[near] - t.unsqueeze(-1)
