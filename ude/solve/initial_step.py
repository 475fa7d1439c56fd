"""The length of the first step."""

from __future__ import annotations

import torch
from torch import Tensor

from ude._typing import FlatField
from ude.solve.step import Limits


@torch.no_grad()
def initial_step(
    field: FlatField, t: Tensor, y: Tensor, f0: Tensor, span: Tensor, limits: Limits, error_order: float
) -> Tensor:
    r"""Guess the length of the first step, per sample, from the size of $y$, $f$ and the change of $f$.

    One evaluation of the vector field, at the end of a small step of Euler's method.

    Args:
        field: Vector field.
        t: Start, shape `(batch,)`.
        y: State at the start, shape `(batch, state)`.
        f0: Derivative at the start, same shape.
        span: Signed length of the interval, shape `(batch,)`.
        limits: Tolerances and the least step.
        error_order: The error estimate of the method shrinks like `dt ** error_order`.

    Returns:
        Positive lengths, shape `(batch,)`; not finite where `f0` is not.

    Reference:
        Hairer, Norsett & Wanner (1993), Solving Ordinary Differential Equations I, section II.4.
    """
    scale = torch.addcmul(limits.atol, y.abs(), limits.rtol)
    size, slope = _norm(y / scale), _norm(f0 / scale)
    longest = span.abs()
    probe = torch.where((size < 1e-5) | (slope < 1e-5), 1e-6, 0.01 * size / slope)
    resolution = 1e3 * torch.finfo(t.dtype).eps * t.abs()
    probe = torch.minimum(torch.maximum(probe, resolution), longest)
    signed = torch.copysign(probe, span)
    f1 = field(t + signed, y + signed.to(y.dtype).unsqueeze(-1) * f0)
    curvature = _norm((f1 - f0) / scale) / probe
    steepest = torch.maximum(slope, curvature)
    guess = torch.where(steepest <= 1e-15, (1e-3 * probe).clamp(min=1e-6), (0.01 / steepest) ** (1.0 / error_order))
    # The probe may have left the domain of the vector field: then its own length is the best guess.
    guess = torch.where(guess.isfinite(), torch.minimum(100 * probe, guess), probe)
    return torch.minimum(guess, longest)


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=-1) * x.shape[-1] ** -0.5
