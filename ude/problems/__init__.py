"""Nouns that go in and come out: problems, solutions, measurements."""

from typing import TypeAlias

from ude.problems.ensemble import EnsembleProblem
from ude.problems.ode import ODEProblem
from ude.problems.sde import Interpretation, Noise, SDEProblem
from ude.problems.solution import EventLog, Solution, SolveError, Stats, Status, Steps
from ude.problems.steady_state import SteadyStateProblem, SteadyStateSolution
from ude.problems.trajectories import Trajectories

Problem: TypeAlias = ODEProblem | SDEProblem
"""What `solve` solves, one at a time."""

__all__ = [
    "EnsembleProblem",
    "EventLog",
    "Interpretation",
    "Noise",
    "ODEProblem",
    "Problem",
    "SDEProblem",
    "Solution",
    "SolveError",
    "Stats",
    "Status",
    "SteadyStateProblem",
    "SteadyStateSolution",
    "Steps",
    "Trajectories",
]
