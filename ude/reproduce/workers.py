"""Trainings side by side, in processes of their own."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, cast

from tqdm import tqdm

from ude._checks import InputError
from ude.reproduce.store import Store
from ude.reproduce.training import Job, train


def run_jobs(jobs: Sequence[Job], store: Store, *, workers: int = 1, progress: bool = False) -> list[dict[str, Any]]:
    """Return the record of every job, in their order; those that the store holds are not run again.

    Args:
        jobs: What to train, of one experiment; the first ones start first.
        store: Where runs are kept.
        workers: Processes, of one thread each. With one, everything happens in this process.
        progress: Show a progress bar over the epochs of all jobs.

    Raises:
        InputError: If a run fails. All others are kept up to their last whole epoch, as after an interruption.
    """
    missing = [job for job in jobs if store.finished(job.name, job.describe()) is None]
    if missing:
        total = len(missing) * missing[0].experiment.epochs
        text = f"{len(missing)} of {len(jobs)} runs"
        with tqdm(total=total, desc=text, unit=" epochs", disable=not progress) as bar:
            if min(workers, len(missing)) == 1:
                _here(missing, store, bar)
            else:
                _apart(missing, store, min(workers, len(missing)), bar)
    records = [store.finished(job.name, job.describe()) for job in jobs]
    return [record for record in records if record is not None]


def _here(jobs: Sequence[Job], store: Store, bar: tqdm) -> None:
    task = jobs[0].experiment.load()
    for job in jobs:
        train(job, task, store, report=_differences(bar.update))


def _apart(jobs: Sequence[Job], store: Store, workers: int, bar: tqdm) -> None:
    # Spawned, not forked: threads of torch do not survive a fork.
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    processes: dict[Connection, BaseProcess] = {}
    try:
        for _ in range(workers):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(queue, sender, store), daemon=True)
            process.start()
            sender.close()
            processes[receiver] = process
        for job in (*jobs, *[None] * workers):
            queue.put(job)
        _listen(dict(processes), bar)
    finally:
        # After an error or Ctrl-C the others stop where they are: every file is whole at any time.
        for process in processes.values():
            process.terminate()
            process.join()


def _listen(processes: dict[Connection, BaseProcess], bar: tqdm) -> None:
    """Move the bar on until all processes have ended."""
    while processes:
        for receiver in cast("list[Connection]", wait(list(processes))):
            try:
                message = receiver.recv()
            except EOFError:
                _check_end(processes.pop(receiver))
                continue
            if isinstance(message, str):
                raise InputError(message)
            bar.update(message)


def _check_end(process: BaseProcess) -> None:
    """Raise unless a process ended because there was nothing left to do."""
    process.join()
    code = process.exitcode or 0
    if code < 0:
        raise InputError(
            f"A process that trained was ended by signal {-code}, as it happens when memory is short. Start the same "
            "command again to go on, perhaps with `--workers 1`."
        )
    if code > 0:
        raise RuntimeError(f"A process that trained has failed with exit code {code}; its traceback stands above.")


def _work(queue: Any, sender: Connection, store: Store) -> None:
    """Train jobs until there is none left; send counts of epochs, and what went wrong as text."""
    # Ctrl-C reaches all processes of the terminal; the first one decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Leave in order when told to, so that locks of libraries are given back.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    task = None
    while (job := queue.get()) is not None:
        try:
            task = task or job.experiment.load()
            train(job, task, store, report=_differences(sender.send))
        except InputError as error:
            sender.send(str(error))
            return


def _differences(tell: Callable[[int], object]) -> Callable[[int], None]:
    """Return a function that takes how many are done and tells how many that is more than before."""
    done = 0

    def report(now: int) -> None:
        nonlocal done
        tell(now - done)
        done = now

    return report
