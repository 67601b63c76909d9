"""The few steps that plain loops do not bring to the vector registers, as LLVM vectors.

Each is written twice: as a scalar loop, which says what it computes and is its oracle in tests, and below it as the
LLVM code that numba puts in its place. With ``NUMBA_DISABLE_JIT=1`` the scalar loop runs.

Dot products use instructions that only some processors have; `has_dot_instructions` says so, and a kernel that calls
them must not be called elsewhere. The other steps are generic vectors, which LLVM brings to any processor.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, cast

import llvmlite.binding
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils as _cgutils
from numba.extending import intrinsic

from accelsim_kernels._jit import Int, settings

cgutils: Any = _cgutils
"""numba's generators of code, which have no types."""

Bytes = npt.NDArray[np.uint8]
Activations = npt.NDArray[np.uint8] | npt.NDArray[np.int16]
Scalar = TypeVar("Scalar", bound=Callable[..., Any])

LANES = 16
"""Channels of a vector."""

GROUP_BYTES = 4
"""Bytes of the reduction that one instruction takes per lane: four of 8 bits or two of 16."""

_FEATURES = ("avx512f", "avx512bw", "avx512vl", "avx512vnni")

_INT8, _INT16, _INT32, _INT64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_VECTOR = ir.VectorType(_INT32, LANES)


PORTABLE_VARIABLE = "ACCELSIM_PORTABLE"
"""Set it to 1 to do without dot-product instructions where there are some, as to compare the paths."""


@cache
def has_dot_instructions() -> bool:
    """Whether this processor multiplies and adds 64 bytes in one instruction, and kernels may use it."""
    if settings.DISABLE_JIT or os.environ.get(PORTABLE_VARIABLE) == "1":
        return False
    features = llvmlite.binding.get_host_cpu_features()
    return all(features.get(name, False) for name in _FEATURES)


def _index(value: int) -> ir.Constant:
    return ir.Constant(_INT64, value)


def _spread(builder: Any, scalar: Any) -> Any:
    """Return a vector whose lanes all hold a scalar."""
    first = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), scalar, ir.Constant(_INT32, 0))
    zeros = ir.Constant(ir.VectorType(_INT32, LANES), [0] * LANES)
    return builder.shuffle_vector(first, ir.Constant(_VECTOR, ir.Undefined), zeros)


class _Arrays:
    """Addresses of array elements in generated code.

    Parameters
    ----------
    context, builder
        numba's.
    kinds, values
        Types and values of the step's arguments.
    """

    def __init__(self, context: Any, builder: Any, kinds: Any, values: Any) -> None:
        self.context, self.builder, self.kinds, self.values = context, builder, kinds, values

    def array(self, argument: int) -> Any:
        """Return an array argument with its data, shape and number of items."""
        return self.context.make_array(self.kinds[argument])(self.context, self.builder, self.values[argument])

    def pointer(self, argument: int, element: Any, kind: Any) -> Any:
        """Return where the element of an array argument begins, as a pointer to a type."""
        return self.builder.bitcast(self.builder.gep(self.array(argument).data, [element]), kind.as_pointer())

    def load(self, argument: int, element: Any, kind: Any, align: int = 1) -> Any:
        """Load a value of a type from an element of an array argument, aligned or not."""
        loaded = self.builder.load(self.pointer(argument, element, kind))
        loaded.align = align
        return loaded

    def store(self, value: Any, argument: int, element: Any, align: int) -> None:
        """Store a value at an element of an array argument."""
        self.builder.store(value, self.pointer(argument, element, value.type)).align = align


