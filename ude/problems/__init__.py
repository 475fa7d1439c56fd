"""Nouns that go in and come out: problems, solutions, measurements."""

from ude.problems.ensemble import EnsembleProblem
from ude.problems.ode import ODEProblem
from ude.problems.solution import EventLog, Solution, SolveError, Stats, Status, Steps
from ude.problems.steady_state import SteadyStateProblem, SteadyStateSolution
from ude.problems.trajectories import Trajectories

__all__ = [
    "EnsembleProblem",
    "EventLog",
    "ODEProblem",
    "Solution",
    "SolveError",
    "Stats",
    "Status",
    "SteadyStateProblem",
    "SteadyStateSolution",
    "Steps",
    "Trajectories",
]
