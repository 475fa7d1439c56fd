"""Every name on the pages for people who come from other libraries exists; tests/docs runs their sessions."""

import re
from pathlib import Path

import pytest

import ude

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ["torchdiffeq", "torchsde", "diffrax", "julia"]


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
