"""The operations of a layer of any kind: docs/energy.md section 1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import prod

from accelsim.machine import Machine
from accelsim.program import layers as kinds
from accelsim.simulator.counts import Operation, OperationCount, ordered
from accelsim.simulator.layers.registry import count_layer
from accelsim.simulator.operations import ending, gemm_operations, rescaling
from accelsim.simulator.widths import GridWidths


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
        each = rescaling(layer.rescale.requantizer, widths.accumulator) + ending(widths.accumulator, bits[-1])
        return grid + OperationCount(requantizations=outputs, widths=_times(each, outputs))
    number, each, times = count_layer(layer, outputs, num_samples, bits)
    return OperationCount(vector_operations=number, widths=_times(each, times))


def _times(each: Counter[Operation], times: int) -> tuple[tuple[Operation, int], ...]:
    return ordered({operation: count * times for operation, count in each.items()})
