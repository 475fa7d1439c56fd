"""A Brownian path that is a function of its seed: nothing is stored, every time can be asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ude.brownian.normals import normal_pairs
from ude.brownian.path import Increment
from ude.brownian.wavelets import Shapes, cell, whole

DEEPEST = 30
CHUNK = 1 << 17
"""Numbers that are made together: more do not stay in the cache of a processor."""


@dataclass(frozen=True, slots=True)
class BrownianTree:
    r"""A Brownian path with its space-time Levy area, for any number of samples and components.

    The path is a function of the seed alone. Asked again, in another order, at other times, backwards, or in another
    process, it is the same: an adaptive solver may reject a step and look at a part of it, an adjoint may come back,
    two solves with different tolerances or methods see one path. The interval of the solve is halved `depth` times, and
    an answer takes two normal numbers for each level and end.

    Args:
        seed: Any whole number.
        depth: Increments and areas between multiples of $2^{-depth}$ of the interval are exact in distribution. Below,
            the path is smooth: the variance of an increment over $n$ cells that begins elsewhere is too small by a
            share of up to $1/(6n)$, that of the area by $1/(2n)$. Solves that choose their steps refuse steps shorter
            than 16 cells.

    Raises:
        ValueError: If the depth is not from 1 to 30.

    Example:
        >>> import torch
        >>> path = BrownianTree(seed=0).bind(torch.zeros(1), torch.ones(1), noise=2)
        >>> half = torch.tensor([0.5])
        >>> first, second = path.increment(torch.zeros(1), half), path.increment(half, half)
        >>> torch.allclose(first.w + second.w, path.increment(torch.zeros(1), torch.ones(1)).w)
        True

    Reference:
        The virtual Brownian tree: Li, Wong, Chen & Duvenaud (2020), Scalable gradients for stochastic differential
        equations, AISTATS; with areas Jelincic, Foster & Kidger (2024), arXiv:2405.06464. Here without a recursion, see
        `ude.brownian.wavelets`.
    """

    seed: int
    depth: int = 22

    def __post_init__(self) -> None:
        if not 1 <= self.depth <= DEEPEST:
            raise ValueError(f"`depth` must be from 1 to {DEEPEST}, got {self.depth}.")

    @classmethod
    def drawn(cls, generator: torch.Generator | None = None, *, depth: int = 22) -> BrownianTree:
        """Return a path whose seed is drawn from a generator, by default torch's own."""
        return cls(int(torch.randint(2**62, (), generator=generator)), depth)

    def bind(self, t0: Tensor, t1: Tensor, noise: int) -> BoundTree:
        """Return the paths of some samples.

        Args:
            t0: One end of the interval, shape `(batch,)`.
            t1: The other one, likewise.
            noise: Components of every sample.
        """
        low, high = torch.minimum(t0, t1).detach().double(), torch.maximum(t0, t1).detach().double()
        key = torch.tensor(((self.seed + 2**63) % 2**64) - 2**63, device=t0.device)
        return BoundTree(key, low, high - low, torch.arange(noise, device=t0.device), self.depth)


class BoundTree(NamedTuple):
    """The paths of some samples over an interval.

    Args:
        key: Seed, a whole number.
        t0: Start of the interval, shape `(batch,)`.
        length: Its length, likewise.
        components: Numbers of the components, shape `(noise,)`.
        depth: How often the interval is halved.
    """

    key: Tensor
    t0: Tensor
    length: Tensor
    components: Tensor
    depth: int

    def wiener(self, t: Tensor, dt: Tensor) -> Tensor:
        """Return the increments of the paths between `t` and `t + dt`, in the dtype of `t`."""
        w, _ = self.at(torch.stack([t.detach(), (t + dt).detach()]).double())
        return (w[1] - w[0]).to(t.dtype)

    def increment(self, t: Tensor, dt: Tensor) -> Increment:
        """Return increments and areas likewise."""
        ends = torch.stack([t.detach(), (t + dt).detach()]).double()
        w, area = self.at(ends)
        step = (ends[1] - ends[0]).unsqueeze(-1)
        moves = step != 0.0
        h = torch.where(moves, (area[1] - area[0]) / torch.where(moves, step, 1.0) - 0.5 * (w[0] + w[1]), 0.0)
        return Increment((w[1] - w[0]).to(t.dtype), h.to(t.dtype))

    def at(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return $W(t)$ and $\int_{t_0}^t W\, du$ at times `(..., batch)`, both of shape `(..., batch, noise)`."""
        length = torch.where(self.length > 0.0, self.length, 1.0)
        u = ((t - self.t0) / length).clamp(0.0, 1.0)
        samples = torch.arange(len(self.t0), device=t.device)
        entry = (samples.unsqueeze(-1) * len(self.components) + self.components) << (DEEPEST + 1)
        w, area = _sum(self.key, whole(u), torch.zeros_like(u, dtype=torch.int64), entry)
        together = max(1, CHUNK // w.numel())
        for first in range(0, self.depth, together):
            levels = torch.arange(first, min(first + together, self.depth), device=t.device)
            levels = levels.reshape(-1, *[1] * u.ndim)
            cells = 1 << levels
            place = u * cells
            number = torch.minimum(place.long(), cells - 1)
            root = torch.rsqrt(2.0 * cells.double())  # of half the length of a cell
            parts = cell(2.0 * (place - number) - 1.0)
            scaled = Shapes(*(part * root for part in parts[:2]), *(part * root**3 for part in parts[2:]))
            more = _sum(self.key, scaled, cells + number, entry)
            w, area = w + more[0].sum(0), area + more[1].sum(0)
        scale = length.sqrt().unsqueeze(-1)
        return w * scale, area * scale * length.unsqueeze(-1)


def _sum(key: Tensor, shapes: Shapes, node: Tensor, entry: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the functions of some cells add to path and integral, shape `(..., batch, noise)`.

    Args:
        key: Seed.
        shapes: Integrals of the functions at the places, shape `(..., batch)`.
        node: Numbers of the cells, likewise.
        entry: Where the numbers of a component begin, shape `(batch, noise)`.
    """
    z1, z2 = normal_pairs(key, entry + node.unsqueeze(-1))
    w1, w2, i1, i2 = (shape.unsqueeze(-1) for shape in shapes)
    return z1 * w1 + z2 * w2, z1 * i1 + z2 * i2
