"""Register traces of two public RTL arrays, cycle by cycle: the timing conventions are in the suites' README files.

Both number the clock edge that captures the first operands as cycle 0, and their first product is in a register after
cycle 1; our index 0 is the first cycle in which a PE multiplies. So RTL cycle c is our index c - 1.
"""

import csv
import json

import numpy as np
import pytest

import accelsim as ax


def load(folder, name):
    """Return the description and the trace {column: array (cycles, rows, columns)}."""
    with (folder / f"{name}.json").open() as file:
        description = json.load(file)
    with (folder / f"{name}_trace.csv").open() as file:
        rows = [{key: int(value) for key, value in row.items()} for row in csv.DictReader(file)]
    length = max(row["cycle"] for row in rows) + 1
    size = description["config"]["N"]
    traces = {}
    for key in set(rows[0]) - {"cycle", "row", "col"}:
        traces[key] = np.zeros((length, size, size), dtype=np.int64)
        for row in rows:
            traces[key][row["cycle"], row["row"], row["col"]] = row[key]
    assert len(rows) == length * size * size
    return description, traces


@pytest.mark.parametrize("name", ["os_4x4", "os_8x8"])
def test_output_stationary_array(shared, name):
    description, traces = load(shared / "suites" / "rtl" / "tms4517_output_stationary", name)
    size = description["config"]["N"]
    A, B = (np.array(description["inputs"][key]) for key in "AB")
    # C = A B with rows of A as positions. The array takes k downward: its last element enters first.
    machine = ax.Machine(rows=size, columns=size, dataflow="output_stationary", accumulator_bits=33)
    result = ax.matmul(B[::-1].T, A[:, ::-1].T, machine, engine="stepped", trace=True)
    assert result.accumulators.T.tolist() == description["inputs"]["C"]
    cycles = result.cycles.multiply
    assert cycles == 3 * size - 2 == description["meta"]["last_accumulate"]
    assert not traces["acc"][0].any()
    assert np.array_equal(result.trace.accumulators, traces["acc"][1 : cycles + 1])
    assert traces["valid"][cycles].all()
    assert not traces["valid"][:cycles].any()


@pytest.mark.parametrize("name", ["ws_4x4_m6", "ws_8x8_m12", "ws_16x16_m20"])
def test_weight_stationary_array(shared, name):
    description, traces = load(shared / "suites" / "rtl" / "opentpu_weight_stationary", name)
    size, num_positions = description["config"]["N"], description["config"]["M"]
    X, W = (np.array(description["inputs"][key]) for key in "XW")
    machine = ax.Machine(
        rows=size, columns=size, dataflow="weight_stationary", accumulator_bits=32,
        partial_sum_bits=max(description["config"]["psum_widths_by_row"]), overflow="error",
    )  # fmt: skip
    result = ax.matmul(W.T, X.T, machine, engine="stepped", trace=True)
    assert result.accumulators.T.tolist() == description["inputs"]["Y_rtl"]
    cycles = result.cycles.multiply
    assert cycles == num_positions + 2 * size - 2 == description["meta"]["last_valid_output_cycle"]
    assert result.cycles.load == size
    assert not traces["acc"][0].any()
    assert np.array_equal(result.trace.accumulators, traces["acc"][1 : cycles + 1])
    assert np.array_equal(result.trace.activations, traces["x_reg"][1 : cycles + 1])
