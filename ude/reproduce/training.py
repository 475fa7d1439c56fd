"""One row of a table of regularized models: a training that can be interrupted, with its times and its work."""

from __future__ import annotations

import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from ude._checks import InputError
from ude.fit.checkpoint import load_checkpoint, save_checkpoint
from ude.methods.method import Method
from ude.problems import Solution, SolveError
from ude.regularize import Anneal, Regularizer, Steer, TrajectoryIntegral
from ude.reproduce.manifest import machine
from ude.reproduce.store import Store

Batch = TypeVar("Batch")
PREDICTIONS = 8
"""Forward passes of the trained model whose median time is reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """What one row of the table adds to the loss.

    Args:
        key: Short name for files and the command line.
        title: Name of the row.
        cost: Of the trajectory of every batch.
        weights: Its weight in the first and towards the last epoch, exponential in between.
        steer: Width of the random shift of the times of every training batch.
        method: Makes the steps, if it is not the one of all rows.
    """

    key: str
    title: str
    cost: Regularizer | None = None
    weights: tuple[float, float] = (0.0, 0.0)
    steer: float | None = None
    method: Method | None = None

    def weight(self, epoch: int, epochs: int) -> float:
        """Return the weight in an epoch, counted from 0."""
        start, end = self.weights
        return start if start == end else Anneal("exp", start, end, steps=epochs)(epoch)

    def describe(self) -> dict[str, Any]:
        """Return what tells this row from another, as plain values."""
        told = {"variant": self.key, "cost": repr(self.cost), "weights": list(self.weights), "steer": self.steer}
        return told if self.method is None else {**told, "method": repr(self.method)}


class Task(ABC, Generic[Batch]):
    """Model, data and loss that all rows of a table share."""

    @abstractmethod
    def model(self, generator: torch.Generator) -> nn.Module:
        """Return a model with fresh weights."""

    def model_of(self, variant: Variant, generator: torch.Generator) -> nn.Module:
        """Return the model of a row, by default that of all rows."""
        if variant.method is not None:
            raise ValueError(f"The model of this table has one method for all rows, got {variant.method}.")
        return self.model(generator)

    @abstractmethod
    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer, at its first learning rate."""

    @abstractmethod
    def learning_rate(self, iteration: int) -> float:
        """Return the learning rate of an iteration, counted from 0."""

    @abstractmethod
    def batches(self, generator: torch.Generator) -> Iterator[Batch]:
        """Go through the batches of one epoch, in a new random order."""

    @abstractmethod
    def loss(
        self, model: nn.Module, batch: Batch, epoch: int, noise: torch.Generator, steer: Steer | None
    ) -> tuple[Tensor, Solution]:
        """Return the loss of a batch without regularization, and the trajectory that regularizers take."""

    @abstractmethod
    def predict(self, model: nn.Module) -> None:
        """Make one forward pass of one training batch, which is timed."""

    @abstractmethod
    def test(self, model: nn.Module) -> dict[str, float]:
        """Return figures of the test data by name; `nfe` is that of one forward pass of all of them."""

    def test_of_epoch(self, model: nn.Module) -> dict[str, float]:
        """Return the same after every epoch, of fewer test data where all of them take too long."""
        return self.test(model)

    @abstractmethod
    def train_scores(self, model: nn.Module) -> dict[str, float]:
        """Return figures of the training data by name."""


class Experiment(ABC):
    """A small description of a task, which other processes get: sizes and tolerances, no data."""

    epochs: int

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return all settings as plain values."""

    @abstractmethod
    def load(self) -> Task[Any]:
        """Read the data."""


@dataclass(frozen=True, slots=True)
class Job:
    """One training: a row of the table with one seed.

    Args:
        experiment: What is trained.
        variant: The row.
        seed: Of initial weights, order of the data and noise, which all rows share.
    """

    experiment: Experiment
    variant: Variant
    seed: int

    @property
    def name(self) -> str:
        """Name of its files."""
        return f"{self.variant.key}-seed{self.seed}"

    def describe(self) -> dict[str, Any]:
        """Return everything that the result depends on, as plain values."""
        return {**self.experiment.describe(), **self.variant.describe(), "seed": self.seed}


def train(job: Job, task: Task[Any], store: Store, *, report: Callable[[int], None] = lambda _: None) -> dict[str, Any]:
    """Train one row, from the last epoch that an earlier call has kept, on one thread.

    Training time is that of gradients and updates alone. After every epoch one training batch is predicted, with its
    time, and the test data are evaluated.

    Args:
        job: What to train.
        task: Its experiment, loaded.
        store: Where the run is kept: after every epoch, and once it has ended.
        report: Called with the number of epochs that are done, also before the first.

    Returns:
        The record: `settings`, `machine`, one entry per epoch in `epochs`, and `result`.

    Raises:
        InputError: If the training fails, for example because a solve does; what was done is kept.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run = _Run.start(job, task, store)
        report(len(run.epochs))
        while len(run.epochs) < job.experiment.epochs:
            run.advance()
            run.keep()
            report(len(run.epochs))
        record = {
            "title": job.variant.title,
            "settings": job.describe(),
            "machine": {**machine(), "threads": torch.get_num_threads()},
            "epochs": run.epochs,
            "result": run.result(),
        }
    except (SolveError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"The run {job.name!r} failed: {error} The runs that ended are kept.") from error
    finally:
        torch.set_num_threads(threads)
    store.finish(job.name, record)
    return record


