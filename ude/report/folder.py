"""A folder of results that is there completely or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ude._checks import InputError
from ude.datasets.table import show

_MARK = "config.json"


def check_target(folder: Path, *, overwrite: bool = False) -> None:
    """Refuse a folder that must not be written to; ask before a long computation.

    Raises:
        InputError: If the folder exists and `overwrite` is not set, if it is not a folder of results, or if it
            cannot be made.
    """
    try:
        _check_existing(folder, overwrite)
        folder.parent.mkdir(parents=True, exist_ok=True)
        Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent)).rmdir()
    except InputError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"The folder {show(folder)} cannot be made: {reason}. Choose another `--out`.") from None


def _check_existing(folder: Path, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{show(folder)} is a file. Choose another name for `--out`.")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not overwrite:
        raise InputError(f"The folder {show(folder)} exists. Choose another `--out`, or replace it with `--overwrite`.")
    if not (folder / _MARK).is_file():
        raise InputError(
            f"The folder {show(folder)} was not written by this program (it has no {_MARK}), so it is not "
            "replaced. Choose another `--out`."
        )


@contextmanager
def fresh_folder(folder: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside `folder` that takes its name when the block ends without an error.

    An existing folder is replaced only then, and only with `overwrite`; after an error it is as it was.

    Raises:
        InputError: As `check_target`.
    """
    check_target(folder, overwrite=overwrite)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield draft
        draft.chmod(0o755)
        _replace(folder, draft)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _replace(folder: Path, draft: Path) -> None:
    if not folder.exists():
        draft.rename(folder)
        return
    # A folder cannot be renamed over a full one: the old one steps aside for the moment.
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    folder.rename(aside / "old")
    try:
        draft.rename(folder)
    except OSError:
        (aside / "old").rename(folder)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
