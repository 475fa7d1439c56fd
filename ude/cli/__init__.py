"""The command line."""

from ude.cli.app import main

__all__ = ["main"]
