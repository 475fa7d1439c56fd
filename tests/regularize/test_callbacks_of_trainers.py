"""Callbacks of training frameworks, and the penalty they act on."""

import importlib
import pickle
import sys

import pytest
import torch

import ude
from ude.regularize import Anneal, ErrorEstimate, Penalty, attach
from ude.regularize.callbacks import lightning_callback, trainer_callback

NAMES = {f"regularizer/{name}" for name in ("weight", "cost", "nfe", "accepted", "rejected")}
SCHEDULE = Anneal("exp", 100.0, 1.0, steps=8)


def needs(module):
    try:
        return importlib.import_module(module)
    except ImportError as error:
        pytest.skip(f"{module} is not installed: {error}")


class Field(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))

    def forward(self, t, y):
        return self.net(y)


def loss_of(field, penalty, x, target, seen):
    ys, info = ude.compat.odeint(field, x, torch.tensor([0.0, 1.0]), rtol=1e-3, atol=1e-3, regularizer=ErrorEstimate())
    seen.append((penalty.weight, info.cost.item(), info.nfe.solve, info.accepted, info.rejected))
    fit = (ys[-1] - target).square().mean()
    return fit + penalty(info.cost, nfe=info.nfe.solve, accepted=info.accepted, rejected=info.rejected)


def rows(count):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 2, generator=generator)
    return x, x.flip(1)


class TestPenalty:
    def test_it_is_the_weight_of_the_step_times_the_cost(self):
        penalty = Penalty(SCHEDULE)
        cost = torch.tensor(2.0, requires_grad=True)
        for step in (0, 4, 8, 100):
            penalty.set_step(step)
            value = penalty(cost)
            assert value.item() == pytest.approx(2.0 * SCHEDULE(step))
            assert torch.autograd.grad(value, cost)[0].item() == pytest.approx(SCHEDULE(step))
        assert Penalty(3).weight == 3.0

    def test_figures_are_means_since_the_last_time(self):
        penalty = Penalty(1.0)
        penalty(torch.tensor(1.0), nfe=10)
        penalty(torch.tensor(2.0), nfe=torch.tensor([30.0, 50.0]), accepted=4)
        assert penalty.figures() == {"weight": 1.0, "cost": 1.5, "nfe": 25.0, "accepted": 4.0}
        assert penalty.figures() == {"weight": 1.0}

    def test_what_is_attached_and_what_is_solved_have_its_figures(self):
        import torchdiffeq

        field, penalty = Field(), Penalty(1.0)
        with attach(field, ErrorEstimate()) as regularized:
            torchdiffeq.odeint(field, torch.ones(3, 2), torch.tensor([0.0, 1.0]))
        counts = {name: getattr(regularized, name) for name in ("nfe", "accepted", "rejected")}
        penalty(regularized.value(), **counts)
        assert {name: value for name, value in penalty.figures().items() if name in counts} == counts
        problem = ude.ODEProblem(field, torch.ones(3, 2), (0.0, 1.0), batched=True)
        solution = ude.solve(problem, ude.Tsit5())
        penalty(ErrorEstimate()(solution), nfe=solution.stats.nfe, accepted=solution.stats.accepted)
        assert penalty.figures()["nfe"] == solution.stats.nfe.double().mean()

    def test_a_weight_that_is_none_is_refused(self):
        with pytest.raises(TypeError, match="Anneal"):
            Penalty("exp")


def test_lightning_sets_the_weight_and_logs_the_figures():
    needs("lightning")
    import lightning.pytorch as pl

    penalty, seen, logged = Penalty(SCHEDULE), [], []

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.field = Field()

        def training_step(self, batch, batch_idx):
            return loss_of(self.field, penalty, *batch, seen)

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=1e-2)

    class Reader(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    callback = lightning_callback(penalty)
    assert isinstance(callback, pl.Callback)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*rows(32)), batch_size=8)
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback, Reader()],
    )
    trainer.fit(Module(), loader)
    assert [weight for weight, *_ in seen] == pytest.approx([SCHEDULE(step) for step in range(8)])
    for figures, measured in zip(logged, seen, strict=True):
        assert set(figures) >= NAMES
        names = ("weight", "cost", "nfe", "accepted", "rejected")
        assert [figures[f"regularizer/{name}"] for name in names] == pytest.approx(measured, rel=1e-6)


def test_lightning_copies_the_callback_for_other_processes():
    needs("lightning")
    copy = pickle.loads(pickle.dumps(lightning_callback(Penalty(2.0))))
    assert type(copy).__name__ == "PenaltyCallback"


def test_the_trainer_sets_the_weight_and_logs_the_figures(tmp_path, monkeypatch):
    needs("transformers")
    needs("accelerate")
    from transformers import Trainer, TrainerCallback, TrainingArguments

    # It would take the folder of tests of that name for the package `datasets`.
    monkeypatch.setattr("transformers.trainer.is_datasets_available", lambda: False)

    penalty, seen = Penalty(SCHEDULE), []

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.field = Field()

        def forward(self, x, labels):
            return {"loss": loss_of(self.field, penalty, x, labels, seen)}

    class Told(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            told.append(dict(logs))

    told = []
    callback = trainer_callback(penalty)
    assert isinstance(callback, TrainerCallback)
    data = [{"x": x, "labels": y} for x, y in zip(*rows(32), strict=True)]
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=8,
        num_train_epochs=2,
        logging_steps=2,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    Trainer(model=Model(), args=arguments, train_dataset=data, callbacks=[callback, Told()]).train()
    assert [weight for weight, *_ in seen] == pytest.approx([SCHEDULE(step) for step in range(8)])
    logged = [row for row in told if "loss" in row]
    assert len(logged) == 4
    for i, row in enumerate(logged):
        assert set(row) >= NAMES
        pair = torch.tensor(seen[2 * i : 2 * i + 2], dtype=torch.float64)
        # The weight is that of the last step, everything else the mean over the two since the last log.
        expected = [pair[1, 0].item(), *pair.mean(0)[1:].tolist()]
        names = ("weight", "cost", "nfe", "accepted", "rejected")
        assert [row[f"regularizer/{name}"] for name in names] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("make", "packages"),
    [(lightning_callback, ("lightning", "pytorch_lightning")), (trainer_callback, ("transformers",))],
)
def test_a_missing_package_is_named_with_its_install_line(make, packages, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        monkeypatch.delitem(sys.modules, name)
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"pip install {packages[0]}, or pip install 'ude\[callbacks\]'"):
        make(Penalty(1.0))
