"""Small data sets in the format of the originals."""

import struct

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


@pytest.fixture
def digits(tmp_path, monkeypatch):
    """Pictures of 28 x 28 random grey values, the first rows of which are black as their label says."""
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for part, count in (("train", 24), ("t10k", 10)):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = random.integers(0, 60, size=(count, 28, 28), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label : 2 * label + 3] = 255
        header = struct.pack(">4B3I", 0, 0, 8, 3, count, 28, 28)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = struct.pack(">4BI", 0, 0, 8, 1, count)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    monkeypatch.setenv("UDE_DATA", str(tmp_path / "data"))
