"""Derivatives: every room takes them here and nowhere else."""

from ude.ad.attach import attach
from ude.ad.modes import functional_call, grad, hvp, jacobian, jvp, vjp, vmap
from ude.ad.recompute import checkpoint

__all__ = ["attach", "checkpoint", "functional_call", "grad", "hvp", "jacobian", "jvp", "vjp", "vmap"]
