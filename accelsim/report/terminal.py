"""The grid at one cycle, as text: operands and registers in place, overflowing registers marked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from accelsim.errors import OperandError
from accelsim.machine import Machine
from accelsim.simulator.engine.trace import Trace

if TYPE_CHECKING:
    from rich.text import Text

OVERFLOW_MARK = "!"
_NO_CELL = ""


class Cell(NamedTuple):
    """Two lines, and whether the register in the lower one overflowed."""

    above: str
    below: str
    overflow: bool


@dataclass(frozen=True)
class GridView:
    """The grid after one multiply cycle.

    Parameters
    ----------
    title : str
        Cycle, fold and what rows and columns are.
    columns : tuple of str
        Titles of the columns that are shown, the one of the rows' accumulators at the end where there are some.
    rows : tuple of (str, tuple of Cell)
        Title and cells of each row; the last one shows the accumulators below the grid where there are some.
    notes : tuple of str
        What is left out, and how to read the cells.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls,
        trace: Trace,
        machine: Machine,
        shape: tuple[int, int, int],
        cycle: int,
        max_width: int | None = None,
    ) -> GridView:
        """Return the view of one cycle of a trace.

        Parameters
        ----------
        trace : Trace
            What was recorded.
        machine : Machine
            What it was recorded on.
        shape : tuple of int
            N, K and P of the GEMM.
        cycle : int
            Index of the multiply cycle, counted from the run's first.
        max_width : int, optional
            Characters of a line; columns that do not fit are left out, and a note says so. At least one is shown.

        Raises
        ------
        OperandError
            When the trace does not hold the cycle.
        """
        t = cycle - trace.first_cycle
        if not 0 <= t < len(trace.fold):
            last = trace.first_cycle + len(trace.fold) - 1
            raise OperandError(f"cycle must be one of the trace, {trace.first_cycle}..{last}, got {cycle}")
        num_rows, num_columns = trace.accumulators.shape[1:]
        held = _Held.of(int(trace.fold[t]), shape, machine)
        cells = [[_pe(trace, t, i, j) for j in range(num_columns)] for i in range(num_rows)]
        titles = [held.column(trace.first_column + j) for j in range(num_columns)]
        labels = [held.row(trace.first_row + i) for i in range(num_rows)]
        if trace.column_accumulators is not None and trace.column_overflow is not None:
            below = zip(trace.column_accumulators[t].tolist(), trace.column_overflow[t].tolist(), strict=True)
            cells.append([_edge(value, over) for value, over in below])
            labels.append("below")
        shown = _columns_that_fit(cells, titles, labels, machine, max_width)
        cells, titles = [row[:shown] for row in cells], titles[:shown]
        if trace.row_accumulators is not None and trace.row_overflow is not None and trace.tree_overflow is not None:
            titles.append("row")
            for i, row in enumerate(cells):
                value, tree = int(trace.row_accumulators[t, i]), bool(trace.tree_overflow[t, i])
                mark = "tree" + OVERFLOW_MARK if tree else _NO_CELL
                row.append(Cell(mark, str(value), bool(trace.row_overflow[t, i])))
        register = {"output_stationary": "accumulator", "broadcast": "product"}.get(machine.dataflow, "partial sum")
        notes = [f"each PE: weight*activation above, its {register} below; {OVERFLOW_MARK} it overflowed in this cycle"]
        if shown < num_columns:
            first = trace.first_column
            notes.append(f"columns {first}:{first + shown} of {first}:{first + num_columns} fit the line")
        return cls(
            f"multiply cycle {cycle}, fold {held.fold} of {held.num_folds}, {machine.dataflow} "
            f"{machine.rows}x{machine.columns}: rows hold {held.rows_hold}, columns hold {held.columns_hold}",
            tuple(titles),
            tuple((label, tuple(row)) for label, row in zip(labels, cells, strict=True)),
            tuple(notes),
        )

    def text(self) -> str:
        """Return the view as plain text."""
        return "\n".join("".join(part for part, _ in line).rstrip() for line in self._lines())

    def styled(self) -> Text:
        """Return the view for a rich console: overflows red, zeros dim."""
        from rich.text import Text

        text = Text(no_wrap=True, overflow="ignore")
        for number, line in enumerate(self._lines()):
            text.append("\n" if number else "")
            for part, style in line:
                text.append(part, style=style)
        return text

    def to_dict(self) -> dict[str, Any]:
        """Return the view for a JSON file."""
        return {
            "title": self.title,
            "columns": list(self.columns),
            "rows": [{"row": label, "cells": [cell._asdict() for cell in cells]} for label, cells in self.rows],
            "notes": list(self.notes),
        }

    def _lines(self) -> list[list[tuple[str, str]]]:
        """Return the lines as parts with a style each."""
        label_width = max(len(label) for label, _ in self.rows)
        widths = [
            max(len(title), *(_width(cells[j]) for _, cells in self.rows)) for j, title in enumerate(self.columns)
        ]
        lines = [[(self.title, "bold")], [("", "")]]
        header = "  ".join(title.rjust(width) for title, width in zip(self.columns, widths, strict=True))
        lines.append([(" " * label_width + "  " + header, "bold")])
        for label, cells in self.rows:
            upper, lower = [(label.ljust(label_width), "bold")], [(" " * label_width, "")]
            for cell, width in zip(cells, widths, strict=True):
                upper += [("  ", ""), (cell.above.rjust(width), "dim" if cell.above == "0*0" else "")]
                style = "bold red" if cell.overflow else "dim" if cell.below == "0" else ""
                lower += [("  ", ""), ((cell.below + (OVERFLOW_MARK if cell.overflow else " ")).rjust(width), style)]
            lines += [upper, lower]
        return [*lines, [("", "")], *([(note, "dim")] for note in self.notes)]


