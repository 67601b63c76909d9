"""Cycles of layers without multiplications: docs/timing.md section 6, dealt out to the lanes one by one."""

from itertools import count, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import accelsim as ax
from tests.accelsim.simulator.layer_cases import one_layer, quantized_weights

FINE = ax.QuantizationParameters(np.float32(0.5), np.int64(0), ax.IntegerFormat(8, False))
COARSE = ax.QuantizationParameters(np.float32(1.0), np.int64(3), ax.IntegerFormat(8, False))
PROBABILITIES = ax.QuantizationParameters(np.float32(2.0**-8), np.int64(0), ax.IntegerFormat(8, False))
IMAGE = (3, 5, 4)


def places(*shape):
    return list(product(*map(range, shape)))


def dealt_out(operations, lanes):
    """Cycles until the lanes have done all operations, each one of them in a cycle."""
    waiting = list(operations)
    for cycle in count():
        if not waiting:
            return cycle
        del waiting[:lanes]
    return None


def cases():
    """Yield (name, network, {input: shape}, the element operations of one sample)."""
    whole, inputs = places(*IMAGE), {"x": (IMAGE, FINE)}
    two = {"a": (IMAGE, FINE), "b": (IMAGE, COARSE)}
    for op in ("Add", "Sub"):
        yield op, one_layer([(op, ("a", "b"), "y", {})], two, ("y", IMAGE, FINE)), whole + whole
    yield "Mul", one_layer([("Mul", ("a", "b"), "y", {})], two, ("y", IMAGE, FINE)), whole
    # Three inputs of different sizes: the second and third have other quantizers than the output.
    pieces = {"a": ((4,), FINE), "b": ((7,), COARSE), "c": ((2,), PROBABILITIES)}
    concat = [("Concat", ("a", "b", "c"), "y", {"axis": 1})]
    yield "Concat", one_layer(concat, pieces, ("y", (13,), FINE)), places(7) + places(2)
    copies = {"a": ((4,), FINE), "b": ((7,), FINE)}
    yield "Concat", one_layer([("Concat", ("a", "b"), "y", {"axis": 1})], copies, ("y", (11,), FINE)), []
    window = {"kernel_shape": (3, 2), "strides": (2, 1), "pads": (1, 0, 1, 0), "dilations": (1, 1)}
    taps = [(place, tap) for place in places(3, 3, 3) for tap in places(3, 2)]
    for op, attributes in (
        ("MaxPool", window),
        ("AveragePool", {**window, "count_include_pad": 0}),
    ):
        yield op, one_layer([(op, ("x",), "y", attributes)], inputs, ("y", (3, 3, 3), FINE)), taps
    pooled = [(channel, tap) for channel in range(3) for tap in places(5, 4)]
    yield (
        "GlobalAveragePool",
        one_layer([("GlobalAveragePool", ("x",), "y", {})], inputs, ("y", (3, 1, 1), FINE)),
        pooled,
    )
    apart = [("GlobalAveragePool", ("x",), "y", {})]
    yield "GlobalAveragePool", one_layer(apart, inputs, ("y", (3, 1, 1), COARSE)), pooled
    yield "Sigmoid", one_layer([("Sigmoid", ("x",), "y", {})], inputs, ("y", IMAGE, PROBABILITIES)), whole
    row = {"x": ((9,), FINE)}
    yield "Softmax", one_layer([("Softmax", ("x",), "y", {"axis": 1})], row, ("y", (9,), PROBABILITIES)), places(9)
    yield "Flatten", one_layer([("Flatten", ("x",), "y", {"axis": 1})], inputs, ("y", (60,), FINE)), []


CASES = list(cases())


@pytest.mark.parametrize("index", range(len(CASES)), ids=[case[0] for case in CASES])
@given(lanes=st.integers(1, 12) | st.sampled_from([1, 16, 60, 65536]), samples=st.integers(1, 3))
def test_a_layer_takes_the_cycles_of_its_element_operations(index, lanes, samples):
    op, network, operations = CASES[index]
    images = {tensor.name: np.zeros((samples, *tensor.shape[1:]), dtype=np.float32) for tensor in network.graph.inputs}
    for counted in (True, False):
        machine = ax.Machine(rows=2, columns=2, vector_lanes=lanes if counted else None)
        (record,) = ax.simulate(network, images, machine).layers
        assert record.op == op
        assert record.operations.vector_operations == samples * len(operations)
        expected = dealt_out(operations * samples, lanes) if counted else 0
        assert record.cycles == ax.CycleCount(vector=expected)
        assert record.cycles.total == expected
        assert record.utilisation == 0


def test_a_network_adds_up_grid_and_vector_unit():
    signed = ax.QuantizationParameters(np.float32(0.5), np.int64(0), ax.IntegerFormat(8, True))
    weights = quantized_weights([[1, -1], [2, 0]], signed)
    network = one_layer(
        [("Gemm", ("x", "w"), "h", {}), ("Sigmoid", ("h",), "y", {})],
        {"x": ((2,), FINE)},
        ("y", (2,), PROBABILITIES),
        weights={"w": weights},
        inner={"h": (2,)},
    )
    network = ax.QuantizedGraph(
        graph=network.graph, activations={**network.activations, "h": COARSE}, weights=network.weights,
        original=network.graph,
    )  # fmt: skip
    result = ax.simulate(network, np.zeros((5, 2), dtype=np.float32), ax.Machine(rows=4, columns=4, vector_lanes=4))
    grid, table = result.layers
    assert grid.cycles.vector == 0
    assert grid.cycles == ax.gemm_cycles(
        num_outputs=2, reduction=2, num_positions=5, machine=ax.Machine(rows=4, columns=4)
    )
    assert table.cycles == ax.CycleCount(vector=3)  # 10 outputs on 4 lanes
    assert result.cycles.total == grid.cycles.total + 3
    assert result.to_dict()["cycles"]["vector"] == 3


@pytest.mark.parametrize("lanes", [0, -1, 65537, 1.5])
def test_impossible_lanes_are_refused(lanes):
    with pytest.raises(ax.MachineError, match="vector_lanes"):
        ax.Machine(vector_lanes=lanes)


def test_lanes_survive_toml():
    machine = ax.Machine(vector_lanes=32)
    assert ax.Machine.from_toml(machine.to_toml()) == machine
