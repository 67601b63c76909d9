"""Sixteen values brought from one place and form to another, which loops do one at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir

from accelsim_kernels._jit import Int
from accelsim_kernels.processor import Instructions, instructions
from accelsim_kernels.vectors.code import INT8, INT32, INT64, LANES, VECTOR, Arrays, cgutils, index, spread, vectorised

Columns = npt.NDArray[np.uint8] | npt.NDArray[np.int16] | npt.NDArray[np.int32]
Narrow = npt.NDArray[np.int32]
Wide = npt.NDArray[np.int64]

_HALF = ir.Constant(VECTOR, [16] * LANES)
_LOW = ir.Constant(VECTOR, [0xFFFF] * LANES)


def _filled(value: Int, output: Narrow, place: Int) -> None:
    """Set sixteen int32 values from a place on."""
    output[place : place + LANES] = value


def _fill(builder: Any, arrays: Arrays) -> None:
    arrays.store(spread(builder, builder.trunc(arrays.values[0], INT32)), 1, arrays.values[2], 4)


filled = vectorised(_filled, _fill)


def _widened(values: Narrow, place: Int, output: Wide, column: Int) -> None:
    """Copy sixteen int32 values from a place to an int64 array, from a column on."""
    output[column : column + LANES] = values[place : place + LANES]


def _widen(builder: Any, arrays: Arrays) -> None:
    narrow = arrays.load(0, arrays.values[1], VECTOR, 4)
    arrays.store(builder.sext(narrow, ir.VectorType(INT64, LANES)), 2, arrays.values[3], 8)


widened = vectorised(_widened, _widen)


def _fetched(output: Wide, column: Int) -> None:
    """Do nothing: the lines of the cache that sixteen int64 values from a column on are stored to come meanwhile.

    Notes
    -----
    Where the sums of a tile take as little time as these lines, up to a third less. Not tried with VNNI, where nothing
    is fetched.
    """


def _fetch(builder: Any, arrays: Arrays) -> None:
    if instructions() is Instructions.VNNI:
        return
    kinds = [INT8.as_pointer(), *[INT32] * 3]
    prefetch = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), kinds), "llvm.prefetch.p0")
    first, (write, near, data) = arrays.pointer(0, arrays.values[1], INT8), (ir.Constant(INT32, n) for n in (1, 3, 1))
    for line in range(2):
        builder.call(prefetch, [builder.gep(first, [index(line * 64)]), write, near, data])


fetched = vectorised(_fetched, _fetch)


def _shifted(builder: Any, arrays: Arrays, place: Any, shift: Any) -> Any:
    """Load sixteen values of the first argument as int32, shifted to the left."""
    kind = arrays.kinds[0].dtype
    values = arrays.load(0, place, ir.VectorType(ir.IntType(kind.bitwidth), LANES), kind.bitwidth // 8)
    if kind.bitwidth < INT32.width:
        values = (builder.sext if kind.signed else builder.zext)(values, VECTOR)
    return builder.shl(values, spread(builder, builder.trunc(shift, INT32)))


def _laid(columns: Columns, place: Int, shift: Int, mask: Int, words: Narrow, target: Int) -> None:
    """Set sixteen words to ``x << shift & mask``.

    Parameters
    ----------
    columns : uint8, int16 or int32 array
        The x of sixteen lanes side by side.
    place : int64
        Where they begin.
    shift, mask : int64
        See above; nothing is lost.
    words : int32 array
        Output.
    target : int64
        Where the words begin.
    """
    for lane in range(LANES):
        words[target + lane] = (int(columns[place + lane]) << shift) & mask


def _lay(builder: Any, arrays: Arrays) -> None:
    _, place, shift, mask, _, target = arrays.values
    mask = spread(builder, builder.trunc(mask, INT32))
    arrays.store(builder.and_(_shifted(builder, arrays, place, shift), mask), 4, target, 4)


laid = vectorised(_laid, _lay)


def _laid_in_pairs(columns: Columns, low: Int, high: Int, shift: Int, words: Narrow, target: Int) -> None:
    """Set sixteen words to two terms of 16 bits each, ``x << shift``.

    Parameters
    ----------
    columns, shift, words, target
        As of `_laid`.
    low, high : int64
        Where the terms in the low and in the high halves begin.
    """
    for lane in range(LANES):
        words[target + lane] = (int(columns[low + lane]) << shift) & 0xFFFF | (int(columns[high + lane]) << shift) << 16


def _lay_in_pairs(builder: Any, arrays: Arrays) -> None:
    _, low, high, shift, _, target = arrays.values
    lower = builder.and_(_shifted(builder, arrays, low, shift), _LOW)
    upper = builder.shl(_shifted(builder, arrays, high, shift), _HALF)
    arrays.store(builder.or_(lower, upper), 4, target, 4)


laid_in_pairs = vectorised(_laid_in_pairs, _lay_in_pairs)
