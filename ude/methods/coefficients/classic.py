r"""Methods of order 1 to 4.

Euler (1768); Heun (1900); Runge (1895), the midpoint rule; Ralston (1962), Math. Comp. 16, 431-437; Kutta (1901);
Bogacki & Shampine (1989), A 3(2) pair of Runge-Kutta formulas, Appl. Math. Lett. 2(4), 321-325.

Each stability size is the smallest $x > 0$ at which the stability polynomial $1 - x + x^2/2 - \dots$, cut at the
order of the method, reaches modulus 1.
"""

from __future__ import annotations

from ude.methods.tableau import Tableau

EULER = Tableau(
    name="Euler",
    a=[[]],
    b=[1.0],
    c=[0.0],
    order=1,
    dense=[[1.0]],
    dense_order=1,
    stability_size=2.0,
)

HEUN = Tableau(
    name="Heun",
    a=[[], [1.0]],
    b=[1 / 2, 1 / 2],
    c=[0.0, 1.0],
    order=2,
    b_err=[-1 / 2, 1 / 2],
    embedded_order=1,
    stability_size=2.0,
)

MIDPOINT = Tableau(
    name="Midpoint",
    a=[[], [1 / 2]],
    b=[0.0, 1.0],
    c=[0.0, 1 / 2],
    order=2,
    b_err=[-1.0, 1.0],
    embedded_order=1,
    stability_size=2.0,
)

RALSTON = Tableau(
    name="Ralston",
    a=[[], [2 / 3]],
    b=[1 / 4, 3 / 4],
    c=[0.0, 2 / 3],
    order=2,
    b_err=[-3 / 4, 3 / 4],
    embedded_order=1,
    stability_size=2.0,
)

RK4 = Tableau(
    name="RK4",
    a=[[], [1 / 2], [0.0, 1 / 2], [0.0, 0.0, 1.0]],
    b=[1 / 6, 1 / 3, 1 / 3, 1 / 6],
    c=[0.0, 1 / 2, 1 / 2, 1.0],
    order=4,
    stability_size=2.7852935634052822,
)

BS3 = Tableau(
    name="BS3",
    a=[[], [1 / 2], [0.0, 3 / 4], [2 / 9, 1 / 3, 4 / 9]],
    b=[2 / 9, 1 / 3, 4 / 9, 0.0],
    c=[0.0, 1 / 2, 3 / 4, 1.0],
    order=3,
    b_err=[2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8],
    embedded_order=2,
    stability_size=2.5127453266183286,
)
