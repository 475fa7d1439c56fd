"""Data sets fetched from their official homes, checked before they are used."""

from __future__ import annotations

import hashlib
import re
import shutil
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from ude._checks import InputError
from ude._version import __version__
from ude.datasets.table import show

_BLOCK = 1 << 16
_SILENCE = 60.0  # seconds without a byte after which a server is given up


class DownloadError(RuntimeError):
    """A file could not be fetched; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """A file on a server, and how to know that it is the right one.

    Args:
        url: Where it is, by http or https.
        path: Where it belongs, below the folder of data sets.
        sha256: Checksum of its content, 64 hexadecimal digits.
        size: Its length in bytes.

    Raises:
        ValueError: If the address or the checksum has another form.
    """

    url: str
    path: str
    sha256: str
    size: int

    def __post_init__(self) -> None:
        if not self.url.startswith(("https://", "http://")):
            raise ValueError(f"`url` must start with https:// or http://, got {self.url!r}.")
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(f"`sha256` must be 64 hexadecimal digits in lower case, got {self.sha256!r}.")


def _files(home: str, folder: str, *files: tuple[str, int, str]) -> tuple[RemoteFile, ...]:
    return tuple(
        RemoteFile(url=f"{home}/{name}", path=f"{folder}/{name}", size=size, sha256=sha256)
        for name, size, sha256 in files
    )


REMOTE_FILES: Mapping[str, tuple[RemoteFile, ...]] = MappingProxyType(
    {
        "mnist": _files(
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            "mnist",
            (
                "train-images-idx3-ubyte.gz",
                9912422,
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            ("train-labels-idx1-ubyte.gz", 28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
            ("t10k-images-idx3-ubyte.gz", 1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
            ("t10k-labels-idx1-ubyte.gz", 4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
        ),
        "physionet2012": _files(
            "https://physionet.org/files/challenge-2012/1.0.0",
            "physionet2012",
            # Repacked archives with the same records and other checksums go around: this is the one at its home.
            ("set-a.tar.gz", 6632372, "8cb250f179cd0952b4b9ebcf8954b63d70383131670fac1cfee13deaa13ca920"),
            ("Outcomes-a.txt", 79219, "2613ea60ccda29f87571a7d6b09ad130858a8ccd66325bd073365925026883c2"),
        ),
    }
)
"""What `ude download` knows, by name."""


def download(file: RemoteFile, folder: str | Path, *, progress: bool = False) -> Path:
    """Fetch a file into the folder of data sets, unless it is there already.

    What arrives is kept beside its place with `.part` at the end of its name, and moved there only when its length
    and checksum are right. A download that was cut off goes on where it ended the next time, if the server can do
    that, else it starts anew.

    Args:
        file: What to fetch.
        folder: The folder of data sets; made if it does not exist.
        progress: Show a progress bar.

    Returns:
        Where the file is now.

    Raises:
        InputError: If another file has its name.
        DownloadError: If the server cannot be reached or does not send this file, or if it cannot be stored.
    """
    target = Path(folder) / file.path
    if target.exists():
        _check_present(target, file)
        return target
    part = target.with_name(target.name + ".part")
    with _explained(file, target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _receive(file, part, progress)
        _check_received(part, file)
        part.replace(target)
    return target


def _receive(file: RemoteFile, part: Path, progress: bool) -> None:
    """Append to `part` what is missing of the file."""
    from tqdm import tqdm

    if part.exists() and part.stat().st_size > file.size:
        part.unlink()
    start = part.stat().st_size if part.exists() else 0
    free = shutil.disk_usage(part.parent).free
    if free < file.size - start:
        raise DownloadError(
            f"The disk has no room for {show(file.path)}: expected {file.size - start} bytes, got "
            f"{free}. Free some space, or choose another folder."
        )
    if start == file.size:
        return
    headers = {"User-Agent": f"ude/{__version__}"} | ({"Range": f"bytes={start}-"} if start else {})
    with urlopen(Request(file.url, headers=headers), timeout=_SILENCE) as answer:  # noqa: S310 - http only, see above
        start = _first_byte(answer, start, file)
        name = Path(file.path).name
        bar = tqdm(total=file.size, initial=start, desc=name, unit="B", unit_scale=True, disable=not progress)
        with part.open("ab" if start else "wb") as stream, bar:
            received = start
            # One byte too many is enough to know, however much follows.
            while received <= file.size and (block := answer.read(_BLOCK)):
                stream.write(block)
                bar.update(len(block))
                received += len(block)
    if received < file.size:
        raise DownloadError(
            f"The connection ended after {received} of {file.size} bytes of {file.url}. Run the same command again: it "
            "goes on from there."
        )


def _first_byte(answer: Any, start: int, file: RemoteFile) -> int:
    """Return where the answer begins: at `start`, or at 0 from a server that always sends the whole file."""
    stated = answer.headers.get("Content-Range", "")
    if answer.status == 206 and not stated.startswith(f"bytes {start}-"):
        raise DownloadError(
            f"{file.url} was asked for the bytes from {start} on but answered with {stated or 'unknown ones'}. Delete "
            f"{Path(file.path).name + '.part'!r} in the folder and run the same command again."
        )
    begin = start if answer.status == 206 else 0
    length = answer.headers.get("Content-Length")
    # Said before a sign-in page of the local network, or a file that was changed, is taken for a part of this one.
    if length is not None and int(length) != file.size - begin:
        raise DownloadError(
            f"{file.url} is not the file that it was: expected {file.size - begin} bytes, got {length}. Open the "
            "address in a browser to see what is sent."
        )
    return begin


def _check_received(part: Path, file: RemoteFile) -> None:
    size, sha256 = part.stat().st_size, _checksum(part)
    if (size, sha256) != (file.size, file.sha256):
        part.unlink()
        raise DownloadError(
            f"{file.url} is not the file that it was: expected {file.size} bytes with SHA-256 {file.sha256}, got "
            f"{size} bytes with {sha256}. What was received is deleted. Run the same command again; if that does not "
            "help, the file has changed at its home."
        )


def _check_present(target: Path, file: RemoteFile) -> None:
    sha256 = _checksum(target) if target.is_file() else "no file"
    if sha256 != file.sha256:
        raise InputError(
            f"{show(str(target))} exists but is not the file at {file.url}: expected SHA-256 {file.sha256}, got "
            f"{sha256}. It is left as it is; move it away, or choose another folder."
        )


def _checksum(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def _explained(file: RemoteFile, target: Path) -> Iterator[None]:
    """Turn errors of network and disk into a sentence."""
    otherwise = f"or fetch it in another way and save it as {str(target)!r}."
    try:
        yield
    except HTTPError as error:
        raise DownloadError(
            f"{file.url} answered {error.code} ({error.reason}). Try again later, {otherwise}"
        ) from None
    except (URLError, ConnectionError, TimeoutError, ssl.SSLError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise DownloadError(
            f"{file.url} cannot be reached: {reason}. Check the network and run the same command again, {otherwise}"
        ) from None
    except OSError as error:
        raise DownloadError(
            f"{str(target)!r} cannot be written: {error.strerror or error}. Free some space, change the permissions, "
            "or choose another folder."
        ) from None
