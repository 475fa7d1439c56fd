"""A Brownian path along steps that are known before the first of them is made."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from ude.brownian.path import Increment

CHUNK = 1 << 20
"""Normal numbers that are drawn together: memory does not grow with the number of steps."""


@dataclass(frozen=True, slots=True)
class BrownianGrid:
    """A Brownian path for constant steps, drawn a few steps at a time: as fast as normal numbers can be had.

    It is a function of the seed and of the number of the step, so that an adjoint that makes the steps again sees it
    again. Solves with other steps see another path: take a `BrownianTree` to compare two of them.

    Args:
        seed: Any whole number.

    Example:
        >>> import torch
        >>> path = BrownianGrid(seed=0).bind([0.0, 0.5, 1.0], torch.zeros(1), noise=3)
        >>> path.increment(torch.tensor([0.5]), torch.tensor([0.5])).w.shape
        torch.Size([1, 3])
    """

    seed: int

    @classmethod
    def drawn(cls, generator: torch.Generator | None = None) -> BrownianGrid:
        """Return a path whose seed is drawn from a generator, by default torch's own."""
        return cls(int(torch.randint(2**31, (), generator=generator)))

    def bind(self, times: Sequence[float], like: Tensor, noise: int) -> BoundGrid:
        """Return the paths of some samples.

        Args:
            times: Ends of the steps in ascending order, the start first.
            like: A tensor of shape `(batch,)` of the dtype and device wanted.
            noise: Components of every sample.
        """
        return BoundGrid(self.seed, list(times), (len(like), noise), like.detach())


@dataclass(slots=True)
class BoundGrid:
    """The paths of some samples along certain steps.

    Args:
        seed: Of the random numbers.
        times: Ends of the steps, ascending.
        shape: Samples and components.
        like: A tensor of their dtype and device.
    """

    seed: int
    times: list[float]
    shape: tuple[int, int]
    like: Tensor
    _drawn: dict[int, tuple[int, Tensor]] = field(default_factory=dict, init=False, repr=False)

    def wiener(self, t: Tensor, dt: Tensor) -> Tensor:
        """Return the increments of the paths in a step; zero where a sample stands still.

        Raises:
            ValueError: If it is none of the steps.
        """
        return self._normal(self._number(t, dt), 0) * dt.sqrt().unsqueeze(-1)

    def increment(self, t: Tensor, dt: Tensor) -> Increment:
        """Return increments and areas likewise."""
        number, size = self._number(t, dt), dt.sqrt().unsqueeze(-1)
        return Increment(self._normal(number, 0) * size, self._normal(number, 1) * (size * 12**-0.5))

    def stored(self, *, area: bool) -> StoredGrid:
        """Return the same paths with all of their steps in memory, as compiled steps need them.

        Args:
            area: Areas are wanted as well.
        """
        count = len(self.times) - 1
        times = torch.tensor(self.times, dtype=self.like.dtype, device=self.like.device)
        parts = [torch.stack([self._normal(i, part) for i in range(count)]) for part in range(1 + area)]
        return StoredGrid(times, *parts)

    def _number(self, start: Tensor, length: Tensor) -> int:
        """Return the number of the step that the samples which are under way make."""
        mover = 0 if len(length) == 1 else int(length.argmax())
        t, dt = start[mover].item(), length[mover].item()
        times = self.times
        slack = 1e-3 * abs(dt)
        number = bisect_left(times, t - slack)
        if number + 1 < len(times) and abs(times[number] - t) <= slack and abs(times[number + 1] - t - dt) <= slack:
            return number
        if dt == 0.0:
            return min(number, len(times) - 2)
        raise ValueError(
            f"This `BrownianGrid` has no step from {t:.6g} to {t + dt:.6g}: it knows only the constant steps of one "
            "solve. Use a `BrownianTree`, which can be asked for any time."
        )

    def _normal(self, number: int, part: int) -> Tensor:
        """Return standard normal numbers for a step, shape `(batch, noise)`."""
        batch, noise = self.shape
        rows = max(1, CHUNK // max(1, batch * noise))
        chunk, row = divmod(number, rows)
        kept = self._drawn.get(part)
        if kept is None or kept[0] != chunk:
            # The generator of torch takes 32 bits of its seed: neighbouring seeds keep the chunks of a solve apart.
            seed = (self.seed + 2 * chunk + part) % 2**32
            generator = torch.Generator(self.like.device).manual_seed(seed)
            count = min(rows, len(self.times) - 1 - chunk * rows)
            shape = (count, batch, noise)
            normal = torch.randn(shape, generator=generator, dtype=self.like.dtype, device=self.like.device)
            kept = self._drawn[part] = (chunk, normal)
        return kept[1][row]


class StoredGrid(NamedTuple):
    """The paths of some samples along certain steps, as tensors.

    Args:
        times: Ends of the steps, ascending, shape `(steps + 1,)`.
        w: Standard normal numbers of the increments, shape `(steps, batch, noise)`.
        h: Those of the areas; None if nobody asks for them.
    """

    times: Tensor
    w: Tensor
    h: Tensor | None = None

    def wiener(self, t: Tensor, dt: Tensor) -> Tensor:
        """Return the increments of the paths in the steps that begin at `t`; zero where a sample stands still."""
        return self._of(self.w, t, dt) * dt.sqrt().unsqueeze(-1)

    def increment(self, t: Tensor, dt: Tensor) -> Increment:
        """Return increments and areas likewise."""
        assert self.h is not None  # they were asked for when this was made
        size = dt.sqrt().unsqueeze(-1)
        return Increment(self._of(self.w, t, dt) * size, self._of(self.h, t, dt) * (size * 12**-0.5))

    def _of(self, numbers: Tensor, t: Tensor, dt: Tensor) -> Tensor:
        """Return the numbers of the steps that begin at `t`, shape `(batch, noise)`."""
        step = torch.searchsorted(self.times, (t + 0.5 * dt).contiguous(), right=True) - 1
        return numbers[step.clamp(0, len(numbers) - 1), torch.arange(len(t), device=t.device)]
