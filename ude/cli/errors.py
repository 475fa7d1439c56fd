"""How every failure leaves the command: one sentence, an exit code, and no lost work."""

from __future__ import annotations

import errno
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import click

from ude._checks import InputError, UdeWarning
from ude.datasets.remote import DownloadError
from ude.problems import SolveError

BAD_INPUT, FAILURE, INTERRUPTED = 2, 1, 130
"""Exit codes: what the user gave cannot be used; a defect of this program; Ctrl-C."""


def explain(error: BaseException) -> tuple[str, int]:
    """Return the sentence for an error and the exit code of the command."""
    if isinstance(error, InputError | DownloadError):
        return str(error), BAD_INPUT
    if isinstance(error, SolveError):
        return f"The equations could not be solved: {error}", BAD_INPUT
    if isinstance(error, KeyboardInterrupt):
        return str(error) or "Interrupted.", INTERRUPTED
    if isinstance(error, MemoryError):
        return "Not enough memory. Use fewer `--replicates`, or fewer rows.", BAD_INPUT
    if isinstance(error, OSError):
        return _explain_system(error), BAD_INPUT
    return (
        f"Unexpected {type(error).__name__}: {_first_line(error)} This is a defect: please report it with the output "
        "of the same command with `--debug`.",
        FAILURE,
    )


@contextmanager
def one_sentence(*, debug: bool = False) -> Iterator[None]:
    """Turn any error inside the block into one line on stderr and `SystemExit`; with `debug` show all of it."""
    with warnings.catch_warnings():
        if not debug:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", UdeWarning)
            warnings.showwarning = _show_warning
        try:
            yield
        except (click.exceptions.Exit, click.ClickException):
            raise
        except (Exception, KeyboardInterrupt) as error:
            sentence, code = explain(error)
            if debug:
                traceback.print_exc()
            click.echo(f"{'Interrupted' if code == INTERRUPTED else 'Error'}: {sentence}", err=True)
            raise SystemExit(code) from None


def _explain_system(error: OSError) -> str:
    name = f" {error.filename!r}" if error.filename else ""
    if error.errno == errno.ENOSPC:
        return f"The disk is full{name}. Free some space, or choose another place with `--out`."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"No permission to write or read{name}. Choose another place, or change its permissions."
    return f"{error.strerror or error}{name}. Check the place and try again."


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines() or [""]
    return lines[0].rstrip(".") + "."


def _show_warning(message: Warning | str, *_: object) -> None:
    sys.stderr.write(f"Note: {message}\n")
