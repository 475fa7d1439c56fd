"""IDX files: every type and shape is read as written, and what is wrong with a file is said."""

import contextlib
import gzip
import os
import struct

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ude._checks import InputError
from ude.datasets import Digits, mnist, read_idx

TYPES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx(array):
    kind = TYPES[array.dtype.str[1:]]
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.fixture
def written(tmp_path):
    def write(content):
        path = tmp_path / "array-idx"
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (0, 28, 28)])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_reads_every_type_and_shape_compressed_or_not(written, kind, shape, pack):
    # Values beyond one byte would come out otherwise if the bytes of a number were taken in the wrong order.
    array = (np.random.default_rng(0).normal(size=shape) * (100 if kind.endswith("1") else 1000)).astype(kind)
    read = read_idx(written(pack(idx(array))))
    assert read.numpy().dtype == array.dtype
    assert torch.equal(read, torch.from_numpy(array))


PAIR = idx(np.array([5, 7], "u1"))
BAD = {
    "an empty file": (b"", "got an empty file"),
    "text": (b"label\n5\n7\n", "got 6c 61 62 65"),
    "an unknown type": (b"\0\0\x07" + PAIR[3:], "expected the magic number 00 00 TT NN"),
    "half a header": (PAIR[:6], "expected 8 bytes for 1 axes, got 6"),
    "a number too few": (PAIR[:-1], "expected 2 bytes after the header for shape (2,) of uint8, got 1"),
    "a number too many": (PAIR + b"\0", "got 3"),
    "half a gzip file": (gzip.compress(PAIR)[:-9], "not a whole gzip file"),
    "a damaged gzip file": (gzip.compress(PAIR)[:-8] + b"\0" * 8, "not a whole gzip file"),
}


@pytest.mark.parametrize("case", BAD)
def test_says_what_was_expected_and_found(written, case):
    content, message = BAD[case]
    with pytest.raises(InputError) as caught:
        read_idx(written(content))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(st.binary(), st.binary().map(lambda tail: PAIR[:4] + tail), st.binary().map(lambda s: b"\x1f\x8b" + s))
)
def test_arbitrary_bytes_never_raise_anything_else(written, content):
    with contextlib.suppress(InputError):
        assert read_idx(written(content)).numel() <= len(content)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="no file"):
        read_idx(tmp_path / "none")


IMAGES = np.random.default_rng(1).integers(0, 256, (3, 28, 28)).astype("u1")
LABELS = np.array([5, 0, 9], "u1")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist/train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(IMAGES)))
    (tmp_path / "mnist/train-labels-idx1-ubyte").write_bytes(idx(LABELS))
    return tmp_path


def test_mnist_gives_grey_values_and_labels(folder):
    digits = mnist(folder)
    assert torch.equal(digits.images, torch.from_numpy(IMAGES))
    assert digits.labels.tolist() == [5, 0, 9]
    assert digits.labels.dtype == torch.int64  # what cross_entropy takes
    pixels = digits.pixels(torch.float64)
    assert pixels.shape == (3, 784)
    assert pixels[1, 28 * 4 + 7] == IMAGES[1, 4, 7] / 255
    assert digits.pixels().dtype == torch.float32


def test_the_test_set_has_files_of_its_own(folder):
    with pytest.raises(InputError, match=r"no file 't10k-images-idx3-ubyte', .* `ude download mnist"):
        mnist(folder, train=False)


def test_images_and_labels_must_belong_together(folder):
    (folder / "mnist/train-labels-idx1-ubyte").write_bytes(idx(LABELS[:2]))
    with pytest.raises(InputError, match="has 3 images but 'train-labels-idx1-ubyte' has 2 labels"):
        mnist(folder)
    (folder / "mnist/train-labels-idx1-ubyte").write_bytes(idx(IMAGES))
    with pytest.raises(InputError, match=r"1 axes of uint8 \(magic number 2049\), got 3 axes"):
        mnist(folder)
    with pytest.raises(ValueError, match="one label per image"):
        Digits(images=torch.zeros(3, 28, 28), labels=torch.zeros(2))


@pytest.mark.skipif(not os.environ.get("UDE_DATA"), reason="needs the folder of real data sets in UDE_DATA")
def test_the_real_digits_have_their_known_counts_and_moments():
    train, test = mnist(), mnist(train=False)
    assert train.labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert test.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    pixels = train.pixels()
    # The mean and deviation by which MNIST is usually normalised, to the digits usually given.
    assert pixels.mean().item() == pytest.approx(0.1307, abs=5e-5)
    assert pixels.std().item() == pytest.approx(0.3081, abs=5e-5)
