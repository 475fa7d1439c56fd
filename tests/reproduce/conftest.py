"""Small data sets in the format of the originals."""

import numpy as np
import pytest

HEAD = "Time,Parameter,Value\n00:00,RecordID,{0}\n00:00,Age,54\n00:00,Gender,0\n00:00,Height,-1\n00:00,ICUType,4\n"


@pytest.fixture
def patients(tmp_path, monkeypatch):
    """Twelve patients with readings at random hours."""
    folder = tmp_path / "data" / "physionet2012" / "set-a"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for record in range(132539, 132551):
        hours = np.sort(random.choice(48, size=6, replace=False))
        rows = [f"{h:02}:00,{name},{random.uniform(1, 9):.3f}\n" for h in hours for name in ("HR", "pH", "Weight")]
        (folder / f"{record}.txt").write_text(HEAD.format(record) + "".join(rows))
    monkeypatch.setenv("UDE_DATA", str(tmp_path / "data"))
