"""Elementary operations and accesses by width against the oracle that walks the loops: docs/energy.md sections 1, 2."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import accelsim as ax
from accelsim.simulator.accesses import gemm_accesses
from accelsim.simulator.memory import GemmShape, gemm_traffic
from accelsim.simulator.widths import GridWidths
from tests.accelsim.energy.test_activity import as_multiplied, naive_widths
from tests.accelsim.simulator.gemm_cases import DATAFLOWS, Gemm, gemms, machines
from tests.accelsim.simulator.layer_cases import one_layer, quantized_weights
from tests.naive import operations as naive

ASYMMETRIC = Gemm([[1, -2, 3], [4, 5, 6]], [[1, 2]] * 3, [0, 0], [0, 7], 3)


def plain(counts):
    """Named tuples as plain ones."""
    return {tuple(kind): count for kind, count in dict(counts).items()}


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@given(data=st.data())
@example(data=None)
def test_operations_of_a_gemm_equal_the_walk(dataflow, data):
    if data is None:
        case, machine = ASYMMETRIC, ax.Machine(rows=2, columns=2, dataflow=dataflow, product_shift_bits=1)
    else:
        case, machine = data.draw(gemms()), data.draw(machines(dataflow))
    arguments, named = case.arguments()
    operations = ax.matmul(*arguments, machine, **named).operations
    W, X, _ = as_multiplied(case, machine)
    N, K, P = len(W), len(X), len(X[0])
    asymmetric = [z != 0 and machine.zero_point == "folded" for z in case.weight_zero_points]
    wanted, _ = naive.count(N, K, P, machine, naive_widths(W, X, machine), asymmetric)
    assert plain(operations.by_width) == wanted
    assert operations.multiplications == operations.additions == N * K * P
    assert operations.row_sum_multiplications == sum(asymmetric) * P
    assert operations.row_sum_additions == (K * P if any(asymmetric) else 0) + sum(asymmetric) * P


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@given(
    data=st.data(), sizes=st.tuples(*[st.integers(1, 9)] * 3), groups=st.integers(1, 3),
    bits=st.tuples(*[st.integers(1, 16)] * 3), asymmetric=st.booleans(),
)  # fmt: skip
def test_accesses_of_a_gemm_equal_the_walk(dataflow, data, sizes, groups, bits, asymmetric):
    machine = data.draw(machines(dataflow))
    N, K, P = sizes
    weight_bits, activation_bits, output_bits = bits
    widths = GridWidths.of(machine, weight_bits, activation_bits)
    shape = GemmShape(N, K, P, None, weight_bits, activation_bits, output_bits, groups)
    traffic = gemm_traffic(shape, machine)
    counted = gemm_accesses(shape, traffic, groups if asymmetric else 0, machine, widths)
    _, walked = naive.count(N, K, P, machine, naive.Widths(machine, weight_bits, activation_bits), [asymmetric] * N)
    wanted = Counter({kind: count * groups for kind, count in walked.items()})
    for what, width in (
        ("weight_reads", weight_bits), ("activation_reads", activation_bits), ("output_writes", output_bits),
        ("partial_sum_writes", machine.accumulator_bits), ("partial_sum_reads", machine.accumulator_bits),
    ):  # fmt: skip
        wanted["sram", what[:-1], width] += getattr(traffic, what)
    wanted["dram", "bytes", 8] += int(traffic.dram_bytes)
    assert plain(counted.kinds) == +wanted
    assert counted.bits("sram") == sum(n * bits for (place, _, bits), n in wanted.items() if place == "sram")
    assert counted.accesses("register") == sum(n for (place, _, _), n in wanted.items() if place == "register")


X, Y = (ax.QuantizationParameters(scale, 0, ax.IntegerFormat(8, True)) for scale in (0.5, 1.0))
SHAPE = (2, 3, 3)
POOL = {"kernel_shape": (2, 2), "strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1), "ceil_mode": 0}
ENDING = {("add", 32, 8): 1, ("compare", 32, 8): 2}
TFLITE = {("multiply", 32, 32): 1, ("shift", 64, 64): 1, ("add", 64, 64): 1, ("shift", 33, 33): 1, ("add", 33, 33): 1}
"""(4) of a value of 32 bits or more: two roundings that are not floor."""


def tflite(bits):
    """(4) of a narrower value."""
    first, second = ("add", bits + 32, bits + 32), ("add", bits + 1, bits + 1)
    return {("multiply", bits, 32): 1, first: 1, ("shift", *first[1:]): 1, second: 1, ("shift", *second[1:]): 1}


def added(*parts):
    """Add up dictionaries of counts."""
    return dict(sum(map(Counter, parts), Counter()))


# (network, elements that the operations are counted for, operations of one, elements that are read, that are written)
LAYERS = {
    "Add": (
        one_layer([("Add", ("a", "b"), "y", {})], {"a": (SHAPE, X), "b": (SHAPE, X)}, ("y", SHAPE, Y)),
        18, added({("add", 9, 8): 2}, tflite(29), tflite(29), {("add", 32, 32): 1}, TFLITE, ENDING), 36, 18,
    ),
    "Mul": (
        one_layer([("Mul", ("a", "b"), "y", {})], {"a": (SHAPE, X), "b": (SHAPE, X)}, ("y", SHAPE, Y)),
        18, added({("add", 9, 8): 2, ("multiply", 9, 9): 1}, TFLITE, ENDING), 36, 18,
    ),
    "Concat": (
        one_layer(
            [("Concat", ("a", "b"), "y", {"axis": 1})], {"a": (SHAPE, X), "b": (SHAPE, Y)}, ("y", (4, 3, 3), Y)
        ),
        18, added({("add", 9, 8): 1}, tflite(9), ENDING), 36, 36,
    ),
    "MaxPool": (
        one_layer([("MaxPool", ("a",), "y", POOL)], {"a": (SHAPE, X)}, ("y", (2, 2, 2), X)),
        8, {("compare", 8, 8): 3}, 18, 8,
    ),
    "AveragePool": (
        one_layer(
            [("AveragePool", ("a",), "y", {**POOL, "count_include_pad": 0})], {"a": (SHAPE, X)}, ("y", (2, 2, 2), X)
        ),
        8, {("add", 10, 8): 3, ("divide", 10, 3): 1}, 18, 8,
    ),
    "Tanh": (
        one_layer([("Tanh", ("a",), "y", {})], {"a": (SHAPE, X)}, ("y", SHAPE, Y)), 18, {("look_up", 8, 8): 1}, 18, 18,
    ),
    "Transpose": (
        one_layer([("Transpose", ("a",), "y", {"perm": (0, 2, 1, 3)})], {"a": (SHAPE, X)}, ("y", (3, 2, 3), X)),
        0, {}, 0, 0,
    ),
    # 2 channels of 5 terms: the grid's part is that of the walk, the output's (4) at 18 bits and the ending (18, 8).
    "Gemm": (
        one_layer(
            [("Gemm", ("a", "w"), "y", {})], {"a": ((5,), X)}, ("y", (2,), Y), None,
            {"w": quantized_weights(np.ones((2, 5)), X)},
        ),
        2,
        added(
            {("multiply", 8, 8): 5, ("add", 18, 16): 5}, tflite(18), {("add", 18, 8): 1, ("compare", 18, 8): 2}
        ),
        None, None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("name", LAYERS)
def test_operations_and_accesses_of_a_layer(name, samples):
    network, elements, each, read, written = LAYERS[name]
    images = {tensor.name: np.ones((samples, *tensor.shape[1:]), np.float32) for tensor in network.graph.inputs}
    machine = ax.Machine(rows=2, columns=2, accumulator_bits=18, requantizer="tflite")
    (record,) = ax.simulate(network, images, machine).layers
    wanted = {kind: count * elements * samples for kind, count in each.items()}
    assert plain(record.operations.by_width) == {kind: count for kind, count in wanted.items() if count}
    if read is not None:
        wanted = {("sram", "activation_read", 8): read * samples, ("sram", "output_write", 8): written * samples}
        assert plain(record.accesses.kinds) == {kind: count for kind, count in wanted.items() if count}


@pytest.mark.parametrize(
    ("preset", "each"),
    [
        # m of 32 bits and one rounding: the value is clamped to 33 bits.
        ("tflite_single_rounding", {("multiply", 18, 32): 1, ("shift", 50, 50): 1, ("add", 50, 50): 1}),
        ("onnxruntime", {("float_multiply", 32, 32): 1, ("float_add", 32, 32): 1}),
        ("float64_half_away", {("float_multiply", 64, 64): 1, ("float_add", 64, 64): 1}),
        ("power_of_two", {("shift", 18, 18): 1, ("add", 18, 18): 1}),
    ],
)
def test_each_requantizer_costs_its_own_operations(preset, each):
    network, *_ = LAYERS["Gemm"]
    machine = ax.Machine(rows=2, columns=2, accumulator_bits=18, requantizer=preset)
    (record,) = ax.simulate(network, np.ones((1, 5), np.float32), machine).layers
    ending = {("add", 18, 8): 1, ("compare", 18, 8): 2}
    of_output = {kind: count * 2 for kind, count in added(each, ending).items()}
    grid = {("multiply", 8, 8): 10, ("add", 18, 16): 10}
    assert plain(record.operations.by_width) == added(grid, of_output)
