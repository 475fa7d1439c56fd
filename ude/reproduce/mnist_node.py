"""Handwritten digits told apart by a regularized neural ODE."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ude.models import MLP, DenseField, Integrator, NeuralODE
from ude.problems import Solution
from ude.regularize import ErrorEstimate, Steer, StiffnessEstimate, TaylorEnergy
from ude.reproduce.comparison import TIMES, Column, Comparison, Ratio, compare, difference, faster, relative
from ude.reproduce.digits import Pictures, read_pictures
from ude.reproduce.reproduction import Settings
from ude.reproduce.training import Experiment, Task, Variant

VANILLA = Variant(key="vanilla", title="Vanilla NODE")
# The published weights of the error estimate (100 to 10) and of the Taylor energy (6e-5) belong to the short steps of a
# smaller tolerance than that of `Mnist`. Measured after 60 iterations, as share of test digits and evaluations (double
# precision, 1.4e-8): no cost 87.5 %, 44; error estimate times 100: 67 %, 38, times 10: 87.3 %, 26; Taylor energy times
# 1e-2: 87.5 %, 44, times 10: 87.3 %, 32.
VARIANTS = (
    VANILLA,
    Variant(
        key="taynode",
        title="TayNODE",
        cost=TaylorEnergy(3, nodes="random", samples=4, detach=True, independent_rows=True),
        weights=(10.0, 10.0),
    ),
    # The authors' program divides by the length of the stability region of Tsit5, 3.5068.
    Variant(key="srnode", title="SRNODE", cost=StiffnessEstimate(reduce="max"), weights=(0.1 / 3.5068, 0.1 / 3.5068)),
    Variant(key="ernode", title="ERNODE", cost=ErrorEstimate(reduce="mean"), weights=(10.0, 1.0)),
    Variant(key="steer", title="STEER", steer=0.5),
)

COLUMNS = (
    Column("train_accuracy", "train, %"),
    Column("test_accuracy", "test, %"),
    Column("test_nfe", "NFE"),
    *TIMES,
)
RATIOS = tuple(
    ratio
    for variant in VARIANTS[1:]
    for ratio in (
        Ratio(variant.key, "training, times faster", "train_cpu_s", faster),
        Ratio(variant.key, "prediction, times faster", "predict_cpu_s", faster),
        Ratio(variant.key, "test accuracy, difference in points", "test_accuracy", difference),
        Ratio(variant.key, "NFE, relative", "test_nfe", relative),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mnist(Experiment):
    """Sizes of the classifier's training.

    Args:
        epochs: Passes through the training images.
        train: Images to train with, the first of the original order.
        test: Images to test with, likewise.
        batch: Images per iteration, whose trajectories are one problem with one norm.
        tolerance: Relative and absolute.
    """

    epochs: int
    train: int
    test: int
    batch: int = 512
    # The papers ask for 1.4e-8 in single precision, which resolves 6e-8: there the rounding of the stages, not the
    # dynamics, chooses the steps (68 evaluations for a fresh model, in double precision 38, of the same trajectory).
    tolerance: float = 1e-6

    def describe(self) -> dict[str, Any]:
        """Return the sizes."""
        return {"experiment": "mnist-node", **asdict(self)}

    def load(self) -> Digits:
        """Read the images."""
        return Digits(self, *read_pictures(self.train, self.test))


SIZES = {
    "smoke": Mnist(epochs=2, train=512, test=256, batch=128),
    "cpu": Mnist(epochs=9, train=20_000, test=5_000),
    "full": Mnist(epochs=75, train=60_000, test=10_000),
}


class Classifier(nn.Module):
    """The published model: a neural ODE of the image itself, 784-100-784 tanh with time, and one affine layer."""

    def __init__(self, features: int, tolerance: float, generator: torch.Generator) -> None:
        super().__init__()
        field = DenseField((features, 100, features), generator=generator, dtype=torch.float32)
        self.ode = NeuralODE(field, integrator=Integrator(rtol=tolerance, atol=tolerance))
        self.head = MLP(features, 10, depth=0, generator=generator, dtype=torch.float32)

    def forward(self, pixels: Tensor, *, steer: Steer | None = None, dense: bool = True) -> tuple[Tensor, Solution]:
        """Return the logits, shape `(batch, 10)`, and the trajectory; its end moves with `steer`."""
        problem, ends = self.ode.problem(pixels), [self.ode.t_span[1]]
        if steer is not None:
            problem, ends = steer.prepare(problem, ends)
        solution = self.ode.integrator.solve(problem, save_at=ends, dense=dense)
        return self.head(solution.ys[-1]), solution


@dataclass(frozen=True, slots=True)
class Digits(Task[Pictures]):
    """The classifier and the digits that it is trained on."""

    sizes: Mnist
    training: Pictures
    testing: Pictures

    def model(self, generator: torch.Generator) -> Classifier:
        """Return the published model."""
        return Classifier(self.training.pixels.shape[-1], self.sizes.tolerance, generator)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return gradient descent with momentum."""
        return torch.optim.SGD(model.parameters(), lr=self.learning_rate(0), momentum=0.9)

    def learning_rate(self, iteration: int) -> float:
        """Return 0.1 with inverse decay."""
        return 0.1 / (1.0 + 1e-5 * iteration)

    def batches(self, generator: torch.Generator) -> Iterator[Pictures]:
        """Go through the training images in a random order."""
        return self.training.shuffled(self.sizes.batch, generator)

    def loss(
        self, model: nn.Module, batch: Pictures, epoch: int, noise: torch.Generator, steer: Steer | None
    ) -> tuple[Tensor, Solution]:
        """Return the cross entropy."""
        logits, solution = model(batch.pixels, steer=steer)
        return functional.cross_entropy(logits, batch.labels), solution

    def predict(self, model: nn.Module) -> None:
        """Make one forward pass of the first training batch."""
        with torch.no_grad():
            model(self.training.pixels[: self.sizes.batch], dense=False)

    def test(self, model: nn.Module) -> dict[str, float]:
        """Return the share of digits told right in percent, the cross entropy and NFE, all means over batches."""
        return self.testing.scores(lambda pixels: model(pixels, dense=False), self.sizes.batch)

    def train_scores(self, model: nn.Module) -> dict[str, float]:
        """Return the same of the training images."""
        return self.training.scores(lambda pixels: model(pixels, dense=False), self.sizes.batch)


def run(settings: Settings) -> Comparison:
    """Train all rows with every seed."""
    sizes = SIZES[settings.budget]
    notes = [
        f"{sizes.train} images to train, {sizes.test} to test, {sizes.epochs} epochs in batches of {sizes.batch}, "
        f"float32, tolerance {sizes.tolerance:g}. The papers trained with 60000 images for 75 epochs at 1.4e-8, below "
        "what float32 resolves: there rounding chooses the steps.",
        "Training: gradients and updates alone. Prediction: one forward pass of a training batch, median of 8. NFE: of "
        "one forward pass of a batch of test images, mean over batches.",
        "Weights other than the published were chosen by the evaluations of one short run with one of these seeds.",
        "Every run has one thread; gains are taken within a seed, whose initial weights and order of images all rows "
        "share, times in CPU seconds. The published figures are not known to us for certain and left out.",
    ]
    if settings.budget == "smoke":
        notes.insert(0, "A smoke run only shows that everything works.")
    return compare(
        settings, sizes, VARIANTS, columns=COLUMNS, ratios=RATIOS, published={}, notes=notes, curve="test_accuracy"
    )
