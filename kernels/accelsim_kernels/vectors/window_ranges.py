"""Running ranges of depthwise convolution, channels last: the taps of neighbouring outputs, summed in registers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir

from accelsim_kernels._jit import Int
from accelsim_kernels.vectors.code import INT16, INT64, LANES, VECTOR, Arrays, cgutils, index, vectorised

Narrow = npt.NDArray[np.int32]


def _window_range(num_vectors: int) -> Any:
    """Make the step that runs the sums of some neighbouring outputs, each channel with its own weights.

    Parameters
    ----------
    num_vectors : int
        Vectors of outputs, which lie side by side as their operands do.

    Returns
    -------
    callable
        See `scalar` below.
    """

    def scalar(
        rows: npt.NDArray[np.int16] | Narrow, base: Int, segments: npt.NDArray[np.int64],
        weights: npt.NDArray[np.int16], column: Int, tile: Int, start: Narrow, least: Narrow, most: Narrow,
    ) -> None:  # fmt: skip
        """Take the running sums of some outputs into the range of their channels.

        Parameters
        ----------
        rows : int16 or int32 array
            Activations, channels last.
        base : int64
            Where in ``rows`` the window of the first output begins.
        segments : int64 array, shape (taps,)
            Where each tap is, after the base, in the machine's order.
        weights : int16 array, shape (taps, channels)
            Weights.
        column : int64
            The first output's channel there and in what follows.
        tile : int64
            Taps between two values that count.
        start, least, most : int32 arrays, shape (channels,)
            What the sums begin with, and their range so far; the range is updated.
        """
        for i in range(column, column + num_vectors * LANES):
            total = int(start[i])
            for t in range(segments.size):
                total += int(weights[t, i]) * int(rows[base + segments[t] + i - column])
                if (t + 1) % tile == 0 or t + 1 == segments.size:
                    least[i], most[i] = min(int(least[i]), total), max(int(most[i]), total)

    def generate(builder: Any, arrays: Arrays) -> None:
        _, base, _, _, column, tile, *_ = arrays.values
        bits = arrays.kinds[0].dtype.bitwidth
        narrow, narrow_weight = ir.VectorType(ir.IntType(bits), LANES), ir.VectorType(INT16, LANES)
        columns = [builder.add(column, index(v * LANES)) for v in range(num_vectors)]
        sums, least, most = (
            [cgutils.alloca_once_value(builder, arrays.load(argument, own, VECTOR, 4)) for own in columns]
            for argument in (6, 7, 8)
        )
        width, taps = builder.extract_value(arrays.array(3).shape, 1), arrays.array(2).nitems
        left = cgutils.alloca_once_value(builder, tile)
        with cgutils.for_range(builder, taps, intp=INT64) as tap:
            begin, weight = builder.add(base, arrays.load(2, tap.index, INT64, 8)), builder.mul(tap.index, width)
            for v, own in enumerate(columns):
                window = arrays.load(0, builder.add(begin, index(v * LANES)), narrow)
                if bits < VECTOR.element.width:
                    window = builder.sext(window, VECTOR)
                own_weight = builder.sext(arrays.load(3, builder.add(weight, own), narrow_weight), VECTOR)
                builder.store(builder.add(builder.load(sums[v]), builder.mul(window, own_weight)), sums[v])
            now = builder.sub(builder.load(left), index(1))
            last = builder.icmp_signed("==", builder.add(tap.index, index(1)), taps)
            ends = builder.or_(builder.icmp_signed("==", now, index(0)), last)
            builder.store(builder.select(ends, tile, now), left)
            with builder.if_then(ends):
                for v in range(num_vectors):
                    total = builder.load(sums[v])
                    for kept, order in ((least[v], "<"), (most[v], ">")):
                        before = builder.load(kept)
                        further = builder.icmp_signed(order, total, before)
                        builder.store(builder.select(further, total, before), kept)
        for v, own in enumerate(columns):
            arrays.store(builder.load(least[v]), 7, own, 4)
            arrays.store(builder.load(most[v]), 8, own, 4)

    return vectorised(scalar, generate)


window_range_4, window_range_1 = _window_range(4), _window_range(1)
