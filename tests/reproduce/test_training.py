"""Trainings of one row: what they record, and that an interruption leaves no trace."""

import itertools
import json
import os
import signal

import pytest
import torch

from ude._checks import InputError
from ude.regularize import StiffnessEstimate
from ude.reproduce import t1
from ude.reproduce.store import Store
from ude.reproduce.training import Job, Variant, train
from ude.reproduce.workers import run_jobs

TINY = t1.PhysioNet(epochs=3, train=8, test=4, batch=4, tolerance=1e-4)


def job(variant=t1.VANILLA, seed=0):
    return Job(TINY, variant, seed)


def untimed(record):
    """What of a record does not depend on the clock."""
    keep = lambda row: {k: v for k, v in row.items() if not k.endswith("_s")}  # noqa: E731
    return [keep(row) for row in record["epochs"]], keep(record["result"]), record["settings"]


def interrupt_at(monkeypatch, count):
    """Press Ctrl-C in the pass that is timed after the epoch of this number, before the epoch is kept."""
    calls, predict = itertools.count(1), t1.Records.predict

    def predict_or_stop(self, model):
        if next(calls) == count:
            raise KeyboardInterrupt
        predict(self, model)

    monkeypatch.setattr(t1.Records, "predict", predict_or_stop)


@pytest.mark.usefixtures("patients")
@pytest.mark.parametrize("variant", t1.VARIANTS, ids=lambda variant: variant.key)
def test_an_interrupted_run_ends_as_an_uninterrupted_one_bit_for_bit(tmp_path, monkeypatch, variant):
    whole, broken = Store.open(tmp_path / "whole"), Store.open(tmp_path / "broken")
    expected = train(job(variant), TINY.load(), whole)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            train(job(variant), TINY.load(), broken)
    assert broken.checkpoint(job(variant).name).exists()
    seen = []
    record = train(job(variant), TINY.load(), broken, report=seen.append)
    assert seen == [1, 2, 3]
    assert untimed(record) == untimed(expected)
    assert record["epochs"][0]["train_cpu_s"] > 0
    assert not broken.checkpoint(job(variant).name).exists()
    assert broken.finished(job(variant).name, job(variant).describe()) == json.loads(json.dumps(record))


@pytest.mark.usefixtures("patients")
def test_rows_share_weights_order_and_noise_within_a_seed(tmp_path):
    # A cost of weight zero, whatever it draws, changes nothing.
    store = Store.open(tmp_path / "runs")
    idle = Variant(key="idle", title="idle", cost=t1.VARIANTS[1].cost, weights=(0.0, 0.0))
    vanilla, same, other = (train(j, TINY.load(), store) for j in (job(), job(idle), job(seed=1)))
    assert untimed(same)[1] == untimed(vanilla)[1]
    assert untimed(other)[1] != untimed(vanilla)[1]


@pytest.mark.usefixtures("patients")
def test_the_cost_enters_the_gradient_with_its_weight(tmp_path):
    weighty = Variant(key="weighty", title="weighty", cost=StiffnessEstimate(), weights=(1e3, 1e2))
    store = Store.open(tmp_path / "runs")
    vanilla, record = train(job(), TINY.load(), store), train(job(weighty), TINY.load(), store)
    assert [row["weight"] for row in record["epochs"]] == pytest.approx(
        [1e3, 1e3 * 0.1 ** (1 / 3), 1e3 * 0.1 ** (2 / 3)]
    )
    first, plain = record["epochs"][0], vanilla["epochs"][0]
    assert first["objective"] != plain["objective"]
    assert first["objective"] == pytest.approx(plain["objective"], rel=0.2)  # the recorded one is without the cost


@pytest.mark.usefixtures("patients")
def test_training_runs_on_one_thread_and_gives_the_others_back(tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        record = train(job(), TINY.load(), Store.open(tmp_path / "runs"))
        assert record["machine"]["threads"] == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("patients")
def test_a_run_made_with_other_settings_is_refused(tmp_path):
    store = Store.open(tmp_path / "runs")
    train(job(), TINY.load(), store)
    other = t1.PhysioNet(epochs=3, train=8, test=4, batch=8, tolerance=1e-4)
    with pytest.raises(InputError, match=r"has batch = 4, but 8 was asked for.*--overwrite"):
        run_jobs([Job(other, t1.VANILLA, 0)], store)
    assert store.finished(job().name, job().describe()) is not None


@pytest.mark.usefixtures("patients")
def test_a_solve_that_fails_names_the_run(tmp_path, monkeypatch):
    def diverge(*_):
        raise ValueError("The cost is nan.")

    monkeypatch.setattr(StiffnessEstimate, "measure", diverge)
    with pytest.raises(InputError, match=r"run 'srnode-seed0' failed: The cost is nan\."):
        run_jobs([job(t1.VARIANTS[2])], Store.open(tmp_path / "runs"))


@pytest.mark.slow
@pytest.mark.usefixtures("patients")
def test_two_processes_give_what_one_gives(tmp_path, monkeypatch):
    jobs = [job(seed=seed) for seed in (0, 1, 2)]
    alone = run_jobs(jobs, Store.open(tmp_path / "one"))
    apart = run_jobs(jobs, Store.open(tmp_path / "two"), workers=2)
    assert list(map(untimed, apart)) == list(map(untimed, alone))
    assert [record["settings"]["seed"] for record in apart] == [0, 1, 2]
    # What is kept is not run again, and what fails in another process is said in this one.
    monkeypatch.setenv("UDE_DATA", str(tmp_path / "nowhere"))
    assert run_jobs(jobs, Store.open(tmp_path / "two"), workers=2) == apart
    with pytest.raises(InputError, match="does not exist"):
        run_jobs([job(seed=3), job(seed=4)], Store.open(tmp_path / "two"), workers=2)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="was not written by this program"):
        Store.open(tmp_path, overwrite=True)
    with pytest.raises(InputError, match="is a file"):
        Store.open(tmp_path / "thesis.tex")
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_overwriting_forgets_the_runs(tmp_path):
    store = Store.open(tmp_path / "out")
    store.finish("a-seed0", {"settings": {"seed": 0}})
    assert Store.open(tmp_path / "out").finished("a-seed0", {"seed": 0}) is not None
    assert Store.open(tmp_path / "out", overwrite=True).finished("a-seed0", {"seed": 0}) is None


def test_a_record_that_was_cut_off_is_named(tmp_path):
    store = Store.open(tmp_path / "out")
    (store.runs / "a-seed0.json").write_text('{"settings": {"se')
    with pytest.raises(InputError, match=r"a-seed0\.json' in .* is not the record of a run"):
        store.finished("a-seed0", {"seed": 0})


class Fatal(t1.PhysioNet):
    """Ends its process by a signal, as a system does that is short of memory."""

    def load(self):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_process_that_was_killed_is_reported(tmp_path):
    fatal = Fatal(epochs=3, train=8, test=4, batch=4)
    with pytest.raises(InputError, match=r"ended by signal 9.*Start the same command again"):
        run_jobs([Job(fatal, t1.VANILLA, seed) for seed in (0, 1)], Store.open(tmp_path / "out"), workers=2)
