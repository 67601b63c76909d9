"""Requantization of sixteen channels in 32-bit lanes, position after position: docs/numerics.md (110) and (111)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir

from accelsim_kernels._jit import Int
from accelsim_kernels.vectors.code import INT1, INT32, INT64, LANES, VECTOR, Arrays, cgutils, index, vectorised

START, MANTISSA, PRODUCT_SHIFT, NUDGE, AWAY, SHIFT, ZERO_POINT, LOW, HIGH = range(9)
"""Rows of the channels' constants."""

_HALF = LANES // 2
_PAIRS = ir.VectorType(INT64, _HALF)

Codes = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


def _column(two_roundings: bool) -> Any:
    """Make the step that requantizes sixteen channels at some positions.

    Parameters
    ----------
    two_roundings : bool
        The product is shifted by 31, and its result by a shift of its own; else only the product is shifted.

    Returns
    -------
    callable
        ``(sums, first, distance, num_rows, constants, column, codes, place, stride, valid)``, see `scalar` below.
    """

    def scalar(
        sums: npt.NDArray[np.int32],
        first: Int,
        distance: Int,
        num_rows: Int,
        constants: npt.NDArray[np.int32],
        column: Int,
        codes: Codes,
        place: Int,
        stride: Int,
        valid: Int,
    ) -> None:
        """Set ``codes[place + r * stride + i]`` to the low bits of the code of ``sums[first + r * distance + i]``.

        Parameters
        ----------
        sums : int32 array
            Dot products modulo 2**32; with their start they are less than 2**30 in magnitude.
        first, distance, num_rows : int64
            The first position's sums, the distance to the next position's, how many positions.
        constants : int32 array, shape (9, channels)
            `START` modulo 2**32; `MANTISSA`, 0..2**31 - 1; `PRODUCT_SHIFT`, 31 with two roundings, else 31..62;
            `SHIFT`, 0..31; `NUDGE`, half of ``2**SHIFT``, or 0 where that is 1; `AWAY`, -1 where ties round away from
            zero, else 0; `ZERO_POINT`; the clamp bounds `LOW` and `HIGH`. Without a second rounding only start,
            mantissa, product shift, zero point and clamp are looked at.
        column : int64
            The first channel in ``constants``.
        codes : uint8 or uint16 array
            Output.
        place, stride : int64
            The first position's codes, the distance to the next position's.
        valid : int64
            Channels that are stored, at most 16.
        """
        one, mask = np.int64(1), np.int64((1 << (8 * codes.itemsize)) - 1)
        half, turn = np.int64(1 << 31), np.int64((1 << 32) - 1)
        for i in range(min(valid, LANES)):
            start, mantissa, product_shift, nudge, away, shift, zero_point, low, high = constants[:, column + i].astype(
                np.int64
            )
            for r in range(num_rows):
                value = ((start + np.int64(sums[first + r * distance + i]) + half) & turn) - half
                scaled = (value * mantissa + (one << (product_shift - 1))) >> product_shift
                if two_roundings:
                    scaled = (scaled + nudge + ((scaled >> 31) & away)) >> shift
                codes[place + r * stride + i] = min(max(scaled + zero_point, low), high) & mask

    def generate(builder: Any, arrays: Arrays) -> None:
        _, first, distance, num_rows, _, column, _, place, stride, valid = arrays.values
        width = builder.extract_value(arrays.array(4).shape, 1)
        narrow = ir.VectorType(ir.IntType(arrays.kinds[6].dtype.bitwidth), LANES)
        wide_shift = ir.Constant(_PAIRS, [32] * _HALF)

        def constant(row: int) -> Any:
            return arrays.load(4, builder.add(builder.mul(index(row), width), column), VECTOR, 4)

        def pairs(vector: Any) -> tuple[Any, Any]:
            """Return the even and the odd lanes, sign-extended."""
            both = builder.bitcast(vector, _PAIRS)
            return builder.ashr(builder.shl(both, wide_shift), wide_shift), builder.ashr(both, wide_shift)

        start, zero_point, low, high = (constant(row) for row in (START, ZERO_POINT, LOW, HIGH))
        mantissas = pairs(constant(MANTISSA))
        product_shifts = pairs(constant(PRODUCT_SHIFT))
        ones = ir.Constant(_PAIRS, [1] * _HALF)
        if two_roundings:
            product_shifts = (ir.Constant(_PAIRS, [31] * _HALF),) * 2
            nudge, away, shift = (constant(row) for row in (NUDGE, AWAY, SHIFT))
        halves = [builder.shl(ones, builder.sub(by, ones)) for by in product_shifts]
        interleaved = ir.Constant(ir.VectorType(INT32, LANES), [i + i % 2 * LANES for i in range(LANES)])
        lanes = ir.Constant(VECTOR, list(range(LANES)))
        left = builder.trunc(valid, INT32)
        empty = ir.Constant(VECTOR, ir.Undefined)
        spread = builder.shuffle_vector(
            builder.insert_element(empty, left, ir.Constant(INT32, 0)), empty, ir.Constant(VECTOR, [0] * LANES)
        )
        stored = builder.icmp_signed("<", lanes, spread)
        whole = builder.icmp_signed(">=", valid, index(LANES))
        masked_store = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [narrow, narrow.as_pointer(), INT32, ir.VectorType(INT1, LANES)]),
            f"llvm.masked.store.v{LANES}i{narrow.element.width}.p0",
        )
        with cgutils.for_range(builder, num_rows, intp=INT64) as row:
            value = builder.add(arrays.load(0, builder.add(first, builder.mul(row.index, distance)), VECTOR, 4), start)
            products = [
                builder.add(builder.mul(part, mantissa), half)
                for part, mantissa, half in zip(pairs(value), mantissas, halves, strict=True)
            ]
            even, odd = (builder.ashr(product, by) for product, by in zip(products, product_shifts, strict=True))
            odd = builder.shl(odd, wide_shift)
            scaled = builder.shuffle_vector(builder.bitcast(even, VECTOR), builder.bitcast(odd, VECTOR), interleaved)
            if two_roundings:
                below = builder.and_(builder.ashr(scaled, ir.Constant(VECTOR, [31] * LANES)), away)
                scaled = builder.ashr(builder.add(builder.add(scaled, nudge), below), shift)
            code = builder.add(scaled, zero_point)
            code = builder.select(builder.icmp_signed("<", code, low), low, code)
            code = builder.select(builder.icmp_signed(">", code, high), high, code)
            code = builder.trunc(code, narrow)
            target = builder.add(place, builder.mul(row.index, stride))
            with builder.if_else(whole) as (then, otherwise):
                with then:
                    arrays.store(code, 6, target, 1)
                with otherwise:
                    builder.call(masked_store, [code, arrays.pointer(6, target, narrow), ir.Constant(INT32, 1), stored])

    return vectorised(scalar, generate)


two_roundings = _column(True)
one_rounding = _column(False)
