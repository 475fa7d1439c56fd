"""Eight equations in many dimensions with values to compare with: five are solved in closed form, three in print."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ude.bsde.equation import SemilinearPDE, as_column

PNAS = "Han, Jentzen and E (2018), Solving high-dimensional partial differential equations using deep learning"
CMS = "E, Han and Jentzen (2017), Deep learning-based numerical methods for high-dimensional parabolic equations"
FBSNN = "Raissi (2018), Forward-backward stochastic neural networks"


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkEquation:
    r"""An equation, a point, and what is known of the solution there.

    Args:
        name: Short name.
        title: What it describes.
        pde: The equation.
        x0: The point, shape `(d,)`, in double precision.
        t0: The time.
        value: $u(t_0, x_0)$.
        exact: The solution `u(t, x)` as a function, if it is known in closed form.
        source: Where the equation and its value stand.
    """

    name: str
    title: str
    pde: SemilinearPDE
    x0: Tensor
    t0: float = 0.0
    value: float
    exact: Callable[[Tensor, Tensor], Tensor] | None = None
    source: str

    def __post_init__(self) -> None:
        self.pde.check(self.x0, self.t0)

    @property
    def dimension(self) -> int:
        """Number of coordinates d."""
        return len(self.x0)


def suite() -> tuple[BenchmarkEquation, ...]:
    """Return the eight equations in the dimensions in which they were published."""
    return (
        hamilton_jacobi_bellman(),
        black_scholes_barenblatt(),
        allen_cahn(),
        default_risk(),
        different_rates(),
        burgers_type(),
        quadratic_gradient(),
        reaction_diffusion(),
    )


def hamilton_jacobi_bellman(dimension: int = 100) -> BenchmarkEquation:
    r"""Control at quadratic cost: $\partial_t u + \Delta u - |\nabla u|^2 = 0$, $g = \log \frac{1 + |x|^2}{2}$.

    The transform of Cole and Hopf makes it linear:
    $u(t, x) = -\log \mathbb{E} \exp(-g(x + \sqrt{2 (T - t)}\, Z))$ with $Z$ normal and $T = 1$, at the origin 4.590162
    for d = 100.

    The mean of $2 / (1 + |x + s Z|^2)$ is one integral in any dimension. With $\frac1v = \int_0^\infty e^{-a v}\,da$
    and the moment generating function of the noncentral chi-squared distribution,

    $$\mathbb{E}\, \frac{2}{1 + |x + s Z|^2}
    = 2 \int_0^\infty e^{-a}\, (1 + 2 a s^2)^{-d/2} \exp\Bigl(-\frac{a |x|^2}{1 + 2 a s^2}\Bigr)\,da.$$

    Example:
        >>> round(hamilton_jacobi_bellman(1000).value, 6)
        6.906255
    """
    pde = SemilinearPDE(
        drift=0.0,
        diffusion=math.sqrt(2.0),
        f=lambda t, x, u, grad_u: -_total(grad_u**2),
        g=lambda x: torch.log(0.5 + 0.5 * _total(x**2)),
        t1=1.0,
    )

    def exact(t: Tensor, x: Tensor) -> Tensor:
        d = x.shape[-1]
        square, variance = _total(x**2), 2.0 * (pde.t1 - t)
        node, weight = (values.to(x) for values in _double_exponential())
        # In units of 1 / (1 + E|x + s Z|^2) the integrand decays like exp(-a) for any d.
        a = node / (1.0 + square + d * variance)
        spread = 1.0 + 2.0 * a * variance
        logarithm = -a - 0.5 * d * torch.log(spread) - a * square / spread
        return -torch.log(2.0 * _total(weight * a * torch.exp(logarithm)))

    x0 = _point(dimension, 0.0)
    return BenchmarkEquation(
        name="hjb", title="Hamilton-Jacobi-Bellman", pde=pde, x0=x0, value=_at(exact, x0), exact=exact, source=PNAS
    )


def black_scholes_barenblatt(dimension: int = 100) -> BenchmarkEquation:
    r"""Price of $g = |x|^2$ at the interest r and the volatility $\sigma$.

    $$\partial_t u + \frac{\sigma^2}{2} \sum_i x_i^2 \partial_i^2 u - r (u - x \cdot \nabla u) = 0$$

    With $\sigma = 0.4$, $r = 0.05$, $T = 1$ the solution is $e^{(r + \sigma^2)(T - t)} |x|^2$; at
    $(1, \frac12, 1, \frac12, \ldots)$ it is 77.10488 for d = 100.
    """
    volatility, rate = 0.4, 0.05
    pde = SemilinearPDE(
        drift=0.0,
        diffusion=lambda t, x: volatility * x,
        f=lambda t, x, u, grad_u: -rate * (u - _total(x * grad_u)),
        g=lambda x: _total(x**2),
        t1=1.0,
    )

    def exact(t: Tensor, x: Tensor) -> Tensor:
        return torch.exp((rate + volatility**2) * (pde.t1 - t)) * _total(x**2)

    x0 = _point(dimension, 1.0)
    x0[1::2] = 0.5
    return BenchmarkEquation(
        name="bsb",
        title="Black-Scholes-Barenblatt",
        pde=pde,
        x0=x0,
        value=_at(exact, x0),
        exact=exact,
        source=FBSNN,
    )


def allen_cahn() -> BenchmarkEquation:
    r"""Two phases: $\partial_t u + \Delta u + u - u^3 = 0$, $g = 1 / (2 + 0.4 |x|^2)$, $T = 0.3$, in 100 dimensions.

    No closed form, but the solution depends on $|x|$ only: solved as an equation in this one variable, it is 0.0527814
    at the origin. A branching diffusion method gave the printed 0.0528 (0.052802, 0.04 % above).
    """
    pde = SemilinearPDE(
        drift=0.0,
        diffusion=math.sqrt(2.0),
        f=lambda t, x, u, grad_u: u - u**3,
        g=lambda x: 1.0 / (2.0 + 0.4 * _total(x**2)),
        t1=0.3,
    )
    return BenchmarkEquation(
        name="allen-cahn", title="Allen-Cahn", pde=pde, x0=_point(100, 0.0), value=0.0527814, source=PNAS
    )


def default_risk() -> BenchmarkEquation:
    r"""Claim on the least of 100 assets whose issuer may default, the sooner the lower the value of the claim.

    $$\partial_t u + \mu\, x \cdot \nabla u + \frac{\sigma^2}{2} \sum_i x_i^2 \partial_i^2 u
    - (1 - \delta)\, Q(u)\, u - R u = 0, \qquad g = \min_i x_i$$

    $\mu = R = 0.02$, $\sigma = 0.2$, $\delta = 2/3$, $T = 1$; the intensity Q falls linearly from 0.2 at $u = 50$ to
    0.02 at 70 and is constant beyond. At $x = (100, \ldots, 100)$ a multilevel Picard method found 57.300.
    """
    mean, volatility, rate, recovered = 0.02, 0.2, 0.02, 2.0 / 3.0
    low, high, fast, slow = 50.0, 70.0, 0.2, 0.02

    def driver(t: Tensor, x: Tensor, u: Tensor, grad_u: Tensor) -> Tensor:
        intensity = (fast + (slow - fast) / (high - low) * (u - low)).clamp(slow, fast)
        return -(1.0 - recovered) * intensity * u - rate * u

    pde = SemilinearPDE(
        drift=lambda t, x: mean * x,
        diffusion=lambda t, x: volatility * x,
        f=driver,
        g=lambda x: x.amin(-1, keepdim=True),
        t1=1.0,
    )
    return BenchmarkEquation(
        name="default-risk",
        title="Black-Scholes with default risk",
        pde=pde,
        x0=_point(100, 100.0),
        value=57.300,
        source=PNAS,
    )


def different_rates() -> BenchmarkEquation:
    r"""Call spread on the greatest of 100 assets where borrowing costs more than lending earns.

    $$\partial_t u + \mu\, x \cdot \nabla u + \frac{\sigma^2}{2} \sum_i x_i^2 \partial_i^2 u - R_l u
    - (\mu - R_l)\, x \cdot \nabla u + (R_b - R_l) \max(0, x \cdot \nabla u - u) = 0$$

    $g = \max(\max_i x_i - 120, 0) - 2 \max(\max_i x_i - 150, 0)$, $\mu = 0.06$, $\sigma = 0.2$, $R_l = 0.04$,
    $R_b = 0.06$, $T = 0.5$. At $x = (100, \ldots, 100)$ a multilevel Picard method found 21.299.
    """
    mean, volatility, lending, borrowing = 0.06, 0.2, 0.04, 0.06

    def driver(t: Tensor, x: Tensor, u: Tensor, grad_u: Tensor) -> Tensor:
        stock = _total(x * grad_u)
        return -lending * u - (mean - lending) * stock + (borrowing - lending) * (stock - u).clamp_min(0.0)

    def payoff(x: Tensor) -> Tensor:
        greatest = x.amax(-1, keepdim=True)
        return (greatest - 120.0).clamp_min(0.0) - 2.0 * (greatest - 150.0).clamp_min(0.0)

    pde = SemilinearPDE(drift=lambda t, x: mean * x, diffusion=lambda t, x: volatility * x, f=driver, g=payoff, t1=0.5)
    return BenchmarkEquation(
        name="different-rates",
        title="Black-Scholes with different rates for borrowing and lending",
        pde=pde,
        x0=_point(100, 100.0),
        value=21.299,
        source=CMS,
    )


def burgers_type(dimension: int = 50) -> BenchmarkEquation:
    r"""A wave that moves as in the equation of Burgers, until $T = 0.2$.

    $$\partial_t u + \frac{d^2}{2} \Delta u + \Bigl(u - \frac{2 + d}{2 d}\Bigr)\, d \sum_i \partial_i u = 0$$

    The solution is $1 / (1 + e^{-(t + \bar x)})$ with $\bar x$ the mean of the coordinates, at the origin $\frac12$.
    """
    d = dimension
    pde = SemilinearPDE(
        drift=0.0,
        diffusion=float(d),
        f=lambda t, x, u, grad_u: (u - (2.0 + d) / (2.0 * d)) * d * _total(grad_u),
        g=lambda x: torch.sigmoid(0.2 + x.mean(-1, keepdim=True)),
        t1=0.2,
    )

    def exact(t: Tensor, x: Tensor) -> Tensor:
        return torch.sigmoid(t + x.mean(-1, keepdim=True))

    x0 = _point(dimension, 0.0)
    return BenchmarkEquation(
        name="burgers", title="Burgers type", pde=pde, x0=x0, value=_at(exact, x0), exact=exact, source=CMS
    )


def quadratic_gradient(dimension: int = 100) -> BenchmarkEquation:
    r"""A driver quadratic in the gradient: $\partial_t u + \frac12 \Delta u + |\nabla u|^2 = h(t, x)$.

    The right-hand side $h = \partial_t u^* + \frac12 \Delta u^* + |\nabla u^*|^2$ is made such that
    $u^* = \sin((T - t + |x|^2 / d)^{0.4})$ is the solution. $T = 1$; at the origin $\sin 1$.
    """
    power, t1 = 0.4, 1.0

    def exact(t: Tensor, x: Tensor) -> Tensor:
        return torch.sin((t1 - t + _total(x**2) / dimension) ** power)

    def driver(t: Tensor, x: Tensor, u: Tensor, grad_u: Tensor) -> Tensor:
        # With b = T - t + |x|^2 / d and s(b) = sin(b^0.4): u_t = -s', grad u = 2 s' x / d and
        # Laplacian u = 2 s' + 4 s'' |x|^2 / d^2, of which the first half cancels u_t.
        square = _total(x**2)
        b = t1 - t + square / dimension
        first = power * b ** (power - 1.0) * torch.cos(b**power)
        second = power * (power - 1.0) * b ** (power - 2.0) * torch.cos(b**power)
        second = second - power**2 * b ** (2.0 * power - 2.0) * torch.sin(b**power)
        scaled = 4.0 * square / dimension**2
        return _total(grad_u**2) - scaled * first**2 - 0.5 * scaled * second

    pde = SemilinearPDE(
        drift=0.0,
        diffusion=1.0,
        f=driver,
        g=lambda x: torch.sin((_total(x**2) / dimension) ** power),
        t1=t1,
    )
    x0 = _point(dimension, 0.0)
    return BenchmarkEquation(
        name="quadratic-gradient",
        title="Quadratic gradient",
        pde=pde,
        x0=x0,
        value=_at(exact, x0),
        exact=exact,
        source=CMS,
    )


def reaction_diffusion(dimension: int = 100) -> BenchmarkEquation:
    r"""An oscillation: $\partial_t u + \frac12 \Delta u + \min(1, (u - u^*)^2) = 0$, $T = 1$.

    The solution is $u^* = 1.6 + \sin(\lambda \sum_i x_i)\, e^{-\lambda^2 d (T - t) / 2}$ with $\lambda = d^{-1/2}$, an
    eigenfunction of the heat equation on a constant, at the origin 1.6.
    """
    wave, t1 = dimension**-0.5, 1.0

    def exact(t: Tensor, x: Tensor) -> Tensor:
        return 1.6 + torch.sin(wave * _total(x)) * torch.exp(-0.5 * wave**2 * dimension * (t1 - t))

    pde = SemilinearPDE(
        drift=0.0,
        diffusion=1.0,
        f=lambda t, x, u, grad_u: ((u - exact(t, x)) ** 2).clamp_max(1.0),
        g=lambda x: 1.6 + torch.sin(wave * _total(x)),
        t1=t1,
    )
    x0 = _point(dimension, 0.0)
    return BenchmarkEquation(
        name="reaction-diffusion",
        title="Reaction and diffusion",
        pde=pde,
        x0=x0,
        value=_at(exact, x0),
        exact=exact,
        source=CMS,
    )


def _total(values: Tensor) -> Tensor:
    return values.sum(-1, keepdim=True)


def _point(dimension: int, coordinate: float) -> Tensor:
    if dimension < 1:
        raise ValueError(f"`dimension` must be at least 1, got {dimension}.")
    return torch.full((dimension,), coordinate, dtype=torch.float64)


def _at(exact: Callable[[Tensor, Tensor], Tensor], x0: Tensor) -> float:
    x = x0[None]
    return float(as_column("exact", exact(x.new_zeros(1, 1), x), x))


def _double_exponential() -> tuple[Tensor, Tensor]:
    r"""Return nodes b and weights w of $\int_0^\infty h(b)\,db \approx \sum w\,b\,h(b)$, however slowly h decays.

    The trapezoidal rule in y for $b = \exp(y - e^{-y})$ converges exponentially (Takahasi and Mori, 1974). From y = -4
    (b = 4e-26) to 13 (b = 4e5) it reaches beyond all that matters here.
    """
    step = 1.0 / 16.0
    y = torch.arange(-4.0, 13.0, step, dtype=torch.float64)
    return torch.exp(y - torch.exp(-y)), step * (1.0 + torch.exp(-y))
