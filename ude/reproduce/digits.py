"""Handwritten digits as the tables of classifiers use them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from ude.datasets import mnist
from ude.problems import Solution

Classify: TypeAlias = Callable[[Tensor], tuple[Tensor, Solution]]
"""From grey values `(batch, 784)` to logits `(batch, 10)` and the trajectory behind them."""


class Pictures(NamedTuple):
    """Grey values, shape `(batch, 784)`, and the digits that they show."""

    pixels: Tensor
    labels: Tensor

    def first(self, count: int) -> Pictures:
        """Return the first pictures."""
        return Pictures(self.pixels[:count], self.labels[:count])

    def shuffled(self, batch: int, generator: torch.Generator) -> Iterator[Pictures]:
        """Go through all of them once, in batches of a random order."""
        for chosen in torch.randperm(len(self.labels), generator=generator).split(batch):
            yield Pictures(self.pixels[chosen], self.labels[chosen])

    def scores(self, classify: Classify, batch: int) -> dict[str, float]:
        """Return the share told right in percent, the cross entropy, and NFE as the mean over batches."""
        logits, work = [], []
        with torch.no_grad():
            for pixels in self.pixels.split(batch):
                made, solution = classify(pixels)
                logits.append(made)
                work.append(float(solution.stats.nfe))
        found = torch.cat(logits)
        return {
            "accuracy": 100.0 * float((found.argmax(-1) == self.labels).double().mean()),
            "loss": float(functional.cross_entropy(found, self.labels)),
            "nfe": statistics.fmean(work),
        }


def read_pictures(train: int, test: int) -> tuple[Pictures, Pictures]:
    """Return the first training and the first test pictures, in the original order."""
    parts = zip((True, False), (train, test), strict=True)
    sets = [(mnist(train=is_training), count) for is_training, count in parts]
    first, second = (Pictures(digits.pixels(), digits.labels).first(count) for digits, count in sets)
    return first, second
