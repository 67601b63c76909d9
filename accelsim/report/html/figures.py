"""Figures of matplotlib as part of a page: vectors in the page's own colours, words as words."""

from __future__ import annotations

import io
import re
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PAGE_COLOURS = {"#000000": "currentColor", "#ffffff": "var(--paper)", "#b0b0b0": "var(--line)"}
"""Ink, paper and grid lines of a plot follow the theme; the colours of series stay."""
_PIXELS_PER_POINT = 1.6
_READABLE_PIXELS = 480


def figure_html(drawn: Figure, name: str, caption: str) -> str:
    """Return a figure for a page.

    Parameters
    ----------
    drawn : Figure
        What to show; it is not changed.
    name : str
        A word that no other figure of the page has: it keeps the names inside the drawings apart.
    caption : str
        What it shows, for readers and screen readers.

    Returns
    -------
    str
        HTML with the drawing as inline SVG; the same figure gives the same text.
    """
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        drawn.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text))
    text = re.sub(r' xmlns(:xlink)?="[^"]*"| version="1.1"', "", text)
    text = re.sub(r' id="([^"]*)"', rf' id="{name}-\1"', text)
    text = re.sub(r'xlink:href="#|url\(#', lambda found: found.group(0).replace("xlink:", "") + f"{name}-", text)
    for colour, themed in _PAGE_COLOURS.items():
        text = re.sub(rf"(fill|stroke): {colour}\b", rf"\1: {themed}", text, flags=re.IGNORECASE)
    # A figure is as large as it was drawn for print and a third more, and shrinks only as long as it can be read.
    points = float(text.split('viewBox="')[1].split()[2])
    size = f"max-width:{_PIXELS_PER_POINT * points:.0f}px;min-width:min({points:.0f}px,{_READABLE_PIXELS}px)"
    label = escape(caption)
    text = text.replace("<svg", f'<svg role="img" aria-label="{label}" style="{size}"', 1)
    return f'<figure tabindex="0" aria-label="{label}">{text}<figcaption>{label}</figcaption></figure>'


def figures_html(parts: list[str]) -> str:
    """Return figures side by side where there is room."""
    return f'<div class="figures">{"".join(parts)}</div>' if parts else ""
