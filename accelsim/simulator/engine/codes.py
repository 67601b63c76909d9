"""Requantization and the element-wise layers: from a program's descriptions to kernel arguments."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.formats import IntegerFormat
from accelsim.machine import Requantizer
from accelsim.program.geometry import Geometry
from accelsim.program.layers import MacLayer
from accelsim.program.rescale import Rescale, bound_within
from accelsim.simulator.engine.bounds import for_kernels
from accelsim.simulator.engine.dots import bits_of
from accelsim.simulator.engine.steps import Bound
from accelsim_kernels import pooling, vector
from accelsim_kernels import requantize as kernels
from accelsim_kernels import requantize_rows as rows
from accelsim_kernels import softmax as softmax_kernels
from accelsim_kernels.rounding import RULES

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Clamp = tuple[int, int]

_REPEATED = 512
"""Sums that one loop of `requantize_rows` takes, so that it is worth entering."""


def _kind(requantizer: Requantizer) -> np.int64:
    """Return the kernels' number of the multiplier's kind."""
    match requantizer.multiplier:
        case "float32":
            return np.int64(kernels.FLOAT32)
        case "float64":
            return np.int64(kernels.FLOAT64)
        case _:
            return np.int64(kernels.TWO_ROUNDINGS if len(requantizer.rounding) == 2 else kernels.ONE_ROUNDING)


def _rules(requantizer: Requantizer) -> tuple[np.int64, np.int64]:
    """Return the numbers of the first and the last tie rule."""
    return np.int64(RULES[requantizer.rounding[0]]), np.int64(RULES[requantizer.rounding[-1]])


def _multiplier(rescale: Rescale) -> kernels.Multiplier:
    """Return the kernels' tuple of a per-tensor multiplier."""
    return (
        _kind(rescale.requantizer),
        rescale.mantissas[0],
        rescale.exponents[0],
        rescale.reals[0],
        rescale.bits[0],
        np.int64(rescale.requantizer.pre_shift_bits),
        *_rules(rescale.requantizer),
    )


_OVERFLOWS = MappingProxyType(
    {
        "saturate": kernels.SATURATE,
        "saturate_symmetric": kernels.SATURATE,
        "wrap": kernels.WRAP,
        "saturate_to_zero": kernels.TO_ZERO,
    }
)


def _format(requantizer: Requantizer, stored: IntegerFormat) -> tuple[np.int64, np.int64, np.int64]:
    """Return the kernels' number of what is stored beyond the format, and the format's ends."""
    return np.int64(_OVERFLOWS[requantizer.overflow]), np.int64(stored.minimum), np.int64(stored.maximum)


def _limits(requantizer: Requantizer, clamp: Clamp, stored: IntegerFormat, zero_point: int) -> kernels.Limits:
    """Return the kernels' tuple of what a result is brought into."""
    low, high = bound_within(requantizer, clamp, stored)
    return (low, high, *_format(requantizer, stored), np.int64(zero_point))


def _infinity_is_meant(requantizer: Requantizer) -> AbstractContextManager[None]:
    """Silence the overflow of a float product, which the clamp takes in; uncompiled kernels would warn of it."""
    return np.errstate(over="ignore") if requantizer.multiplier.startswith("float") else nullcontext()


def _inside(rescale: Rescale) -> bool:
    return rescale.requantizer.zero_point == "inside"


def requantize(
    accumulators: Int64,
    rescale: Rescale,
    zero_point: int,
    clamp: tuple[npt.ArrayLike, npt.ArrayLike],
    stored: IntegerFormat,
) -> Int32:
    """Bring accumulators (n, p) to codes (n, p), one clamp for all or per channel: docs/numerics.md (20) to (24)."""
    codes = np.empty(accumulators.shape, dtype=np.int32)
    channels = accumulators.shape[:1]
    bounds = (bound_within(rescale.requantizer, bound, stored) for bound in clamp)
    low, high = (np.broadcast_to(bound, channels).copy() for bound in bounds)
    with _infinity_is_meant(rescale.requantizer):
        kernels.requantize(
            np.ascontiguousarray(accumulators),
            np.broadcast_to(rescale.mantissas, channels).copy(),
            np.broadcast_to(rescale.exponents, channels).copy(),
            np.broadcast_to(rescale.reals, channels).copy(),
            np.broadcast_to(rescale.bits, channels).copy(),
            _kind(rescale.requantizer),
            np.int64(rescale.requantizer.pre_shift_bits),
            *_rules(rescale.requantizer),
            np.int64(zero_point),
            _inside(rescale),
            low,
            high,
            *_format(rescale.requantizer, stored),
            codes,
        )
    return codes


