"""What the taps of a convolution meet inside an image: where zero operands are counted without windows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil

import numpy as np
import numpy.typing as npt

from accelsim.program.geometry import Geometry

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Meeting:
    """What the taps of a convolution meet inside an image, over all positions.

    Parameters
    ----------
    kinds : int64 array, shape (height,)
        Kind of each row of the image; the same taps meet all rows of a kind.
    rows : bool array, shape (kernel rows, kinds)
        Which kinds each row of the kernel meets.
    columns : int64 array, shape (2, kernel columns)
        The first column of the image that each column of the kernel meets, and how many it meets.
    outside : int64 array, shape (kernel rows, kernel columns)
        At how many positions a tap is in the padding.
    """

    kinds: Int64
    rows: npt.NDArray[np.bool_]
    columns: Int64
    outside: Int64

    @staticmethod
    @lru_cache(maxsize=1024)
    def of(geometry: Geometry) -> Meeting:
        """Return it for a geometry."""
        met = [_met(geometry, axis) for axis in (0, 1)]
        height = geometry.input_shape[1]
        meeting = np.zeros((height, geometry.kernel_shape[0]), dtype=np.bool_)
        for tap, (first, count) in enumerate(met[0].T):
            meeting[first : first + count * geometry.strides[0] : geometry.strides[0], tap] = True
        different, kinds = np.unique(meeting, axis=0, return_inverse=True)
        outside = geometry.num_positions - np.outer(met[0][1], met[1][1])
        return Meeting(kinds.reshape(-1).astype(np.int64), np.ascontiguousarray(different.T), met[1], outside)


def _met(geometry: Geometry, axis: int) -> Int64:
    """Return the first row (column) of the image that each row (column) of a kernel meets, and how many it meets."""
    stride, met = geometry.strides[axis], np.zeros((2, geometry.kernel_shape[axis]), dtype=np.int64)
    for tap in range(geometry.kernel_shape[axis]):
        offset = tap * geometry.dilations[axis] - geometry.pads[axis]
        first = max(0, ceil(-offset / stride))
        last = min(geometry.output_shape[axis] - 1, (geometry.input_shape[axis + 1] - 1 - offset) // stride)
        if last >= first:
            met[:, tap] = first * stride + offset, last - first + 1
    return met
