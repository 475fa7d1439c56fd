"""Measurements from a CSV file, with one clear sentence for everything that can be wrong with it."""

from __future__ import annotations

import datetime
import math
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ude._checks import InputError
from ude.datasets.table import Table, open_table, show
from ude.problems import Trajectories

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2})?)?", re.ASCII)
_EPOCH = datetime.datetime(1970, 1, 1)
_DAY = 86400.0
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "None", "-", "?")
"""What marks a value that was not measured."""


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where the wanted columns are in a row; `names` are the states, then the inputs."""

    time: int
    group: int | None
    values: tuple[int, ...]
    names: tuple[str, ...]
    optional: int


@dataclass(slots=True)
class _Rows:
    """What was read of one trajectory, row by row."""

    lines: list[int] = field(default_factory=list)
    ts: array[float] = field(default_factory=lambda: array("d"))
    values: array[float] = field(default_factory=lambda: array("d"))


def read_csv(
    path: str | Path,
    *,
    time: str,
    states: Sequence[str] | None = None,
    inputs: Sequence[str] = (),
    hidden: Sequence[str] = (),
    group: str | None = None,
    sort: bool = False,
    decimal: str = ".",
) -> Trajectories:
    r"""Read measurements from a delimited text file with a row of column names.

    The separator (comma, semicolon, tab or `|`) is recognised; lines that start with `#` are comments. Column
    names match exactly, or without regard to case if that is unambiguous. An empty cell or one of `MISSING` in a
    state means "not measured". A time column of ISO dates (`2020-01-22`) becomes days since the first date.

    Args:
        path: The file, UTF-8 text.
        time: Name of the time column.
        states: Names of the state columns; every column not named otherwise by default.
        inputs: Names of exogenous input columns; these must have a value in every row.
        hidden: Names of states that have no column because they were never observed; they follow `states`.
        group: Name of a column that tells trajectories apart; their rows may be interleaved.
        sort: Sort the rows of every trajectory by time instead of refusing unordered ones.
        decimal: The decimal mark, `.` or `,`.

    Returns:
        One trajectory per value of the group column, in the order of their first rows.

    Raises:
        InputError: If the file or its contents cannot be used, with the line, the column and what to do.

    Example:
        >>> path = getfixture("tmp_path") / "decay.csv"
        >>> _ = path.write_text("t;x;y\n0;1.0;5\n1;0.5;\n2;0.25;7")
        >>> read_csv(path, time="t").ys[0, :, 1]
        tensor([5., nan, 7.], dtype=torch.float64)
    """
    path = Path(path)
    if decimal not in (".", ","):
        raise InputError(f"The decimal mark must be '.' or ',', got {show(decimal)}.")
    table, stream = open_table(path)
    with stream:
        columns = _locate(table, time, states, tuple(inputs), group)
        trajectories, zero_date = _collect(table, columns, decimal)
    if not trajectories:
        raise InputError(f"{show(path)} has column names but no rows. Add one row per measured time.")
    for name, rows in trajectories.items():
        _check_times(path, name, rows, len(columns.names), sort)
    label = f"{time} (days since {zero_date:%Y-%m-%d})" if zero_date else time
    return _assemble(path, trajectories, columns, tuple(hidden), label)


def column_names(path: str | Path) -> tuple[str, ...]:
    """Return the names in the first row of a delimited text file.

    Raises:
        InputError: If the file cannot be read.
    """
    table, stream = open_table(Path(path))
    stream.close()
    return tuple(name for name in table.header if name)


def _locate(
    table: Table, time: str, states: Sequence[str] | None, inputs: tuple[str, ...], group: str | None
) -> _Columns:
    t, g = table.column(time), None if group is None else table.column(group)
    at_inputs = [table.column(name) for name in inputs]
    if states is None:
        taken = {t, g, *at_inputs}
        states = [name for i, name in enumerate(table.header) if name and i not in taken]
    at_states = [table.column(name) for name in states]
    used = [t, *([] if g is None else [g]), *at_states, *at_inputs]
    for index in used:
        if used.count(index) > 1:
            raise InputError(
                f"The column {show(table.header[index])} was named more than once among time, group, states and "
                "inputs. Give every column one role."
            )
    if not at_states:
        raise InputError(f"{show(table.path)} has no column for a state beside {show(time)}. Add the measurements.")
    return _Columns(t, g, tuple(at_states + at_inputs), (*states, *inputs), len(at_states))


def _collect(table: Table, columns: _Columns, decimal: str) -> tuple[dict[str, _Rows], datetime.datetime | None]:
    """Read all rows; dates are counted in days from the first of them."""
    trajectories: dict[str, _Rows] = {}
    dated: bool | None = None
    first = math.inf
    for line, fields in table.rows:
        name = "1" if columns.group is None else fields[columns.group]
        if not name:
            raise InputError(f"{show(table.path)}, line {line}: the group is empty. Name the trajectory of this row.")
        text = fields[columns.time]
        dated = bool(_DATE.fullmatch(text)) if dated is None else dated
        where = (table, line, columns.time)
        t = _date(text, *where) if dated else _number(text, *where, decimal, optional=False)
        first = min(first, t)
        rows = trajectories.setdefault(name, _Rows())
        rows.lines.append(line)
        rows.ts.append(t)
        for k, index in enumerate(columns.values):
            rows.values.append(_number(fields[index], table, line, index, decimal, optional=k < columns.optional))
    if not dated:
        return trajectories, None
    zero = _EPOCH + datetime.timedelta(days=math.floor(first))
    for rows in trajectories.values():
        rows.ts = array("d", (t - math.floor(first) for t in rows.ts))
    return trajectories, zero


def _number(text: str, table: Table, line: int, column: int, decimal: str, *, optional: bool) -> float:
    if text in MISSING:
        if optional:
            return math.nan
        raise InputError(
            f"{_where(table, line, column)}: no value. Times and inputs must be known in every row: fill it in, or "
            "remove the row."
        )
    value = text.replace(",", ".") if decimal == "," and "." not in text else text
    if not _NUMBER.fullmatch(value):
        hint = "Correct it" + (", or leave the cell empty if it was not measured." if optional else ".")
        if decimal == "." and _NUMBER.fullmatch(text.replace(",", ".")):
            hint = "If the comma is a decimal mark, say so (`decimal=','`, on the command line `--decimal ,`)."
        raise InputError(f"{_where(table, line, column)}: expected a number, got {show(text)}. {hint}")
    number = float(value)
    if math.isinf(number):
        raise InputError(f"{_where(table, line, column)}: {show(text)} is too large for a number. Change its unit.")
    return number


def _date(text: str, table: Table, line: int, column: int) -> float:
    try:
        if _DATE.fullmatch(text):
            return (datetime.datetime.fromisoformat(text) - _EPOCH).total_seconds() / _DAY
    except ValueError:
        pass
    raise InputError(
        f"{_where(table, line, column)}: expected a date like 2020-01-31, as in the first row, got {show(text)}. "
        "Write all times in the same way."
    )


def _where(table: Table, line: int, column: int) -> str:
    return f"{show(table.path)}, line {line}, column {show(table.header[column])}"


def _check_times(path: Path, name: str, rows: _Rows, width: int, sort: bool) -> None:
    """Refuse unordered or repeated times and too few rows; sort first if asked to."""
    if sort:
        order = sorted(range(len(rows.ts)), key=rows.ts.__getitem__)
        rows.values = array("d", (rows.values[i * width + k] for i in order for k in range(width)))
        rows.lines = [rows.lines[i] for i in order]
        rows.ts = array("d", (rows.ts[i] for i in order))
    trajectory = "" if name == "1" else f" of group {show(name)}"
    for i in range(1, len(rows.ts)):
        before, t = rows.ts[i - 1], rows.ts[i]
        if t > before:
            continue
        lines = f"lines {rows.lines[i - 1]} and {rows.lines[i]}"
        if t == before:
            raise InputError(
                f"{show(path)}, {lines}: the time {t:g}{trajectory} is repeated. Keep one row per time (average "
                "repeated measurements), or tell trajectories apart with a group column."
            )
        raise InputError(
            f"{show(path)}, {lines}: the time{trajectory} decreases from {before:g} to {t:g}. Sort the rows "
            "(`sort=True`, `--sort`), or tell trajectories apart with a group column (`group=`, `--group`)."
        )
    if len(rows.ts) < 2:
        raise InputError(f"{show(path)} has only one row{trajectory}: at least two times are needed.")


def _assemble(
    path: Path, trajectories: dict[str, _Rows], columns: _Columns, hidden: tuple[str, ...], time: str
) -> Trajectories:
    width, observed = len(columns.names), columns.optional
    ts = [torch.frombuffer(rows.ts, dtype=torch.float64) for rows in trajectories.values()]
    values = [torch.frombuffer(rows.values, dtype=torch.float64).view(-1, width) for rows in trajectories.values()]
    length = max(map(len, ts))
    never = [name for k, name in enumerate(columns.names) if all(bool(v[:, k].isnan().all()) for v in values)]
    if never:
        raise InputError(
            f"{show(path)}: the column {show(never[0])} has no measured value. Remove it, and declare the state as "
            f"never observed if an equation needs it (`hidden=`, `--hidden {never[0]}`)."
        )
    ys = torch.full((len(ts), length, observed + len(hidden)), torch.nan, dtype=torch.float64)
    inputs = torch.empty((len(ts), length, width - observed), dtype=torch.float64)
    for i, rows in enumerate(values):
        ys[i, : len(rows), :observed] = rows[:, :observed]
        inputs[i] = torch.cat([rows[:, observed:], rows[-1:, observed:].expand(length - len(rows), -1)])
    return Trajectories(
        ts=torch.stack([torch.cat([t, t[-1:].expand(length - len(t))]) for t in ts]),
        ys=ys,
        states=(*columns.names[:observed], *hidden),
        inputs=inputs if width > observed else None,
        input_names=columns.names[observed:],
        groups=tuple(trajectories),
        time=time,
    )
