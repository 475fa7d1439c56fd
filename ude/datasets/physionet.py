"""The intensive-care records of the PhysioNet challenge of 2012, on a grid of hours."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ude._checks import InputError
from ude.datasets.folder import data_folder
from ude.datasets.table import show, suggest

HOURS = 49
"""Points of the grid: hours 0 to 48 after admission."""

VARIABLES = (
    *("Albumin", "ALP", "ALT", "AST", "Bilirubin", "BUN", "Cholesterol", "Creatinine", "DiasABP", "FiO2", "GCS"),
    *("Glucose", "HCO3", "HCT", "HR", "K", "Lactate", "Mg", "MAP", "MechVent", "Na", "NIDiasABP", "NIMAP"),
    *("NISysABP", "PaCO2", "PaO2", "pH", "Platelets", "RespRate", "SaO2", "SysABP", "Temp", "TroponinI"),
    *("TroponinT", "Urine", "WBC", "Weight"),
)
"""What is measured over time."""

_DESCRIPTORS = ("RecordID", "Age", "Gender", "Height", "ICUType")
_COLUMNS = {name: i for i, name in enumerate((*VARIABLES, *_DESCRIPTORS))}
# Half an hour goes to the even hour, 00:30 to 0 and 01:30 to 2, as `round` does in the code of both papers.
_NEAREST_HOUR = {f"{m // 60:02}:{m % 60:02}": round(m / 60) for m in range(60 * (HOURS - 1) + 1)}
_HEADER = ["Time", "Parameter", "Value"]
_SETS = ("a", "b", "c")
_PATIENTS = 4000  # in every set; for the progress bar only


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientRecords:
    """Hourly measurements of patients; the first axis is the patient.

    Args:
        ts: Times of the grid in units of 48 hours, 0 to 1, shape `(hours,)`.
        values: Measured values, 0 where nothing was measured, shape `(patients, hours, variables)`.
        mask: Whether a value was measured, `bool`, shape of `values`.
        names: Names of the variables.
        ids: Record number of each patient, `int64`, shape `(patients,)`.
        low: What was subtracted from each variable when the values were scaled, shape `(variables,)`; none for
            values in the units of the records.
        high: What each variable was then divided by.

    Raises:
        ValueError: If shapes do not fit together.
    """

    ts: Tensor
    values: Tensor
    mask: Tensor
    names: tuple[str, ...]
    ids: Tensor
    low: Tensor | None = None
    high: Tensor | None = None

    def __post_init__(self) -> None:
        expected = (len(self.ids), len(self.ts), len(self.names))
        if self.values.shape != expected or self.mask.shape != expected or self.mask.dtype != torch.bool:
            raise ValueError(
                f"`values` and a bool `mask` must have shape (patients, hours, variables) = {expected}, got "
                f"{tuple(self.values.shape)} and {tuple(self.mask.shape)} of {self.mask.dtype}."
            )

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, patients: Tensor) -> PatientRecords:
        """Return the patients at these positions, an `int64` tensor, in this order."""
        return replace(self, values=self.values[patients], mask=self.mask[patients], ids=self.ids[patients])

    def scaled(self, by: PatientRecords | None = None) -> PatientRecords:
        r"""Scale every variable as $(x - \min) / \max$, with extremes over what was measured; the rest stays 0.

        Divided by the maximum and not by the range, as in the code of the papers; a maximum of 0 counts as 1.

        Args:
            by: Patients whose extremes are used, in the units of the records; these patients by default. The papers
                take those of all patients, test patients included. With `by=train` the test set stays unseen.

        Raises:
            ValueError: If the values are scaled already, or if a variable was measured here but never in `by`.
        """
        by = self if by is None else by
        if self.low is not None or by.low is not None:
            raise ValueError("The values are scaled already. Start from `physionet2012(..., scaled=False)`.")
        low = torch.where(by.mask, by.values, torch.inf).amin(dim=(0, 1))
        high = torch.where(by.mask, by.values, -torch.inf).amax(dim=(0, 1))
        unseen = low > high
        lost = unseen & self.mask.any(dim=(0, 1))
        if bool(lost.any()):
            names = ", ".join(name for name, is_lost in zip(self.names, lost.tolist(), strict=True) if is_lost)
            raise ValueError(
                f"Expected every variable to be measured among the {len(by)} patients in `by`, got none of {names}. "
                "Take the extremes of more patients."
            )
        low = torch.where(unseen, 0.0, low)
        high = torch.where(unseen | (high == 0), 1.0, high)
        return replace(self, values=torch.where(self.mask, (self.values - low) / high, 0.0), low=low, high=high)

    def split(
        self, train: int | float, test: int | float | None = None, *, generator: torch.Generator
    ) -> tuple[PatientRecords, PatientRecords]:
        """Divide the patients at random into two sets that have none in common.

        Args:
            train: How many patients the first set has (an `int`), or which fraction of all of them (a `float`).
            test: The same of the second set; by default all that are left.
            generator: Source of the random order.

        Raises:
            ValueError: If a set would be empty, or if there are not enough patients.
        """
        first = self._count("train", train)
        second = len(self) - first if test is None else self._count("test", test)
        if first < 1 or second < 1 or first + second > len(self):
            raise ValueError(
                f"Expected at least one patient in each set and at most {len(self)} together, got {first} to train "
                f"and {second} to test. Change `train` or `test`."
            )
        order = torch.randperm(len(self), generator=generator, device=generator.device).to(self.ids.device)
        return self.take(order[:first]), self.take(order[first : first + second])

    def _count(self, name: str, share: int | float) -> int:
        if isinstance(share, int):
            return share
        if not 0 < share < 1:
            raise ValueError(f"`{name}` must be a number of patients (int) or a fraction in (0, 1), got {share!r}.")
        return round(share * len(self))


def physionet2012(
    folder: str | Path | None = None, *, sets: Sequence[str] = ("a",), scaled: bool = True, progress: bool = False
) -> PatientRecords:
    r"""Read intensive-care records of the PhysioNet challenge of 2012 on a grid of hours.

    From `physionet2012/set-a.tar.gz`, read in place, or else from the folder `physionet2012/set-a`; likewise of
    other sets. `ude download physionet2012` fetches the archive. The preprocessing is that of the latent ODE
    experiments of Kelly et al. (2020), whose file Pal et al. (2021) appear to use too:

    - times go to the nearest hour, half an hour to the even one;
    - several readings of a variable in one hour become their mean;
    - 37 variables are kept; Age, Gender, Height and ICUType are not, and Weight at admission is a reading at hour 0;
    - each variable is scaled as $(x - \min) / \max$ over what was measured, the rest is 0;
    - nothing is cleaned: a Weight of -1, which means unknown, counts as a reading (also in means and extremes), and
      impossible values (a pH of 735) widen the scale.

    What the papers differ in comes after this function. Both scale by the extremes of all 8000 patients of sets a
    and b. Kelly et al. keep a random 80 % (6400) and test on the very patients they train on; Pal et al. divide
    that file once more, 5120 to train and 1280 to test. With set a alone, as here by default, the extremes are those
    of its 4000 patients.

    Args:
        folder: The folder of data sets; see `data_folder`.
        sets: Which of the sets `a`, `b` and `c`.
        scaled: Scale by the extremes of all patients read, as the papers do. For those of the training patients
            alone, read with `scaled=False`, split, then `test.scaled(train)` and `train.scaled()`.
        progress: Show a progress bar.

    Returns:
        Records in `float64`, ordered by record number.

    Raises:
        InputError: If a file is missing or cannot be understood, with the record, the line and what to do.

    Reference:
        Silva, Moody, Scott, Celi and Mark (2012), "Predicting in-hospital mortality of ICU patients"; Kelly et al.
        (2020), "Learning differential equations that are easy to solve"; Pal et al. (2021), "Opening the blackbox".
    """
    place = data_folder(folder) / "physionet2012"
    if not sets or not set(sets) <= set(_SETS) or len(set(sets)) != len(sets):
        raise InputError(f"`sets` must name different sets among {', '.join(_SETS)}, got {tuple(sets)}.")
    grids: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for letter in sets:
        for name, text in _records(_source(place, letter), progress):
            record = _record_id(name)
            if record in grids:
                raise InputError(f"The record {record} occurs twice. Remove one of the two files.")
            grids[record] = _hourly(name, text)
    if not grids:
        raise InputError(
            f"There is no record in {show(str(place))}: expected files like 132539.txt. Download it again."
        )
    ids = sorted(grids)
    shape = (len(ids), HOURS, len(VARIABLES))
    records = PatientRecords(
        ts=torch.arange(HOURS, dtype=torch.float64) / (HOURS - 1),
        values=torch.from_numpy(np.stack([grids[i][0] for i in ids]).reshape(shape)),
        mask=torch.from_numpy(np.stack([grids[i][1] for i in ids]).reshape(shape)),
        names=VARIABLES,
        ids=torch.tensor(ids),
    )
    return records.scaled() if scaled else records


def _hourly(name: str, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of the readings per hour and variable, and whether there is one, as flat arrays."""
    try:
        hours, columns, values = _parse(text)
    except (KeyError, ValueError):
        raise InputError(_fault(name, text)) from None
    is_series = columns < len(VARIABLES)
    cells, values = (hours * len(VARIABLES) + columns)[is_series], values[is_series]
    size = HOURS * len(VARIABLES)
    counts = np.bincount(cells, minlength=size)
    return np.bincount(cells, weights=values, minlength=size) / np.maximum(counts, 1), counts > 0


