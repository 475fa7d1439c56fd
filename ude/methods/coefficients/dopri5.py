"""Dormand & Prince (1980), A family of embedded Runge-Kutta formulae, J. Comput. Appl. Math. 6, 19-26: RK5(4)7M.

Dense output of order 4: Hairer, Norsett & Wanner (1993), Solving Ordinary Differential Equations I, section II.6, eq.
(6.12) and the code DOPRI5; the cubic Hermite interpolant plus a quartic that vanishes to second order at both ends.
"""

from __future__ import annotations

from ude.methods.tableau import Tableau, cubic_hermite

_B = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0)
_B_HAT = (5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40)
_QUARTIC = (
    -12715105075 / 11282082432,
    0.0,
    87487479700 / 32700410799,
    -10690763975 / 1880347072,
    701980252875 / 199316789632,
    -1453857185 / 822651844,
    69997945 / 29380423,
)

DOPRI5 = Tableau(
    name="Dopri5",
    a=[
        [],
        [1 / 5],
        [3 / 40, 9 / 40],
        [44 / 45, -56 / 15, 32 / 9],
        [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729],
        [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656],
        _B[:-1],
    ],
    b=_B,
    c=[0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0],
    order=5,
    b_err=[b - b_hat for b, b_hat in zip(_B, _B_HAT, strict=True)],
    embedded_order=4,
    dense=[
        (first, second + d, third - 2 * d, d)
        for (first, second, third), d in zip(cubic_hermite(_B), _QUARTIC, strict=True)
    ],
    dense_order=4,
    stability_size=3.3066,
)
