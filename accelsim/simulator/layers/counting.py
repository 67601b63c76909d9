"""The operations of a layer of any kind: docs/energy.md section 1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import prod

import numpy as np
import numpy.typing as npt

from accelsim.machine import Machine, Requantizer
from accelsim.program import layers as kinds
from accelsim.simulator.counts import Operation, OperationCount, ordered
from accelsim.simulator.layers.registry import count_layer
from accelsim.simulator.operations import ending, gemm_operations, rescaling
from accelsim.simulator.widths import GridWidths


def layer_operations(
    layer: kinds.Layer, num_samples: int, machine: Machine, bits: Sequence[int], asymmetric_groups: int = 0
) -> OperationCount:
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
    asymmetric_groups : int
        Groups of a layer with operands that a run computes in which weights had a zero point other than 0.

    Returns
    -------
    OperationCount
        docs/energy.md (1) to (5).
    """
    outputs = prod(layer.output_shape) * num_samples
    if isinstance(layer, kinds.GridLayer):
        widths = GridWidths.of(machine, layer.weight_format.bits, layer.input_format.bits)
        weights, zeros, requantizer = _operands(layer, machine, asymmetric_groups)
        grid = gemm_operations(weights, zeros, layer.groups, layer.num_positions * num_samples, machine, widths)
        if requantizer is None:
            return grid
        each = rescaling(requantizer, widths.accumulator) + ending(widths.accumulator, bits[-1])
        return grid + OperationCount(requantizations=outputs, widths=_times(each, outputs))
    number, each, times = count_layer(layer, outputs, num_samples, bits)
    return OperationCount(vector_operations=number, widths=_times(each, times))


def _operands(
    layer: kinds.GridLayer, machine: Machine, asymmetric_groups: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], Requantizer | None]:
    """Return weights and zero points of the sizes that are counted, and what requantizes."""
    if isinstance(layer, kinds.MacLayer):
        return layer.weights, layer.weight_zero_points, None if layer.rescale is None else layer.rescale.requantizer
    zeros = np.zeros((layer.groups, layer.num_outputs), dtype=np.int64)
    zeros[:asymmetric_groups] = 1
    weights = np.broadcast_to(np.int32(0), (zeros.size, layer.reduction))
    return weights, zeros.reshape(-1), machine.requantizer if layer.requantizes else None


def _times(each: Counter[Operation], times: int) -> tuple[tuple[Operation, int], ...]:
    return ordered({operation: count * times for operation, count in each.items()})
