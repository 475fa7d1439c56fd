"""A progress bar over the time of a solve."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def progress_bar(t0: Tensor, t1: Tensor) -> Iterator[Callable[[Tensor], None]]:
    """Show how far the slowest sample has come; yields the function to call with the times reached.

    Args:
        t0: Start per sample, shape `(batch,)`.
        t1: End per sample.
    """
    from tqdm import tqdm

    start, span = t0.detach(), (t1 - t0).detach()
    layout = "{l_bar}{bar}| {elapsed}<{remaining}{postfix}"
    with tqdm(total=1.0, desc="solve", bar_format=layout) as bar:

        def report(t: Tensor) -> None:
            fraction = torch.where(span == 0, 1.0, (t.detach() - start) / span)
            slowest = int(fraction.argmin())
            bar.set_postfix_str(f"t = {float(t[slowest]):.6g}", refresh=False)
            # A checkpointed backward pass reports a second time.
            bar.update(max(float(fraction[slowest]) - bar.n, 0.0))

        yield report