def _parse(text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return hours, indices in `_COLUMNS` and values of all rows; a `KeyError` or `ValueError` if one is wrong."""
    # Whole columns at once: 1.8 million rows take a second this way. `_fault` looks up what is wrong if something is.
    fields = ",".join(text.split()).split(",")
    hours = np.array([_NEAREST_HOUR[time] for time in fields[3::3]], dtype=np.int64)
    columns = np.array([_COLUMNS[parameter] for parameter in fields[4::3]], dtype=np.int64)
    values = np.array(fields[5::3], dtype=np.float64)
    if fields[:3] != _HEADER or not len(hours) == len(columns) == len(values) or not np.isfinite(values).all():
        raise ValueError("not a table of three columns")
    return hours, columns, values


def _fault(name: str, text: str) -> str:
    """Return what is wrong with a record, and where."""
    lines = text.splitlines()
    if not lines or lines[0].strip().split(",") != _HEADER:
        got = show(lines[0]) if lines else "an empty file"
        return f"{show(name)}: expected the first line {show(','.join(_HEADER))}, got {got}. Download the set again."
    for number, line in enumerate(lines[1:], 2):
        fields = line.strip().split(",")
        where = f"{show(name)}, line {number}"
        if line.strip() and len(fields) != 3:
            return f"{where}: expected time,parameter,value, got {show(line)}. Correct or remove the line."
        if line.strip() and fields[0] not in _NEAREST_HOUR:
            return f"{where}: expected a time 00:00 to 48:00, got {show(fields[0])}. Correct or remove the line."
        if line.strip() and fields[1] not in _COLUMNS:
            hint = suggest(fields[1], _COLUMNS)
            return f"{where}: {show(fields[1])} is not a parameter.{hint} Correct or remove the line."
        if line.strip() and not _is_number(fields[2]):
            return f"{where}: expected a finite number, got {show(fields[2])}. Correct or remove the line."
    return f"{show(name)} is not a table of times, parameters and values. Download the set again."


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _record_id(name: str) -> int:
    stem = Path(name).stem
    if not (stem.isascii() and stem.isdigit()):
        raise InputError(f"Expected a record named by its number like '132539.txt', got {show(name)}. Remove the file.")
    return int(stem)


def _source(place: Path, letter: str) -> Path:
    for path, is_there in ((place / f"set-{letter}.tar.gz", Path.is_file), (place / f"set-{letter}", Path.is_dir)):
        if is_there(path):
            return path
    raise InputError(
        f"There is neither 'set-{letter}.tar.gz' nor a folder 'set-{letter}' in {show(str(place))}. Fetch it with "
        "`ude download physionet2012 --data DIR`, or correct `--data` or UDE_DATA."
    )


def _records(source: Path, progress: bool) -> Iterator[tuple[str, str]]:
    """Go through name and text of every record of a set."""
    from tqdm import tqdm

    if source.is_dir():
        files = sorted(file for file in source.glob("*.txt") if not file.name.startswith("."))
        found, total = ((file.name, _text(file.name, file.read_bytes())) for file in files), len(files)
    else:
        found, total = _members(source), _PATIENTS
    yield from tqdm(found, total=total, desc=source.name, unit=" records", disable=not progress)


def _members(archive: Path) -> Iterator[tuple[str, str]]:
    """Go through a compressed archive once, from front to back."""
    try:
        # Not tarfile's own "r|gz": it neither checks the sum at the end nor notices every missing tail.
        with gzip.open(archive) as content, tarfile.open(fileobj=content, mode="r|") as stream:
            for member in stream:
                name = Path(member.name).name
                file = stream.extractfile(member) if member.isfile() else None
                if file is not None and name.endswith(".txt") and not name.startswith("."):
                    yield name, _text(name, file.read())
            while content.read(1 << 20):  # to the end, where the sum is
                pass
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{show(archive)} is not a whole archive ({error}). Download it again.") from None


def _text(name: str, content: bytes) -> str:
    try:
        return content.decode("ascii")
    except UnicodeDecodeError:
        raise InputError(f"{show(name)} is not plain text. Download the set again.") from None
