"""Whole trained networks, stepped through all their cycles on a 16x16 grid: equal to the fast engine in everything."""

import numpy as np
import pytest

import accelsim as ax
from accelsim.data import digits_model_path, load_digits
from tests.accelsim.simulator.gemm_cases import DATAFLOWS
from tests.accelsim.simulator.stepping import counted_steps

COUNTS = (
    "name", "op", "output", "output_shape", "macs", "cycles", "operations", "memory", "utilisation", "overflow_events",
    "accesses", "energy", "zero_operands", "overflowed_outputs", "partial_overflow_events", "range_min", "range_max",
)  # fmt: skip

# Wide enough for all of it; so narrow that accumulators and partial sums overflow in many places; and the grid's other
# choices: a PE of three stages, whole folds, hidden loads, operands without zero points.
REGISTERS = {
    "wide": {"accumulator_bits": 32},
    "narrow": {
        "accumulator_bits": 14, "partial_sum_bits": 13, "adder_tree_bits": 13, "overflow": "saturate",
        "memory": ax.Memory(dram_bytes_per_cycle=2, weight_buffer_bytes=1024),
    },
    "pipelined": {
        "accumulator_bits": 13, "partial_sum_bits": 14, "adder_tree_bits": 12, "overflow": "wrap",
        "pe_latency_cycles": 3, "ragged_folds": "full", "double_buffered": True, "zero_point": "at_input",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def digits():
    """The shipped network, with depthwise-separable layers, and three images that it was not trained on."""
    data = load_digits()
    quantized = ax.quantize(ax.load_onnx(digits_model_path()), calibration=data.x_calibration)
    return quantized, data.x_test[:3]


@pytest.fixture(scope="module")
def resnet8(shared):
    """A residual network of 12.5 million multiply-accumulates an image, weights per channel and asymmetric."""
    with np.load(shared / "data" / "cifar10_500.npz", allow_pickle=False) as arrays:
        images = arrays["x_test"][:1].transpose(0, 3, 1, 2).astype(np.float32)
        calibration = arrays["x_calibration"][:64].transpose(0, 3, 1, 2)
    config = ax.PTQConfig(per_channel=True, weight_scheme="affine")
    return ax.quantize(ax.load_onnx(shared / "models" / "resnet8_cifar10.onnx"), calibration, config), images


def assert_stepped_equals_fast(quantized, images, dataflow, registers):
    machine = ax.Machine(rows=16, columns=16, dataflow=dataflow, vector_lanes=16, **REGISTERS[registers])
    fast = ax.simulate(quantized, images, machine, track="range", keep_intermediates=True)
    with counted_steps() as steps:
        stepped = ax.simulate(
            quantized, images, machine, engine="stepped", track="range", keep_intermediates=True
        )  # fmt: skip
    assert sum(steps) == fast.cycles.multiply > 0
    assert stepped.cycles == fast.cycles
    assert fast.cycles.vector > 0
    assert stepped.tensors.keys() == fast.tensors.keys()
    for name, codes in fast.tensors.items():
        assert np.array_equal(stepped.tensors[name], codes), name
    for name, codes in fast.outputs.items():
        assert np.array_equal(stepped.outputs[name], codes), name
    for one, other in zip(stepped.layers, fast.layers, strict=True):
        for field in COUNTS:
            assert getattr(one, field) == getattr(other, field), (one.name, field)
    assert (fast.overflow_events > 0) == (registers != "wide")
    partial = sum(layer.partial_overflow_events for layer in fast.layers)
    assert (partial > 0) == (registers != "wide" and dataflow != "output_stationary")


@pytest.mark.slow
@pytest.mark.parametrize("registers", REGISTERS)
@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_the_shipped_network_steps_to_what_the_fast_engine_says(digits, dataflow, registers):
    assert_stepped_equals_fast(*digits, dataflow, registers)


@pytest.mark.slow
@pytest.mark.parametrize("registers", REGISTERS)
@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_resnet8_steps_to_what_the_fast_engine_says(resnet8, dataflow, registers):
    assert_stepped_equals_fast(*resnet8, dataflow, registers)
