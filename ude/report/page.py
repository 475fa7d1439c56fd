"""The report as one HTML file that needs nothing else: no scripts, no network, pictures inside."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ude.plot import to_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Equation:
    """One equation of the headline.

    Args:
        text: As it would be typed.
        mathml: The same as the inside of a `<math>` element; empty to show the text. It must come from sympy's
            printer, never from a user: it is put into the page as it is.
    """

    text: str
    mathml: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A figure with its file name (without extension) and what it shows, in words."""

    name: str
    figure: Figure
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of text; the row `marked` stands out."""

    rows: tuple[tuple[str, ...], ...]
    head: tuple[str, ...] = ()
    marked: int | None = None
    caption: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the report: text, then pictures, then tables, then text to copy."""

    title: str
    text: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()
    code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What a report says.

    Args:
        title: Headline.
        subtitle: One line below it.
        equations: The result.
        lead: One or two sentences that say how good the result is.
        facts: Name and value of the numbers to read first.
        warnings: What the reader must know before using the result.
        sections: The rest, in order.
        footer: One line at the end.
    """

    title: str
    subtitle: str
    equations: tuple[Equation, ...]
    lead: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()
    footer: str = ""

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All pictures of all sections."""
        return tuple(picture for section in self.sections for picture in section.pictures)


def render(page: Page) -> str:
    """Return the page as HTML; whatever is not markup of our own is escaped.

    Example:
        >>> html = render(Page(title="<b>", subtitle="", equations=(Equation(text="x' = y"),)))
        >>> "<b>" in html, "&lt;b&gt;" in html
        (False, True)
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("ude.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["svg_uri"] = _svg_uri
    return environment.get_template("report.html").render(page=page)


def _svg_uri(figure: Figure) -> str:
    # An <img> shows an SVG picture without running anything that might be inside it.
    return "data:image/svg+xml;base64," + base64.b64encode(to_svg(figure).encode()).decode()
