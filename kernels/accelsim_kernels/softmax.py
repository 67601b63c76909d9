"""Softmax on stored integers: docs/numerics.md (33) and (50) to (54)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, kernel

Codes = npt.NDArray[np.int32]


@kernel
def softmax(codes: Codes, exponentials: npt.NDArray[np.int64], bits: Int, output: Codes) -> None:
    """Softmax over the last axis with an exponential table and one division, (33).

    Parameters
    ----------
    codes, output : int32 arrays, shape (rows, classes)
        Input; output in units of ``2**-bits``.
    exponentials : int64 array, shape (entries,)
        ``E[d]``, the exponential of minus d input steps, in units of ``2**-23``.
    bits : int64
        Width of the output.
    """
    for row in range(codes.shape[0]):
        peak = np.int64(codes[row].max())
        total = np.int64(0)
        for i in range(codes.shape[1]):
            total += exponentials[peak - np.int64(codes[row, i])]
        for i in range(codes.shape[1]):
            numerator = (exponentials[peak - np.int64(codes[row, i])] << bits) + (total >> 1)
            output[row, i] = min(numerator // total, (np.int64(1) << bits) - 1)
