"""The pages for people who come from other libraries: sessions run as they stand, and every name exists."""

import doctest
import re
from pathlib import Path

import pytest
import torch

import ude

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ["torchdiffeq", "diffrax", "julia"]


@pytest.mark.parametrize("page", PAGES)
def test_session_gives_the_results_that_are_printed(page):
    torch.manual_seed(0)
    path = DOCS / f"{page}.md"
    # A fence would count as a line of the expected output.
    text = re.sub(r"(?m)^```.*$", "", path.read_text(encoding="utf-8"))
    test = doctest.DocTestParser().get_doctest(text, {}, page, str(path), 0)
    assert test.examples
    report = []
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    doctest.DocTestRunner(optionflags=flags).run(test, out=report.append)
    assert not report, "".join(report)


@pytest.mark.parametrize("page", PAGES)
def test_every_name_on_the_page_exists(page):
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    names = set(re.findall(r"\bude((?:\.[A-Za-z_]\w*)+)", text)) - {".compat"}
    assert names
    for name in sorted(names):
        value = ude
        for part in name[1:].split("."):
            assert hasattr(value, part), f"ude{name} on page {page}"
            value = getattr(value, part)
