"""Two classics beside those in `classic`: Heun's method of order 3 and Kutta's 3/8 rule of order 4.

Heun (1900), Neue Methoden zur approximativen Integration der Differentialgleichungen einer unabhangigen Veranderlichen;
Kutta (1901), Beitrag zur naherungsweisen Integration totaler Differentialgleichungen.
"""

from __future__ import annotations

from ude.methods.tableau import Tableau

HEUN3 = Tableau(
    name="Heun3",
    a=[[], [1 / 3], [0.0, 2 / 3]],
    b=[1 / 4, 0.0, 3 / 4],
    c=[0.0, 1 / 3, 2 / 3],
    order=3,
)

KUTTA38 = Tableau(
    name="Kutta38",
    a=[[], [1 / 3], [-1 / 3, 1.0], [1.0, -1.0, 1.0]],
    b=[1 / 8, 3 / 8, 3 / 8, 1 / 8],
    c=[0.0, 1 / 3, 2 / 3, 1.0],
    order=4,
)
