"""The page: sections in a template, everything in one file, nothing fetched."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from os import PathLike
from string import Template

from accelsim import __version__
from accelsim.files import write_whole
from accelsim.report.html.cycles import CycleView

_FRAME_HEIGHT = 760
"""Pixels of a report in a notebook."""


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading.

    Parameters
    ----------
    key : str
        Its anchor: a word.
    title : str
        Its heading.
    body : str
        HTML, as `elements` makes it.
    """

    key: str
    title: str
    body: str


@dataclass(frozen=True)
class HtmlReport:
    """A report as one HTML file that needs no network; in a notebook it shows itself.

    Parameters
    ----------
    title : str
        What was run.
    subtitle : str
        One line below.
    sections : tuple of Section
        In their order.
    """

    title: str
    subtitle: str
    sections: tuple[Section, ...]

    def to_html(self) -> str:
        """Return the file's text. The same contents make the same text: it names no time and no place."""
        style = _asset("page.css") + _asset("cycles.css")
        script = _asset("page.js") + _asset("cycles.js")
        # The policy lets this one script run and nothing be fetched, whatever a name in a model file says.
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
        links = "".join(f'<a href="#{section.key}">{escape(section.title)}</a>' for section in self.sections)
        body = "".join(
            f'<section id="{section.key}" aria-labelledby="{section.key}-title">'
            f'<h2 id="{section.key}-title">{escape(section.title)}</h2>{section.body}</section>'
            for section in self.sections
        )
        return Template(_asset("page.html")).substitute(
            policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:; "
            "base-uri 'none'; form-action 'none'",
            title=escape(self.title),
            subtitle=escape(self.subtitle),
            version=escape(__version__),
            style=style,
            script=script,
            links=links,
            body=body,
        )

    def save(self, path: str | PathLike[str]) -> None:
        """Write the report as a file, whole or not at all.

        Parameters
        ----------
        path : path
            The file to make or replace.

        Raises
        ------
        DataError
            When it cannot be written.
        """
        write_whole(path, self.to_html().encode())

    def __repr__(self) -> str:
        return f"<HtmlReport {self.title!r}: {', '.join(section.key for section in self.sections)}>"

    def _repr_html_(self) -> str:
        # A frame: the page's style and script neither touch the notebook nor are touched by it.
        return (
            f'<iframe title="{escape(self.title)}" srcdoc="{escape(self.to_html())}" '
            f'style="width:100%;height:{_FRAME_HEIGHT}px;border:0" sandbox="allow-scripts"></iframe>'
        )


def cycles_section(views: Sequence[CycleView]) -> Section:
    """Return the cycle viewer for one or more traced GEMMs."""
    payload = json.dumps([view.payload() for view in views], separators=(",", ":"), allow_nan=False)
    # In a script element only "</" and "<!--" have a meaning; as \u003c neither is there.
    data = payload.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    script = f'<script type="application/json" class="trace">{data}</script>'
    return Section("cycles", "Cycle by cycle", f'<div class="cycles">{script}{_asset("cycles.html")}</div>')


def _asset(name: str) -> str:
    return (resources.files("accelsim.report.html") / "assets" / name).read_text(encoding="utf-8")
