"""Sums of channels that cannot overflow, by what the processor does best and bounds prove exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.simulator.engine.bounds import ChannelBounds
from accelsim.simulator.engine.dots import exact_float
from accelsim_kernels.exact import dot_columns
from accelsim_kernels.vectors.code import GROUP_BYTES, has_dot_instructions
from accelsim_kernels.vectors.dots import ROWS_OF_WIDE_TILE

Integers = npt.NDArray[Any]
Int64 = npt.NDArray[np.int64]

_LARGE_BYTES = 4 << 20
"""From how many bytes on numpy asks for large pages."""


def in_large_pages(shape: tuple[int, int], zeros: bool = False) -> Int64:
    """Return an array, uninitialised or of zeros, in memory that is cheap to touch for the first time.

    Notes
    -----
    numpy asks for large pages from 4 MiB on; touching 2 MiB in small ones can take longer than the sums that go there.
    Of what is asked for too much nothing is touched, and of zeros nothing is before it is written.
    """
    size = shape[0] * shape[1]
    asked = max(size, _LARGE_BYTES // 8 if size > _LARGE_BYTES // 64 else 0)
    array = np.zeros(asked, dtype=np.int64) if zeros else np.empty(asked, dtype=np.int64)
    return array[:size].reshape(shape)


def exact_sums(
    bounds: ChannelBounds, columns: Integers, least: int, greatest: int, rows: Int64, accumulators: Int64
) -> None:
    """Compute ``start[n] + Σ_k W[n, k] * X[k, p]`` for channels whose order of additions does not matter.

    Parameters
    ----------
    bounds : ChannelBounds
        With weights and start values of all channels.
    columns : integer array, shape (k, p)
        Activations, contiguous.
    least, greatest : int
        Their range.
    rows : int64 array
        The channels.
    accumulators : int64 array, shape (n, p)
        Output; other rows are left alone.

    Notes
    -----
    The first of these that is proven exact: dot-product instructions, docs/numerics.md (100); a float32 or a float64
    matrix product, (101); float64 matrix products of parts of the reduction, each within (101).
    """
    weights = bounds.weights[rows]
    if has_dot_instructions() and _dot(bounds, weights, columns, least, greatest, rows, accumulators):
        return
    most = max(abs(least), abs(greatest))
    kind, step = exact_float(weights, most), weights.shape[1]
    if kind is None:
        kind, step = np.float64, max(1, (1 << 53) // (most * int(np.abs(weights).max())))
    total = np.repeat(bounds.start[rows, None], columns.shape[1], axis=1)
    for begin in range(0, weights.shape[1], step):
        part = slice(begin, begin + step)
        total += (weights[:, part].astype(kind) @ columns[part].astype(kind)).astype(np.int64)
    accumulators[rows] = total


def _dot(
    bounds: ChannelBounds, weights: Integers, columns: Integers, least: int, greatest: int, rows: Int64,
    accumulators: Int64,
) -> bool:  # fmt: skip
    """Compute by dot-product instructions; return False where operands or sums do not fit them."""
    low, high = int(weights.min()), int(weights.max())
    if greatest - least < 1 << 8 and low >= -(1 << 7) and high < 1 << 7:
        kind: Any = np.uint8
        shift = 0 if least >= 0 and greatest < 1 << 8 else least
    elif greatest - least < 1 << 16 and low >= -(1 << 15) and high < 1 << 15:
        kind = np.int16
        shift = 0 if least >= -(1 << 15) and greatest < 1 << 15 else least + (1 << 15)
    else:
        return False
    lowest, highest = bounds.of_products(least - shift, greatest - shift)
    if lowest[rows].min() < -(1 << 31) or highest[rows].max() >= 1 << 31:
        return False
    shifted = columns
    if shift:
        shifted = np.subtract(columns, shift, dtype=np.int32)
    size = np.dtype(kind).itemsize
    length = -(-weights.shape[1] * size // GROUP_BYTES) * GROUP_BYTES // size
    filled = np.zeros((-(-len(rows) // ROWS_OF_WIDE_TILE) * ROWS_OF_WIDE_TILE, length), dtype=f"int{8 * size}")
    filled[: len(rows), : weights.shape[1]] = weights
    start = bounds.start + shift * (bounds.positive + bounds.negative)
    operands = np.require(shifted, dtype=kind, requirements=("C", "W"))
    dot_columns(filled.reshape(-1).view(np.uint8), operands, start, rows, accumulators)
    return True
