"""Tables as plain text."""

from __future__ import annotations

from collections.abc import Sequence


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
    return not cell or cell.replace(",", "").replace(".", "").replace("%", "").lstrip("+-").isdigit()
