"""Which of sixteen outputs bounds of their own leave at risk, as a bit each: docs/numerics.md (106) and (107)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int
from accelsim_kernels.vectors.code import INT16, INT32, INT64, LANES, VECTOR, Arrays, cgutils, spread, vectorised

Narrow = npt.NDArray[np.int32]


def _mark_scalar(
    values: Narrow, column: Int, magnitudes: Narrow, place: Int, sign: Int, low: Narrow, high: Narrow, masks: Narrow,
    block: Int,
) -> None:  # fmt: skip
    """Set a mask per position: where ``value - magnitude < low`` or ``value + magnitude > high``.

    Parameters
    ----------
    values : int32 array, shape (positions, channels)
        There are sixteen of each position from the column on, or what is behind the last ones may be read.
    column : int64
        The first channel.
    magnitudes : int32 array, shape (positions, channels)
        Times the sign; less in magnitude than ``2**31 - 1`` together with the values.
    place : int64
        The first channel there, and of the limits.
    sign : int64
        1 or -1.
    low, high : int32 arrays
        Limits; where there is no channel, the ends of int32.
    masks : int32 array, shape (positions, blocks)
        Output, a bit per channel.
    block : int64
        Where it goes.
    """
    for p in range(values.shape[0]):
        mask = 0
        for i in range(min(LANES, values.shape[1] - column)):
            value, magnitude = int(values[p, column + i]), int(sign) * int(magnitudes[p, place + i])
            outside = value - magnitude < low[place + i] or value + magnitude > high[place + i]
            mask |= int(outside) << i
        masks[p, block] = mask


def _mark(builder: Any, arrays: Arrays) -> None:
    _, column, _, place, sign, _, _, _, block = arrays.values
    shape, width = arrays.array(0).shape, builder.extract_value(arrays.array(2).shape, 1)
    low, high = (arrays.load(argument, place, VECTOR, 4) for argument in (5, 6))
    signs = spread(builder, builder.trunc(sign, INT32))
    blocks = builder.extract_value(arrays.array(7).shape, 1)
    with cgutils.for_range(builder, builder.extract_value(shape, 0), intp=INT64) as position:
        first = builder.mul(position.index, builder.extract_value(shape, 1))
        value = arrays.load(0, builder.add(first, column), VECTOR, 4)
        there = builder.add(builder.mul(position.index, width), place)
        magnitude = builder.mul(arrays.load(2, there, VECTOR, 4), signs)
        under = builder.icmp_signed("<", builder.sub(value, magnitude), low)
        over = builder.icmp_signed(">", builder.add(value, magnitude), high)
        mask = builder.zext(builder.bitcast(builder.or_(under, over), INT16), INT32)
        arrays.store(mask, 7, builder.add(builder.mul(position.index, blocks), block), 4)


mark_sixteen = vectorised(_mark_scalar, _mark)
