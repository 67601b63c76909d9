"""Depthwise convolution, channels last: the taps of neighbouring outputs, summed in registers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir

from accelsim_kernels._jit import Int
from accelsim_kernels.vectors.code import INT16, INT64, LANES, VECTOR, Activations, Arrays, cgutils, index, vectorised


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

    def generate(builder: Any, arrays: Arrays) -> None:
        _, base, _, _, column, _, place = arrays.values
        kind = arrays.kinds[0].dtype
        narrow, narrow_weight = ir.VectorType(ir.IntType(kind.bitwidth), LANES), ir.VectorType(INT16, LANES)
        widen = builder.sext if kind.signed else builder.zext
        totals = [cgutils.alloca_once_value(builder, ir.Constant(VECTOR, None)) for _ in range(num_vectors)]
        width = builder.extract_value(arrays.array(3).shape, 1)
        with cgutils.for_range(builder, arrays.array(2).nitems, intp=INT64) as tap:
            begin = builder.add(base, arrays.load(2, tap.index, INT64, 8))
            weight = builder.add(builder.mul(tap.index, width), column)
            for v in range(num_vectors):
                step = index(v * LANES)
                left = widen(arrays.load(0, builder.add(begin, step), narrow), VECTOR)
                right = builder.sext(arrays.load(3, builder.add(weight, step), narrow_weight), VECTOR)
                builder.store(builder.add(builder.load(totals[v]), builder.mul(left, right)), totals[v])
        for v in range(num_vectors):
            arrays.store(builder.load(totals[v]), 5, builder.add(place, index(v * LANES)), 4)

    return vectorised(scalar, generate)


window_4 = _window(4)
window_1 = _window(1)
