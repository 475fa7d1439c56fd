"""Nouns that go in and come out: problems, solutions, measurements."""

from ude.problems.ode import ODEProblem
from ude.problems.solution import EventLog, Solution, SolveError, Stats, Status, Steps
from ude.problems.trajectories import Trajectories

__all__ = ["EventLog", "ODEProblem", "Solution", "SolveError", "Stats", "Status", "Steps", "Trajectories"]
