"""A table with one row per way of training, and what each gains over the first, seed by seed."""

from __future__ import annotations

import csv
import json
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ude.plot import style
from ude.reproduce.reproduction import VERDICT, Settings, markdown
from ude.reproduce.store import Store, write_json
from ude.reproduce.training import Experiment, Job, Variant
from ude.reproduce.workers import run_jobs

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Column:
    """A figure of every run.

    Args:
        key: Its name in the record's `result`.
        title: Head of the column, with the unit.
        scale: Factor to that unit.
    """

    key: str
    title: str
    scale: float = 1.0


TIMES = (
    Column("train_wall_s", "training, s"),
    Column("train_cpu_s", "training, CPU s"),
    Column("predict_wall_s", "prediction, s"),
    Column("predict_cpu_s", "prediction, CPU s"),
)
"""Columns that every table of trainings has."""


def faster(ours: float, vanilla: float) -> float:
    """How many times faster than without regularization."""
    return vanilla / ours


def relative(ours: float, vanilla: float) -> float:
    """Relative to without regularization."""
    return ours / vanilla


def difference(ours: float, vanilla: float) -> float:
    """How much more than without regularization."""
    return ours - vanilla


@dataclass(frozen=True, slots=True)
class Ratio:
    """A row against the first one, with the same seed.

    Args:
        variant: Key of the row.
        quantity: What is compared, in words.
        key: Its name in the record's `result`.
        how: From the row's figure and that of the first row.
        published: What the source says.
        at_least: Target of the mean over seeds.
        at_most: Likewise from above.
    """

    variant: str
    quantity: str
    key: str
    how: Callable[[float, float], float]
    published: str = ""
    at_least: float | None = None
    at_most: float | None = None

    @property
    def target(self) -> str:
        """The target in words."""
        bounds = ((">=", self.at_least), ("<=", self.at_most))
        return " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)

    def passed(self, values: Sequence[float]) -> bool | None:
        """Whether the mean meets the target; None without one."""
        if not self.target:
            return None
        mean = statistics.fmean(values)
        return (self.at_least is None or mean >= self.at_least) and (self.at_most is None or mean <= self.at_most)


