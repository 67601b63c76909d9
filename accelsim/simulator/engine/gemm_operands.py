"""Operands of a GEMM as the grid sees them, and the values that it leaves."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from accelsim.simulator.engine.events import Events

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

WIDEST_START = 1 << 61
"""Greatest magnitude of a start value, docs/numerics.md section 2."""

TYPE_ENDS: dict[str, tuple[int, int]] = {
    np.dtype(kind).char: (int(np.iinfo(kind).min), int(np.iinfo(kind).max)) for kind in ("b", "B", "h", "H")
}
"""Ends of the narrow types."""

MAX_REDUCTION = 1 << 26
"""Greatest length of a reduction, docs/numerics.md section 2."""


class GemmOperands(NamedTuple):
    """A GEMM as the grid sees it, docs/numerics.md section 2.

    Parameters
    ----------
    weights : signed integer array, shape (n, k)
        Operands as the PEs multiply them, of 8 to 32 bits; from 8 or 16 bits `wide` makes 32.
    columns : integer array, shape (k, p)
        Likewise.
    start : int64 array, shape (n,)
        What the accumulators are loaded with, (7).
    weight_zero_points : int64 array, shape (n,)
        z_w of (8); zeros where nothing is added at the end.
    plain : bool
        Start values and zero points are known to be zeros.
    """

    weights: npt.NDArray[Any]
    columns: npt.NDArray[Any]
    start: Int64
    weight_zero_points: Int64
    plain: bool = False

    def wide(self) -> GemmOperands:
        """Return the operands with weights of 32 bits."""
        if self.weights.itemsize > 2:
            return self
        return self._replace(weights=self.weights.astype(np.int32))

    @property
    def column_ends(self) -> tuple[int, int]:
        """Least and greatest activation."""
        return int(self.columns.min()), int(self.columns.max())

    @property
    def quick_column_ends(self) -> tuple[int, int]:
        """Bounds of the activations: those of their type where it is narrow, else the least and greatest."""
        return TYPE_ENDS.get(self.columns.dtype.char) or self.column_ends

    @property
    def wide_columns(self) -> Int32:
        """The activations as int32."""
        return np.ascontiguousarray(self.columns, dtype=np.int32)


class GemmValues(NamedTuple):
    """What a GEMM leaves in the accumulators; arrays of shape (n, p), None where not tracked."""

    accumulators: Int64
    events: Events | None
    range_min: Int64 | None = None
    range_max: Int64 | None = None

    @property
    def overflow_events(self) -> Int64 | None:
        """Events of the accumulators."""
        return None if self.events is None else self.events.counts

    @property
    def first_overflow(self) -> Int64 | None:
        """Number of the first addition with one, -1 where there was none."""
        return None if self.events is None else self.events.first

    @property
    def partial_overflow_events(self) -> Int64 | None:
        """Events of partial sums or adder trees."""
        return None if self.events is None else self.events.partial
