"""A few of many things that pass by, each as likely to be kept as the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch

T = TypeVar("T")


@dataclass(slots=True)
class Reservoir(Generic[T]):
    """Keeps a uniform draw, without replacement, of what is offered.

    Args:
        samples: How many to keep; None for all.
        generator: Source of randomness; torch's own if not given.
        kept: The draw so far, in no particular order.
        seen: How many were offered.

    Reference:
        Vitter (1985), Random sampling with a reservoir, ACM TOMS 11, algorithm R.
    """

    samples: int | None
    generator: torch.Generator | None = None
    kept: list[T] = field(default_factory=list)
    seen: int = 0

    def offer(self, thing: T) -> None:
        """Keep a thing, in the place of another one if there is no room, or let it pass."""
        self.seen += 1
        if self.samples is None or len(self.kept) < self.samples:
            self.kept.append(thing)
            return
        device = "cpu" if self.generator is None else self.generator.device
        place = int(torch.randint(self.seen, (), generator=self.generator, device=device))
        if place < self.samples:
            self.kept[place] = thing
