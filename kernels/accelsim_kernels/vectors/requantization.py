"""Requantization of sixteen channels in 32-bit lanes, position after position: docs/numerics.md (110) and (111)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir

from accelsim_kernels._jit import Int
from accelsim_kernels.processor import Instructions, instructions
from accelsim_kernels.vectors.code import INT32, INT64, LANES, VECTOR, Arrays, cgutils, index, spread, vectorised
from accelsim_kernels.vectors.products import even_products

START, MANTISSA, PRODUCT_SHIFT, NUDGE, AWAY, SHIFT, ZERO_POINT, LOW, HIGH = range(9)
"""Rows of the channels' constants."""

_HALF = LANES // 2
_PAIRS = ir.VectorType(INT64, _HALF)
_UPPER = ir.Constant(_PAIRS, [32] * _HALF)
_ONES = ir.Constant(_PAIRS, [1] * _HALF)

Codes = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
Step = Callable[[Any], Any]
"""Generates code from a vector to a vector."""


def _pairs(builder: Any, vector: Any) -> tuple[Any, Any]:
    """Return the even and the odd lanes, sign-extended."""
    both = builder.bitcast(vector, _PAIRS)
    return builder.ashr(builder.shl(both, _UPPER), _UPPER), builder.ashr(both, _UPPER)


def _in_64_bits(builder: Any, mantissa: Any, product_shift: Any) -> Step:
    """Make the multiplication of lanes, which are shifted and rounded half up."""
    mantissas, shifts = _pairs(builder, mantissa), _pairs(builder, product_shift)
    halves = [builder.shl(_ONES, builder.sub(by, _ONES)) for by in shifts]
    interleaved = ir.Constant(ir.VectorType(INT32, LANES), [i + i % 2 * LANES for i in range(LANES)])

    def scaled(value: Any) -> Any:
        products = [
            builder.add(builder.mul(part, mantissa), half)
            for part, mantissa, half in zip(_pairs(builder, value), mantissas, halves, strict=True)
        ]
        even, odd = (builder.ashr(product, by) for product, by in zip(products, shifts, strict=True))
        odd = builder.shl(odd, _UPPER)
        return builder.shuffle_vector(builder.bitcast(even, VECTOR), builder.bitcast(odd, VECTOR), interleaved)

    return scaled


def _by_upper_halves(builder: Any, mantissa: Any, product_shift: Any) -> Step:
    """Do what `_in_64_bits` does, without shifts of 64 bits: twice the products' upper halves are shifted in the lanes.

    Twice a value fits its lane, and twice a product, with what rounds it, less than 2**63.
    """
    left = ir.Constant(VECTOR, [31] * LANES)
    mantissas = mantissa, builder.bitcast(builder.lshr(builder.bitcast(mantissa, _PAIRS), _UPPER), VECTOR)
    halves = [builder.shl(_ONES, by) for by in _pairs(builder, product_shift)]
    shift = builder.sub(product_shift, left)
    upper = ir.Constant(ir.VectorType(INT32, LANES), [i + 1 if i % 2 == 0 else i + LANES for i in range(LANES)])

    def scaled(value: Any) -> Any:
        even = builder.add(value, value)
        odd = builder.bitcast(builder.lshr(builder.bitcast(even, _PAIRS), _UPPER), VECTOR)
        products = [
            builder.bitcast(builder.add(even_products(builder, part, mantissa), half), VECTOR)
            for part, mantissa, half in zip((even, odd), mantissas, halves, strict=True)
        ]
        return builder.ashr(builder.shuffle_vector(*products, upper), shift)

    return scaled


def _store_masked(builder: Any, arrays: Arrays, valid: Any) -> Callable[[Any, Any], None]:
    """Make the step that stores the first codes of a vector, fewer than all."""
    lanes = ir.Constant(VECTOR, list(range(LANES)))
    stored = builder.icmp_signed("<", lanes, spread(builder, builder.trunc(valid, INT32)))

    def store(codes: Any, target: Any) -> None:
        kind = ir.FunctionType(ir.VoidType(), [codes.type, codes.type.as_pointer(), INT32, stored.type])
        name = f"llvm.masked.store.v{LANES}i{codes.type.element.width}.p0"
        masked_store = cgutils.get_or_insert_function(builder.module, kind, name)
        builder.call(masked_store, [codes, arrays.pointer(6, target, codes.type), ir.Constant(INT32, 1), stored])

    return store


def _store_pieces(builder: Any, arrays: Arrays, valid: Any) -> Callable[[Any, Any], None]:
    """Do what `_store_masked` does, eight, four, two and one at a time, as their number is made up of these."""

    def store(codes: Any, target: Any) -> None:
        room = cgutils.alloca_once_value(builder, codes)
        first = builder.bitcast(room, codes.type.element.as_pointer())
        for size in (8, 4, 2, 1):
            with builder.if_then(builder.icmp_signed("!=", builder.and_(valid, index(size)), index(0))):
                done, kind = builder.and_(valid, index(-2 * size)), ir.VectorType(codes.type.element, size)
                part = builder.load(builder.bitcast(builder.gep(first, [done]), kind.as_pointer()))
                part.align = 1
                arrays.store(part, 6, builder.add(target, done), 1)

    return store


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

        def constant(row: int) -> Any:
            return arrays.load(4, builder.add(builder.mul(index(row), width), column), VECTOR, 4)

        start, zero_point, low, high = (constant(row) for row in (START, ZERO_POINT, LOW, HIGH))
        multiply = _by_upper_halves if instructions() is Instructions.AVX2 else _in_64_bits
        product_shift = ir.Constant(VECTOR, [31] * LANES) if two_roundings else constant(PRODUCT_SHIFT)
        scaled_by = multiply(builder, constant(MANTISSA), product_shift)
        if two_roundings:
            nudge, away, shift = (constant(row) for row in (NUDGE, AWAY, SHIFT))
        whole = builder.icmp_signed(">=", valid, index(LANES))
        store_first = (_store_masked if instructions() is Instructions.VNNI else _store_pieces)(builder, arrays, valid)
        with cgutils.for_range(builder, num_rows, intp=INT64) as row:
            value = builder.add(arrays.load(0, builder.add(first, builder.mul(row.index, distance)), VECTOR, 4), start)
            scaled = scaled_by(value)
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
                    store_first(code, target)

    return vectorised(scalar, generate)


two_roundings = _column(True)
one_rounding = _column(False)
