"""Dot products of outputs that cannot overflow: docs/numerics.md (17) and (18).

Where every partial sum fits, in any order, the result does not depend on the order, and the loops may be arranged for
speed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import kernel

_BLOCK = 512
"""Positions worked on at a time, so that their sums stay in the first-level cache."""


@kernel
def exact_products(
    weights: npt.NDArray[np.int32],
    columns: npt.NDArray[np.int32],
    start: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    accumulators: npt.NDArray[np.int64],
) -> None:
    """Compute ``start[n] + Σ_k weights[n, k] * columns[k, p]`` for some output channels, in 64 bits.

    Parameters
    ----------
    weights : int32 array, shape (n, k)
        Operands as the PEs multiply them.
    columns : int32 array, shape (k, p)
        Activations.
    start : int64 array, shape (n,)
        What the accumulators are loaded with.
    rows : int64 array
        The channels to compute.
    accumulators : int64 array, shape (n, p)
        Output; other rows are left alone.
    """
    num_positions = columns.shape[1]
    for first in range(0, num_positions, _BLOCK):
        last = min(first + _BLOCK, num_positions)
        for n in rows:
            sums = accumulators[n, first:last]
            sums[:] = start[n]
            for k in range(columns.shape[0]):
                weight = np.int64(weights[n, k])
                terms = columns[k, first:last]
                for p in range(last - first):
                    sums[p] += weight * np.int64(terms[p])
