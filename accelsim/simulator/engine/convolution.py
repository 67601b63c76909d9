"""Convolutions on the grid in bounded memory: columns are made for some positions at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import OperandError
from accelsim.machine import Machine
from accelsim.program.geometry import Geometry
from accelsim.simulator.engine.bounds import for_kernels
from accelsim.simulator.engine.gemm import EngineName, Track, run_gemm
from accelsim.simulator.engine.gemm_operands import GemmOperands, GemmValues
from accelsim_kernels.lowering import columns_of

Integers = npt.NDArray[Any]

MAX_COLUMN_BYTES = 64 << 20
"""Columns held at a time."""

_FAST_COLUMN_BYTES = 4 << 20
"""Columns that the fast engine makes at a time: they should stay in the last-level cache."""


def positions_at_a_time(reduction: int, num_positions: int, engine: EngineName, where: str, item_bytes: int = 4) -> int:
    """Return how many positions' columns are made at a time.

    Parameters
    ----------
    reduction : int
        K.
    num_positions : int
        P of the whole layer.
    engine : {"stepped", "fast"}
        The stepped engine needs all positions at once, as its folds run over them.
    where : str
        Named in the error.
    item_bytes : int
        Of an operand in the columns of the fast engine; the stepped engine's have 4.

    Raises
    ------
    OperandError
        When the columns of the stepped engine, or of one position, do not fit `MAX_COLUMN_BYTES`.
    """
    bytes_per_position = (4 if engine == "stepped" else item_bytes) * reduction
    needed = bytes_per_position * (num_positions if engine == "stepped" else 1)
    if needed > MAX_COLUMN_BYTES:
        raise OperandError(
            f"{where}: the {engine} engine needs {needed >> 20} MiB of columns at once, at most "
            f"{MAX_COLUMN_BYTES >> 20} MiB are allowed; run fewer samples at a time"
            + (" or use the fast engine" if engine == "stepped" else "")
        )
    if engine == "stepped":
        return num_positions
    return max(1, min(num_positions, _FAST_COLUMN_BYTES // bytes_per_position))


def run_convolution(
    activations: Integers,
    operands: list[GemmOperands],
    geometry: Geometry,
    pad_value: int,
    machine: Machine,
    engine: EngineName,
    track: Track,
    where: str,
) -> Iterator[tuple[int, int, int, GemmValues]]:
    """Run a convolution group by group and yield its values piece by piece.

    Parameters
    ----------
    activations : integer array, shape (batch, channels, height, width)
        Operands as the PEs multiply them, of 8, 16 or 32 bits and contiguous.
    operands : list of GemmOperands
        One per group, with empty columns.
    geometry : Geometry
        Shape of the convolution.
    pad_value : int
        What a padded tap holds, an integer of the activations' type.
    machine, engine, track
        As in `run_gemm`.
    where : str
        Named in errors.

    Yields
    ------
    tuple
        (group, first position, position after the last, values of these positions).
    """
    num_positions = activations.shape[0] * geometry.num_positions
    step = positions_at_a_time(geometry.reduction, num_positions, engine, where, activations.itemsize)
    alone = len(activations) == 1 and geometry.is_pointwise and step >= num_positions
    for group, gemm in enumerate(operands):
        for begin in range(0, num_positions, step):
            end = min(begin + step, num_positions)
            if alone:  # the planes of the group's channels are its columns
                planes = slice(group * geometry.group_channels, (group + 1) * geometry.group_channels)
                columns = activations[0, planes].reshape(geometry.group_channels, -1)
            else:
                columns = convolution_columns(activations, geometry, group, begin, end, pad_value, machine)
            filled = GemmOperands(gemm.weights, columns, gemm.start, gemm.weight_zero_points)
            yield group, begin, end, run_gemm(filled, machine, engine, track)


def convolution_columns(
    activations: Integers, geometry: Geometry, group: int, begin: int, end: int, pad_value: int, machine: Machine
) -> Integers:
    """Return the operands (k, end - begin) of some positions of a group; parameters as in `run_convolution`."""
    columns = np.empty((geometry.reduction, end - begin), dtype=activations.dtype)
    bits = {1: np.uint8, 2: np.uint16}.get(activations.itemsize, np.int32)
    columns_of(
        for_kernels(activations).view(bits),
        np.int64(group * geometry.group_channels),
        np.int64(geometry.group_channels),
        geometry.kernel_shape,
        geometry.strides,
        geometry.pads[:2],
        geometry.dilations,
        geometry.output_shape,
        np.int64(np.array(pad_value, dtype=activations.dtype).view(bits)),
        machine.reduction_order == "spatial_first",
        np.int64(begin),
        np.int64(end),
        columns.view(bits),
    )
    return columns
