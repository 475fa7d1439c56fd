"""ESDIRK pairs: diagonally implicit methods with an explicit first stage.

TRBDF2: Hosea & Shampine (1996), Analysis and implementation of TR-BDF2, Appl. Numer. Math. 20, 21-37.
Kvaerno: Kvaerno (2004), Singly diagonally implicit Runge-Kutta methods with an explicit first stage, BIT 44, 489-502;
the pairs 3/2, 4/3 and 5/4, whose stages before the last one carry the solution of lower order.
KenCarp: Kennedy & Carpenter (2003), Additive Runge-Kutta schemes for convection-diffusion-reaction equations, Appl.
Numer. Math. 44, 139-181; the implicit methods of ARK3(2)4L[2]SA and ARK4(3)6L[2]SA.
"""

from __future__ import annotations

from math import sqrt

from ude.methods.diagonal_tableau import DiagonalTableau

_D = 1 - sqrt(0.5)
_W = sqrt(2) / 4

TRBDF2 = DiagonalTableau(
    name="TRBDF2",
    a=[[0.0], [_D, _D], [_W, _W, _D]],
    c=[0.0, 2 * _D, 1.0],
    order=2,
    b_err=[(4 * _W - 1) / 3, -1 / 3, 2 * _D / 3],
    embedded_order=3,
    filters_error=True,
)

# The root of x^3 - 3 x^2 + 3 x / 2 - 1 / 6 for which the method is L-stable.
_G = 0.43586652150845899941601945
_A32 = (0.5 - _G) / (2 * _G)
_A42 = 1 / (12 * _G * (1 - 2 * _G))
_A43 = 0.5 - _G - 2 * _G * _A42

# The paper prints ten digits; these are its order conditions solved: order 2 for the third stage, order 3 for the last.
KVAERNO3 = DiagonalTableau(
    name="Kvaerno3",
    a=[[0.0], [_G, _G], [1 - _G - _A32, _A32, _G], [1 - _G - _A42 - _A43, _A42, _A43, _G]],
    c=[0.0, 2 * _G, 1.0, 1.0],
    order=3,
    b_err=[_A32 - _A42 - _A43, _A42 - _A32, _A43 - _G, _G],
    embedded_order=2,
)

# The L-stable method 4/3a. The paper prints ten digits; these solve its order conditions together with
# stability function zero at infinity.
_H = 0.57281606248213485541
_K4 = [
    [0.0],
    [_H, _H],
    [0.16723546202721075075, -0.14294653685703411324, _H],
    [0.26260329025269581808, -0.31190432742056315302, 0.47648497468573247953, _H],
    [0.19721654831283499584, 0.17684378390637218603, 0.8154421813508384474, -0.76231857605218048468, _H],
]

KVAERNO4 = DiagonalTableau(
    name="Kvaerno4",
    a=_K4,
    c=[0.0, 2 * _H, 0.5971049876523114929, 1.0, 1.0],
    order=4,
    b_err=[x - y for x, y in zip(_K4[-1], [*_K4[-2], 0.0], strict=True)],
    embedded_order=3,
)

_K5 = [
    [0.0],
    [0.26, 0.26],
    [0.13, 0.84033320996790809, 0.26],
    [0.22371961478320505, 0.47675532319799699, -0.06470895363112615, 0.26],
    [0.16648564323248321, 0.10450018841591720, 0.03631482272098715, -0.13090704451073998, 0.26],
    [0.13855640231268224, 0.0, -0.04245337201752043, 0.02446657898003141, 0.61943039072480676, 0.26],
    [
        0.13659751177640291,
        0.0,
        -0.05496908796538376,
        -0.04118626728321046,
        0.62993304899016403,
        0.06962479448202728,
        0.26,
    ],
]

KVAERNO5 = DiagonalTableau(
    name="Kvaerno5",
    a=_K5,
    c=[0.0, 0.52, 1.230333209967908, 0.8957659843500759, 0.43639360985864756, 1.0, 1.0],
    order=5,
    b_err=[x - y for x, y in zip(_K5[-1], [*_K5[-2], 0.0], strict=True)],
    embedded_order=4,
    # Not from the paper: of the quartics of order 4 with the slopes of the field at both ends, those whose
    # coefficients have the least sum of squares.
    dense=[
        (1.0, -2.0720375887956877, 1.6904652246969774, -0.4818301241248903),
        (0.0, 0.0, 0.0, 0.0),
        (0.0, 0.84272431906165, -1.9053249899848372, 1.0076315829578033),
        (0.0, -0.6665857136422569, 1.1684263581516787, -0.5430269117926299),
        (0.0, 3.2569288143993465, -3.9941254328380507, 1.3671296674288644),
        (0.0, -0.6050255205696771, 1.4885502190674664, -0.8138999040157616),
        (0.0, -0.7560043104533888, 1.552008620906775, -0.5360043104533868),
    ],
    dense_order=4,
)

_C3 = 1767732205903 / 4055673282236
_KC3 = [
    1471266399579 / 7840856788654,
    -4482444167858 / 7529755066697,
    11266239266428 / 11593286722821,
    _C3,
]
_KC3_HAT = [
    2756255671327 / 12835298489170,
    -10771552573575 / 22201958757719,
    9247589265047 / 10645013368117,
    2193209047091 / 5459859503100,
]

KENCARP3 = DiagonalTableau(
    name="KenCarp3",
    a=[[0.0], [_C3, _C3], [2746238789719 / 10658868560708, -640167445237 / 6845629431997, _C3], _KC3],
    c=[0.0, 1767732205903 / 2027836641118, 3 / 5, 1.0],
    order=3,
    b_err=[x - y for x, y in zip(_KC3, _KC3_HAT, strict=True)],
    embedded_order=2,
)

_KC4 = [82889 / 524892, 0.0, 15625 / 83664, 69875 / 102672, -2260 / 8211, 1 / 4]
_KC4_HAT = [
    4586570599 / 29645900160,
    0.0,
    178811875 / 945068544,
    814220225 / 1159782912,
    -3700637 / 11593932,
    61727 / 225920,
]

KENCARP4 = DiagonalTableau(
    name="KenCarp4",
    a=[
        [0.0],
        [1 / 4, 1 / 4],
        [8611 / 62500, -1743 / 31250, 1 / 4],
        [5012029 / 34652500, -654441 / 2922500, 174375 / 388108, 1 / 4],
        [15267082809 / 155376265600, -71443401 / 120774400, 730878875 / 902184768, 2285395 / 8070912, 1 / 4],
        _KC4,
    ],
    c=[0.0, 1 / 2, 83 / 250, 31 / 50, 17 / 20, 1.0],
    order=4,
    b_err=[x - y for x, y in zip(_KC4, _KC4_HAT, strict=True)],
    embedded_order=3,
)
