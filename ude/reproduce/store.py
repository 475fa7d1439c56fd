"""A folder in which runs are kept, one by one, so that a table can be made in several sittings."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ude._checks import InputError
from ude.datasets.table import show

MARK = "config.json"
"""The file by which the folder is known for one of ours, as those of `ude.report`."""


@dataclass(frozen=True, slots=True)
class Store:
    """The runs in a folder.

    Args:
        folder: The folder of the table; runs lie in its folder `runs`.
    """

    folder: Path

    @classmethod
    def open(cls, folder: Path, *, overwrite: bool = False) -> Store:
        """Make the folder, or go on in one of ours.

        Args:
            folder: The place.
            overwrite: Forget the runs that are kept there.

        Raises:
            InputError: If it is a file, holds something else, or cannot be made.
        """
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{show(folder)} is a file. Choose another name for `--out`.")
        store = cls(folder)
        is_ours = (folder / MARK).is_file() or store.runs.is_dir()
        if folder.exists() and any(folder.iterdir()) and not is_ours:
            raise InputError(
                f"The folder {show(folder)} was not written by this program (it has no {MARK}). Choose another `--out`."
            )
        if overwrite:
            shutil.rmtree(store.runs, ignore_errors=True)
        try:
            store.runs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"The folder {show(folder)} cannot be made: {error.strerror}. Choose another `--out`."
            ) from None
        return store

    @property
    def runs(self) -> Path:
        """Where the files of the runs lie."""
        return self.folder / "runs"

    def checkpoint(self, name: str) -> Path:
        """Return the file of a run under way."""
        return self.runs / f"{name}.checkpoint"

    def finished(self, name: str, settings: dict[str, Any]) -> dict[str, Any] | None:
        """Return the record of a run that has ended, None if there is none.

        Raises:
            InputError: If it was made with other settings, or cannot be read.
        """
        file = self.runs / f"{name}.json"
        if not file.is_file():
            return None
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            kept = record["settings"]
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"{show(file.name)} in {show(str(self.runs))} is not the record of a run. Remove it to run it anew."
            ) from None
        self.check_settings(name, kept, settings)
        return record

    def check_settings(self, name: str, kept: dict[str, Any], wanted: dict[str, Any]) -> None:
        """Raise `InputError` if a run that is kept was made with other settings."""
        wanted = json.loads(json.dumps(wanted))
        for key in sorted({*kept, *wanted}):
            if kept.get(key) != wanted.get(key):
                raise InputError(
                    f"The run {name!r} kept in {show(self.folder)} has {key} = {kept.get(key)!r}, but "
                    f"{wanted.get(key)!r} was asked for. Choose another `--out`, start anew with `--overwrite`, or "
                    f"remove {name}.json and {name}.checkpoint from its folder runs."
                )

    def finish(self, name: str, record: dict[str, Any]) -> None:
        """Keep the record of a run that has ended in the place of its checkpoint."""
        write_json(self.runs / f"{name}.json", record)
        self.checkpoint(name).unlink(missing_ok=True)


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write plain values; a file that was there is replaced only by a whole one."""
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    part.replace(file)
