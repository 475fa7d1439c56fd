"""Errors that programs written for torchdiffeq, which asserts, catch as they always did."""

from __future__ import annotations

from ude.problems import Solution, SolveError, Status

ASSERTIONS = {
    Status.MAX_STEPS: "max_num_steps exceeded",
    Status.STEP_TOO_SMALL: "underflow in dt",
    Status.NON_FINITE: "non-finite values in state `y`",
}
"""What torchdiffeq says in the same place; programs look for these words."""


class ArgumentError(ValueError, AssertionError):
    """An argument cannot be used. The message says what was expected and what to do."""


class OdeintError(SolveError, AssertionError):
    """A solve failed. The message begins as torchdiffeq's and goes on with where, why and what helps.

    Attributes:
        solution: What was computed up to the failure.
    """

    @classmethod
    def of(cls, error: SolveError) -> OdeintError:
        """Return the error of a solve as one of this kind."""
        solution: Solution = error.solution
        words = ASSERTIONS.get(Status(int(solution.status)), "")
        return cls(f"{words}: {error}" if words else str(error), solution)


class SdeintError(SolveError, AssertionError):
    """A solve of a stochastic equation failed. The message says where, why and what helps.

    Attributes:
        solution: What was computed up to the failure.
    """
