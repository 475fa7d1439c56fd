"""Derivatives: every room takes them here and nowhere else."""

from ude.ad.algebra import Algebra, Directions, Product, Symbol, Univariate
from ude.ad.attach import attach, attach_all
from ude.ad.counting import ProductCount, count_products
from ude.ad.implicit import implicit
from ude.ad.jacobian import Mode, jacobian
from ude.ad.jet import Jet, jet
from ude.ad.leaves import leaves
from ude.ad.linearise import (
    JacobianProduct,
    Linearisable,
    Linearisation,
    jacobian_product,
    linearise,
    time_derivative,
)
from ude.ad.modes import functional_call, grad, hvp, jvp, vjp, vmap
from ude.ad.ode_series import mean_square_derivatives, ode_series, total_derivatives
from ude.ad.operators import (
    Coordinates,
    Estimator,
    Gaussian,
    OperatorResult,
    Orthogonal,
    Rademacher,
    biharmonic,
    divergence,
    generator,
    laplacian,
    linear_operator,
    weighted_laplacian,
)
from ude.ad.pushforward import pushforward
from ude.ad.recompute import checkpoint
from ude.ad.rows import over_rows
from ude.ad.rules import bilinear, elementwise, linear, register, registered
from ude.ad.tape import is_tensor

__all__ = [
    "Algebra",
    "Coordinates",
    "Directions",
    "Estimator",
    "Gaussian",
    "JacobianProduct",
    "Jet",
    "Linearisable",
    "Linearisation",
    "Mode",
    "OperatorResult",
    "Orthogonal",
    "Product",
    "ProductCount",
    "Rademacher",
    "Symbol",
    "Univariate",
    "attach",
    "attach_all",
    "biharmonic",
    "bilinear",
    "checkpoint",
    "count_products",
    "divergence",
    "elementwise",
    "functional_call",
    "generator",
    "grad",
    "hvp",
    "implicit",
    "is_tensor",
    "jacobian",
    "jacobian_product",
    "jet",
    "jvp",
    "laplacian",
    "leaves",
    "linear",
    "linear_operator",
    "linearise",
    "mean_square_derivatives",
    "ode_series",
    "over_rows",
    "pushforward",
    "register",
    "registered",
    "time_derivative",
    "total_derivatives",
    "vjp",
    "vmap",
    "weighted_laplacian",
]
