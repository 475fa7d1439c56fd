"""The page: complete, self-contained, and deaf to markup in what a user typed."""

import re
from html.parser import HTMLParser

import pytest

from ude import plot
from ude.report.page import Equation, Page, Picture, Section, Table, render

EVIL = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>{{ 7 * 7 }}"


def page(text, mathml=""):
    figure = plot.data_and_fit([0, 1], [[0], [1]], {text: ([0, 1], [[0], [1]])}, states=[text], time=text)
    picture = Picture(name="fit", figure=figure, caption=text)
    table = Table(head=(text,), rows=((text,), ("b",)), marked=1, caption=text)
    section = Section(title=text, text=(text,), pictures=(picture,), tables=(table,), code=text)
    return Page(
        title=text, subtitle=text, equations=(Equation(text=text, mathml=mathml),), lead=text, facts=((text, text),),
        warnings=(text,), sections=(section,) * 3, footer=text,
    )  # fmt: skip


class Elements(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen, self.attributes = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parse(html):
    elements = Elements()
    elements.feed(html)
    assert not elements.open
    return elements


def test_every_element_is_closed():
    assert {"main", "section", "figure", "table", "pre", "nav"} <= set(parse(render(page("text"))).seen)


def test_what_a_user_typed_stays_text():
    elements = parse(render(page(EVIL)))
    assert "script" not in elements.seen
    assert elements.seen.count("img") == 3
    assert not [name for name, _ in elements.attributes if name.startswith("on")]
    assert "{{ 7 * 7 }}" in render(page(EVIL))


def test_nothing_is_loaded_from_anywhere():
    html = render(page("text"))
    sources = re.findall(r'(?:src|href|action)="([^"]{0,40})', html)
    assert sources
    assert all(source.startswith(("data:image/svg+xml", "#")) for source in sources)
    assert "@import" not in html
    assert "url(" not in html
    assert "default-src 'none'" in html


@pytest.mark.parametrize(("mathml", "tag"), [("<mi>x</mi>", "math"), ("", "code")])
def test_an_equation_without_mathml_is_shown_as_text(mathml, tag):
    assert tag in parse(render(page("x' = y", mathml))).seen
