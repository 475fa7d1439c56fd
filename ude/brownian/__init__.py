"""Brownian paths as values: the same path can be asked again, at other times and in any order."""

from ude.brownian.grid import BoundGrid, BrownianGrid
from ude.brownian.path import BoundPath, Increment
from ude.brownian.recorded import RecordedPath
from ude.brownian.tree import BoundTree, BrownianTree

__all__ = ["BoundGrid", "BoundPath", "BoundTree", "BrownianGrid", "BrownianTree", "Increment", "RecordedPath"]
