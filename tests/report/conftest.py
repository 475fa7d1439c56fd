"""One small run that all tests of the report share."""

import pytest
import torch

from ude.problems import Trajectories
from ude.report import Job, run_job
from ude.systems import logistic_solution


@pytest.fixture(scope="package")
def run():
    t = torch.arange(13, dtype=torch.float64)
    data = Trajectories.from_arrays(t, 10 * logistic_solution(t, rate=0.7), states=("n",))
    job = Job(equations=("n' = r*n + ?(n)",), positive=("r",), replicates=2, quick=True)
    return run_job(job, data)
