"""Depthwise convolution, channels last: the taps of neighbouring outputs, summed in registers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir

from accelsim_kernels._jit import Int
from accelsim_kernels.processor import Instructions, instructions
from accelsim_kernels.vectors.code import (
    INT1,
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
from accelsim_kernels.vectors.products import plus_bytes, plus_words

_SIDE_BY_SIDE = ir.Constant(ir.VectorType(INT32, 2 * LANES), list(range(2 * LANES)))
_MIDDLE_SWAPPED = ir.Constant(VECTOR, [four + i for four in (0, 8, 4, 12) for i in range(4)])


def _interleaved(builder: Any, left: Any, right: Any, half: int) -> Any:
    """Interleave one half of every 16 bytes of two vectors, as the processor does in one instruction."""
    count, at_once = left.type.count, 128 // left.type.element.width
    part = at_once // 2
    places = [begin + half * part + i for begin in range(0, count, at_once) for i in range(part)]
    mask = ir.Constant(ir.VectorType(INT32, count), [at + side * count for at in places for side in range(2)])
    return builder.shuffle_vector(left, right, mask)


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

    def tap_by_tap(builder: Any, arrays: Arrays) -> None:
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

    def by_pairs(builder: Any, arrays: Arrays) -> None:
        _, base, _, _, column, _, place = arrays.values
        kind = arrays.kinds[0].dtype
        narrow, words = ir.VectorType(ir.IntType(kind.bitwidth), LANES), ir.VectorType(INT16, LANES)
        totals = [cgutils.alloca_once_value(builder, ir.Constant(VECTOR, None)) for _ in range(num_vectors)]
        width, count = builder.extract_value(arrays.array(3).shape, 1), arrays.array(2).nitems

        def operands(tap: Any, v: int) -> tuple[Any, Any]:
            begin = builder.add(base, arrays.load(2, tap, INT64, 8))
            loaded = arrays.load(0, builder.add(begin, index(v * LANES)), narrow)
            weight = builder.add(builder.add(builder.mul(tap, width), column), index(v * LANES))
            return loaded if narrow == words else builder.zext(loaded, words), arrays.load(3, weight, words)

        def add(v: int, first: tuple[Any, Any], second: tuple[Any, Any]) -> None:
            left, right = (
                builder.shuffle_vector(*(_interleaved(builder, *both, half) for half in range(2)), _SIDE_BY_SIDE)
                for both in zip(first, second, strict=True)
            )
            builder.store(plus_words(builder, builder.load(totals[v]), left, right), totals[v])

        with cgutils.for_range(builder, builder.lshr(count, index(1)), intp=INT64) as pair:
            tap = builder.shl(pair.index, index(1))
            for v in range(num_vectors):
                add(v, operands(tap, v), operands(builder.add(tap, index(1)), v))
        with builder.if_then(builder.trunc(count, INT1)):
            none = ir.Constant(words, None)
            for v in range(num_vectors):
                add(v, operands(builder.sub(count, index(1)), v), (none, none))
        for v in range(num_vectors):
            total = builder.load(totals[v])
            in_order = builder.shuffle_vector(total, total, _MIDDLE_SWAPPED)
            arrays.store(in_order, 5, builder.add(place, index(v * LANES)), 4)

    return vectorised(scalar, by_pairs if instructions() is Instructions.AVX2 else tap_by_tap)


window_4 = _window(4)
window_1 = _window(1)

TAPS_AT_A_TIME = 2 if instructions() is Instructions.AVX2 else 4
"""Taps that `window_dots` multiplies in one instruction: two of 16 bits, or four of 8."""

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
    """Sum the taps of 64 neighbouring outputs, `TAPS_AT_A_TIME` in one instruction, modulo 2**32.

    Parameters
    ----------
    rows, base, sums, place
        As in `window_4`; rows of 8 bits.
    segments : int64 array
        As in `window_4`, filled up to a multiple of `TAPS_AT_A_TIME` with any of them.
    weights : uint8 array
        Bytes of signed weights, which have so many bits that those of the taps of an instruction take 32: by as many
        taps, then, for ``v, l, j`` below 4, of channel ``16 l + 4 v + j`` all of them.
    begin : int64
        Where in ``weights`` those of the 64 outputs begin.
    """
    kind, taps = np.dtype(f"int{32 // TAPS_AT_A_TIME}"), TAPS_AT_A_TIME
    some = weights[begin : begin + segments.size * 4 * LANES * kind.itemsize].view(kind)
    signed = some.reshape(-1, 4, 4, 4, taps).astype(np.int64)
    for i in range(4 * LANES):
        total = 0
        for t in range(segments.size):
            weight = signed[t // taps, i % 16 // 4, i // 16, i % 4, t % taps]
            total += int(weight) * int(rows[base + segments[t] + i])
        sums[place + i] = (total + (1 << 31)) % (1 << 32) - (1 << 31)


def _window_dots(builder: Any, arrays: Arrays) -> None:
    _, base, _, _, begin, _, place = arrays.values
    totals = [cgutils.alloca_once_value(builder, ir.Constant(VECTOR, None)) for _ in range(4)]
    no_bytes, plus = ir.Constant(_BYTES, None), plus_words if TAPS_AT_A_TIME == 2 else plus_bytes

    with cgutils.for_range(builder, builder.sdiv(arrays.array(2).nitems, index(TAPS_AT_A_TIME)), intp=INT64) as group:
        tap = builder.mul(group.index, index(TAPS_AT_A_TIME))
        offsets = [arrays.load(2, builder.add(tap, index(t)), INT64, 8) for t in range(TAPS_AT_A_TIME)]
        taps = [arrays.load(0, builder.add(base, offset), _BYTES) for offset in offsets]
        here = builder.add(begin, builder.mul(group.index, index(4 * 4 * LANES)))
        for half in range(2):
            pairs = [_interleaved(builder, taps[t], taps[t + 1], half) for t in range(0, TAPS_AT_A_TIME, 2)]
            for quarter in range(2):
                v = 2 * half + quarter
                weight = arrays.load(3, builder.add(here, index(v * 4 * LANES)), VECTOR)
                if TAPS_AT_A_TIME == 2:  # bytes with 0 between them are numbers of 16 bits
                    operand = _interleaved(builder, pairs[0], no_bytes, quarter)
                else:
                    first, second = (builder.bitcast(pair, _WORDS) for pair in pairs)
                    operand = _interleaved(builder, first, second, quarter)
                operand, total = builder.bitcast(operand, VECTOR), builder.load(totals[v])
                builder.store(plus(builder, total, operand, weight), totals[v])
    sums = [builder.load(total) for total in totals]
    for quarter in range(4):  # the channels in order again
        four = [4 * quarter + i for i in range(4)]
        mask = ir.Constant(ir.VectorType(INT32, 8), [*four, *(LANES + i for i in four)])
        halves = [builder.shuffle_vector(sums[v], sums[v + 1], mask) for v in (0, 2)]
        whole = builder.shuffle_vector(*halves, ir.Constant(ir.VectorType(INT32, LANES), list(range(LANES))))
        arrays.store(whole, 5, builder.add(place, index(quarter * LANES)), 4)


window_dots = vectorised(_window_dots_scalar, _window_dots)
