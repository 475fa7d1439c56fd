"""A Brownian path that is drawn where a solve first asks for it, and remembered."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ude.brownian.path import BoundPath, Increment
from ude.brownian.tree import BrownianTree


@dataclass(frozen=True, slots=True)
class RecordedPath(BrownianTree):
    r"""A Brownian path with its space-time Levy area for solves whose samples share all steps, such as mini-batches.

    Two normal numbers per component and step, where a `BrownianTree` computes two for each level and end: 0.2 ms
    against 32 ms for 16,384 components and 22 levels. What lies beyond the end of the path is drawn; where a step was
    rejected and a part of it is asked for, the part is drawn given the whole, which then stays what it was. So within a
    solve the same question has the same answer, up to rounding, in any order and again in the backward pass.

    Unlike that of a tree the path depends on the questions as well as on the seed: the same solve sees the same path,
    solves with another method or tolerance do not. Of samples with steps of their own it is the tree.

    Args:
        seed: Any whole number.
        depth: As for `BrownianTree`: steps are at least 16 cells of this depth long.

    Example:
        >>> path = RecordedPath(seed=0).bind(torch.zeros(1), torch.ones(1), noise=2)
        >>> whole = path.increment(torch.zeros(1), torch.ones(1))
        >>> first = path.increment(torch.zeros(1), torch.tensor([0.3]))
        >>> second = path.increment(torch.tensor([0.3]), torch.tensor([0.7]))
        >>> torch.allclose(first.w + second.w, whole.w)
        True

    Reference:
        Rackauckas & Nie (2017), Adaptive methods for stochastic differential equations via natural embeddings and
        rejection sampling with memory, Discrete Contin. Dyn. Syst. B 22(7), 2731-2761.
    """

    def bind(self, t0: Tensor, t1: Tensor, noise: int) -> BoundPath:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the path of one sample, or the tree of several.

        Args:
            t0: Start of the interval, shape `(batch,)`.
            t1: Its end, likewise.
            noise: Components of every sample.
        """
        if len(t0) != 1:
            return BrownianTree.bind(self, t0, t1, noise)
        generator = torch.Generator(t0.device).manual_seed(self.seed)
        return BoundRecord(generator, noise, [t0.item()])


@dataclass(slots=True)
class BoundRecord:
    """The path of one sample, as far as it was asked for.

    Args:
        generator: Draws it.
        noise: Its components.
        times: Where pieces begin and end, ascending.
        pieces: What the path does between neighbours of these.
    """

    generator: torch.Generator
    noise: int
    times: list[float]
    pieces: list[Increment] = field(default_factory=list)

    def wiener(self, t: Tensor, dt: Tensor) -> Tensor:
        """Return the increment of the path in a step, shape `(1, noise)`."""
        return self.increment(t, dt).w

    def increment(self, t: Tensor, dt: Tensor) -> Increment:
        """Return increment and area likewise.

        Raises:
            ValueError: If the step begins before the path does.
        """
        start, end = t.item(), (t + dt).item()
        slack = 4.0 * torch.finfo(t.dtype).eps * max(abs(start), abs(end))
        # The earlier end first: a knot that is put in moves all later ones.
        first, last = (self._knot(time, slack, t) for time in sorted((start, end)))
        if first == last:
            nothing = t.new_zeros(1, self.noise)
            return Increment(nothing, nothing)
        whole = self.pieces[first]
        for i in range(first + 1, last):
            lengths = self.times[i] - self.times[first], self.times[i + 1] - self.times[i]
            whole = joined(whole, self.pieces[i], *lengths)
        return whole if start < end else Increment(-whole.w, whole.h)

    def _knot(self, time: float, slack: float, like: Tensor) -> int:
        """Return the number of the knot at a time, which is put in if there is none within the slack."""
        times = self.times
        place = bisect_left(times, time - slack)
        if place < len(times) and times[place] <= time + slack:
            return place
        if place == 0:
            raise ValueError(f"This path begins at {times[0]:.6g} and was asked for {time:.6g}, before it.")
        if place == len(times):
            self.pieces.append(self._drawn(time - times[-1], like))
        else:
            start, end = times[place - 1], times[place]
            self.pieces[place - 1 : place] = self._parted(self.pieces[place - 1], time - start, end - time, like)
        times.insert(place, time)
        return place

    def _drawn(self, length: float, like: Tensor) -> Increment:
        """Return a new piece."""
        shape = (2, 1, self.noise)
        normal = torch.randn(shape, generator=self.generator, dtype=like.dtype, device=like.device)
        return Increment(normal[0] * length**0.5, normal[1] * (length / 12.0) ** 0.5)

    def _parted(self, whole: Increment, a: float, b: float, like: Tensor) -> tuple[Increment, Increment]:
        r"""Return two pieces of lengths $a$ and $b$, drawn given what they come to together.

        Pieces drawn freely come to something else; each takes its share of the difference, the regression of what it
        does on what the whole does. The two numbers of the whole are independent, of variances $a + b$ and
        $(a + b) / 12$.
        """
        left, right = self._drawn(a, like), self._drawn(b, like)
        free = joined(left, right, a, b)
        w, h, length = whole.w - free.w, whole.h - free.h, a + b
        tilt = 6.0 * a * b / length**2 * h
        return (
            Increment(left.w + a / length * w + tilt, left.h + (a / length) ** 2 * h),
            Increment(right.w + b / length * w - tilt, right.h + (b / length) ** 2 * h),
        )


def joined(left: Increment, right: Increment, a: float, b: float) -> Increment:
    r"""Return what a path does in two neighbouring pieces of lengths $a$ and $b$.

    Their areas make $\frac{1}{a + b} \bigl( a H_a + b H_b + \tfrac12 (b W_a - a W_b) \bigr)$, by the definition of $H$.
    """
    area = a * left.h + b * right.h + 0.5 * (b * left.w - a * right.w)
    return Increment(left.w + right.w, area / (a + b))
