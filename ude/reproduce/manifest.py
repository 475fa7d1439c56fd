"""With what a table was made: program, libraries, machine."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ude._version import __version__


@functools.cache
def machine() -> dict[str, Any]:
    """Return commit (None if not known), versions, device and processor as plain values."""
    return {
        "ude": __version__,
        "commit": commit(Path(__file__).resolve().parents[2]),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": platform.system(),
        "device": "cpu",
        "processor": _processor(),
        "cores": os.cpu_count(),
    }


def commit(root: Path) -> str | None:
    """Return the commit of a checkout, with `-modified` if tracked files were changed; None if it is none."""
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return None

    def ask(*words: str) -> str | None:
        done = subprocess.run([git, "-C", str(root), *words], capture_output=True, text=True, check=False)  # noqa: S603
        return done.stdout.strip() if done.returncode == 0 else None

    head = ask("rev-parse", "HEAD")
    return f"{head}-modified" if head and ask("status", "--porcelain", "--untracked-files=no") else head


def _processor() -> str:
    """Return the name of the processor as the system tells it."""
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
