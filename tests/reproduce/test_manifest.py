"""With what a table was made."""

import shutil
import subprocess

import pytest
import torch

from ude.reproduce.manifest import commit, machine


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_says_whether_tracked_files_were_changed(tmp_path):
    def git(*words):
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        return subprocess.run(["git", "-C", tmp_path, *who, *words], check=True, capture_output=True, text=True).stdout

    assert commit(tmp_path) is None
    git("init")
    assert commit(tmp_path) is None
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "a")
    (tmp_path / "b").write_text("not tracked")
    head = git("rev-parse", "HEAD").strip()
    assert commit(tmp_path) == head
    (tmp_path / "a").write_text("2")
    assert commit(tmp_path) == f"{head}-modified"


def test_the_machine_is_described_without_names_of_places_or_people():
    found = machine()
    assert found["torch"] == torch.__version__
    assert found["processor"]
    assert not any("/" in str(value) for value in found.values())
