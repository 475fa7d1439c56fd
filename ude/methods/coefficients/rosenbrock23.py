r"""Shampine & Reichelt (1997), The MATLAB ODE suite, SIAM J. Sci. Comput. 18(1), 1-22, section 3.

The formulas there are for stages k with $k = \Gamma^{-1} u / \Delta t$ and
$\Gamma^{-1} = d^{-1} (1, 0, 0;\; 1, 1, 0;\; 2, e_{32}, 1)$, which gives the coefficients in the variables u.
"""

from __future__ import annotations

from math import sqrt

from ude.methods.rosenbrock_tableau import RosenbrockTableau

_D = 1 / (2 + sqrt(2))
_E = 6 + sqrt(2)

ROSENBROCK23 = RosenbrockTableau(
    name="Rosenbrock23",
    gamma=_D,
    a=((), (0.5 / _D,), (1 / _D, 1 / _D)),
    c=((), (-1 / _D,), (-2 / _D, -_E / _D)),
    b=(1 / _D, 1 / _D, 0.0),
    order=2,
    b_err=(-1 / (6 * _D), (2 - _E) / (6 * _D), -1 / (6 * _D)),
    embedded_order=3,
    dense=((1 / _D, 0.0), (-2 / (1 - 2 * _D), 1 / (_D * (1 - 2 * _D))), (0.0, 0.0)),
    dense_order=2,
)
