"""Sums of products of sixteen rows of multipliers, as their adder trees give them: docs/numerics.md (14)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir

from accelsim_kernels._jit import Int
from accelsim_kernels.vectors.code import INT32, INT64, LANES, Arrays, cgutils, vectorised

Lanes = npt.NDArray[np.int32] | npt.NDArray[np.int64]


def _sixteen_trees(
    held: Lanes, place: Int, stride: Int, operands: Lanes, first: Int, count: Int, sums: Lanes, target: Int
) -> None:
    """Sum the products of sixteen rows of PEs.

    Parameters
    ----------
    held : int32 or int64 array
        What the PEs hold, column after column.
    place, stride : int64
        Where the first column's sixteen PEs begin, and the distance to the next column's.
    operands : array of the same type
        What is broadcast to the columns.
    first, count : int64
        Where the first column's begins, and how many columns there are.
    sums : array of the same type
        Output; every sum fits it.
    target : int64
        Where the sixteen sums begin.
    """
    for lane in range(LANES):
        total = 0
        for j in range(count):
            total += int(held[place + j * stride + lane]) * int(operands[first + j])
        sums[target + lane] = total


def _sum_products(builder: Any, arrays: Arrays) -> None:
    _, place, stride, _, first, count, _, target = arrays.values
    size = arrays.kinds[0].dtype.bitwidth // 8
    element = INT32 if size == 4 else INT64
    kind = ir.VectorType(element, LANES)
    totals = cgutils.alloca_once_value(builder, ir.Constant(kind, None))
    zeros, nothing = ir.Constant(ir.VectorType(INT32, LANES), [0] * LANES), ir.Constant(kind, ir.Undefined)
    with cgutils.for_range(builder, count, intp=INT64) as column:
        own = arrays.load(0, builder.add(place, builder.mul(column.index, stride)), kind, size)
        operand = arrays.load(3, builder.add(first, column.index), element, size)
        everywhere = builder.insert_element(nothing, operand, ir.Constant(INT32, 0))
        everywhere = builder.shuffle_vector(everywhere, nothing, zeros)
        builder.store(builder.add(builder.load(totals), builder.mul(own, everywhere)), totals)
    arrays.store(builder.load(totals), 6, target, size)


sixteen_trees = vectorised(_sixteen_trees, _sum_products)
