"""Elementary operations by width: docs/energy.md section 1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import ceil, prod

import numpy as np
import numpy.typing as npt

from accelsim.machine import Machine, Requantizer
from accelsim.program import layers as kinds
from accelsim.simulator.counts import Operation, OperationCount, ordered
from accelsim.simulator.widths import GridWidths, ceil_log2

_FLOAT_BITS = {"float32": 32, "float64": 64}
_WIDE = 32
"""Width of what the element-wise layers compute with."""


def gemm_operations(
    weights: npt.NDArray[np.int32],
    weight_zero_points: npt.NDArray[np.int64],
    groups: int,
    num_positions: int,
    machine: Machine,
    widths: GridWidths,
) -> OperationCount:
    """Count the operations of a GEMM up to its accumulators.

    Parameters
    ----------
    weights : int32 array, shape (groups * n, k)
        Operands.
    weight_zero_points : int64 array, shape (groups * n,)
        z_w of docs/numerics.md (8); a group in which one is not zero needs row sums.
    groups : int
        GEMMs of one shape.
    num_positions : int
        P of each.
    machine, widths
        Grid and widths.

    Returns
    -------
    OperationCount
        docs/energy.md (1) to (3).
    """
    reduction = int(weights.shape[1])
    macs = int(weights.size) * num_positions
    asymmetric = weight_zero_points.reshape(groups, -1) != 0
    row_sums = int(asymmetric.any(axis=1).sum()) * reduction * num_positions
    corrections = int(asymmetric.sum()) * num_positions
    widest = widths.activation + ceil_log2(reduction)
    into_accumulators = int(weights.shape[0]) * num_positions * additions_per_output(machine, reduction)
    elementary: Counter[Operation] = Counter()
    elementary[Operation("multiply", widths.weight, widths.activation)] += macs
    if machine.product_shift_bits and machine.product_rounding != "floor":
        exact = widths.weight + widths.activation
        elementary[Operation("add", exact, exact)] += macs
    if machine.dataflow == "output_stationary":
        elementary[Operation("add", widths.accumulator, widths.product)] += macs
    else:
        elementary[Operation("add", widths.inner, widths.product)] += macs - into_accumulators
        elementary[Operation("add", widths.accumulator, widths.inner)] += into_accumulators
    elementary[Operation("add", widest, widths.activation)] += row_sums
    elementary[Operation("multiply", widths.weight, widest)] += corrections
    elementary[Operation("add", widths.accumulator, widths.weight + widest)] += corrections
    return OperationCount(
        multiplications=macs,
        additions=macs,
        row_sum_additions=row_sums + corrections,
        row_sum_multiplications=corrections,
        widths=ordered(elementary),
    )


def additions_per_output(machine: Machine, reduction: int) -> int:
    """Return how often an accumulator is added to: docs/numerics.md (13) to (16)."""
    match machine.dataflow:
        case "output_stationary":
            return reduction
        case "broadcast":
            return ceil(reduction / machine.columns)
        case _:
            return ceil(reduction / machine.rows)


def layer_operations(layer: kinds.Layer, num_samples: int, machine: Machine, bits: Sequence[int]) -> OperationCount:
    """Count the operations of a layer over some samples.

    Parameters
    ----------
    layer : Layer
        What runs.
    num_samples : int
        How often.
    machine : Machine
        Where.
    bits : sequence of int
        Width of each input, then of the output.

    Returns
    -------
    OperationCount
        docs/energy.md (1) to (5).
    """
    outputs = prod(layer.output_shape) * num_samples
    if isinstance(layer, kinds.MacLayer):
        widths = GridWidths.of(machine, layer.weight_format.bits, layer.input_format.bits)
        positions = layer.num_positions * num_samples
        grid = gemm_operations(layer.weights, layer.weight_zero_points, layer.groups, positions, machine, widths)
        each = rescaling(layer.rescale.requantizer, widths.accumulator) + _ending(widths.accumulator, bits[-1])
        return grid + OperationCount(requantizations=outputs, widths=_times(each, outputs))
    number, each, times = _vector(layer, outputs, num_samples, bits)
    return OperationCount(vector_operations=number, widths=_times(each, times))


def rescaling(requantizer: Requantizer, bits: int) -> Counter[Operation]:
    """Return the operations that bring one value of some width onto another grid, docs/energy.md (4)."""
    rounding = [rule for rule in requantizer.rounding if rule != "floor"]
    operations: Counter[Operation] = Counter()
    match requantizer.multiplier:
        case "integer":
            two = len(requantizer.rounding) == 2
            width = min(bits, 32 if two else 65 - requantizer.multiplier_bits)
            operations[Operation("multiply", width, requantizer.multiplier_bits)] += 1
            for rule, wide in zip(requantizer.rounding, (width + requantizer.multiplier_bits, width + 1), strict=False):
                operations[Operation("shift", wide, wide)] += 1
                operations[Operation("add", wide, wide)] += rule != "floor"
        case "power_of_two":
            operations[Operation("shift", bits, bits)] += 1
            operations[Operation("add", bits, bits)] += len(rounding)
        case kind:
            width = _FLOAT_BITS[kind]
            operations[Operation("float_multiply", width, width)] += 1
            operations[Operation("float_add", width, width)] += 1
    return operations


def _ending(bits: int, output_bits: int) -> Counter[Operation]:
    """Return the addition of the output zero point and the clamp."""
    return Counter({Operation("add", bits, output_bits): 1, Operation("compare", bits, output_bits): 2})


def _times(each: Counter[Operation], times: int) -> tuple[tuple[Operation, int], ...]:
    return ordered({operation: count * times for operation, count in each.items()})


def _vector(
    layer: kinds.Layer, outputs: int, num_samples: int, bits: Sequence[int]
) -> tuple[int, Counter[Operation], int]:
    """Return a layer's vector operations, and the elementary ones of an element with how many elements there are."""
    wide, code = _WIDE, bits[-1]
    match layer:
        case kinds.AddLayer():
            return 2 * outputs, _addition(layer, bits), outputs
        case kinds.MultiplyLayer():
            each = Counter(Operation("add", width + 1, width) for width in bits[:2])
            each += Counter({Operation("multiply", bits[0] + 1, bits[1] + 1): 1})
            return outputs, each + rescaling(layer.rescale.requantizer, wide) + _ending(wide, code), outputs
        case kinds.ConcatLayer():
            elements, each = 0, Counter[Operation]()
            for length, width, rescale in zip(layer.sizes, bits, layer.rescales, strict=False):
                if rescale is not None:
                    elements += length * num_samples
                    part = Counter({Operation("add", width + 1, width): 1})
                    part += rescaling(rescale.requantizer, width + 1) + _ending(wide, code)
                    each += Counter({operation: count * length for operation, count in part.items()})
            return elements, each, num_samples
        case kinds.MaxPoolLayer():
            taps = prod(layer.geometry.kernel_shape)
            return outputs * taps, Counter({Operation("compare", bits[0], bits[0]): taps - 1}), outputs
        case kinds.AveragePoolLayer():
            taps = prod(layer.geometry.kernel_shape)
            width = bits[0] + ceil_log2(taps)
            each = Counter({Operation("add", width, bits[0]): taps - 1})
            each[Operation("divide", width, taps.bit_length())] += 1
            return outputs * taps, each, outputs
        case kinds.TableLayer():
            return outputs, Counter({Operation("look_up", bits[0], code): 1}), outputs
        case kinds.SoftmaxLayer():
            each = Counter({Operation("compare", bits[0], bits[0]): 1, Operation("add", bits[0] + 1, bits[0]): 1})
            each += Counter({Operation("look_up", bits[0], 24): 1, Operation("add", wide, 24): 1})
            each[Operation("divide", wide + layer.bits, wide)] += 1
            return outputs, each, outputs
        case _:
            return 0, Counter(), 0


def _addition(layer: kinds.AddLayer, bits: Sequence[int]) -> Counter[Operation]:
    """Return the elementary operations of one output of docs/numerics.md (25) to (27)."""
    requantizer, wide = layer.rescales[0].requantizer, _WIDE
    each = Counter(Operation("add", width + 1, width) for width in bits[:2])
    match requantizer.multiplier:
        case "integer":
            for width in bits[:2]:
                each += rescaling(requantizer, width + 1 + layer.left_shift)
            each[Operation("add", wide, wide)] += 1
            each += rescaling(requantizer, wide)
        case "power_of_two":
            each[Operation("shift", wide, wide)] += 2
            each[Operation("add", wide, wide)] += 1
            each += rescaling(requantizer, wide)
        case kind:
            width = _FLOAT_BITS[kind]
            each[Operation("float_multiply", width, width)] += 2
            each[Operation("float_add", width, width)] += 2
    return each + _ending(wide, bits[-1])