@dataclass(frozen=True, eq=False)
class RowRequantizer:
    """Requantization of sums that lie channels last.

    Parameters
    ----------
    num_channels : int
        Channels whose codes are stored.
    channels : tuple of arrays
        Per channel, repeated; see `accelsim_kernels.requantize_rows`.
    shared : tuple
        Likewise.
    shifts_left : bool
        Whether a multiplier shifts to the left.
    dtype : numpy dtype
        Of the codes.
    requantizer : Requantizer
        Whose arithmetic it is; one that saturates.
    """

    num_channels: int
    channels: rows.Channels
    shared: rows.Shared
    shifts_left: bool
    dtype: np.dtype[Any]
    requantizer: Requantizer

    @staticmethod
    def of(layer: MacLayer, start: Int64, part: slice, width: int | None) -> RowRequantizer:
        """Make the requantization of some channels of a layer.

        Parameters
        ----------
        layer : MacLayer
            Whose multipliers, zero point and clamp are taken.
        start : int64 array, shape (all channels,)
            What is added to each sum.
        part : slice
            The channels.
        width : int or None
            Length of a row of sums, where it is longer than the channels.
        """
        rescale, start = layer.multipliers, start[part]
        count = start.size
        width = count if width is None else width
        repeats = max(1, _REPEATED // width)

        def repeated(values: npt.ArrayLike, dtype: type) -> npt.NDArray[Any]:
            row: npt.NDArray[Any] = np.zeros(width, dtype=dtype)
            array = np.asarray(values)
            row[:count] = array[part] if array.size > 1 else array
            return np.tile(row, repeats)

        low, high = layer.bounds(slice(None))
        padded = np.zeros(width, dtype=np.int64)
        padded[:count] = start
        channels = (
            np.tile(padded, repeats),
            repeated(rescale.mantissas, np.int32),
            repeated(rescale.exponents, np.int32),
            repeated(rescale.reals, np.float64),
            repeated(rescale.bits, np.int32),
            repeated(low, np.int32),
            repeated(high, np.int32),
        )
        requantizer, inside = rescale.requantizer, _inside(rescale)
        zero_point, nothing = np.int64(layer.zero_point), np.int64(0)
        shared = (
            _kind(requantizer), np.int64(requantizer.pre_shift_bits), *_rules(requantizer),
            zero_point if inside else nothing, nothing if inside else zero_point,
        )  # fmt: skip
        shifts_left = requantizer.pre_shift_bits > 0 or bool((rescale.exponents > 0).any())
        return RowRequantizer(count, channels, shared, shifts_left, narrowest_type(*layer.clamp), requantizer)

    def store(self, sums: Int32 | Int64, codes: npt.NDArray[Any]) -> None:
        """Bring sums (positions, width) to codes (positions, channels), whose low bits are stored.

        Parameters
        ----------
        sums : int32 or int64 array, shape (positions, width)
            Contiguous.
        codes : array of `dtype`, shape (positions, channels)
            Output.
        """
        unsigned = np.dtype(f"uint{8 * self.dtype.itemsize}")
        direct = codes.shape == sums.shape and codes.flags.c_contiguous
        target = codes if direct else np.empty(sums.shape, dtype=self.dtype)
        with _infinity_is_meant(self.requantizer):
            rows.requantize_rows(
                sums.reshape(-1), self.channels, self.shared, self.shifts_left, target.reshape(-1).view(unsigned)
            )
        if not direct:
            codes[...] = target[:, : self.num_channels]


def narrowest_type(low: int, high: int) -> np.dtype[Any]:
    """Return the narrowest of int8, uint8, int16 and uint16 that holds two codes."""
    return next(
        kind for kind in map(np.dtype, ("int8", "uint8", "int16", "uint16"))
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max
    )  # fmt: skip


def rescale_codes(
    codes: Int32, zero_point: int, rescale: Rescale, output_zero_point: int, clamp: Clamp, stored: IntegerFormat
) -> Int32:
    """Bring codes onto another grid, (29)."""
    output = np.empty(codes.shape, dtype=np.int32)
    vector.rescale_codes(
        _flat(codes),
        np.int64(zero_point),
        _multiplier(rescale),
        np.int64(output_zero_point),
        _inside(rescale),
        _limits(rescale.requantizer, clamp, stored, output_zero_point),
        output.reshape(-1),
    )
    return output


def add(
    a: Int32,
    zero_a: int,
    rescale_a: Rescale,
    b: Int32,
    zero_b: int,
    rescale_b: Rescale,
    sign: int,
    left_shift: int,
    rescale: Rescale | None,
    zero_point: int,
    clamp: Clamp,
    stored: IntegerFormat,
) -> Int32:
    """Add or subtract arrays of one shape, (25) to (27); ``rescale`` is None for float multipliers."""
    output = np.empty(a.shape, dtype=np.int32)
    requantizer = rescale_a.requantizer
    limits = _limits(requantizer, clamp, stored, zero_point)
    if rescale is None:
        vector.add_codes_float(
            _flat(a), np.int64(zero_a), rescale_a.reals[0], _flat(b), np.int64(zero_b), rescale_b.reals[0],
            np.int64(sign), requantizer.multiplier == "float32", _rules(requantizer)[1], np.int64(zero_point),
            _inside(rescale_a), limits, output.reshape(-1),
        )  # fmt: skip
    else:
        vector.add_codes(
            _flat(a), np.int64(zero_a), _multiplier(rescale_a), _flat(b), np.int64(zero_b), _multiplier(rescale_b),
            np.int64(sign), np.int64(left_shift), _multiplier(rescale), np.int64(zero_point), _inside(rescale),
            limits, output.reshape(-1),
        )  # fmt: skip
    return output


def look_pairs_up(a: npt.NDArray[Any], b: npt.NDArray[Any], table: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Replace pairs of codes of 8 bits, contiguous arrays of one shape, by entries of a table of all 65,536 pairs."""
    bound = bind_pairs(for_kernels(a), for_kernels(b), table)
    bound.steps[0]()
    return bound.codes


def bind_pairs(a: npt.NDArray[Any], b: npt.NDArray[Any], table: npt.NDArray[Any]) -> Bound:
    """Return the step of `look_pairs_up`, and its output; all arrays writable."""
    output = np.empty(a.shape, dtype=table.dtype)
    return Bound([partial(vector.look_pairs_up, *map(bits_of, (a, b, table, output)))], output, output.nbytes)


def multiply(
    a: Int32, zero_a: int, b: Int32, zero_b: int, rescale: Rescale, zero_point: int, clamp: Clamp,
    stored: IntegerFormat,
) -> Int32:  # fmt: skip
    """Multiply arrays of one shape, (28)."""
    output = np.empty(a.shape, dtype=np.int32)
    vector.multiply_codes(
        _flat(a), np.int64(zero_a), _flat(b), np.int64(zero_b), _multiplier(rescale), np.int64(zero_point),
        _inside(rescale), _limits(rescale.requantizer, clamp, stored, zero_point), output.reshape(-1),
    )  # fmt: skip
    return output


def max_pool(codes: Int32, geometry: Geometry) -> Int32:
    """Pool (batch, channels, height, width) by the greatest code, (30)."""
    output = np.empty((*codes.shape[:2], *geometry.output_shape), dtype=np.int32)
    pooling.max_pool(codes, geometry.kernel_shape, geometry.strides, geometry.pads[:2], geometry.dilations, output)
    return output


def average_pool(
    codes: Int32, geometry: Geometry, count_padding: bool, zero_point: int, requantizer: Requantizer
) -> Int32:
    """Pool (batch, channels, height, width) by the mean, (31)."""
    output = np.empty((*codes.shape[:2], *geometry.output_shape), dtype=np.int32)
    pooling.average_pool(
        codes,
        geometry.kernel_shape,
        geometry.strides,
        geometry.pads,
        geometry.dilations,
        count_padding,
        np.int64(zero_point),
        requantizer.multiplier == "float32",
        _rules(requantizer)[1],
        output,
    )
    return output


def look_up(codes: Int32, tables: Int32, lowest: int) -> Int32:
    """Replace codes (batch, channels, ...) by table entries, (32); tables (1 or channels, entries)."""
    if tables.shape[0] == 1:
        shaped = codes.reshape(1, 1, -1)
    else:
        shaped = codes.reshape(codes.shape[0], codes.shape[1], -1)
    output = np.empty(shaped.shape, dtype=np.int32)
    vector.look_up(np.ascontiguousarray(shaped), tables, np.int64(lowest), output)
    return output.reshape(codes.shape)


def softmax(codes: Int32, exponentials: Int64, bits: int) -> Int32:
    """Softmax over the last axis, (33)."""
    rows = np.ascontiguousarray(codes.reshape(-1, codes.shape[-1]))
    output = np.empty(rows.shape, dtype=np.int32)
    softmax_kernels.softmax(rows, exponentials, np.int64(bits), output)
    return output.reshape(codes.shape)


def fixed_point_softmax(codes: Int32, mantissa: int, left_shift: int, least_difference: int, bits: int) -> Int32:
    """Softmax over the last axis in gemmlowp's fixed point, (50) to (54)."""
    rows = np.ascontiguousarray(codes.reshape(-1, codes.shape[-1]))
    output = np.empty(rows.shape, dtype=np.int32)
    softmax_kernels.fixed_point_softmax(
        rows, np.int64(mantissa), np.int64(left_shift), np.int64(least_difference), np.int64(bits), output
    )
    return output.reshape(codes.shape)


def table_softmax(codes: Int32, exponentials: Int64, reciprocals: Int64) -> Int32:
    """Softmax of int16 codes over the last axis by two tables, (55) to (58)."""
    rows = np.ascontiguousarray(codes.reshape(-1, codes.shape[-1]))
    output = np.empty(rows.shape, dtype=np.int32)
    softmax_kernels.table_softmax(rows, exponentials, reciprocals, output)
    return output.reshape(codes.shape)


def _flat(codes: Int32) -> Int32:
    return np.require(codes, np.int32, ["C", "W"]).reshape(-1)  # a broadcast array is read-only
