"""Objects with torchsde's methods, read as a drift and a diffusion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ude.compat.errors import ArgumentError
from ude.problems import Interpretation, Noise

Function: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Drift or diffusion: called with a time of shape `()` and a state of shape `(batch, state)`."""

NOISES: tuple[Noise, ...] = ("diagonal", "additive", "scalar", "general")
INTERPRETATIONS: tuple[Interpretation, ...] = ("ito", "stratonovich")
ROLES = {
    "drift": "f",
    "diffusion": "g",
    "prior_drift": "h",
    "diffusion_prod": "g_prod",
    "drift_and_diffusion": "f_and_g",
    "drift_and_diffusion_prod": "f_and_g_prod",
}
"""What `names` may rename, and the names without it."""
LEAST = 1e-7
"""Diffusion below which the log-ratio divides by this number, as torchsde does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Equation:
    r"""$dy = f\, dt + g\, dW$, and the drift $h$ of a prior with the same diffusion.

    Args:
        noise: Kind of the noise.
        interpretation: Of the integral.
        drift: $f$, of the shape of the state.
        diffusion: $g$, of shape `(batch, state)` for diagonal noise, else `(batch, state, noise)`.
        prior: $h$; None if there is none.
    """

    noise: Noise
    interpretation: Interpretation
    drift: Function
    diffusion: Function
    prior: Function | None

    @classmethod
    def read(cls, sde: Any, names: Mapping[str, str] | None, components: int | None) -> Equation:
        """Read an object.

        Args:
            sde: The user's object.
            names: Names of its methods where they are others.
            components: Brownian motions per row, if they are known.

        Raises:
            ArgumentError: If something is missing.
        """
        kinds = {"noise_type": NOISES, "sde_type": INTERPRETATIONS}
        for name, choices in kinds.items():
            if getattr(sde, name, None) not in choices:
                raise ArgumentError(
                    f"`sde.{name}` must be one of {', '.join(map(repr, choices))}, got {getattr(sde, name, None)!r}."
                )
        unknown = set(names or {}) - set(ROLES)
        if unknown:
            raise ArgumentError(f"`names` has the keys {', '.join(ROLES)}, got {', '.join(sorted(unknown))} as well.")
        given = {role: getattr(sde, (names or {}).get(role, own), None) for role, own in ROLES.items()}
        count = 1 if sde.noise_type == "scalar" else components
        return cls(
            noise=sde.noise_type,
            interpretation=sde.sde_type,
            drift=_drift(given, count),
            diffusion=_diffusion(given, sde.noise_type, count),
            prior=given["prior_drift"],
        )

    def check(self, t: Tensor, y: Tensor) -> int:
        """Return how many Brownian motions drive a row, having checked what drift and diffusion return.

        Raises:
            ArgumentError: If it has the wrong shape.
        """
        with torch.no_grad():
            drift, diffusion = self.drift(t, y), self.diffusion(t, y)
        if drift.shape != y.shape:
            raise ArgumentError(
                f"The drift must have the shape of the state, {tuple(y.shape)}, got {tuple(drift.shape)}."
            )
        extra = 0 if self.noise == "diagonal" else 1
        if diffusion.ndim != 2 + extra or diffusion.shape[:2] != y.shape:
            wanted = "that of the state" if not extra else "(batch, state, noise)"
            raise ArgumentError(
                f"With {self.noise} noise the diffusion must have the shape {wanted}, the state being "
                f"{tuple(y.shape)}, got {tuple(diffusion.shape)}."
            )
        if self.noise == "scalar" and diffusion.shape[-1] != 1:
            raise ArgumentError(
                f"Scalar noise has one Brownian motion, the diffusion the shape {tuple(diffusion.shape)}. Use "
                'noise_type "general".'
            )
        return diffusion.shape[-1]

    def with_log_ratio(self) -> Equation:
        r"""Return the equation with one more component at the end, $\dot\ell = \frac12 |g^{-1}(f - h)|^2$.

        Its mean is the Kullback-Leibler divergence of the law of the paths from that of the prior.

        Raises:
            ArgumentError: If there is no prior.
        """
        prior = self.prior
        if prior is None:
            raise ArgumentError("With `logqp=True` the object needs the drift of the prior, a method `h`.")

        def drift(t: Tensor, y: Tensor) -> Tensor:
            y = y[:, :-1]
            f = self.drift(t, y)
            u = self._divided(f - prior(t, y), self.diffusion(t, y))
            return torch.cat([f, 0.5 * u.square().sum(1, keepdim=True)], 1)

        def diffusion(t: Tensor, y: Tensor) -> Tensor:
            g = self.diffusion(t, y[:, :-1])
            return torch.cat([g, torch.zeros_like(g[:, :1])], 1)

        return Equation(
            noise=self.noise, interpretation=self.interpretation, drift=drift, diffusion=diffusion, prior=None
        )

    def _divided(self, change: Tensor, diffusion: Tensor) -> Tensor:
        """Return the noise that has the effect of a drift, the smallest if there are many."""
        if self.noise != "diagonal":
            return (torch.linalg.pinv(diffusion) @ change.unsqueeze(-1)).squeeze(-1)
        least = torch.full_like(diffusion, LEAST).copysign(diffusion.detach())
        return change / torch.where(diffusion.detach().abs() > LEAST, diffusion, least)


def _drift(given: Mapping[str, Any], count: int | None) -> Function:
    """Return the drift by the first method that gives it."""
    if given["drift"] is not None:
        return given["drift"]
    both, product = given["drift_and_diffusion"], given["drift_and_diffusion_prod"]
    if both is not None:
        return lambda t, y: both(t, y)[0]
    if product is not None:
        return lambda t, y: product(t, y, y.new_zeros(len(y), count or y.shape[1]))[0]
    raise ArgumentError("The object must have a drift: a method `f`, `f_and_g` or `f_and_g_prod`.")


def _diffusion(given: Mapping[str, Any], noise: Noise, count: int | None) -> Function:
    """Return the diffusion by the first method that gives it."""
    if given["diffusion"] is not None:
        return given["diffusion"]
    both = given["drift_and_diffusion"]
    if both is not None:
        return lambda t, y: both(t, y)[1]
    single, double = given["diffusion_prod"], given["drift_and_diffusion_prod"]
    if single is None and double is None:
        raise ArgumentError("The object must have a diffusion: a method `g`, `f_and_g`, `g_prod` or `f_and_g_prod`.")
    product = single if single is not None else lambda t, y, v: double(t, y, v)[1]
    if noise == "diagonal":
        return lambda t, y: product(t, y, torch.ones_like(y))
    if count is None:
        raise ArgumentError("How many Brownian motions there are is told by none of `g`, `f_and_g`: give `bm`.")

    def columns(t: Tensor, y: Tensor) -> Tensor:
        units = torch.eye(count, dtype=y.dtype, device=y.device)
        return torch.stack([product(t, y, unit.expand(len(y), -1)) for unit in units], -1)

    return columns
