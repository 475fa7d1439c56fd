"""What a reproduction is: a published table, run again, with today's figures beside the printed ones."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How much to run.

    Args:
        seeds: Independent runs (noise draw and network); the spread over them is reported.
        first_seed: Seed of the first run; the others follow.
        runs: Runs per setting where the paper counted successes.
        budget: Name of the size of each run, where there are several.
        workers: Runs side by side, where a reproduction keeps its runs.
        folder: Where such runs are kept.
        progress: Show progress bars.
    """

    seeds: int = 5
    first_seed: int = 0
    runs: int = 20
    budget: str = "cpu"
    workers: int = 1
    folder: Path | None = None
    progress: bool = False


def middle(values: Sequence[float]) -> float:
    """Return the median, of an even number of values the larger of the two in the middle; NaN counts as infinite."""
    return statistics.median_high(math.inf if math.isnan(value) else value for value in values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One quantity of the table.

    Args:
        quantity: What it is, with its unit.
        paper: What was published, in words or digits.
        ours: Our value of every run.
        target: The bound that counts as reproduced, in words.
        passed: Whether the median (or what the target says) lies within it; None for a line without a target.
        digits: Significant digits to print.
    """

    quantity: str
    paper: str
    ours: Sequence[float | bool]
    target: str = ""
    passed: bool | None = None
    digits: int = 4

    @classmethod
    def at_most(cls, quantity: str, paper: str, ours: Sequence[float], bound: float) -> Line:
        """Return a line whose median must be at most `bound`."""
        passed = middle(ours) <= bound
        return cls(quantity=quantity, paper=paper, ours=ours, target=f"median <= {bound:g}", passed=passed)

    @classmethod
    def most(cls, quantity: str, paper: str, ours: Sequence[bool]) -> Line:
        """Return a line of yes and no, more than half of which must be yes."""
        return cls(quantity=quantity, paper=paper, ours=ours, target="most runs", passed=2 * sum(ours) > len(ours))

    @property
    def summary(self) -> str:
        """Median and range of the runs that have the quantity, or how many say yes."""
        if all(isinstance(value, bool) for value in self.ours):
            return f"{sum(self.ours)} of {len(self.ours)}"
        known = [value for value in self.ours if not math.isnan(value)]
        if not known:
            return "none"
        text = f"{middle(known):.{self.digits}g}"
        if len(known) > 1:
            text += f" ({min(known):.{self.digits}g} to {max(known):.{self.digits}g})"
        return text if len(known) == len(self.ours) else f"{text}, {len(known)} of {len(self.ours)} runs"


VERDICT = {True: "met", False: "MISSED", None: ""}
"""What is printed beside a target."""


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, its columns in line in plain text too."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    text = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in [head, *rows]]
    text.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The table of one reproduction and its figures.

    Args:
        lines: Quantities, ours beside the paper's.
        seconds: Wall time of the runs.
        notes: What a reader must know to judge the table.
        figures: Pictures by file name without extension.
    """

    lines: Sequence[Line]
    seconds: float
    notes: Sequence[str] = ()
    figures: dict[str, Figure] = field(default_factory=dict)

    def table(self) -> str:
        """The lines as a Markdown table."""
        head = ("quantity", "published", "ours: median (range)", "target", "")
        rows = [(line.quantity, line.paper, line.summary, line.target, VERDICT[line.passed]) for line in self.lines]
        return markdown(head, rows)

    def save(self, folder: Path, title: str) -> None:
        """Write `table.md`, `table.json` and the figures into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        notes = "\n".join(f"- {note}" for note in self.notes)
        text = f"# {title}\n\n{self.table()}\n\nThe run took {self.seconds:.0f} s.\n\n{notes}\n"
        (folder / "table.md").write_text(text)
        rows = [
            {
                "quantity": line.quantity,
                "paper": line.paper,
                "ours": list(line.ours),
                "target": line.target,
                "passed": line.passed,
            }
            for line in self.lines
        ]
        (folder / "table.json").write_text(
            json.dumps({"title": title, "seconds": self.seconds, "lines": rows}, indent=1)
        )
        for name, figure in self.figures.items():
            figure.savefig(folder / f"{name}.png", dpi=150)


class Result(Protocol):
    """What a reproduction gives back: an `Outcome`, or a table of another form."""

    @property
    def notes(self) -> Sequence[str]:
        """What a reader must know to judge the table."""
        ...

    def table(self) -> str:
        """Return the table as Markdown."""
        ...

    def save(self, folder: Path, title: str) -> None:
        """Write table, numbers and figures into a folder that exists."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """A published result and how to run it again.

    Args:
        title: What is reproduced.
        source: Where it was published.
        run: Runs it.
        budgets: How much to run, by name; `cpu` is what is run unless asked otherwise.
        keeps_runs: Whether it keeps single runs in `Settings.folder`, so that it can be interrupted.
    """

    title: str
    source: str
    run: Callable[[Settings], Result]
    budgets: Mapping[str, Settings] = field(
        default_factory=lambda: {"smoke": Settings(seeds=1, runs=4, budget="smoke"), "cpu": Settings()}
    )
    keeps_runs: bool = False
