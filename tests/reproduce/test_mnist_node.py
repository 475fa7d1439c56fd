"""The classifier of digits."""

import pytest
import torch
from torch.nn import functional

from ude.regularize import Steer
from ude.reproduce import mnist_node
from ude.reproduce.comparison import compare
from ude.reproduce.reproduction import Settings

TINY = mnist_node.Mnist(epochs=2, train=24, test=10, batch=10)


def test_it_has_the_published_sizes():
    model = mnist_node.Classifier(784, 1e-6, torch.Generator().manual_seed(0))
    # 785 x 100 + 100, 101 x 784 + 784, 784 x 10 + 10.
    assert sum(p.numel() for p in model.parameters()) == 78_600 + 79_968 + 7_850
    assert all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.usefixtures("digits")
def test_scores_are_those_of_all_pictures_at_once():
    task = TINY.load()
    model = task.model(torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model.head(model.ode(task.training.pixels))
    scores = task.train_scores(model)
    right = (logits.argmax(-1) == task.training.labels).double().mean()
    assert scores["accuracy"] == pytest.approx(100 * float(right), abs=1e-9)
    # Batches choose steps of their own: they agree to the tolerance of 1e-6 and the resolution of float32.
    assert scores["loss"] == pytest.approx(float(functional.cross_entropy(logits, task.training.labels)), abs=1e-5)
    assert set(scores) == {"accuracy", "loss", "nfe"}


@pytest.mark.usefixtures("digits")
def test_steer_moves_the_end_of_the_trajectory():
    task = TINY.load()
    model = task.model(torch.Generator().manual_seed(0))
    batch = next(task.batches(torch.Generator().manual_seed(0)))
    noise = torch.Generator()
    steer = Steer(0.5, generator=torch.Generator().manual_seed(3))
    ends = [float(task.loss(model, batch, 0, noise, steer)[1].ts[-1]) for _ in range(8)]
    assert all(0.5 <= end <= 1.5 for end in ends)
    assert max(ends) - min(ends) > 0.3
    assert float(task.loss(model, batch, 0, noise, None)[1].ts[-1]) == 1.0


@pytest.mark.usefixtures("digits")
def test_every_row_trains_and_the_table_is_complete():
    task = TINY.load()
    fresh = task.train_scores(task.model(torch.Generator().manual_seed(0)))["loss"]
    table = compare(
        Settings(seeds=1),
        TINY,
        mnist_node.VARIANTS,
        columns=mnist_node.COLUMNS,
        ratios=mnist_node.RATIOS,
        published={},
        notes=[],
        curve="test_accuracy",
    )
    assert len(table.table().splitlines()) == 2 + 5 + 1 + 2 + 16
    assert "published |" not in table.table().splitlines()[2]
    for variant in mnist_node.VARIANTS:
        (loss,) = table.values(variant.key, "train_loss")
        assert loss < fresh
