"""Memory traffic and stalls: docs/timing.md section 5, in closed form and counted in a walk over the loops."""

from itertools import product

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import accelsim as ax
from accelsim.simulator.memory import GemmShape, MemoryTraffic, gemm_traffic
from tests.accelsim.simulator.gemm_cases import DATAFLOWS
from tests.accelsim.simulator.layer_cases import one_layer, quantized_weights
from tests.naive import memory, timing

SRAM = ("weight_reads", "activation_reads", "partial_sum_writes", "partial_sum_reads", "output_writes")
sizes = st.integers(1, 9)
buffers = st.none() | st.integers(1, 12) | st.integers(1, 400)
operand_bits = st.integers(1, 16)
bandwidths = st.integers(1, 40) | st.sampled_from([0.1, 0.3, 1.5, 1e-1, 7e-1])


def buffered(bandwidth=None):
    return st.builds(
        ax.Memory, weight_buffer_bytes=buffers, activation_buffer_bytes=buffers, output_buffer_bytes=buffers,
        dram_bytes_per_cycle=st.just(bandwidth) if bandwidth is None else bandwidth,
    )  # fmt: skip


def grids(dataflow, **fixed):
    return st.builds(
        ax.Machine, dataflow=st.just(dataflow), rows=st.integers(1, 5), columns=st.integers(1, 5),
        ragged_folds=st.sampled_from(["used", "full"]), double_buffered=st.booleans(),
        pe_latency_cycles=st.integers(1, 3), accumulator_bits=st.integers(4, 40),
        **fixed,
    )  # fmt: skip


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@given(
    data=st.data(), num_outputs=sizes, reduction=sizes, num_positions=sizes, groups=st.integers(1, 3),
    weight_bits=operand_bits, activation_bits=operand_bits, output_bits=operand_bits,
)  # fmt: skip
@example(
    data=None, num_outputs=5, reduction=7, num_positions=6, groups=2, weight_bits=3, activation_bits=5, output_bits=7
)
def test_every_count_is_that_of_a_walk_over_the_loops(
    dataflow, data, num_outputs, reduction, num_positions, groups, weight_bits, activation_bits, output_bits
):
    if data is None:  # nothing fits, everything is ragged
        tiny = ax.Memory(weight_buffer_bytes=1, activation_buffer_bytes=1, output_buffer_bytes=1)
        machine = ax.Machine(rows=2, columns=4, dataflow=dataflow, accumulator_bits=19, memory=tiny)
    else:
        machine = data.draw(grids(dataflow, memory=buffered()))
    seen = memory.walk(num_outputs, reduction, num_positions, machine)
    shape = GemmShape(
        num_outputs, reduction, num_positions, None, weight_bits, activation_bits, output_bits, groups
    )  # fmt: skip
    traffic = gemm_traffic(shape, machine)
    for name in SRAM:
        assert getattr(traffic, name) == groups * getattr(seen, name), name
    widths = memory.Widths(weight_bits, activation_bits, output_bits)
    assert traffic.dram_bytes == groups * memory.dram_bytes(seen, machine, widths)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@given(data=st.data(), num_outputs=sizes, reduction=sizes, num_positions=sizes, groups=st.integers(1, 3))
def test_a_layer_stalls_until_dram_has_moved_its_bytes(dataflow, data, num_outputs, reduction, num_positions, groups):
    machine = data.draw(grids(dataflow, memory=buffered(bandwidths)))
    seen = memory.walk(num_outputs, reduction, num_positions, machine)
    busy = timing.count(num_outputs, reduction, num_positions, machine, groups)
    moved = groups * memory.dram_bytes(seen, machine, memory.Widths())
    counted = ax.gemm_cycles(
        num_outputs=num_outputs, reduction=reduction, num_positions=num_positions, machine=machine, groups=groups
    )
    assert (counted.load, counted.multiply, counted.drain) == (busy.load, busy.multiply, busy.drain)
    assert counted.stall == memory.stall(busy.total, moved, machine.memory.dram_bytes_per_cycle)


def test_a_bandwidth_is_taken_as_the_decimal_that_was_written():
    # 0.3 bytes a cycle: 3 bytes take 10 cycles. The float beside 0.3 is a little less, and would give 11.
    machine = ax.Machine(rows=1, columns=1, memory=ax.Memory(dram_bytes_per_cycle=0.3))
    assert ax.gemm_cycles(num_outputs=1, reduction=1, num_positions=1, machine=machine).total == 10


