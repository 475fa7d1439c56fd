"""Settings for every test and doctest."""

import os

# One thread each: pytest-xdist already uses the cores, and OpenMP pools side by side slow each other down.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from jaxtyping import install_import_hook

# Check every annotation at run time, except in the rooms that torch.compile traces: it cannot see through the checks.
CHECKED = ("ude.problems", "ude.systems", "ude.fit", "ude.discovery", "ude.datasets", "ude.plot", "ude.report")
install_import_hook(CHECKED, "beartype.beartype")

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    """Begin every test with the same random numbers, whatever ran before it."""
    torch.manual_seed(0)
