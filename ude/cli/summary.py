"""The result of a run in a few lines of plain text."""

from __future__ import annotations

from ude.report import Run, facts

LEVEL = 0.9


def summary(run: Run) -> str:
    """Return equations, fitted numbers with intervals, the quality of the fit, and warnings."""
    found = run.discovery
    ends = found.intervals(LEVEL)
    width = max((len(e.name) for e in found.estimates), default=0)
    lines = [*found.equations, "", f"{'':<{width}}  {'estimate':>11}  {100 * LEVEL:.0f} % interval"]
    lines += [
        f"{e.name:<{width}}  {e.value:>11.5g}  {ends[e.name][0]:.5g} to {ends[e.name][1]:.5g}" for e in found.estimates
    ]
    lines += ["", *(f"{name}: {value}" for name, value in facts(run))]
    lines += ["", "Candidates:", *(f"  {100 * c.weight:3.0f} %  {c}" for c in found.candidates[:5])]
    return "\n".join([*lines, *(f"Note: {warning}" for warning in found.warnings)])
