"""The explicit methods by name."""

from __future__ import annotations

from dataclasses import dataclass, field

from ude.methods.coefficients.classic import BS3 as BS3_TABLEAU
from ude.methods.coefficients.classic import EULER, HEUN, MIDPOINT, RALSTON
from ude.methods.coefficients.classic import RK4 as RK4_TABLEAU
from ude.methods.coefficients.dopri5 import DOPRI5
from ude.methods.coefficients.dopri8 import DOPRI8
from ude.methods.coefficients.tsit5 import TSIT5
from ude.methods.coefficients.vern7 import VERN7
from ude.methods.explicit import ExplicitRungeKutta
from ude.methods.tableau import Tableau


@dataclass(frozen=True, slots=True)
class Euler(ExplicitRungeKutta):
    r"""Euler's method, $y_1 = y_0 + \Delta t\, f(t_0, y_0)$.

    Order 1, one evaluation, no error estimate; linear dense output.
    """

    tableau: Tableau = field(default=EULER, init=False, repr=False)


@dataclass(frozen=True, slots=True)
class Heun(ExplicitRungeKutta):
    r"""Heun's method, the explicit trapezoidal rule, $y_1 = y_0 + \tfrac{\Delta t}{2}(k_1 + k_2)$.

    Order 2, two evaluations; the error estimate is the difference to Euler's method. Dense output is the cubic
    Hermite interpolant, one extra evaluation.
    """

    tableau: Tableau = field(default=HEUN, init=False, repr=False)


@dataclass(frozen=True, slots=True)
class Midpoint(ExplicitRungeKutta):
    r"""The explicit midpoint rule, $y_1 = y_0 + \Delta t\, f(t_0 + \Delta t/2,\, y_0 + \Delta t\, k_1/2)$.

    Order 2, two evaluations; the error estimate is the difference to Euler's method. Dense output is the cubic
    Hermite interpolant, one extra evaluation.
    """

    tableau: Tableau = field(default=MIDPOINT, init=False, repr=False)


@dataclass(frozen=True, slots=True)
class Ralston(ExplicitRungeKutta):
    r"""Ralston's method, $y_1 = y_0 + \Delta t\,(\tfrac14 k_1 + \tfrac34 k_2)$ with $c_2 = \tfrac23$.

    Order 2 with the smallest bound on the local error among the methods of two evaluations. The error estimate is
    the difference to Euler's method. Dense output is the cubic Hermite interpolant, one extra evaluation.

    Reference:
        Ralston (1962), Runge-Kutta methods with minimum error bounds, Math. Comp. 16, 431-437.
    """

    tableau: Tableau = field(default=RALSTON, init=False, repr=False)


@dataclass(frozen=True, slots=True)
class RK4(ExplicitRungeKutta):
    r"""The classical Runge-Kutta method, $y_1 = y_0 + \tfrac{\Delta t}{6}(k_1 + 2 k_2 + 2 k_3 + k_4)$.

    Order 4, four evaluations, no error estimate. Dense output is the cubic Hermite interpolant of order 3, one
    extra evaluation.

    Reference:
        Kutta (1901), Beitrag zur naherungsweisen Integration totaler Differentialgleichungen.
    """

    tableau: Tableau = field(default=RK4_TABLEAU, init=False, repr=False)


@dataclass(frozen=True, slots=True)
class BS3(ExplicitRungeKutta):
    r"""The 3(2) pair of Bogacki and Shampine: cheap steps for loose tolerances.

    Order 3, three evaluations per step (four stages, the last one carried over), error estimate of order 3. Dense
    output is the cubic Hermite interpolant, of order 3 and free.

    Reference:
        Bogacki & Shampine (1989), A 3(2) pair of Runge-Kutta formulas, Appl. Math. Lett. 2(4), 321-325.
    """

    tableau: Tableau = field(default=BS3_TABLEAU, init=False, repr=False)


@dataclass(frozen=True, slots=True)
class Dopri5(ExplicitRungeKutta):
    r"""The 5(4) pair of Dormand and Prince, also known as `ode45` and `DOPRI5`.

    Order 5, six evaluations per step (seven stages, the last one carried over), error estimate of order 5, stiffness
    estimate from the last two stages, free dense output of order 4.

    Reference:
        Dormand & Prince (1980), A family of embedded Runge-Kutta formulae, J. Comput. Appl. Math. 6, 19-26.
        Hairer, Norsett & Wanner (1993), Solving Ordinary Differential Equations I, sections II.5 and II.6.
    """

    tableau: Tableau = field(default=DOPRI5, init=False, repr=False)


@dataclass(frozen=True, slots=True)
class Tsit5(ExplicitRungeKutta):
    r"""The 5(4) pair of Tsitouras: the method to try first.

    Order 5, six evaluations per step (seven stages, the last one carried over), error estimate of order 5, stiffness
    estimate from the last two stages, free dense output of order 4. Its leading error is smaller than that of
    `Dopri5` at the same cost.

    Example:
        >>> str(Tsit5()), Tsit5().order, Tsit5().evaluations
        ('Tsit5', 5, 6)

    Reference:
        Tsitouras (2011), Runge-Kutta pairs of order 5(4) satisfying only the first column simplifying assumption,
        Comput. Math. Appl. 62, 770-775.
    """

    tableau: Tableau = field(default=TSIT5, init=False, repr=False)


@dataclass(frozen=True, slots=True)
class Vern7(ExplicitRungeKutta):
    r"""The "most efficient" 7(6) pair of Verner: the method for tight tolerances.

    Order 7, ten evaluations per step, error estimate of order 7, stiffness estimate from the last two stages. Dense
    output is of order 7 and costs six extra evaluations, made only in steps where it is asked for.

    Reference:
        Verner (2010), Numerically optimal Runge-Kutta pairs with interpolants, Numer. Algorithms 53, 383-396.
    """

    tableau: Tableau = field(default=VERN7, init=False, repr=False)


@dataclass(frozen=True, slots=True)
class Dopri8(ExplicitRungeKutta):
    r"""The 8(7) pair of Prince and Dormand, RK8(7)13M: the highest order here.

    Order 8, thirteen evaluations per step (fourteen stages, the last one carried over), error estimate of order 8,
    stiffness estimate from the last two stages. Dense output is of order 7, once continuously differentiable, and
    costs four extra evaluations, made only in steps where it is asked for.

    Reference:
        Prince & Dormand (1981), High order embedded Runge-Kutta formulae, J. Comput. Appl. Math. 7, 67-75.
    """

    tableau: Tableau = field(default=DOPRI8, init=False, repr=False)
