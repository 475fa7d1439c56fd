"""Checkpoints: written whole or not at all, read without running code."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ude._checks import InputError

_FORMAT = "ude-fit-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """When and where a fit saves itself.

    Args:
        path: File to write. The previous checkpoint is replaced only once the new one is complete.
        every_seconds: Least time between two checkpoints.
        every_iterations: Iterations after which one is written whatever the time; None for never.
    """

    path: str | Path
    every_seconds: float = 30.0
    every_iterations: int | None = None


def save_checkpoint(path: str | Path, content: dict[str, Any]) -> None:
    """Write `content` (numbers, text, lists, dicts and tensors) to `path` atomically.

    Raises:
        InputError: If the file cannot be written, for example because the disk is full. A checkpoint
            that was there before is kept.
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("wb") as file:
            torch.save({"format": _FORMAT, **content}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        kept = "The previous checkpoint is kept. " if path.exists() else ""
        raise InputError(
            f"The checkpoint {path} could not be written ({error}). {kept}Free some space or choose another folder, "
            "then resume."
        ) from error


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint; only weights and plain values are accepted, so that loading cannot run code.

    Raises:
        InputError: If there is no such file, or it is not a checkpoint of `ude.fit`.
    """
    if not Path(path).is_file():
        raise InputError(
            f"There is no checkpoint at {path}. Start without `resume`, or name the file of the earlier run."
        )
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise InputError(
            f"{path} is not a readable checkpoint ({type(error).__name__}). Start again without `resume`."
        ) from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise InputError(f"{path} was not written by this version of `ude.fit`. Start again without `resume`.")
    return content


@dataclass(slots=True)
class Saver:
    """Decides when a checkpoint is due."""

    checkpoint: Checkpoint | None
    clock: Callable[[], float] = time.monotonic
    _last: float = field(init=False)

    def __post_init__(self) -> None:
        self._last = self.clock()

    def is_due(self, iteration: int) -> bool:
        """Return True when enough time, or enough iterations, have passed."""
        if self.checkpoint is None:
            return False
        every = self.checkpoint.every_iterations
        return self.clock() - self._last >= self.checkpoint.every_seconds or (
            every is not None and iteration % every == 0
        )

    def save(self, content: dict[str, Any]) -> None:
        """Write a checkpoint, if there is a place for it."""
        if self.checkpoint is not None:
            save_checkpoint(self.checkpoint.path, content)
            self._last = self.clock()
