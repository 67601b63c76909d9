"""Depthwise convolution, channels last: the taps of neighbouring outputs, summed in registers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir

from accelsim_kernels._jit import Int
from accelsim_kernels.vectors.code import (
    INT8,
    INT16,
    INT32,
    INT64,
    LANES,
    VECTOR,
    Activations,
    Arrays,
    cgutils,
    index,
    vectorised,
)
from accelsim_kernels.vectors.products import plus_bytes


def _window(num_vectors: int) -> Any:
    """Make the step that sums the taps of some neighbouring outputs, each channel with its own weights.

    Parameters
    ----------
    num_vectors : int
        Vectors of outputs, which lie side by side as their operands do.

    Returns
    -------
    callable
        ``(rows, base, segments, weights, column, sums, place)``, see `scalar` below.
    """
    num_outputs = num_vectors * LANES

    def scalar(
        rows: Activations,
        base: Int,
        segments: npt.NDArray[np.int64],
        weights: npt.NDArray[np.int16],
        column: Int,
        sums: npt.NDArray[np.int32],
        place: Int,
    ) -> None:
        """Set ``sums[place + i] = Σ_t weights[t, column + i] * rows[base + segments[t] + i]``.

        Parameters
        ----------
        rows : uint8 or int16 array
            Activations, channels last.
        base : int64
            Where in ``rows`` the window of the first output begins.
        segments : int64 array, shape (taps,)
            Where each tap is, after the base.
        weights : int16 array, shape (taps, channels)
            Weights.
        column : int64
            The first output's channel in ``weights``.
        sums : int32 array
            Output, modulo 2**32.
        place : int64
            The first output's place.
        """
        for i in range(num_outputs):
            total = 0
            for t in range(segments.size):
                total += int(weights[t, column + i]) * int(rows[base + segments[t] + i])
            sums[place + i] = (total + (1 << 31)) % (1 << 32) - (1 << 31)

    def generate(builder: Any, arrays: Arrays) -> None:
        _, base, _, _, column, _, place = arrays.values
        kind = arrays.kinds[0].dtype
        narrow, narrow_weight = ir.VectorType(ir.IntType(kind.bitwidth), LANES), ir.VectorType(INT16, LANES)
        widen = builder.sext if kind.signed else builder.zext
        totals = [cgutils.alloca_once_value(builder, ir.Constant(VECTOR, None)) for _ in range(num_vectors)]
        width = builder.extract_value(arrays.array(3).shape, 1)
        with cgutils.for_range(builder, arrays.array(2).nitems, intp=INT64) as tap:
            begin = builder.add(base, arrays.load(2, tap.index, INT64, 8))
            weight = builder.add(builder.mul(tap.index, width), column)
            for v in range(num_vectors):
                step = index(v * LANES)
                left = widen(arrays.load(0, builder.add(begin, step), narrow), VECTOR)
                right = builder.sext(arrays.load(3, builder.add(weight, step), narrow_weight), VECTOR)
                builder.store(builder.add(builder.load(totals[v]), builder.mul(left, right)), totals[v])
        for v in range(num_vectors):
            arrays.store(builder.load(totals[v]), 5, builder.add(place, index(v * LANES)), 4)

    return vectorised(scalar, generate)


window_4 = _window(4)
window_1 = _window(1)

_BYTES = ir.VectorType(INT8, 4 * LANES)
_WORDS = ir.VectorType(INT16, 2 * LANES)


def _window_dots_scalar(
    rows: Activations,
    base: Int,
    segments: npt.NDArray[np.int64],
    weights: npt.NDArray[np.uint8],
    begin: Int,
    sums: npt.NDArray[np.int32],
    place: Int,
) -> None:
    """Sum the taps of 64 neighbouring outputs, four taps in one instruction, modulo 2**32.

    Parameters
    ----------
    rows, base, sums, place
        As in `window_4`; rows of 8 bits.
    segments : int64 array
        As in `window_4`, filled up to a multiple of four with any of them.
    weights : uint8 array
        Bits of signed weights: by four taps, then, for ``v, l, j`` below 4, of channel ``16 l + 4 v + j`` the four.
    begin : int64
        Where in ``weights`` those of the 64 outputs begin.
    """
    signed = weights[begin : begin + segments.size * 4 * LANES].view(np.int8).reshape(-1, 4, 4, 4, 4).astype(np.int64)
    for i in range(4 * LANES):
        total = 0
        for t in range(segments.size):
            weight = signed[t // 4, i % 16 // 4, i // 16, i % 4, t % 4]
            total += int(weight) * int(rows[base + segments[t] + i])
        sums[place + i] = (total + (1 << 31)) % (1 << 32) - (1 << 31)


def _window_dots(builder: Any, arrays: Arrays) -> None:
    _, base, _, _, begin, _, place = arrays.values
    totals = [cgutils.alloca_once_value(builder, ir.Constant(VECTOR, None)) for _ in range(4)]

    def interleaved(left: Any, right: Any, half: int) -> Any:
        """Interleave one half of every 16 bytes of two vectors, as the processor does in one instruction."""
        count = left.type.count
        part = count // 8
        places = [quarter * 2 * part + half * part + i for quarter in range(4) for i in range(part)]
        mask = ir.Constant(ir.VectorType(INT32, count), [at + side * count for at in places for side in range(2)])
        return builder.shuffle_vector(left, right, mask)

    with cgutils.for_range(builder, builder.sdiv(arrays.array(2).nitems, index(4)), intp=INT64) as group:
        first = builder.mul(group.index, index(4))
        offsets = [arrays.load(2, builder.add(first, index(t)), INT64, 8) for t in range(4)]
        taps = [arrays.load(0, builder.add(base, offset), _BYTES) for offset in offsets]
        here = builder.add(begin, builder.mul(group.index, index(4 * 4 * LANES)))
        for half in range(2):
            pairs = [builder.bitcast(interleaved(taps[t], taps[t + 1], half), _WORDS) for t in (0, 2)]
            for quarter in range(2):
                v = 2 * half + quarter
                operand = builder.bitcast(interleaved(pairs[0], pairs[1], quarter), VECTOR)
                weight = arrays.load(3, builder.add(here, index(v * 4 * LANES)), VECTOR)
                builder.store(plus_bytes(builder, builder.load(totals[v]), operand, weight), totals[v])
    sums = [builder.load(total) for total in totals]
    for quarter in range(4):  # the channels in order again
        four = [4 * quarter + i for i in range(4)]
        mask = ir.Constant(ir.VectorType(INT32, 8), [*four, *(LANES + i for i in four)])
        halves = [builder.shuffle_vector(sums[v], sums[v + 1], mask) for v in (0, 2)]
        whole = builder.shuffle_vector(*halves, ir.Constant(ir.VectorType(INT32, LANES), list(range(LANES))))
        arrays.store(whole, 5, builder.add(place, index(quarter * LANES)), 4)


window_dots = vectorised(_window_dots_scalar, _window_dots)