def _vectorised(scalar: Scalar, generate: Callable[[Any, _Arrays], None]) -> Scalar:
    """Return a step for kernels: the generated code where kernels are compiled, else the scalar loop.

    The generated step has its scalar loop as the attribute ``scalar``.
    """
    if settings.DISABLE_JIT:
        return scalar

    def step(typing_context: Any, *arguments: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            generate(builder, _Arrays(context, builder, signature.args, values))
            return context.get_dummy_value()

        return types.void(*arguments), code

    parameters = [inspect.Parameter("typing_context", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    parameters += inspect.signature(scalar).parameters.values()
    cast(Any, step).__signature__ = inspect.Signature(parameters)  # numba folds a call's arguments by it
    made: Any = intrinsic(step)
    made.scalar = scalar
    return cast(Scalar, made)


def _prefer_wide_vectors() -> None:
    """Do nothing: the loops of the kernel that calls this use the widest vectors that there are.

    Notes
    -----
    For some processors LLVM holds back, as their first models slowed down with 512-bit vectors. Loops over 64-bit lanes
    gain 30 to 40 %.
    """


def _ask_for_wide_vectors(builder: Any, arrays: _Arrays) -> None:
    # llvmlite checks names of attributes against a list of its own, which lacks this one
    set.add(builder.function.attributes, '"prefer-vector-width"="512"')


prefer_wide_vectors = _vectorised(_prefer_wide_vectors, _ask_for_wide_vectors)


# ---- dot products, four 8-bit or two 16-bit operands at a time


def _dot_tile(operands: str, num_rows: int, num_vectors: int) -> Any:
    """Make the step that multiplies some rows with some vectors of channels, over the whole reduction.

    Parameters
    ----------
    operands : str
        ``"u8s8"``: rows of unsigned, vectors of signed 8 bits; ``"s8u8"``: the reverse; ``"s16s16"``.
    num_rows, num_vectors : int
        Size of the tile, whose sums stay in registers.

    Returns
    -------
    callable
        ``(rows, bases, first, segments, num_groups, channels, begin, sums, column)``, see `scalar` below.
    """
    row_kind, channel_kind = {
        "u8s8": (np.uint8, np.int8),
        "s8u8": (np.int8, np.uint8),
        "s16s16": (np.int16, np.int16),
    }[operands]
    channels_of_tile = num_vectors * LANES

    def scalar(
        rows: Bytes,
        bases: npt.NDArray[np.int64],
        first: Int,
        segments: npt.NDArray[np.int64],
        num_groups: Int,
        channels: Bytes,
        begin: Int,
        sums: npt.NDArray[np.int32],
        column: Int,
    ) -> None:
        """Set ``sums[first + r, column + n]`` to a dot product modulo 2**32.

        Parameters
        ----------
        rows : uint8 array
            Bytes of the rows' operands.
        bases : int64 array
            Where in ``rows`` each row begins.
        first : int64
            The first of the tile's rows.
        segments : int64 array
            Pieces of the reduction: where each begins after a row's base.
        num_groups : int64
            Groups of `GROUP_BYTES` bytes in each piece.
        channels : uint8 array
            Bytes of the channels' operands: by piece, group and channel.
        begin : int64
            Where in ``channels`` those of this tile begin.
        sums : int32 array, shape (rows, channels)
            Output.
        column : int64
            The first of the tile's channels.
        """
        length = num_groups * GROUP_BYTES
        packed = channels[begin : begin + segments.size * length * channels_of_tile]
        shape = (segments.size * num_groups, channels_of_tile, -1)
        right = packed.view(channel_kind).reshape(shape).astype(np.int64)
        for r in range(num_rows):
            base = bases[first + r]
            row = np.concatenate([rows[base + piece : base + piece + length] for piece in segments])
            left = row.view(row_kind).reshape(shape[0], -1).astype(np.int64)
            for n in range(channels_of_tile):
                total = int((left * right[:, n]).sum())
                sums[first + r, column + n] = (total + (1 << 31)) % (1 << 32) - (1 << 31)

    def generate(builder: Any, arrays: _Arrays) -> None:
        _, _, first, _, num_groups, _, begin, _, column = arrays.values
        name = "llvm.x86.avx512.vpdpwssd.512" if operands == "s16s16" else "llvm.x86.avx512.vpdpbusd.512"
        multiply_add = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_VECTOR, [_VECTOR, _VECTOR, _VECTOR]), name
        )
        totals = [
            [cgutils.alloca_once_value(builder, ir.Constant(_VECTOR, None)) for _ in range(num_vectors)]
            for _ in range(num_rows)
        ]
        bases = [arrays.load(1, builder.add(first, _index(r)), _INT64, 8) for r in range(num_rows)]
        place = cgutils.alloca_once_value(builder, begin)
        with cgutils.for_range(builder, arrays.array(3).nitems, intp=_INT64) as piece:
            offset = arrays.load(3, piece.index, _INT64, 8)
            starts = [builder.add(base, offset) for base in bases]
            with cgutils.for_range(builder, num_groups, intp=_INT64) as group:
                distance = builder.mul(group.index, _index(GROUP_BYTES))
                here = builder.load(place)
                size = GROUP_BYTES * LANES
                weights = [arrays.load(5, builder.add(here, _index(v * size)), _VECTOR) for v in range(num_vectors)]
                builder.store(builder.add(here, _index(num_vectors * size)), place)
                for r in range(num_rows):
                    operand = _spread(builder, arrays.load(0, builder.add(starts[r], distance), _INT32))
                    for v in range(num_vectors):
                        pair = [weights[v], operand] if operands == "s8u8" else [operand, weights[v]]
                        total = builder.call(multiply_add, [builder.load(totals[r][v]), *pair])
                        builder.store(total, totals[r][v])
        width = builder.extract_value(arrays.array(7).shape, 1)
        for r in range(num_rows):
            line = builder.add(builder.mul(builder.add(first, _index(r)), width), column)
            for v in range(num_vectors):
                arrays.store(builder.load(totals[r][v]), 7, builder.add(line, _index(v * LANES)), 4)

    return _vectorised(scalar, generate)


ROWS_OF_WIDE_TILE, ROWS_OF_NARROW_TILE = 6, 12
"""Rows of a tile of four vectors, and of one or two: 24 or 12 sums in registers."""

dot_u8s8_4 = _dot_tile("u8s8", ROWS_OF_WIDE_TILE, 4)
dot_u8s8_2 = _dot_tile("u8s8", ROWS_OF_NARROW_TILE, 2)
dot_u8s8_1 = _dot_tile("u8s8", ROWS_OF_NARROW_TILE, 1)
dot_s8u8_4 = _dot_tile("s8u8", ROWS_OF_WIDE_TILE, 4)
dot_s16s16_4 = _dot_tile("s16s16", ROWS_OF_WIDE_TILE, 4)
dot_s16s16_1 = _dot_tile("s16s16", ROWS_OF_NARROW_TILE, 1)


# ---- depthwise convolution, channels last


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

    def generate(builder: Any, arrays: _Arrays) -> None:
        _, base, _, _, column, _, place = arrays.values
        kind = arrays.kinds[0].dtype
        narrow, narrow_weight = ir.VectorType(ir.IntType(kind.bitwidth), LANES), ir.VectorType(_INT16, LANES)
        widen = builder.sext if kind.signed else builder.zext
        totals = [cgutils.alloca_once_value(builder, ir.Constant(_VECTOR, None)) for _ in range(num_vectors)]
        width = builder.extract_value(arrays.array(3).shape, 1)
        with cgutils.for_range(builder, arrays.array(2).nitems, intp=_INT64) as tap:
            begin = builder.add(base, arrays.load(2, tap.index, _INT64, 8))
            weight = builder.add(builder.mul(tap.index, width), column)
            for v in range(num_vectors):
                step = _index(v * LANES)
                left = widen(arrays.load(0, builder.add(begin, step), narrow), _VECTOR)
                right = builder.sext(arrays.load(3, builder.add(weight, step), narrow_weight), _VECTOR)
                builder.store(builder.add(builder.load(totals[v]), builder.mul(left, right)), totals[v])
        for v in range(num_vectors):
            arrays.store(builder.load(totals[v]), 5, builder.add(place, _index(v * LANES)), 4)

    return _vectorised(scalar, generate)


window_4 = _window(4)
window_1 = _window(1)