class _Stopwatch:
    """Wall and processor time of the blocks that it surrounds, in seconds."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def __enter__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter() - self._wall
        self.cpu += time.process_time() - self._cpu


@dataclass(slots=True)
class _Run:
    """A training under way: everything that the next epoch depends on."""

    job: Job
    task: Task[Any]
    store: Store
    model: nn.Module
    optimizer: torch.optim.Optimizer
    order: torch.Generator
    noise: torch.Generator
    own: torch.Generator
    iteration: int
    epochs: list[dict[str, float]]

    @classmethod
    def start(cls, job: Job, task: Task[Any], store: Store) -> _Run:
        """Return a run at its beginning, or as it was kept."""
        # What the rows share comes from generators of its own, so that no row draws more from them than another.
        weights, order, noise, own = (torch.Generator().manual_seed(1000 * k + job.seed) for k in range(4))
        model = task.model_of(job.variant, weights)
        run = cls(job, task, store, model, task.optimizer(model), order, noise, own, 0, [])
        if store.checkpoint(job.name).exists():
            run.restore(load_checkpoint(store.checkpoint(job.name)))
        return run

    @property
    def generators(self) -> dict[str, torch.Generator]:
        """What is random in the course of a run."""
        return {"order": self.order, "noise": self.noise, "own": self.own}

    def keep(self) -> None:
        """Write a checkpoint."""
        content = {
            "settings": self.job.describe(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generators": {name: generator.get_state() for name, generator in self.generators.items()},
            "iteration": self.iteration,
            "epochs": self.epochs,
        }
        save_checkpoint(self.store.checkpoint(self.job.name), content)

    def restore(self, content: dict[str, Any]) -> None:
        """Become the run of a checkpoint."""
        self.store.check_settings(self.job.name, content["settings"], self.job.describe())
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        for name, generator in self.generators.items():
            generator.set_state(content["generators"][name])
        self.iteration, self.epochs = content["iteration"], content["epochs"]

    def advance(self) -> None:
        """Train for one epoch and evaluate."""
        epoch = len(self.epochs)
        variant, watch = self.job.variant, _Stopwatch()
        cost, weight = _with_generator(variant.cost, self.own), variant.weight(epoch, self.job.experiment.epochs)
        steer = None if variant.steer is None else Steer(variant.steer, generator=self.own)
        losses, work = [], []
        for batch in self.task.batches(self.order):
            for group in self.optimizer.param_groups:
                group["lr"] = self.task.learning_rate(self.iteration)
            with watch:
                self.optimizer.zero_grad()
                loss, solution = self.task.loss(self.model, batch, epoch, self.noise, steer)
                total = loss if cost is None else loss + weight * cost(solution)
                total.backward()
                self.optimizer.step()
            losses.append(float(loss.detach()))
            work.append(solution.stats.nfe.double().mean().item())
            self.iteration += 1
        predicting = self.predict()
        figures = {f"test_{name}": value for name, value in self.task.test_of_epoch(self.model).items()}
        self.epochs.append(
            {
                "epoch": epoch + 1,
                "weight": weight,
                "objective": statistics.fmean(losses),
                "train_nfe": statistics.fmean(work),
                "train_wall_s": watch.wall,
                "train_cpu_s": watch.cpu,
                "predict_wall_s": predicting.wall,
                "predict_cpu_s": predicting.cpu,
                **figures,
            }
        )

    def predict(self) -> _Stopwatch:
        """Return the time of one forward pass."""
        watch = _Stopwatch()
        with watch:
            self.task.predict(self.model)
        return watch

    def result(self) -> dict[str, float]:
        """Return the figures of the table."""
        times = [self.predict() for _ in range(PREDICTIONS)]
        return {
            **{f"train_{name}": value for name, value in self.task.train_scores(self.model).items()},
            **{f"test_{name}": value for name, value in self.task.test(self.model).items()},
            "train_wall_s": sum(row["train_wall_s"] for row in self.epochs),
            "train_cpu_s": sum(row["train_cpu_s"] for row in self.epochs),
            "predict_wall_s": statistics.median(watch.wall for watch in times),
            "predict_cpu_s": statistics.median(watch.cpu for watch in times),
        }


def _with_generator(cost: Regularizer | None, generator: torch.Generator) -> Regularizer | None:
    """Return the cost with its random nodes drawn from `generator`."""
    return replace(cost, generator=generator) if isinstance(cost, TrajectoryIntegral) else cost
