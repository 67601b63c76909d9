"""Ordered sums of outputs that lie scattered: docs/numerics.md (13) to (16) and (102).

A vector holds sixteen outputs, each of any channel and any position. Their operands are gathered, four bytes of the
reduction at a time: four terms of 8 bits or two of 16.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir

from accelsim_kernels._jit import Int
from accelsim_kernels.integers import bring_in
from accelsim_kernels.vectors.code import (
    GROUP_BYTES,
    INT32,
    INT64,
    LANES,
    VECTOR,
    Arrays,
    cgutils,
    index,
    spread,
    vectorised,
)

Weights = npt.NDArray[np.int8] | npt.NDArray[np.int16]
Activations = npt.NDArray[np.uint8] | npt.NDArray[np.int16]
Narrow = npt.NDArray[np.int32]


class _Sums:
    """What the generated steps share: the registers of sixteen outputs.

    Parameters
    ----------
    builder
        numba's.
    saturate : bool
        Mode of all registers.
    """

    def __init__(self, builder: Any, saturate: bool) -> None:
        self.builder, self.saturate = builder, saturate
        self.one = ir.Constant(VECTOR, [1] * LANES)

    def bring_in(self, raw: Any, low: Any, high: Any) -> tuple[Any, Any]:
        """Return what a register holds after it is given values, and where they did not fit.

        A wrapping register holds its value less ``low``, so that its range is a mask.
        """
        builder = self.builder
        if self.saturate:
            kept = builder.select(builder.icmp_signed(">", raw, low), raw, low)
            kept = builder.select(builder.icmp_signed("<", kept, high), kept, high)
            return kept, builder.icmp_signed("!=", raw, kept)
        mask = builder.sub(high, low)
        return builder.and_(raw, mask), builder.icmp_unsigned(">", raw, mask)

    def count(self, events: Any, outside: Any) -> None:
        """Count events."""
        before = self.builder.load(events)
        self.builder.store(self.builder.select(outside, self.builder.add(before, self.one), before), events)

    def note(self, first: Any, outside: Any, number: Any) -> None:
        """Keep the least number of an addition with an event; -1, none, is the greatest without a sign."""
        before = self.builder.load(first)
        earlier = self.builder.select(self.builder.icmp_unsigned("<", before, number), before, number)
        self.builder.store(self.builder.select(outside, earlier, before), first)

    def term(self, group: Any, place: int, bits: int, signed: bool) -> Any:
        """Take one operand out of the four bytes of every lane."""
        builder = self.builder
        raised = builder.shl(group, ir.Constant(VECTOR, [32 - bits * (place + 1)] * LANES))
        lower = builder.ashr if signed else builder.lshr
        return lower(raised, ir.Constant(VECTOR, [32 - bits] * LANES))


def _scattered(saturate: bool, tiled: bool, chained: bool = False) -> Any:
    """Make the step that adds all terms of sixteen outputs in the order of a dataflow.

    Parameters
    ----------
    saturate : bool
        Mode of all registers.
    tiled : bool
        Whether terms are summed by tile first, (14) to (16); else (13), and what is said of tiles is not looked at.
    chained : bool
        Whether each term is brought into the inner register, or a tile's exact sum once.

    Returns
    -------
    callable
        See `scalar` below.
    """

    def scalar(
        weights: Weights, rows: Activations, weight_places: Narrow, row_places: Narrow, stride: Int, num_groups: Int,
        first: Int, low: Int, high: Int, tile: Int, inner_low: Int, inner_high: Int, sums: Narrow, events: Narrow,
        firsts: Narrow, inner_events: Narrow,
    ) -> None:  # fmt: skip
        """Add all terms of sixteen outputs to accumulators that hold their start.

        Parameters
        ----------
        weights : int8 or int16 array
            Each channel's side by side, filled up with 0 to whole groups of `GROUP_BYTES`.
        rows : uint8 array, or int16 where the weights are
            Activations.
        weight_places, row_places : int32 arrays
            Where each output's operands begin.
        stride : int64
            From a group of activations to the next.
        num_groups : int64
            Groups of the reduction.
        first : int64
            The first output.
        low, high : int64
            Range of the accumulators.
        tile : int64
            Terms of a tile.
        inner_low, inner_high : int64
            Range of the partial sum, or of the adder tree's output.
        sums, events, firsts, inner_events : int32 arrays
            What the accumulators hold, their overflow events, the number of the first addition with one or -1, and the
            events of the inner registers; updated.
        """
        size = tile if tiled else 1
        per_group = GROUP_BYTES // weights.itemsize
        for i in range(first, first + LANES):
            products = []
            for k in range(num_groups * per_group):
                row = rows[row_places[i] + k // per_group * stride + k % per_group]
                products.append(int(weights[weight_places[i] + k]) * int(row))
            for number, begin in enumerate(range(0, len(products), size)):
                inner, terms = 0, products[begin : begin + size]
                for place, product in enumerate(terms):
                    inner += product
                    if tiled and (chained or place == len(terms) - 1):
                        inner_events[i] += not inner_low <= inner <= inner_high
                        inner = int(bring_in(np.int64(inner), np.int64(inner_low), np.int64(inner_high), saturate))
                value = int(sums[i]) + inner
                if not low <= value <= high:
                    events[i] += 1
                    firsts[i] = number if firsts[i] < 0 else firsts[i]
                sums[i] = bring_in(np.int64(value), np.int64(low), np.int64(high), saturate)

    def generate(builder: Any, arrays: Arrays) -> None:
        _, _, _, _, stride, num_groups, first, *limits, tile, inner_low, inner_high = arrays.values[:12]
        low, high, inner_low, inner_high = (
            spread(builder, builder.trunc(value, INT32)) for value in (*limits, inner_low, inner_high)
        )
        bits, signed = arrays.kinds[0].dtype.bitwidth, arrays.kinds[1].dtype.signed
        per_group, none, common = GROUP_BYTES * 8 // bits, ir.Constant(VECTOR, None), _Sums(builder, saturate)
        weight_places, row_places = (arrays.load(argument, first, VECTOR, 4) for argument in (2, 3))
        state = [cgutils.alloca_once_value(builder, arrays.load(a, first, VECTOR, 4)) for a in range(12, 16)]
        sums, events, firsts, inner_events = state
        if not saturate:
            builder.store(builder.sub(builder.load(sums), low), sums)
        empty, bias = (none, none) if saturate else (builder.neg(inner_low), inner_low)
        inner, number = (cgutils.alloca_once_value(builder, vector) for vector in (empty, none))
        left = cgutils.alloca_once_value(builder, tile)

        def add(term: Any) -> None:
            kept, outside = common.bring_in(builder.add(builder.load(sums), term), low, high)
            builder.store(kept, sums)
            common.count(events, outside)
            common.note(firsts, outside, builder.load(number))
            builder.store(builder.add(builder.load(number), common.one), number)

        def bring_into_inner(raw: Any) -> None:
            kept, outside = common.bring_in(raw, inner_low, inner_high)
            builder.store(kept, inner)
            common.count(inner_events, outside)

        def end_tile() -> None:
            if not chained:
                bring_into_inner(builder.load(inner))
            add(builder.add(builder.load(inner), bias))
            builder.store(empty, inner)
            builder.store(tile, left)

        def add_to_tile(product: Any) -> None:
            raw = builder.add(builder.load(inner), product)
            if chained:
                bring_into_inner(raw)
            else:
                builder.store(raw, inner)
            builder.store(builder.sub(builder.load(left), index(1)), left)
            with builder.if_then(builder.icmp_signed("==", builder.load(left), index(0))):
                end_tile()

        with cgutils.for_range(builder, num_groups, intp=INT64) as group:
            weight = arrays.gather(0, builder.mul(group.index, index(per_group)), weight_places)
            row = arrays.gather(1, builder.mul(group.index, stride), row_places)
            for place in range(per_group):
                product = builder.mul(common.term(weight, place, bits, True), common.term(row, place, bits, signed))
                (add_to_tile if tiled else add)(product)
        if tiled:
            with builder.if_then(builder.icmp_signed("!=", builder.load(left), tile)):
                end_tile()
        if not saturate:
            builder.store(builder.add(builder.load(sums), low), sums)
        for argument, vector in enumerate(state, start=12):
            arrays.store(builder.load(vector), argument, first, 4)

    return vectorised(scalar, generate)


saturating_scattered, wrapping_scattered = _scattered(True, False), _scattered(False, False)
saturating_scattered_trees, wrapping_scattered_trees = _scattered(True, True), _scattered(False, True)
saturating_scattered_chains, wrapping_scattered_chains = _scattered(True, True, True), _scattered(False, True, True)
