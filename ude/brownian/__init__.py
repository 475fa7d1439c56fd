"""Brownian paths as values: the same path can be asked again, at other times and in any order."""

from ude.brownian.path import BoundPath, Increment

__all__ = ["BoundPath", "Increment"]
