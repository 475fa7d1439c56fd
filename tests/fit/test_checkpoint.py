"""Checkpoints are whole or absent, and never run code."""

import errno
import pickle

import pytest
import torch

from ude._checks import InputError
from ude.fit.checkpoint import Checkpoint, Saver, load_checkpoint, save_checkpoint


class Malicious:
    def __reduce__(self):
        return (print, ("code ran",))


def test_what_is_written_is_read_back_exactly(tmp_path):
    content = {"stage": 2, "history": [[1.5, 2.5]], "state": {"theta": torch.randn(3, 2, dtype=torch.float64)}}
    save_checkpoint(tmp_path / "fit.ckpt", content)
    loaded = load_checkpoint(tmp_path / "fit.ckpt")
    assert torch.equal(loaded["state"]["theta"], content["state"]["theta"])
    assert loaded["history"] == content["history"]


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "fit.ckpt"
    save_checkpoint(path, {"stage": 1})

    def no_space(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", no_space)
    with pytest.raises(InputError, match="previous checkpoint is kept"):
        save_checkpoint(path, {"stage": 2})
    assert load_checkpoint(path)["stage"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["fit.ckpt"]


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", pickle.dumps(Malicious())])
def test_other_files_are_refused_without_running_them(tmp_path, capsys, content):
    (tmp_path / "bad").write_bytes(content)
    with pytest.raises(InputError):
        load_checkpoint(tmp_path / "bad")
    assert "code ran" not in capsys.readouterr().out


def test_a_missing_or_foreign_file_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="no checkpoint"):
        load_checkpoint(tmp_path / "absent")
    torch.save({"weights": torch.zeros(1)}, tmp_path / "foreign")
    with pytest.raises(InputError, match="not written by"):
        load_checkpoint(tmp_path / "foreign")


def test_a_checkpoint_is_due_by_time_or_by_iterations(tmp_path):
    now = [0.0]
    saver = Saver(Checkpoint(path=tmp_path / "c", every_seconds=10.0, every_iterations=100), clock=lambda: now[0])
    assert not saver.is_due(99)
    assert saver.is_due(100)
    now[0] = 11.0
    assert saver.is_due(101)
    saver.save({"a": 1})
    assert not saver.is_due(101)
    assert not Saver(None).is_due(100)
