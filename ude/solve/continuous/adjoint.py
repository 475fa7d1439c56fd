"""Gradients by differential equations of their own: the objects a user chooses from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from ude.methods.method import Method


@dataclass(frozen=True, slots=True, kw_only=True)
class Backsolve:
    r"""Solve the adjoint equation backwards, with the state solved backwards beside it.

    $$ \dot a = -a^T f_y, \qquad \dot g = -a^T f_p, \qquad \dot y = f $$

    from $t_1$ to $t_0$, $a$ jumping by the cotangent of every saved state. Memory does not grow with the number of
    steps. The gradient is that of the exact solution, up to the tolerances; it differs from that of the steps as they
    were made. Backwards, a stiff or chaotic problem is unstable: the state that comes back is compared with $y_0$, and
    a warning says how far it is off. All samples of a batch take the same steps backwards, so that the cotangent of
    the parameters is one and not one per sample.

    Args:
        method: Explicit method for the way back; that of the solve if None.
        rtol: Relative tolerance of the way back; that of the solve if None.
        atol: Absolute tolerance of the way back, for state and adjoint; that of the solve if None.
        control_parameters: The parameters' cotangents take part in the error estimate. They do not feed back into
            anything, so that leaving them out costs little accuracy and saves steps.

    Reference:
        Chen, Rubanova, Bettencourt & Duvenaud (2018), Neural ordinary differential equations, algorithm 1.
        Kidger, Chen & Lyons (2021), "Hey, that's not an ODE": faster ODE adjoints via seminorms.
    """

    method: Method | None = None
    rtol: float | None = None
    atol: float | None = None
    control_parameters: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpolating:
    """The adjoint equation of `Backsolve`, with the state from the continuous solution instead of solved backwards.

    Stable where `Backsolve` is not. The steps' states and stages are kept, but nothing of what happens inside of the
    vector field.

    Args:
        method: Explicit method for the way back; that of the solve if None.
        rtol: Relative tolerance of the way back; that of the solve if None.
        atol: Absolute tolerance of the way back; that of the solve if None.
        control_parameters: The parameters' cotangents take part in the error estimate.
    """

    method: Method | None = None
    rtol: float | None = None
    atol: float | None = None
    control_parameters: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauss:
    r"""The adjoint equation for $a$ alone, and the parameters' cotangents by Gauss-Legendre quadrature afterwards.

    $$ \bar p = \sum_{\text{steps}} \sum_q w_q\, a(t_q)^T f_p(t_q, y(t_q)) $$

    With many parameters much cheaper than `Interpolating`, whose equation has one component for each. Samples of a
    batch take their own steps backwards, and share one cotangent of the parameters. The gradient is as accurate as the
    tolerances and the continuous solution, whose order is below that of the steps for most methods.

    Args:
        method: Method for the way back; if None that of the solve if it is explicit, else `Kvaerno4()`, which is given
            the Jacobian of the adjoint equation.
        rtol: Relative tolerance of the way back; that of the solve if None.
        atol: Absolute tolerance of the way back; that of the solve if None.
        nodes: Nodes of the quadrature in every step back; exact for polynomials of degree `2 nodes - 1`.

    Reference:
        Norcliffe & Deisenroth (2023), Faster training of neural ODEs using Gauss-Legendre quadrature, TMLR.
    """

    method: Method | None = None
    rtol: float | None = None
    atol: float | None = None
    nodes: int = 4


@dataclass(frozen=True, slots=True)
class Forward:
    r"""Sensitivities solved forwards beside the state, for few parameters and long times.

    $$ \dot S = f_y S + f_p, \qquad S = \partial y / \partial (y_0, p) $$

    One pass of the kernel with as many slots as there are numbers in `y0` (where it requires a gradient) and in the
    tensors of `p` that do; memory does not grow with the number of steps. Parameters must be tensors in the problem's
    `p`: what the vector field closes over is refused.
    """


ContinuousAdjoint: TypeAlias = Backsolve | Interpolating | Gauss | Forward
