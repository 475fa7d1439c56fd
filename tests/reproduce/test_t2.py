"""The stochastic classifier of digits."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch.nn import functional

import ude
from ude.reproduce import t2
from ude.reproduce.comparison import compare
from ude.reproduce.reproduction import Settings
from ude.reproduce.store import Store
from ude.reproduce.training import Job, train

TINY = t2.MnistNSDE(epochs=2, train=24, test=10, batch=12, tolerance=1.0, trajectories=3)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_it_has_the_published_sizes():
    model = t2.Classifier(784, 0.14, t2.PUBLISHED, seeded())
    # 784-32, drift 32-64-32, diffusion 32-32, 32-10, each layer with biases.
    expected = (784 + 1) * 32 + (32 + 1) * 64 + (64 + 1) * 32 + (32 + 1) * 32 + (32 + 1) * 10
    assert sum(p.numel() for p in model.parameters()) == expected
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_its_controller_has_the_published_exponents():
    controller, error = t2.CONTROLLER, torch.tensor([0.9])
    memory = controller.init(error)
    for before in (1.0, 0.8):
        decision = controller.decide(error, torch.tensor([True]), memory, t2.PUBLISHED.error_order)
        assert float(decision.factor) == pytest.approx(0.9 * 0.9 ** (-7 / 15) * (before ** (4 / 15)), rel=1e-6)
        memory = decision.memory
        # The step after next remembers 0.8.
        memory = (torch.tensor([1 / 0.8]), memory[1])
    tiny = controller.decide(torch.tensor([1e-6]), torch.tensor([True]), memory, 1.5)
    assert float(tiny.factor) == pytest.approx(9 / 8)


@pytest.mark.parametrize(("drift", "noise"), [(2.0, 0.5), (2.0, 0.0), (0.0, 0.0)])
def test_the_first_step_is_that_of_the_authors_library(drift, noise):
    y0 = torch.ones(4, 3, dtype=torch.float64)
    problem = ude.SDEProblem(
        lambda t, y: torch.full_like(y, drift), lambda t, y: torch.full_like(y, -noise), y0, (0.0, 1.0)
    )
    # Scale 0.28; |f| + 3 |g| = 3.5 of a state 1 make a probe of 0.01 / 3.5, in which 2 * 3 |g| = 3 counts as change.
    # Without noise the change is none, and the drift alone decides.
    expected = {
        (2.0, 0.5): (0.01 / (3.0 / 0.28 / (0.01 / 3.5))) ** 0.5,
        (2.0, 0.0): (0.01 / (2.0 / 0.28)) ** 0.5,
        (0.0, 0.0): 1e-6,
    }[drift, noise]
    assert t2.first_step(problem, 0.14) == pytest.approx(expected)
    model = t2.Classifier(784, 0.14, t2.PUBLISHED, seeded())
    solution = model(torch.rand(5, 784, generator=seeded()), generator=seeded())[1]
    assert float(solution.steps.dt[0]) == pytest.approx(t2.first_step(solution.problem, 0.14), rel=1e-6)


@pytest.mark.usefixtures("digits")
def test_predictions_average_the_logits_of_their_trajectories():
    task = TINY.load()
    model = task.model(seeded())
    pixels = task.testing.pixels
    with torch.no_grad():
        logits, solution = model(pixels, trajectories=3, generator=seeded(1))
    assert logits.shape == (10, 10)
    (ends,) = solution.ys
    assert ends.shape == (3, 10, 32)
    assert not torch.allclose(ends[0], ends[1])
    torch.testing.assert_close(logits, model.head(ends).mean(0))
    scores, again = task.test(model), task.test(model)
    assert scores == again
    assert float(solution.stats.nfe) > 4


@pytest.mark.usefixtures("digits")
def test_training_takes_one_trajectory_and_noise_of_its_generator():
    task = TINY.load()
    model = task.model(seeded())
    batch = next(task.batches(seeded()))
    losses = []
    for seed in (1, 1, 2):
        loss, solution = task.loss(model, batch, 0, seeded(seed), None)
        losses.append(float(loss.detach()))
        expected = functional.cross_entropy(model.head(solution.ys[-1]), batch.labels)
        torch.testing.assert_close(loss, expected)
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.usefixtures("digits")
def test_the_row_with_stiffness_has_a_method_that_estimates_it():
    task = TINY.load()
    methods = {v.key: task.model_of(v, seeded()).sde.integrator.method for v in t2.VARIANTS}
    assert isinstance(methods.pop("srnsde"), ude.SOSRI2)
    assert set(methods.values()) == {ude.SOSRI(compares_drift=False, delta=1.0)}
    weights = [torch.cat([p.flatten() for p in task.model_of(v, seeded()).parameters()]) for v in t2.VARIANTS]
    assert all(torch.equal(weights[0], other) for other in weights)


def test_jobs_reach_other_processes():
    for variant in t2.VARIANTS:
        job = Job(TINY, variant, 0)
        assert pickle.loads(pickle.dumps(job)).describe() == job.describe()


@pytest.mark.usefixtures("digits", "unchecked")
def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path):
    # The row with random times draws from all generators.
    job, task = Job(TINY, t2.VARIANTS[3], 0), TINY.load()
    expected = train(job, task, Store.open(tmp_path / "whole"))
    broken = Store.open(tmp_path / "broken")

    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(job, task, broken, report=lambda done: stop(done) if done == 1 else None)
    record = train(job, task, broken)
    untimed = lambda row: {k: v for k, v in row.items() if not k.endswith("_s")}  # noqa: E731
    assert untimed(record["result"]) == untimed(expected["result"])
    assert list(map(untimed, record["epochs"])) == list(map(untimed, expected["epochs"]))


@pytest.mark.usefixtures("digits", "unchecked")
def test_every_row_trains_and_the_table_is_complete():
    task = TINY.load()
    fresh = task.train_scores(task.model(seeded()))["loss"]
    table = compare(
        Settings(seeds=1),
        TINY,
        t2.VARIANTS,
        columns=t2.COLUMNS,
        ratios=t2.RATIOS,
        published=t2.TALK,
        notes=[],
        curve="test_accuracy",
    )
    # Two heads of two lines, a blank line, four rows with two published ones, twelve gains.
    assert len(table.table().splitlines()) == 2 + 4 + 2 + 1 + 2 + 12
    for variant in t2.VARIANTS:
        (loss,) = table.values(variant.key, "train_loss")
        assert loss < fresh
