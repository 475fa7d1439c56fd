"""Rows of a delimited text file: separators, comments and encodings, and what is wrong with them."""

from __future__ import annotations

import codecs
import csv
import difflib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from ude._checks import InputError

_SEPARATORS = (",", ";", "\t", "|")
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Table:
    """A header, and rows that are read as they are asked for.

    Args:
        path: The file, for messages.
        header: Names of the columns, stripped; empty for a column without a name.
        separator: The character between fields.
        rows: Line number (counted from 1) and stripped fields of every row that is not blank.
    """

    path: Path
    header: tuple[str, ...]
    separator: str
    rows: Iterator[tuple[int, list[str]]]

    def column(self, name: str) -> int:
        """Return the index of the column `name`: an exact match, or the only one that differs in case.

        Raises:
            InputError: If there is no such column, or more than one.
        """
        exact = [i for i, column in enumerate(self.header) if column == name]
        found = exact or [i for i, column in enumerate(self.header) if column.casefold() == name.casefold()]
        if len(found) == 1 and name:
            return found[0]
        if found and name:
            raise InputError(
                f"{show(self.path)} has {len(found)} columns named {show(name)} (columns "
                f"{', '.join(str(i + 1) for i in found)}). Rename them so that every name appears once."
            )
        raise InputError(
            f"{show(self.path)} has no column {show(name)}.{suggest(name, self.header)} "
            f"{self._columns()} Name one of these, or correct the first row of the file."
        )

    def _columns(self) -> str:
        named = [show(column) for column in self.header if column]
        more = f", and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
        if len(self.header) == 1:
            more += " (no comma, semicolon, tab or | separates the first row)"
        return f"Its columns are {', '.join(named[:_SHOWN])}{more}."


def open_table(path: Path) -> tuple[Table, TextIO]:
    """Open a delimited text file and read its header; close the returned stream when done.

    Lines that start with `#` and blank lines are passed over. The separator (comma, semicolon, tab or `|`)
    is the one that the header has most of. The encoding is UTF-8, or UTF-16 with a byte order mark.

    Raises:
        InputError: If the file cannot be opened, is not text, or has no header.
    """
    stream = _open(path)
    try:
        rows, separator = _records(path, stream)
        _, header = next(rows, (0, []))
        if not any(header):
            raise InputError(f"{show(path)} is empty: expected a row of column names, then one row per time.")
    except InputError:
        stream.close()
        raise
    return Table(path, tuple(header), separator, rows), stream


def show(value: object) -> str:
    """Quote what a user typed, on one line and not too long."""
    text = value.name or str(value) if isinstance(value, Path) else str(value)
    printable = "".join(c if c.isprintable() else "?" for c in text)
    return f"'{printable}'" if len(printable) <= 60 else f"'{printable[:57]}...'"


def suggest(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?`, or nothing if no known name is close."""
    folded = {candidate.casefold(): candidate for candidate in known if candidate}
    close = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    return f" Did you mean {show(folded[close[0]])}?" if close else ""


def _open(path: Path) -> TextIO:
    try:
        with path.open("rb") as raw:
            start = raw.read(4)
        utf16 = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return path.open(encoding="utf-16" if utf16 else "utf-8-sig", newline="")
    except FileNotFoundError:
        raise InputError(f"There is no file {show(str(path))}.{_nearest_file(path)} Check the name.") from None
    except IsADirectoryError:
        raise InputError(f"{show(str(path))} is a folder: name a CSV file inside it.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{show(str(path))} cannot be read: {reason}. Check its name and permissions.") from None


def _nearest_file(path: Path) -> str:
    try:
        return suggest(path.name, [file.name for file in path.parent.iterdir()])
    except (OSError, ValueError):
        return ""


def _records(path: Path, stream: TextIO) -> tuple[Iterator[tuple[int, list[str]]], str]:
    lines = _lines(path, stream)
    passed: list[str] = []
    for line in lines:
        passed.append(line)
        if line.strip():
            break
    counts = Counter(_unquoted(passed[-1])) if passed else Counter()
    separator = max(_SEPARATORS, key=lambda s: counts[s])
    return _parse(path, _chain(passed, lines), separator), separator


def _parse(path: Path, lines: Iterator[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
    width = 0
    try:
        for record in reader:
            fields = [field.strip() for field in record]
            if not any(fields):
                continue
            width = width or len(fields)
            if len(fields) != width:
                raise InputError(
                    f"{show(path)}, line {reader.line_num}: expected {width} fields as in the first row, got "
                    f"{len(fields)}. Look for a missing or extra separator ({_name(separator)}) or an open quote."
                )
            yield reader.line_num, fields
    except csv.Error as error:
        raise InputError(
            f"{show(path)}, line {reader.line_num}: not a valid table row ({error}). Look for an open quote."
        ) from None


def _lines(path: Path, stream: TextIO) -> Iterator[str]:
    number = 0
    try:
        for number, line in enumerate(stream, 1):  # noqa: B007
            # A comment becomes a blank line, so that line numbers in messages stay right.
            yield "\n" if line.lstrip().startswith("#") else line.replace("\0", "\ufffd")
    except UnicodeError:
        raise InputError(
            f"{show(path)} is not UTF-8 text (after line {number}). Save it again as 'CSV UTF-8'."
        ) from None
    except OSError as error:
        raise InputError(f"{show(path)} cannot be read: {error.strerror}. Check the disk.") from None


def _chain(first: Sequence[str], rest: Iterator[str]) -> Iterator[str]:
    yield from first
    yield from rest


def _unquoted(line: str) -> str:
    return "".join(line.split('"')[::2])


def _name(separator: str) -> str:
    return {"\t": "tab"}.get(separator, f"'{separator}'")
