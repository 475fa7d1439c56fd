"""What tests of several rooms share."""

import jaxtyping
import pytest


@pytest.fixture
def unchecked():
    """Do without the check of every annotation at every call, which doubles the time of long searches and fits.

    For tests whose calls are checked in others.
    """
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
