"""Derivatives: every room takes them here and nowhere else."""

from ude.ad.attach import attach
from ude.ad.counting import ProductCount, count_products
from ude.ad.jacobian import Mode, jacobian
from ude.ad.modes import functional_call, grad, hvp, jvp, vjp, vmap
from ude.ad.recompute import checkpoint

__all__ = [
    "Mode",
    "ProductCount",
    "attach",
    "checkpoint",
    "count_products",
    "functional_call",
    "grad",
    "hvp",
    "jacobian",
    "jvp",
    "vjp",
    "vmap",
]
