"""The grid at one cycle as text: docs/trace.md section 4."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import accelsim as ax
from accelsim.report.terminal import GridView
from tests.accelsim.simulator.gemm_cases import DATAFLOWS, gemms, machines
from tests.naive import timing


def traced(weights, activations, machine, **window):
    return ax.matmul(weights, activations, machine, engine="stepped", trace=True, **window).trace


def test_an_output_stationary_grid_by_hand():
    # 8 bits hold -128..127. PE (0, 0): 100, then 100 + 100 wraps to -56. PE (0, 1) has made its first product.
    machine = ax.Machine(rows=2, columns=2, accumulator_bits=8)
    trace = traced([[100, 100], [-1, 2]], [[1], [1]], machine)
    assert GridView.of(trace, machine, (2, 2, 1), 1).text() == (
        "multiply cycle 1, fold 0 of 1, output_stationary 2x2: rows hold 0..0 of positions p, "
        "columns hold 0..1 of channels n\n"
        "\n"
        "        c0 n=0  c1 n=1\n"
        "r0 p=0   100*1    -1*1\n"
        "          -56!     -1\n"
        "r1         0*0     0*0\n"
        "            0       0\n"
        "\n"
        "each PE: weight*activation above, its accumulator below; ! it overflowed in this cycle"
    )


def test_a_broadcast_grid_shows_its_rows_and_trees_by_hand():
    machine = ax.Machine(rows=1, columns=2, dataflow="broadcast", accumulator_bits=8, adder_tree_bits=8)
    trace = traced([[100, 100, 7]], [[1], [1], [1]], machine)
    first, second = (GridView.of(trace, machine, (1, 3, 1), cycle).text().split("\n") for cycle in (0, 1))
    assert first[0].endswith("rows hold 0..0 of channels n, columns hold terms k of position 0")
    assert [line.split() for line in first[2:5]] == [
        ["c0", "c1", "row"], ["r0", "n=0", "100*1", "100*1", "tree!"], ["100", "100", "-56"]
    ]  # fmt: skip
    assert [line.split() for line in second[3:5]] == [["r0", "n=0", "7*1", "0*0"], ["7", "0", "-49"]]


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@given(data=st.data(), gemm=gemms())
def test_every_cell_is_that_of_the_trace(dataflow, data, gemm):
    machine = data.draw(machines(dataflow))
    arguments, named = gemm.arguments()
    trace = ax.matmul(*arguments, machine, **named, engine="stepped", trace=True).trace
    N, K, P = len(gemm.weights), len(gemm.activations), len(gemm.activations[0])
    cycle = data.draw(st.integers(0, len(trace.fold) - 1))
    view = GridView.of(trace, machine, (N, K, P), cycle)
    fold = timing.folds(N, K, P, machine)[trace.fold[cycle]]
    letters = {"output_stationary": "pn", "weight_stationary": "kn", "input_stationary": "kp", "broadcast": "n"}
    row_letter, *column_letter = letters[dataflow]
    for i in range(machine.rows):
        label, cells = view.rows[i]
        assert label == (f"r{i} {row_letter}={fold.rows[i]}" if i < len(fold.rows) else f"r{i}")
        for j in range(machine.columns):
            above, below, marked = cells[j]
            assert above == f"{trace.weights[cycle, i, j]}*{trace.activations[cycle, i, j]}"
            assert int(below) == trace.accumulators[cycle, i, j]
            assert marked == trace.overflow[cycle, i, j]
    if column_letter:
        for j in range(machine.columns):
            used = j < len(fold.columns)
            assert view.columns[j] == (f"c{j} {column_letter[0]}={fold.columns[j]}" if used else f"c{j}")
    marks = [trace.overflow[cycle].sum()]
    if dataflow == "broadcast":
        assert [int(cells[-1].below) for _, cells in view.rows] == trace.row_accumulators[cycle].tolist()
        marks += [trace.row_overflow[cycle].sum(), trace.tree_overflow[cycle].sum()]
    elif dataflow != "output_stationary":
        label, cells = view.rows[-1]
        assert label == "below"
        assert [int(cell.below) for cell in cells] == trace.column_accumulators[cycle].tolist()
        marks.append(trace.column_overflow[cycle].sum())
    grid = "\n".join(view.text().split("\n")[2:-1])
    assert grid.count("!") == sum(marks)
    assert view.to_dict()["rows"][0]["cells"][0]["above"] == view.rows[0][1][0].above


def test_a_window_keeps_the_numbers_of_the_grid():
    machine = ax.Machine(rows=3, columns=3)
    weights, activations = np.arange(9).reshape(3, 3), np.ones((3, 3), int)
    trace = traced(weights, activations, machine, trace_cycles=(2, 5), trace_rows=(1, 3), trace_columns=(2, 3))
    view = GridView.of(trace, machine, (3, 3, 3), 4)
    assert view.columns == ("c2 n=2",)
    assert [label for label, _ in view.rows] == ["r1 p=1", "r2 p=2"]
    for cycle in (1, 5):
        with pytest.raises(ax.OperandError, match=rf"cycle must be one of the trace, 2\.\.4, got {cycle}"):
            GridView.of(trace, machine, (3, 3, 3), cycle)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_columns_that_do_not_fit_are_left_out_and_said(dataflow):
    machine = ax.Machine(rows=2, columns=16, dataflow=dataflow)
    weights, activations = np.full((16, 16), -100), np.full((16, 16), 200)
    trace = traced(weights, activations, machine)
    view = GridView.of(trace, machine, (16, 16, 16), 14, max_width=60)
    _title, *grid, _, _note, left_out = view.text().split("\n")
    assert max(map(len, grid)) <= 60
    shown = int(re.search(r"columns 0:(\d+) of 0:16 fit the line", left_out)[1])
    assert 1 <= shown < 16
    assert len(view.columns) == shown + (dataflow == "broadcast")
    narrow = GridView.of(trace, machine, (16, 16, 16), 14, max_width=1)
    assert len(narrow.columns) == 1 + (dataflow == "broadcast")
    wide = GridView.of(trace, machine, (16, 16, 16), 14, max_width=10_000)
    assert wide == GridView.of(trace, machine, (16, 16, 16), 14)


def test_the_styled_view_is_the_plain_one_in_colour():
    machine = ax.Machine(rows=2, columns=2, accumulator_bits=8)
    view = GridView.of(traced([[100, 100]], [[1], [1]], machine), machine, (1, 2, 1), 1)
    styled = view.styled()
    lines = [line.rstrip() for line in styled.plain.split("\n")]
    assert lines == view.text().split("\n")
    red = [styled.plain[span.start : span.end].strip() for span in styled.spans if span.style == "bold red"]
    assert red == ["-56!"]
