"""Every range that the registers of a layer run through on given codes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from accelsim.machine import Machine
from accelsim.program.layers import MacLayer
from accelsim.simulator.engine.convolution import convolution_columns, positions_at_a_time
from accelsim.simulator.engine.gemm import Int32, Int64, run_gemm
from accelsim.simulator.engine.gemm_operands import GemmOperands, GemmValues
from accelsim.simulator.engine.partials import partial_range
from accelsim.simulator.layers.grid import images_of, samples_first
from accelsim.simulator.layers.registry import Codes, wide


@dataclass(frozen=True, eq=False)
class RangePiece:
    """Some channels of a layer at some positions.

    Parameters
    ----------
    channels : slice
        Of all output channels.
    first_position : int
        Positions run over the samples; those of one sample are neighbours.
    values : GemmValues
        Exact accumulators and the range of the running sum, arrays of shape (channels, positions).
    partial_least, partial_greatest : int64 arrays or None
        What partial sums or adder trees are given; None where the grid has none.
    """

    channels: slice
    first_position: int
    values: GemmValues
    partial_least: Int64 | None
    partial_greatest: Int64 | None


def exact_accumulators(layer: MacLayer, codes: Codes, machine: Machine) -> Int64:
    """Return what a layer leaves in accumulators that hold everything: int64 (channels, samples * positions).

    Parameters
    ----------
    layer, codes, machine
        As in `register_ranges`.
    """
    whole = np.empty((layer.weights.shape[0], len(codes) * layer.num_positions), dtype=np.int64)
    for channels, first, operands in _pieces(layer, codes, machine):
        values = run_gemm(operands, _roomy(machine), "fast", "none").accumulators
        whole[channels, first : first + values.shape[1]] = values
    return whole


def register_ranges(layer: MacLayer, codes: Codes, machine: Machine, partials: bool = True) -> Iterator[RangePiece]:
    """Run a layer with registers that hold everything, and yield what they held, piece by piece.

    Parameters
    ----------
    layer : MacLayer
        As lowered for the machine.
    codes : integer array, samples along axis 0
        What it reads.
    machine : Machine
        Its order of additions.
    partials : bool
        Look at partial sums or adder trees, too, where the grid has them.

    Yields
    ------
    RangePiece
        Bounded in size.
    """
    roomy = _roomy(machine)
    for channels, first, operands in _pieces(layer, codes, machine):
        values = run_gemm(operands, roomy, "fast", "range")
        partial = partial_range(operands, roomy) if partials else None
        yield RangePiece(channels, first, values, *((None, None) if partial is None else partial))


def as_stored(codes: Int32, layer: MacLayer, num_samples: int) -> Codes:
    """Bring codes of shape (channels, samples * positions) to the shape and order in which the layer stores them."""
    if layer.geometry is None:
        return codes.T.reshape(num_samples, *layer.output_shape)
    return samples_first(codes, layer, num_samples)


def _roomy(machine: Machine) -> Machine:
    """Return a machine whose registers hold everything."""
    return machine.replace(accumulator_bits=64, partial_sum_bits=None, adder_tree_bits=None, overflow="wrap")


def _pieces(layer: MacLayer, codes: Codes, machine: Machine) -> Iterator[tuple[slice, int, GemmOperands]]:
    """Yield the channels, the first position and the operands of the GEMMs that a layer is made of."""
    fed = wide(codes) - np.int32(layer.input_offset) if layer.input_offset else wide(codes)
    where = f"layer {layer.name!r}"
    geometry = layer.geometry
    if geometry is None:
        rows = fed.reshape(-1, layer.reduction)
        step = positions_at_a_time(layer.reduction, len(rows), "fast", where)
        for begin in range(0, len(rows), step):
            columns = np.ascontiguousarray(rows[begin : begin + step].T)
            yield slice(None), begin, GemmOperands(layer.weights, columns, layer.start, layer.weight_zero_points)
        return
    images = images_of(layer, fed)
    num_positions = images.shape[0] * geometry.num_positions
    step = positions_at_a_time(geometry.reduction, num_positions, "fast", where)
    for group in range(layer.groups):
        part = slice(group * layer.num_outputs, (group + 1) * layer.num_outputs)
        operands = (layer.weights[part], layer.start[part], layer.weight_zero_points[part])
        for begin in range(0, num_positions, step):
            end = min(begin + step, num_positions)
            columns = convolution_columns(images, geometry, group, begin, end, layer.pad_value, machine)
            yield part, begin, GemmOperands(operands[0], columns, operands[1], operands[2])
