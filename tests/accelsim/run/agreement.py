"""Hold a run to the whole-network interpreter, layer by layer and bit for bit."""

import math
import zlib

import accelsim as ax
from tests.naive import timing
from tests.naive.network import Network, quantized_inputs
from tests.naive.quantizer import dequantize


def interpreted(quantized, images, machine):
    """Run the interpreter; return it with its tensors and GEMMs."""
    network = Network(quantized, machine)
    network.run(quantized_inputs(images, quantized))
    return network


def assert_equals_the_interpreter(quantized, images, machine, engine="fast", track="overflow"):
    """Simulate and interpret; return the result and the interpreter where all is equal."""
    result = ax.simulate(quantized, images, machine, engine=engine, track=track, keep_intermediates=True)
    network = interpreted(quantized, images, machine)
    assert_same_codes(result, network, quantized)
    assert_same_records(result, network, machine, track)
    return result, network


def assert_same_codes(result, network, quantized):
    """Every stored tensor, in the order of the layers, so that the first layer that differs is named."""
    assert set(result.tensors) == set(network.tensors)
    for name, wanted in network.tensors.items():
        codes, parameters = result.tensors[name], quantized.activations[name]
        assert codes.dtype == parameters.format.dtype, name
        assert codes.shape == wanted.shape, name
        assert codes.reshape(-1).tolist() == wanted.flat, f"tensor {name!r} differs"
    assert tuple(result.outputs) == tuple(result.real_outputs) == network.graph.outputs
    for name, codes in result.outputs.items():
        scale, zero_point, _ = network.quantizers[name]
        reals = [float(dequantize(q, scale, zero_point)) for q in network.tensors[name].flat]
        assert codes.tolist() == result.tensors[name].tolist()
        assert result.real_outputs[name].reshape(-1).tolist() == reals, name


def assert_same_records(result, network, machine, track):
    """Counts, cycles, events and ranges of every layer on the grid; nothing of the others."""
    records = {record.name: record for record in result.layers}
    assert set(network.gemms) <= set(records)
    for name, record in records.items():
        assert record.output_shape == network.tensors[record.output].shape[1:]
        if name not in network.gemms:
            assert (record.macs, record.utilisation) == (0, 0.0), name
            operations = network.element_operations[name]
            assert record.operations.vector_operations == operations, name
            assert record.cycles.vector == record.cycles.total, name
            assert record.cycles.vector == (math.ceil(operations / machine.vector_lanes) if machine.vector_lanes else 0)
            assert record.range_min is None
            assert record.overflow_events == (None if track == "none" else 0)
            continue
        gemms = network.gemms[name]
        macs = gemms.num_outputs * gemms.reduction * gemms.num_positions * gemms.groups
        assert (record.macs, record.operations.multiplications, record.operations.additions) == (macs,) * 3
        assert record.operations.requantizations == math.prod(network.tensors[record.output].shape)
        cycles = timing.count(gemms.num_outputs, gemms.reduction, gemms.num_positions, machine, gemms.groups)
        assert (record.cycles.load, record.cycles.multiply, record.cycles.drain) == (
            cycles.load, cycles.multiply, cycles.drain), name  # fmt: skip
        assert record.cycles.stall == record.cycles.vector == 0
        assert record.cycles.total == cycles.total
        assert record.utilisation == macs / (machine.rows * machine.columns * cycles.total)
        outputs = gemms.outputs
        events = (
            sum(out.events for out in outputs),
            sum(out.events > 0 for out in outputs),
            sum(out.partial_events for out in outputs),
        )
        assert (record.overflow_events, record.overflowed_outputs, record.partial_overflow_events) == (
            (None, None, None) if track == "none" else events), name  # fmt: skip
        ends = min(out.range_min for out in outputs), max(out.range_max for out in outputs)
        assert (record.range_min, record.range_max) == (ends if track == "range" else (None, None)), name


def varied_machine(seed, **fields):
    """A machine whose free fields depend on the text ``seed`` alone, so that a table of cases covers many machines."""
    number = zlib.crc32(seed.encode())

    def pick(*choices):
        nonlocal number
        number, index = divmod(number, len(choices))
        return choices[index]

    chosen = {
        "dataflow": pick("output_stationary", "broadcast", "weight_stationary", "input_stationary"),
        "overflow": pick("wrap", "saturate"),
        "zero_point": pick("folded", "at_input"),
        "reduction_order": pick("channel_first", "spatial_first"),
        "accumulator_bits": pick(12, 14, 16, 18, 20, 32),
        "partial_sum_bits": pick(None, 12, 15),
        "adder_tree_bits": pick(None, 12, 15),
        "rows": pick(1, 2, 3, 4),
        "columns": pick(1, 2, 3, 5),
        "double_buffered": pick(False, True),
        "ragged_folds": pick("used", "full"),
        "product_shift_bits": pick(0, 0, 0, 1, 4),
        "product_rounding": pick("floor", "half_even", "half_away"),
        "pe_latency_cycles": pick(1, 1, 2, 3),
        "vector_lanes": pick(None, 1, 7),
    }
    return ax.Machine(**{**chosen, **fields})
