"""Fehlberg (1969), Low-order classical Runge-Kutta formulas with stepsize control, NASA TR R-315: RK1(2).

The step goes on with the formula of order 2; the estimate is the difference to the one of order 1.
"""

from __future__ import annotations

from ude.methods.tableau import Tableau

FEHLBERG2 = Tableau(
    name="Fehlberg2",
    a=[[], [1 / 2], [1 / 256, 255 / 256]],
    b=[1 / 512, 255 / 256, 1 / 512],
    c=[0.0, 1 / 2, 1.0],
    order=2,
    b_err=[-1 / 512, 0.0, 1 / 512],
    embedded_order=1,
)
