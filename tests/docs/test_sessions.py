"""The sessions on the pages of the documentation run as they stand."""

import doctest
import re
from pathlib import Path

import pytest

from ude.ad.rules import table

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [
    "kernel",
    "extend",
    "choose",
    "events",
    "stochastic",
    "regularize",
    "torchdiffeq",
    "torchsde",
    "diffrax",
    "julia",
]


@pytest.mark.parametrize("page", PAGES)
def test_session_gives_the_results_that_are_printed(page, monkeypatch):
    monkeypatch.setattr(table, "_TABLE", dict(table._TABLE))  # pages register rules
    path = DOCS / f"{page}.md"
    # A fence would count as a line of the expected output.
    text = re.sub(r"(?m)^```.*$", "", path.read_text(encoding="utf-8"))
    test = doctest.DocTestParser().get_doctest(text, {}, page, str(path), 0)
    assert test.examples
    report = []
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    doctest.DocTestRunner(optionflags=flags).run(test, out=report.append)
    assert not report, "".join(report)