@dataclass(frozen=True)
class _Held:
    """Which indices of the GEMM the rows and columns of a fold hold, docs/timing.md section 1."""

    fold: int
    num_folds: int
    rows_hold: str
    columns_hold: str
    row_tile: range
    column_tile: range
    letters: tuple[str, str]

    @classmethod
    def of(cls, fold: int, shape: tuple[int, int, int], machine: Machine) -> _Held:
        """Return what a fold holds; the inner loop of the folds' order is the second factor."""
        sizes = dict(zip("nkp", shape, strict=True))
        words = {"n": "channels n", "k": "terms k", "p": "positions p"}
        match machine.dataflow:
            case "output_stationary":
                row, column = "p", "n"
            case "weight_stationary":
                row, column = "k", "n"
            case "input_stationary":
                row, column = "k", "p"
            case _:  # one position after the other; the columns' terms change in every cycle
                inner = sizes["p"]
                rows = _tile(fold // inner, machine.rows, sizes["n"])
                hold = f"{_spelled(rows)} of {words['n']}"
                num_folds = -(-sizes["n"] // machine.rows) * inner
                return cls(fold, num_folds, hold, f"terms k of position {fold % inner}", rows, range(0), ("n", "k"))
        row_tiles, column_tiles = -(-sizes[row] // machine.rows), -(-sizes[column] // machine.columns)
        rows = _tile(fold % row_tiles, machine.rows, sizes[row])
        columns = _tile(fold // row_tiles, machine.columns, sizes[column])
        return cls(
            fold, row_tiles * column_tiles, f"{_spelled(rows)} of {words[row]}",
            f"{_spelled(columns)} of {words[column]}", rows, columns, (row, column),
        )  # fmt: skip

    def row(self, i: int) -> str:
        """Return the title of a row."""
        return f"r{i} {self.letters[0]}={self.row_tile[i]}" if i < len(self.row_tile) else f"r{i}"

    def column(self, j: int) -> str:
        """Return the title of a column."""
        return f"c{j} {self.letters[1]}={self.column_tile[j]}" if j < len(self.column_tile) else f"c{j}"


def _tile(index: int, size: int, length: int) -> range:
    return range(index * size, min((index + 1) * size, length))


def _spelled(tile: range) -> str:
    return f"{tile.start}..{tile.stop - 1}"


def _pe(trace: Trace, t: int, i: int, j: int) -> Cell:
    """Return the cell of a PE."""
    operands = f"{trace.weights[t, i, j]}*{trace.activations[t, i, j]}"
    return Cell(operands, str(trace.accumulators[t, i, j]), bool(trace.overflow[t, i, j]))


def _edge(value: int, overflowed: bool) -> Cell:
    """Return the cell of an accumulator at the edge of the grid."""
    return Cell(_NO_CELL, str(value), overflowed)


def _width(cell: Cell) -> int:
    """Return the characters of a cell; the lower line has room for a mark."""
    return max(len(cell.above), len(cell.below) + 1)


def _columns_that_fit(
    cells: list[list[Cell]], titles: list[str], labels: list[str], machine: Machine, max_width: int | None
) -> int:
    """Return how many columns fit a line, at least one."""
    if max_width is None:
        return len(titles)
    taken = max(map(len, labels))
    if machine.dataflow == "broadcast":  # a column of its own for the rows' accumulators
        taken += 2 + len(str(-(1 << (machine.accumulator_bits - 1)))) + 1
    for j, title in enumerate(titles):
        taken += 2 + max(len(title), *(_width(row[j]) for row in cells))
        if taken > max_width:
            return max(1, j)
    return len(titles)
