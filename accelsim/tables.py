"""Tables as plain text, and as HTML for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

MOST_SHOWN = 12
"""Rows and columns of an array that a notebook shows."""


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows of text in columns: numbers to the right, words to the left.

    Parameters
    ----------
    header : sequence of str
        One title per column.
    rows : sequence of sequences of str
        Cells; each row as long as the header.

    Returns
    -------
    str
        Lines without a final line break.
    """
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    rights = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, rights, strict=True)
        ]
        return "  ".join(padded).rstrip()

    return "\n".join([line(header), line(["-" * width for width in widths]), *(line(row) for row in rows)])


def _is_number(cell: str) -> bool:
    """Whether a cell reads as a number, or is empty."""
    return not cell or cell.rstrip("!").replace(",", "").replace(".", "").replace("%", "").lstrip("+-").isdigit()


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """Return rows of text as an HTML table for a notebook: numbers to the right, words to the left.

    Parameters
    ----------
    header : sequence of str
        One title per column.
    rows : sequence of sequences of str
        Cells; each row as long as the header.
    caption : str
        A line above.

    Returns
    -------
    str
        HTML with everything escaped. The colours are the notebook's.
    """
    rights = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(header))]
    styles = ["text-align:right;font-variant-numeric:tabular-nums" if right else "text-align:left" for right in rights]
    head = "".join(f'<th style="{style}">{escape(cell)}</th>' for cell, style in zip(header, styles, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f'<td style="{style}">{escape(cell)}</td>' for cell, style in zip(row, styles, strict=True))
        + "</tr>"
        for row in rows
    )
    above = f'<caption style="text-align:left;white-space:nowrap">{escape(caption)}</caption>' if caption else ""
    return f"<table>{above}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def html_array(values: Sequence[Sequence[int]], marks: Sequence[Sequence[int]] | None, caption: str) -> str:
    """Return the corner of an array for a notebook.

    Parameters
    ----------
    values : rows of int
        The array.
    marks : rows of int, optional
        Where not 0, the value has a "!".
    caption : str
        A line above; what is left out is added to it.

    Returns
    -------
    str
        HTML with everything escaped.
    """
    cut = [row[:MOST_SHOWN] for row in values[:MOST_SHOWN]]
    flags = [[0] * len(row) for row in cut] if marks is None else marks
    rows = [
        [f"{value:,}{'!' if flag else ''}" for value, flag in zip(row, row_flags, strict=False)]
        for row, row_flags in zip(cut, flags, strict=False)
    ]
    if marks is not None and any(map(any, marks)):
        caption += "; ! overflowed"
    if len(cut) < len(values) or len(cut[0]) < len(values[0]):
        caption += f"; the first {len(cut)} x {len(cut[0])} are shown"
    return html_table([str(j) for j in range(len(cut[0]))], rows, caption)
