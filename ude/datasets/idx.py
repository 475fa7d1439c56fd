"""Arrays in IDX files, the format of the MNIST digits."""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ude._checks import InputError
from ude.datasets.folder import data_folder
from ude.datasets.table import show

# The third byte of the magic number; numbers of several bytes come with the highest first.
_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """Pictures of handwritten digits and what they show.

    Args:
        images: Grey values as stored, 0 (paper) to 255 (ink), `uint8`, shape `(digits, 28, 28)`.
        labels: The digits 0 to 9, `int64`, shape `(digits,)`.

    Raises:
        ValueError: If there is not one label per image.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.ndim != 3 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                "Expected `images` of shape (digits, rows, columns) and one label per image, got "
                f"{tuple(self.images.shape)} and {tuple(self.labels.shape)}."
            )

    def pixels(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the images as the papers on neural ODEs use them: grey value / 255, shape `(digits, 784)`.

        Args:
            dtype: Floating-point type of the result.
        """
        return self.images.flatten(1).to(dtype) / 255


def mnist(folder: str | Path | None = None, *, train: bool = True) -> Digits:
    """Read the MNIST digits: 60 000 to train with or 10 000 to test with, in the original order.

    The files are `mnist/train-images-idx3-ubyte`, `mnist/train-labels-idx1-ubyte`, and those of the test set that
    start with `t10k`, each as it is or with `.gz`. `ude download mnist` fetches them.

    Args:
        folder: The folder of data sets; see `data_folder`.
        train: The training set, else the test set.

    Raises:
        InputError: If a file is missing or is not what it should be.

    Reference:
        LeCun, Bottou, Bengio and Haffner (1998), "Gradient-based learning applied to document recognition".
    """
    place = data_folder(folder) / "mnist"
    part = "train" if train else "t10k"
    files = [_stored(place, f"{part}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")]
    images, labels = (read_idx(file) for file in files)
    for file, array, ndim in zip(files, (images, labels), (3, 1), strict=True):
        if array.dtype != torch.uint8 or array.ndim != ndim:
            raise InputError(
                f"{show(file)} must hold an array of {ndim} axes of uint8 (magic number {0x800 + ndim}), got "
                f"{array.ndim} axes of {array.dtype}. Download it again: `ude download mnist`."
            )
    if len(images) != len(labels):
        raise InputError(
            f"{show(files[0])} has {len(images)} images but {show(files[1])} has {len(labels)} labels. Use two files "
            "of the same set."
        )
    return Digits(images=images, labels=labels.long())


def read_idx(path: str | Path) -> Tensor:
    """Read the array in an IDX file, compressed by gzip or not.

    The file starts with two zero bytes, one byte for the type of the numbers and one for the number of axes; then
    come the lengths of the axes as unsigned 32-bit integers and the numbers, highest byte first, last axis fastest.

    Returns:
        A tensor of the type and shape that the file states.

    Raises:
        InputError: If the file cannot be read, has another magic number, or is shorter or longer than it states.

    Example:
        >>> path = getfixture("tmp_path") / "pair"
        >>> _ = path.write_bytes(bytes([0, 0, 0x08, 1, 0, 0, 0, 2, 5, 7]))
        >>> read_idx(path)
        tensor([5, 7], dtype=torch.uint8)
    """
    path = Path(path)
    content = _content(path)
    magic, start = content[:4], 4 + 4 * (content[3] if len(content) > 3 else 0)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES:
        kinds = ", ".join(f"{kind:02x}" for kind in _TYPES)
        raise InputError(
            f"{show(path)} is not an IDX file: expected the magic number 00 00 TT NN with a type TT among {kinds}, "
            f"got {magic.hex(' ') or 'an empty file'}. Download it again, or check that it is the right file."
        )
    if len(content) < start:
        raise InputError(
            f"{show(path)} ends within its header: expected {start} bytes for {magic[3]} axes, got {len(content)}. "
            "Download it again."
        )
    dtype = np.dtype(_TYPES[magic[2]])
    shape = tuple(int(length) for length in np.frombuffer(content, ">u4", count=magic[3], offset=4))
    expected = math.prod(shape) * dtype.itemsize
    if len(content) - start != expected:
        raise InputError(
            f"{show(path)} does not have the length that it states: expected {expected} bytes after the header for "
            f"shape {shape} of {dtype.name}, got {len(content) - start}. Download it again."
        )
    array = np.frombuffer(content, dtype, offset=start).reshape(shape)
    return torch.from_numpy(array.astype(dtype.newbyteorder("=")))


def _content(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if raw.startswith(_GZIP) else raw
    except FileNotFoundError:
        raise InputError(f"There is no file {show(str(path))}. Check the name.") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{show(path)} is not a whole gzip file ({error}). Download it again.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{show(str(path))} cannot be read: {reason}. Check its name and permissions.") from None


def _stored(place: Path, name: str) -> Path:
    """Return the file of that name, compressed or not."""
    for file in (place / f"{name}.gz", place / name):
        if file.is_file():
            return file
    raise InputError(
        f"There is no file {show(name)}, with or without '.gz', in {show(str(place))}. Fetch it with `ude download "
        "mnist --data DIR`, or correct `--data` or UDE_DATA."
    )
