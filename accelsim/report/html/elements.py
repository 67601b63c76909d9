"""The parts of a page: tables that sort, tiles, facts. Everything that comes from outside is escaped here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

Kind = Literal["text", "count", "share", "decimal"]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Parameters
    ----------
    title : str
        With the unit.
    kind : {"text", "count", "share", "decimal"}
        ``count``: whole numbers with separators; ``share``: 0..1 shown as per cent; ``decimal``: other numbers.
    digits : int
        Behind the point of shares and decimals.
    bar : bool
        Draw a bar behind each number, as long as its part of the column's greatest (of 1 for a share).
    alarm : bool
        Mark numbers above 0.
    """

    title: str
    kind: Kind = "text"
    digits: int = 1
    bar: bool = False
    alarm: bool = False


Value = str | int | float | None


def table(columns: Sequence[Column], rows: Sequence[Sequence[Value]], caption: str, *, filtered: bool = True) -> str:
    """Return a table whose columns sort on a click and whose rows can be filtered.

    Parameters
    ----------
    columns : sequence of Column
        What the cells are.
    rows : sequence of sequences
        A value per column; None leaves the cell empty.
    caption : str
        Read out by screen readers, and shown.
    filtered : bool
        Put a field for a filter above it.

    Returns
    -------
    str
        HTML.
    """
    head = "".join(map(_heading, columns))
    tops = [_top(column, [row[i] for row in rows]) for i, column in enumerate(columns)]
    body = "".join(
        "<tr>" + "".join(_cell(v, c, top) for v, c, top in zip(row, columns, tops, strict=True)) + "</tr>"
        for row in rows
    )
    field = (
        '<div class="filter"><label>Filter <input type="search" placeholder="words, or column&gt;number" '
        'autocomplete="off" spellcheck="false"></label><output aria-live="polite"></output></div>'
        if filtered
        else ""
    )
    title = escape(caption)
    return (
        f'<div class="table"><div class="above"><h3>{title}</h3>{field}</div>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{title}">'
        f"<table><caption>{title}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></div>"
    )


def _heading(column: Column) -> str:
    kind = "txt" if column.kind == "text" else "num"
    arrow = '<span class="arrow" aria-hidden="true"></span>'
    button = f'<button type="button">{escape(column.title)}{arrow}</button>'
    return f'<th scope="col" class="{kind}" aria-sort="none">{button}</th>'


def _top(column: Column, values: list[Value]) -> float:
    """Return what a full bar stands for."""
    if column.kind == "share":
        return 1.0
    return max((float(v) for v in values if isinstance(v, int | float)), default=0.0)


def _cell(value: Value, column: Column, top: float) -> str:
    if column.kind == "text" or value is None or isinstance(value, str):
        text = "" if value is None else str(value)
        kind = "txt" if column.kind == "text" else "num"
        return f'<td class="{kind}">{escape(text)}</td>'
    classes = ["num"]
    style = ""
    if column.bar and top > 0:
        classes.append("bar")
        style = f' style="--part:{max(0.0, float(value)) / top:.4f}"'
    if column.alarm and value > 0:
        classes.append("alarm")
    return f'<td class="{" ".join(classes)}" data-value="{value!r}"{style}>{escape(shown(value, column))}</td>'


def shown(value: int | float, column: Column) -> str:
    """Return a number as a column shows it."""
    match column.kind:
        case "share":
            return f"{100 * value:.{column.digits}f} %"
        case "decimal":
            return f"{value:,.{column.digits}f}"
        case _:
            return f"{value:,}"


@dataclass(frozen=True)
class Tile:
    """A headline figure.

    Parameters
    ----------
    name, value : str
        What it is, and how much.
    note : str
        A line below.
    alarm : bool
        Something is wrong with it.
    """

    name: str
    value: str
    note: str = ""
    alarm: bool = False


def tiles(items: Sequence[Tile]) -> str:
    """Return a row of headline figures."""
    cells = []
    for item in items:
        kind = "tile alarm" if item.alarm else "tile"
        note = f'<span class="note">{escape(item.note)}</span>' if item.note else ""
        value = f'<span class="figure">{escape(item.value)}</span>'
        cells.append(f'<div class="{kind}"><dt>{escape(item.name)}</dt><dd>{value}{note}</dd></div>')
    return f'<dl class="tiles">{"".join(cells)}</dl>'


def facts(groups: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> str:
    """Return named groups of names and values."""
    parts = []
    for title, items in groups:
        rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in items)
        parts.append(f'<div class="facts"><h3>{escape(title)}</h3><dl>{rows}</dl></div>')
    return f'<div class="fact-groups">{"".join(parts)}</div>'


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph of plain text; ``kind`` is a class of the page's style sheet."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"
