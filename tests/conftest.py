"""What tests of several rooms share."""

import gc

import jaxtyping
import pytest


def pytest_collection_finish() -> None:
    """Keep what is there now out of later garbage collections: they would go through millions of objects every time."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def unchecked():
    """Do without the check of every annotation at every call, which doubles the time of long searches and fits.

    For tests whose calls are checked in others.
    """
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
