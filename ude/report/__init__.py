"""From a job to a folder of results with a report, and back to the model."""

from ude.report.compose import Source, facts
from ude.report.folder import check_target
from ude.report.job import LIBRARIES, STRATEGIES, Job, Network, Run, run_job
from ude.report.load import load
from ude.report.write import write_report

__all__ = [
    "LIBRARIES",
    "STRATEGIES",
    "Job",
    "Network",
    "Run",
    "Source",
    "check_target",
    "facts",
    "load",
    "run_job",
    "write_report",
]
