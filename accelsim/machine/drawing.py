"""A picture of a machine's grid for notebooks: what stays in a PE, what moves, where the accumulators are."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelsim.machine.machine import Machine

_MOST = 5
"""Rows and columns that are drawn; of a larger grid the last ones stand behind a gap."""
_SIDE, _GAP, _LEFT, _TOP = 34, 8, 112, 44

_WORDS = {
    "output_stationary": ("activations", "weights", "sum", ""),
    "weight_stationary": ("activations", "", "w", "partial sums"),
    "input_stationary": ("weights", "", "x", "partial sums"),
    "broadcast": ("", "activations", "w×x", ""),
}
"""What enters at the left and at the top, what a PE shows, what moves down, by dataflow."""


def grid_svg(machine: Machine) -> str:
    """Draw a machine's grid.

    Parameters
    ----------
    machine : Machine
        What to draw.

    Returns
    -------
    str
        An SVG element in the colour of the text around it.
    """
    left, top, inside, down = _WORDS[machine.dataflow]
    rows, columns = _drawn(machine.rows), _drawn(machine.columns)
    step = _SIDE + _GAP
    width, height = _LEFT + len(columns) * step + 130, _TOP + len(rows) * step + 56
    parts = []
    for i, row in enumerate(rows):
        y = _TOP + i * step
        for j, column in enumerate(columns):
            x = _LEFT + j * step
            if row is None or column is None:
                parts.append(_text(x + _SIDE / 2, y + _SIDE / 2, "⋯" if row is not None else "⋮"))
                continue
            parts.append(f'<rect x="{x}" y="{y}" width="{_SIDE}" height="{_SIDE}" rx="4" fill="none"/>')
            parts.append(_text(x + _SIDE / 2, y + _SIDE / 2, inside, 11))
        if left and row is not None:
            parts.append(_arrow(_LEFT - 26, y + _SIDE / 2, _LEFT - 6, y + _SIDE / 2))
        if machine.dataflow == "broadcast" and row is not None:
            x = _LEFT + len(columns) * step
            parts += [_arrow(x - 4, y + _SIDE / 2, x + 14, y + _SIDE / 2), _text(x + 24, y + _SIDE / 2, "Σ", 15)]
    for j, column in enumerate(columns):
        middle = _LEFT + j * step + _SIDE / 2
        if top and column is not None:
            parts.append(_arrow(middle, _TOP - 22, middle, _TOP - 5))
        if down and column is not None:
            end = _TOP + len(rows) * step
            parts += [_arrow(middle, end - 4, middle, end + 14), _text(middle, end + 24, "Σ", 15)]
    middle_x, middle_y = _LEFT + len(columns) * step / 2, _TOP + len(rows) * step / 2
    parts.append(_text(_LEFT - 32, middle_y, left, anchor="end"))
    parts.append(_text(middle_x, _TOP - 32, top))
    below = f"{down} into " if down else ""
    sums = f"{below}{machine.accumulator_bits}-bit accumulators, {machine.overflow}"
    parts.append(_text(_LEFT, height - 12, sums, anchor="start"))
    title = f"{machine.rows} x {machine.columns} PEs, {machine.dataflow.replace('_', ' ')}"
    return (
        f'<svg role="img" aria-label="{escape(title)}" viewBox="0 0 {width} {height}" width="{width}" '
        f'style="max-width:100%" stroke="currentColor" font-family="sans-serif"><title>{escape(title)}</title>'
        f"{''.join(parts)}</svg>"
    )


def _drawn(count: int) -> list[int | None]:
    """Return which rows or columns are drawn; None is a gap."""
    return list(range(count)) if count <= _MOST else [*range(_MOST - 2), None, count - 1]


def _text(x: float, y: float, words: str, size: int = 13, anchor: str = "middle") -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}" dominant-baseline="central" '
        f'fill="currentColor" stroke="none">{escape(words)}</text>'
    )


def _arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    back = (x2 - x1 and 5, y2 - y1 and 5)
    side = (back[1] and 3, back[0] and 3)
    head = f"M{x2 - back[0] - side[0]:g} {y2 - back[1] - side[1]:g}L{x2:g} {y2:g}"
    head += f"L{x2 - back[0] + side[0]:g} {y2 - back[1] + side[1]:g}"
    return f'<path d="M{x1:g} {y1:g}L{x2:g} {y2:g}{head}" fill="none"/>'
