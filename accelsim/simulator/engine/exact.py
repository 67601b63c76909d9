"""Sums of channels that cannot overflow, by what the processor does best and bounds prove exact."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from accelsim.simulator.engine.bounds import ChannelBounds, for_kernels, signed_sums
from accelsim.simulator.engine.dots import float_up_to
from accelsim_kernels.exact import dot_columns, to_next_line
from accelsim_kernels.processor import has_dot_instructions, takes_bytes
from accelsim_kernels.vectors.code import GROUP_BYTES

Integers = npt.NDArray[Any]
Int64 = npt.NDArray[np.int64]

_LARGE_BYTES = 4 << 20
"""From how many bytes on numpy asks for large pages."""

_LINE_BYTES = 64
"""A line of the cache."""

_SMALL = 1 << 13
"""Elements of arrays that are filled before it is known where they begin."""

_BYTES, _WORDS = (np.uint8, np.uint8, 0, 255), (np.int16, np.uint16, -(1 << 15), (1 << 15) - 1)
"""The activations that the instructions take: their type, the type of their bits, their range."""

_SHORT = ((1 << 31) - 1) // (255 << 7)
"""Length of a reduction whose products of 8 bits fit 32 bits, whatever they are."""


@lru_cache(maxsize=64)
def _all_of(length: int) -> Int64:
    """Return the numbers of all channels; kernels read them, so it is never written to."""
    return np.arange(length)


def in_large_pages(shape: tuple[int, int], zeros: bool = False) -> Int64:
    """Return an array, uninitialised or of zeros, in memory that is cheap to touch for the first time and to fill.

    Notes
    -----
    numpy asks for large pages from 4 MiB on; touching 2 MiB in small ones can take longer than the sums that go there.
    Of what is asked for too much nothing is touched, and of zeros nothing is before it is written. The array begins
    with a line of the cache: vectors that are stored across two lines take twice as long.
    """
    size = shape[0] * shape[1]
    if size < _SMALL:
        return np.zeros(shape, dtype=np.int64) if zeros else np.empty(shape, dtype=np.int64)
    asked = max(size, _LARGE_BYTES // 8 if size > _LARGE_BYTES // 64 else 0) + _LINE_BYTES // 8
    array = np.zeros(asked, dtype=np.int64) if zeros else np.empty(asked, dtype=np.int64)
    begin = to_next_line(array)
    return array[begin : begin + size].reshape(shape)


class ColumnSurvey(NamedTuple):
    """What was seen of activations while they were multiplied."""

    nonzero: Int64
    """Of every term the activations that are not 0, shape (k,)."""
    least: int
    """The least of them all."""
    greatest: int
    """And the greatest."""


def exact_product(weights: Integers, columns: Integers, start: Int64) -> tuple[Int64, ColumnSurvey] | None:
    """Do what `exact_sums` does with all channels, where the operands' types alone prove that 32 bits hold the sums.

    Parameters
    ----------
    weights : integer array, shape (n, k)
        Contiguous; of 8 bits where there is a result.
    columns : integer array, shape (k, p)
        Likewise.
    start : int64 array, shape (n,)
        What is added.

    Returns
    -------
    tuple or None
        Sums of shape (n, p) and what was seen of the columns; None where the operands have more than 8 bits, there are
        too many or the processor has no dot-product instructions.
    """
    num_outputs, reduction = weights.shape
    if columns.itemsize != 1 or weights.itemsize != 1 or reduction > _SHORT or not has_dot_instructions():
        return None
    accumulators, flipped = in_large_pages((num_outputs, columns.shape[1])), 0
    if columns.dtype.kind == "i":
        positive, negative = signed_sums(weights)
        columns, flipped, start = columns.view(np.uint8), 1 << 7, start - 128 * (positive + negative)
    return accumulators, _multiply(weights, columns, flipped, -flipped, (start, _all_of(num_outputs), accumulators))


def exact_sums(
    bounds: ChannelBounds, columns: Integers, least: int, greatest: int, rows: Int64, accumulators: Int64
) -> ColumnSurvey | None:
    """Compute ``start[n] + Σ_k W[n, k] * X[k, p]`` for channels whose order of additions does not matter.

    Parameters
    ----------
    bounds : ChannelBounds
        With weights and start values of all channels.
    columns : integer array, shape (k, p)
        Activations, contiguous.
    least, greatest : int
        Bounds of them.
    rows : int64 array
        The channels, in ascending order.
    accumulators : int64 array, shape (n, p)
        Output; other rows are left alone.

    Returns
    -------
    ColumnSurvey or None
        None where the way that was taken sees nothing of the activations.

    Notes
    -----
    The first of these that is proven exact: dot-product instructions, docs/numerics.md (100); a float32 or a float64
    matrix product, (101); float64 matrix products of parts of the reduction, each within (101).
    """
    operands = _dot_operands(bounds, columns, least, greatest, rows) if has_dot_instructions() else None
    if operands is not None:
        return _dot(bounds, operands, rows, accumulators)
    _float(bounds, columns, max(abs(least), abs(greatest)), rows, accumulators)
    return None


def _float(bounds: ChannelBounds, columns: Integers, most: int, rows: Int64, accumulators: Int64) -> None:
    """Fill some rows of the accumulators by floating-point matrix products; ``most`` is the greatest activation."""
    weights, reduction = bounds.weights[rows], bounds.weights.shape[1]
    kind, step = float_up_to(int((bounds.positive - bounds.negative)[rows].max()) * most), reduction
    if kind is None:
        widest = max(abs(int(weights.min())), abs(int(weights.max())))
        kind, step = np.float64, max(1, (1 << 53) // (most * widest))
    everything = rows.size == len(accumulators)
    sums = accumulators if everything else np.empty((rows.size, columns.shape[1]), dtype=np.int64)
    for begin in range(0, reduction, step):
        part = slice(begin, begin + step)
        product = weights[:, part].astype(kind) @ columns[part].astype(kind)
        if begin:
            sums += product.astype(np.int64)
        else:
            np.copyto(sums, product, casting="unsafe")
    start = bounds.start[rows, None]
    if start.any():
        sums += start
    if not everything:
        accumulators[rows] = sums


class _DotOperands(NamedTuple):
    """Operands of the dot-product instructions, (100)."""

    weights: Integers
    """int8 or int16 array, shape (n, k), of all channels."""
    bits: Integers
    """Of the activations; uint8 or uint16 array, shape (k, p)."""
    flipped: int
    """Those of them that are flipped on the way."""
    shift: int
    """What the instructions' activations are less than the columns'."""
    as_given: bool
    """Whether a 0 in the columns is 0 in the bits."""


def _dot_operands(
    bounds: ChannelBounds, columns: Integers, least: int, greatest: int, rows: Int64
) -> _DotOperands | None:
    """Return the narrowest form of the operands; None where there is none or sums do not fit 32 bits."""
    weights = bounds.narrow
    if weights is None or greatest - least >= 1 << 16:
        return None
    words = weights.itemsize == 2 or greatest - least >= 1 << 8
    kind, unsigned, low, high = _WORDS if words else _BYTES
    flipped = shift = 0
    if columns.itemsize == 1 + words:
        if (columns.dtype.kind == "i") != words:
            flipped = 1 << (8 * columns.itemsize - 1)
            shift = flipped if words else -flipped
        bits = columns if columns.dtype.kind == "u" else columns.view(unsigned)
    else:
        if least < low or greatest > high:
            shift = least - low
        bits = np.subtract(columns, shift, dtype=np.int32).astype(kind).view(unsigned)
    if words or weights.shape[1] > _SHORT:
        lowest, highest = bounds.of_products(least - shift, greatest - shift)
        if lowest[rows].min() < -(1 << 31) or highest[rows].max() >= 1 << 31:
            return None
    if weights.itemsize < bits.itemsize:
        weights = weights.astype(np.int16)
    return _DotOperands(weights, bits, flipped, shift, flipped != 0 or shift == 0)


def _dot(bounds: ChannelBounds, operands: _DotOperands, rows: Int64, accumulators: Int64) -> ColumnSurvey | None:
    """Fill some rows of the accumulators by dot-product instructions."""
    weights, bits, flipped, shift, as_given = operands
    start = bounds.start + shift * (bounds.positive + bounds.negative) if shift else bounds.start
    survey = _multiply(weights, for_kernels(bits), flipped, shift, (for_kernels(start), rows, accumulators))
    return survey if as_given else None


def _multiply(
    weights: Integers, bits: Integers, flipped: int, shift: int, sums: tuple[Int64, Int64, Int64]
) -> ColumnSurvey:
    """Call the kernel; parameters as in `_DotOperands`, and start values, rows and accumulators."""
    if not takes_bytes():
        weights = weights.astype(np.int16, copy=False)
    reduction, per_group = weights.shape[1], GROUP_BYTES // weights.itemsize
    length = reduction + -reduction % per_group
    if length > reduction:
        filled = np.zeros((len(weights), length), dtype=weights.dtype)
        filled[:, :reduction] = weights
        weights = filled
    nonzero = np.zeros(length, dtype=np.int64)
    least, greatest = dot_columns(for_kernels(weights), bits, flipped, *sums[:2], nonzero, sums[2])
    return ColumnSurvey(nonzero[:reduction], int(least) + shift, int(greatest) + shift)