def test_traffic_beyond_any_memory_is_counted_exactly():
    machine = ax.Machine(rows=128, columns=128, dataflow="weight_stationary")
    size = 10**9 + 1
    traffic = gemm_traffic(GemmShape(size, size, size, weight_bits=3, activation_bits=3), machine)
    tiles = size // 128 + 1
    assert traffic.activation_reads == size * size * tiles
    assert traffic.partial_sum_reads == size * size * (tiles - 1)
    assert traffic.dram_bytes == 2 * ((3 * size * size + 7) // 8) + size * size


def grouped_convolution(channels, groups, per_group, image, kernel, pads):
    """A network of one grouped convolution of stride 1 on 8-bit codes, and a batch of two images."""
    parameters = ax.QuantizationParameters(np.float32(0.5), np.int64(0), ax.IntegerFormat(8, True))
    shape = (groups * per_group, channels // groups, *kernel)
    weights = np.arange(np.prod(shape)).reshape(shape) % 5 - 2
    height, width = (image[axis] + pads[axis] + pads[axis + 2] - kernel[axis] + 1 for axis in range(2))
    attributes = {"strides": (1, 1), "pads": pads, "dilations": (1, 1), "group": groups}
    network = one_layer(
        [("Conv", ("x", "w"), "y", attributes)],
        {"x": ((channels, *image), parameters)},
        ("y", (groups * per_group, height, width), parameters),
        weights={"w": quantized_weights(weights, parameters)},
    )
    return network, np.zeros((2, channels, *image), dtype=np.float32), (height, width)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@given(
    data=st.data(), groups=st.integers(1, 3), group_channels=st.integers(1, 2), per_group=st.integers(1, 5),
    image=st.tuples(st.integers(2, 4), st.integers(2, 4)), kernel=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padded=st.booleans(),
)  # fmt: skip
def test_a_convolution_fetches_its_stored_inputs_group_by_group(
    dataflow, data, groups, group_channels, per_group, image, kernel, padded
):
    machine = data.draw(grids(dataflow, memory=buffered(bandwidths)))
    pads = (kernel[0] - 1, kernel[1] - 1, 0, 0) if padded else (0, 0, 0, 0)
    network, images, positions = grouped_convolution(
        groups * group_channels, groups, per_group, image, kernel, pads
    )  # fmt: skip
    result = ax.simulate(network, images, machine)
    (record,) = result.layers

    # Which stored element each element of the GEMM's columns is, in one group.
    taps = list(product(range(group_channels), range(kernel[0]), range(kernel[1])))
    stored = {}
    for k, (channel, ky, kx) in enumerate(taps):
        for p, (sample, y, x) in enumerate(product(range(2), range(positions[0]), range(positions[1]))):
            row, column = y + ky - pads[0], x + kx - pads[1]
            inside = 0 <= row < image[0] and 0 <= column < image[1]
            stored["X", k, p] = (sample, channel, row, column) if inside else None
    num_positions = 2 * positions[0] * positions[1]
    seen = memory.walk(per_group, len(taps), num_positions, machine)
    moved = groups * memory.dram_bytes(seen, machine, memory.Widths(), stored)
    assert record.memory == MemoryTraffic(*(groups * getattr(seen, name) for name in SRAM), moved)
    busy = timing.count(per_group, len(taps), num_positions, machine, groups)
    stalled = memory.stall(busy.total, moved, machine.memory.dram_bytes_per_cycle)
    assert (record.cycles.load, record.cycles.multiply, record.cycles.drain, record.cycles.stall) == (
        busy.load, busy.multiply, busy.drain, stalled,
    )  # fmt: skip
    assert record.utilisation == record.macs / (machine.num_pes * record.cycles.total)


def test_conv2d_stalls_as_the_layer_of_a_network_does():
    network, images, _ = grouped_convolution(4, 2, 3, (5, 4), (2, 2), (1, 1, 0, 0))
    machine = ax.Machine(rows=4, columns=4, memory=ax.Memory(dram_bytes_per_cycle=0.5))
    weights = network.weights["w"].integers
    layer = ax.simulate(network, images, machine).layers[0]
    alone = ax.conv2d(images.astype(np.int8), weights, machine, pads=(1, 1, 0, 0), groups=2)
    assert layer.cycles.stall > 0
    assert alone.cycles == layer.cycles


@pytest.mark.parametrize("given", ["weight_bits", "activation_bits"])
def test_arrays_alone_move_at_the_machines_widths_and_at_8_bits_without(given):
    memory_of_one_byte = ax.Memory(dram_bytes_per_cycle=1)
    ones = np.ones((4, 4), dtype=np.int8)
    narrow = ax.Machine(rows=4, columns=4, memory=memory_of_one_byte, **{given: 3})
    wide = ax.Machine(rows=4, columns=4, memory=memory_of_one_byte)
    for run in (ax.matmul, lambda a, b, machine: ax.conv2d(a.reshape(1, 4, 2, 2), b.reshape(4, 4, 1, 1), machine)):
        assert run(ones, ones, wide).cycles.total == 16 + 16 + 16
        assert run(ones, ones, narrow).cycles.total == 16 + 6 + 16


@given(first=st.tuples(*[st.integers(0, 99)] * 6), second=st.tuples(*[st.integers(0, 99)] * 6))
def test_traffic_adds_up(first, second):
    total = MemoryTraffic(*first) + MemoryTraffic(*second)
    assert total == MemoryTraffic(*(a + b for a, b in zip(first, second, strict=True)))
