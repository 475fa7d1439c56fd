"""Linear differential operators of functions that act row by row."""

from ude.ad.operators.constant import biharmonic, linear_operator
from ude.ad.operators.estimators import Coordinates, Estimator, Gaussian, Orthogonal, Rademacher
from ude.ad.operators.first_order import divergence
from ude.ad.operators.result import OperatorResult
from ude.ad.operators.second_order import generator, laplacian, weighted_laplacian

__all__ = [
    "Coordinates",
    "Estimator",
    "Gaussian",
    "OperatorResult",
    "Orthogonal",
    "Rademacher",
    "biharmonic",
    "divergence",
    "generator",
    "laplacian",
    "linear_operator",
    "weighted_laplacian",
]
