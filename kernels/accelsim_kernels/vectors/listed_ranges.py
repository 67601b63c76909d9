"""What running sums of single outputs reach: docs/numerics.md (120).

A vector holds sixteen outputs, each of one of sixty-four channels and of any position of a panel. A group of the
reduction of all that they may need is eight vectors, out of which the lanes pick their operands; three vectors of
outputs pick from them in turn, so that they are loaded a third as often.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir

from accelsim_kernels._jit import Int
from accelsim_kernels.processor import Instructions, instructions
from accelsim_kernels.vectors.code import (
    GROUP_BYTES,
    INT8,
    INT32,
    INT64,
    LANES,
    VECTOR,
    Arrays,
    Bytes,
    cgutils,
    index,
    spread,
    vectorised,
)
from accelsim_kernels.vectors.columns import POSITIONS
from accelsim_kernels.vectors.products import plus_bytes, plus_words

Narrow = npt.NDArray[np.int32]

CHANNELS = POSITIONS
"""Channels among which a lane picks, as many as a panel has positions."""

LISTED = 3 * LANES
"""Outputs of a step."""

_VECTORS = POSITIONS // LANES


Pick = Callable[[Any], Callable[[int], Any]]
"""Given where a group begins, a function that gives what the lanes of each vector of outputs picked."""


def pick_out_of_registers(builder: Any, arrays: Arrays, argument: int, lanes: list[Any]) -> Pick:
    """Let lanes pick their groups out of vectors that are loaded once.

    Parameters
    ----------
    builder
        numba's.
    arrays : Arrays
        The step's arguments.
    argument : int
        Which of them.
    lanes : list
        Of each vector of outputs, which of the `CHANNELS` groups its lanes pick.
    """
    signature = ir.FunctionType(VECTOR, [VECTOR] * 3)
    pick = cgutils.get_or_insert_function(builder.module, signature, "llvm.x86.avx512.vpermi2var.d.512")
    half = spread(builder, ir.Constant(INT32, CHANNELS // 2))
    upper = [builder.icmp_signed(">=", own, half) for own in lanes]

    def load(element: Any) -> Callable[[int], Any]:
        places = (builder.add(element, index(v * GROUP_BYTES * LANES)) for v in range(_VECTORS))
        four = [arrays.load(argument, place, VECTOR) for place in places]

        def picked(i: int) -> Any:
            halves = (builder.call(pick, [four[v], lanes[i], four[v + 1]]) for v in (2, 0))
            return builder.select(upper[i], *halves)

        return picked

    return load


def pick_out_of_memory(builder: Any, arrays: Arrays, argument: int, lanes: list[Any]) -> Pick:
    """Do what `pick_out_of_registers` does where the processor cannot choose among so many."""
    size = ir.Constant(VECTOR, [GROUP_BYTES] * LANES)
    places = [builder.mul(own, size) for own in lanes]
    return lambda element: lambda i: arrays.gather(argument, element, places[i])


def _listed_ranges(words: bool) -> Any:
    """Make the step for some outputs.

    Parameters
    ----------
    words : bool
        Two operands of 16 bits in a group, both signed; else four of 8 bits, the weights signed, the activations not.

    Returns
    -------
    callable
        See `scalar` below.
    """

    def scalar(
        weights: Bytes, begin: Int, packed: Bytes, place: Int, channels: Narrow, positions: Narrow, first: Int,
        num_groups: Int, least: Narrow, greatest: Narrow,
    ) -> None:  # fmt: skip
        """Find what the running sums of `LISTED` outputs are no less and no greater than, from 0 on.

        Operands of 16 bits are added one by one. Of 8 bits, whatever the order of a group's four terms: a sum is
        followed by the group's negative products alone, or its positive ones.

        Parameters
        ----------
        weights : uint8 array
            By group, then by channel.
        begin : int64
            Where those of the sixty-four channels begin.
        packed : uint8 array
            Panels of `accelsim_kernels.vectors.columns`.
        place : int64
            Where the panel begins.
        channels, positions : int32 arrays
            Of each output, from the first of the sixty-four on.
        first : int64
            The first of the outputs.
        num_groups : int64
            Groups of the reduction.
        least, greatest : int32 arrays
            Output.
        """
        kinds: Any = (np.int16, np.int16) if words else (np.int8, np.uint8)
        for i in range(first, first + LISTED):
            total = low = high = 0
            for group in range(num_groups):
                left, right = begin + GROUP_BYTES * channels[i], place + GROUP_BYTES * positions[i]
                distance = group * GROUP_BYTES * POSITIONS
                some = weights[left + distance : left + distance + GROUP_BYTES].view(kinds[0]).astype(np.int64)
                others = packed[right + distance : right + distance + GROUP_BYTES].view(kinds[1]).astype(np.int64)
                products = (some * others).tolist()
                met = [total + products[0]]
                if not words:
                    met = [total + sum(max(value, 0) for value in products)]
                    met.append(total + sum(min(value, 0) for value in products))
                total += sum(products)
                low, high = min(low, total, *met), max(high, total, *met)
            least[i], greatest[i] = low, high

    def generate(builder: Any, arrays: Arrays) -> None:
        _, begin, _, place, _, _, first, num_groups, _, _ = arrays.values
        none, numbers = ir.Constant(VECTOR, None), range(0, LISTED, LANES)
        state = [[cgutils.alloca_once_value(builder, none) for _ in range(3)] for _ in numbers]
        lanes = [[arrays.load(a, builder.add(first, index(i)), VECTOR, 4) for i in numbers] for a in (4, 5)]
        choose = pick_out_of_registers if instructions() is Instructions.VNNI else pick_out_of_memory

        def meet(value: Any, register: Any, comparison: str) -> None:
            before = builder.load(register)
            builder.store(builder.select(builder.icmp_signed(comparison, before, value), before, value), register)

        def add(weight: Any, activation: Any, total: Any, low: Any, high: Any) -> None:
            before = builder.load(total)

            def plus(some: Any) -> Any:
                return (
                    plus_words(builder, before, some, activation)
                    if words
                    else plus_bytes(builder, before, activation, some)
                )

            after = plus(weight)
            if words:
                met = plus(builder.and_(weight, ir.Constant(VECTOR, [0xFFFF] * LANES)))
                for value in (met, after):
                    meet(value, low, "<")
                    meet(value, high, ">")
            else:
                by_byte = ir.VectorType(INT8, GROUP_BYTES * LANES)
                some, zeros = builder.bitcast(weight, by_byte), ir.Constant(by_byte, None)
                positive = builder.icmp_signed(">", some, zeros)
                meet(plus(builder.bitcast(builder.select(positive, some, zeros), VECTOR)), high, ">")
                meet(plus(builder.bitcast(builder.select(positive, zeros, some), VECTOR)), low, "<")
            builder.store(after, total)

        own = [choose(builder, arrays, argument, some) for argument, some in zip((0, 2), lanes, strict=True)]
        with cgutils.for_range(builder, num_groups, intp=INT64) as group:
            distance = builder.mul(group.index, index(GROUP_BYTES * POSITIONS))
            picked = [pick(builder.add(place, distance)) for pick, place in zip(own, (begin, place), strict=True)]
            for i in range(len(numbers)):
                add(*(operand(i) for operand in picked), *state[i])
        for i, (_, low, high) in zip(numbers, state, strict=True):
            arrays.store(builder.load(low), 8, builder.add(first, index(i)), 4)
            arrays.store(builder.load(high), 9, builder.add(first, index(i)), 4)

    return vectorised(scalar, generate)


listed_ranges_u8, listed_ranges_s16 = _listed_ranges(False), _listed_ranges(True)