def spread(values: Sequence[float]) -> str:
    """Return mean and standard deviation of the seeds in words; of one seed, its value.

    Example:
        >>> spread([1.0, 2.0, 3.0])
        '2 +- 1'
    """
    mean = f"{statistics.fmean(values):.4g}"
    return mean if len(values) == 1 else f"{mean} +- {statistics.stdev(values):.2g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The finished table.

    Args:
        variants: Its rows; the first one is that without regularization.
        records: Of all runs, as `train` returns them.
        columns: Figures of the runs.
        ratios: What is compared with the first row.
        published: The source's figures in words, by row and column; only what is known for certain.
        notes: What a reader must know to judge the table.
        curve: Name of the figure that is drawn over the epochs beside NFE.
    """

    variants: Sequence[Variant]
    records: Sequence[Mapping[str, Any]]
    columns: Sequence[Column]
    ratios: Sequence[Ratio]
    published: Mapping[str, Mapping[str, str]]
    notes: Sequence[str] = ()
    curve: str = "test_loss"
    _of: dict[str, dict[int, Mapping[str, Any]]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        found: dict[str, dict[int, Mapping[str, Any]]] = {variant.key: {} for variant in self.variants}
        for record in self.records:
            found[record["settings"]["variant"]][record["settings"]["seed"]] = record
        object.__setattr__(self, "_of", found)

    def values(self, variant: str, key: str) -> list[float]:
        """Return a figure of a row for every seed."""
        return [record["result"][key] for record in self._of[variant].values()]

    def compared(self, ratio: Ratio) -> list[float]:
        """Return what `ratio` asks for, for every seed."""
        base, runs = self._of[self.variants[0].key], self._of[ratio.variant]
        return [ratio.how(runs[s]["result"][ratio.key], base[s]["result"][ratio.key]) for s in runs]

    def table(self) -> str:
        """Figures, ours above the published ones, then the gains, as two Markdown tables."""
        seeds = len(self._of[self.variants[0].key])
        rows = []
        for variant in self.variants:
            ours = [spread([c.scale * v for v in self.values(variant.key, c.key)]) for c in self.columns]
            rows.append((variant.title, *ours))
            known = self.published.get(variant.key)
            if known:
                rows.append(("- published", *(known.get(column.key, "") for column in self.columns)))
        head = ("mean +- deviation over seeds" if seeds > 1 else "one seed", *(column.title for column in self.columns))
        return f"{markdown(head, rows)}\n\n{markdown(self._gain_head, self._gains())}"

    @property
    def _gain_head(self) -> tuple[str, ...]:
        return (f"against {self.variants[0].title}", "quantity", "published", "ours", "target", "")

    def _gains(self) -> list[tuple[str, ...]]:
        titles = {variant.key: variant.title for variant in self.variants}
        rows = []
        for ratio in self.ratios:
            values = self.compared(ratio)
            verdict = VERDICT[ratio.passed(values)]
            rows.append((titles[ratio.variant], ratio.quantity, ratio.published, spread(values), ratio.target, verdict))
        return rows

    def save(self, folder: Path, title: str) -> None:
        """Write `table.md`, `table.json`, `runs.csv`, `epochs.csv` and `nfe.png` into `folder`."""
        notes = "\n".join(f"- {note}" for note in self.notes)
        (folder / "table.md").write_text(f"# {title}\n\n{self.table()}\n\n{notes}\n", encoding="utf-8")
        gains = [
            {
                "variant": ratio.variant,
                "quantity": ratio.quantity,
                "published": ratio.published,
                "ours": self.compared(ratio),
                "target": ratio.target,
                "passed": ratio.passed(self.compared(ratio)),
            }
            for ratio in self.ratios
        ]
        write_json(folder / "table.json", {"title": title, "published": self.published, "gains": gains})
        keys = [(record["settings"]["variant"], record["settings"]["seed"]) for record in self.records]
        runs = [record["result"] for record in self.records]
        _write_csv(folder / "runs.csv", [{"variant": v, "seed": s, **r} for (v, s), r in zip(keys, runs, strict=True)])
        epochs = [
            {"variant": v, "seed": s, **row}
            for (v, s), record in zip(keys, self.records, strict=True)
            for row in record["epochs"]
        ]
        _write_csv(folder / "epochs.csv", epochs)
        self.figure().savefig(folder / "nfe.png", dpi=150)

    def figure(self) -> Figure:
        """Draw NFE and the other figure over the epochs: means, and the range over seeds."""
        figure, axes = style.panels(1, 2, height=2.6)
        names = {"test_nfe": "NFE, test data", self.curve: self.curve.replace("_", " ")}
        for ax, (key, text) in zip(axes[0], names.items(), strict=True):
            for variant, colour in zip(self.variants, style.PALETTE, strict=False):
                runs = [[row[key] for row in record["epochs"]] for record in self._of[variant.key].values()]
                values = np.array(runs)
                epochs = np.arange(1, values.shape[1] + 1)
                ax.fill_between(epochs, values.min(0), values.max(0), color=colour, alpha=0.15, lw=0)
                ax.plot(epochs, values.mean(0), color=colour, lw=1.6, label=variant.title)
            style.title(ax, text)
            ax.set_xlabel("epoch", fontsize=9.5)
            style.whole_numbers(ax)
        axes[0, 0].set_ylim(bottom=0)
        if self.curve.endswith("loss"):
            axes[0, 1].set_yscale("log")
        style.legend(figure, axes[0, 0])
        return figure


def _write_csv(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def compare(
    settings: Settings,
    experiment: Experiment,
    variants: Sequence[Variant],
    *,
    columns: Sequence[Column],
    ratios: Sequence[Ratio],
    published: Mapping[str, Mapping[str, str]],
    notes: Sequence[str],
    curve: str,
) -> Comparison:
    """Train every row with every seed, all rows of a seed one after the other, and compare them.

    Runs are kept in `settings.folder`, or, without one, only until the end.
    """
    seeds = range(settings.first_seed, settings.first_seed + settings.seeds)
    jobs = [Job(experiment, variant, seed) for seed in seeds for variant in variants]
    with tempfile.TemporaryDirectory() as passing:
        folder = settings.folder
        store = Store.open(Path(passing) / "runs" if folder is None else folder)
        records = run_jobs(jobs, store, workers=settings.workers, progress=settings.progress)
    return Comparison(
        variants=variants,
        records=records,
        columns=columns,
        ratios=ratios,
        published=published,
        notes=[*notes, *_machines(records)],
        curve=curve,
    )


def _machines(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return where the runs were made, one note per machine and state of the program."""
    kinds = {json.dumps(record["machine"]) for record in records}
    return [
        f"Made with ude {m['ude']} (commit {m['commit'] or 'not known'}), torch {m['torch']}, on {m['processor']}."
        for m in map(json.loads, sorted(kinds))
    ]
