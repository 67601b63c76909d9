"""Where the windows of a layer lie among its activations, for kernels that read them in place."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from accelsim.program.geometry import Geometry
from accelsim_kernels.layer_rows import Places

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Windows:
    """Where the windows of a layer lie among its operands, counted in operands.

    Parameters
    ----------
    images, rows, columns : int
        How many there are: images, rows of windows in each, windows in a row.
    image_step, row_step, column_step : int
        Distance from an image to the next, from a row to the next, from a window to the next.
    segments : int64 array
        Where each piece of a window begins, after the window.
    run : int
        Outputs of a depthwise layer that lie side by side from a window on: with a stride of 1 a whole row of them, of
        which only the first window counts above.
    group_offset : int
        From a group's window to the next group's.
    """

    images: int
    rows: int
    columns: int
    image_step: int
    row_step: int
    column_step: int
    segments: Int64
    run: int
    group_offset: int

    @property
    def num_windows(self) -> int:
        """How many there are in all."""
        return self.images * self.rows * self.columns

    @cached_property
    def bases(self) -> Int64:
        """Where each window begins, kept as long as the windows are."""
        return self.make_bases()

    def make_bases(self) -> Int64:
        """Return where each window begins."""
        rows = np.add.outer(np.arange(self.images) * self.image_step, np.arange(self.rows) * self.row_step)
        return np.add.outer(rows, np.arange(self.columns) * self.column_step).reshape(-1)

    def bases_at(self, places: Int64) -> Int64:
        """Return where the windows of some numbers begin."""
        lines, column = np.divmod(places, self.columns)
        image, row = np.divmod(lines, self.rows)
        bases: Int64 = image * self.image_step + row * self.row_step + column * self.column_step
        return bases

    def in_bytes(self, size: int) -> tuple[Places, Int64]:
        """Return the kernels' tuple and the pieces, distances times the size of an operand; kept."""
        made = self._in_bytes.get(size)
        if made is None:
            steps = self.columns, self.rows, self.image_step * size, self.row_step * size, self.column_step * size
            made = self._in_bytes[size] = steps, self.segments * size
        return made

    @cached_property
    def _in_bytes(self) -> dict[int, tuple[Places, Int64]]:
        """What `in_bytes` keeps."""
        return {}

    @staticmethod
    def of_vectors(num_positions: int, reduction: int) -> Windows:
        """Return the windows of vectors, one piece each."""
        return Windows(1, 1, num_positions, 0, 0, reduction, np.zeros(1, dtype=np.int64), 0, 0)

    @staticmethod
    def of(geometry: Geometry, num_images: int, depthwise: bool) -> Windows:
        """Return the windows of a convolution of padded images, channels last."""
        channels, height, width = geometry.input_shape
        top, left, bottom, right = geometry.pads
        line = (width + left + right) * channels
        out_rows, out_columns = geometry.output_shape
        run, columns = channels, out_columns
        if depthwise and geometry.strides[1] == 1:
            run, columns = channels * out_columns, 1
        rows = np.arange(geometry.kernel_shape[0]) * geometry.dilations[0] * line
        taps = np.arange(geometry.kernel_shape[1]) * geometry.dilations[1] * channels
        whole_rows = not depthwise and pieces_per_window(geometry) == geometry.kernel_shape[0]
        segments = rows if whole_rows else np.add.outer(rows, taps).reshape(-1)
        return Windows(
            num_images, out_rows, columns, (height + top + bottom) * line, geometry.strides[0] * line,
            geometry.strides[1] * channels, segments, run, geometry.group_channels,
        )  # fmt: skip


def pieces_per_window(geometry: Geometry | None) -> int:
    """Return in how many contiguous pieces a window of all input channels of a group lies."""
    if geometry is None:
        return 1
    rows, columns = geometry.kernel_shape
    side_by_side = columns == 1 or (geometry.groups == 1 and geometry.dilations[1] == 1)
    return rows if side_by_side else rows * columns
