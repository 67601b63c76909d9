"""Least and greatest running sum of a layer, channels last, without columns: docs/numerics.md, section 3.

Blocks of sixteen channels run over all windows where these lie, six at a time, with the range of every channel in
registers; what is left at the end is reduced to two numbers. Overflow, sums and codes are computed apart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.machine import Machine
from accelsim.simulator.engine.gemm import terms_per_addition
from accelsim.simulator.engine.layer_blocks import LayerBlocks, image_of, terms_of_window
from accelsim.simulator.engine.layer_marks import fed_range
from accelsim.simulator.engine.layer_operands import Codes
from accelsim.simulator.engine.safe import SafeLayer
from accelsim.simulator.engine.tracked import Layout, range_layout
from accelsim.simulator.engine.windows import Windows
from accelsim_kernels.block_steps import range_blocks
from accelsim_kernels.depthwise import depthwise_ranges
from accelsim_kernels.ordered_tiles import PRODUCTS
from accelsim_kernels.vectors.code import LANES
from accelsim_kernels.vectors.tile import ROWS

Int32 = npt.NDArray[np.int32]

_MOST = (1 << 31) - 1
"""Greatest running sum of a lane."""


@dataclass(frozen=True, eq=False)
class LayerRanges:
    """A layer whose running sums fit 32 bits, on machines that add so many products at a time.

    Parameters
    ----------
    safe : SafeLayer
        The layer.
    tile : int
        Products that reach the accumulator in one addition.
    """

    safe: SafeLayer
    tile: int

    @staticmethod
    def of(safe: SafeLayer, machine: Machine) -> LayerRanges | None:
        """Return the layer in this form, made once for runs on like machines; None where a sum may not fit 32 bits."""
        tile, made = terms_per_addition(machine), safe.on_machines.get("ranges")
        if made is None or made[0] != tile:  # another thread may replace what is kept, but not what is returned
            low, high = safe.bounds.of_sums(*fed_range(safe))
            fits = low.min(initial=0) >= -_MOST and high.max(initial=0) <= _MOST
            fits &= safe.layer.weights.max(initial=0) < 1 << 15  # stored ones of asymmetric layers may have 16 bits
            made = safe.on_machines["ranges"] = tile, LayerRanges(safe, tile) if fits else None
        found: LayerRanges | None = made[1]
        return found

    @cached_property
    def _layout(self) -> Layout:
        """How blocks run; lanes are channels."""
        weights = self.safe.layer.weights
        ends = (int(weights.min()), int(weights.max())), fed_range(self.safe)
        return range_layout(weights.shape[1], self.tile, *ends)

    @cached_property
    def _blocks(self) -> list[tuple[LayerBlocks, Int32]]:
        """Of every group its weights, filled up with 0 to whole blocks, and the start of six rows of each block."""
        layer, blocks = self.safe.layer, []
        terms = terms_of_window(layer.geometry, layer.reduction, self.safe.spatial_first)
        for begin in range(0, len(layer.weights), layer.num_outputs):
            part, filled = slice(begin, begin + layer.num_outputs), -layer.num_outputs % LANES
            weights = np.concatenate([layer.weights[part], np.zeros((filled, layer.reduction), dtype=np.int32)])
            start = np.concatenate([layer.start[part], np.zeros(filled, dtype=np.int64)]).astype(np.int32)
            blocks.append((LayerBlocks.of(self._layout, weights, terms), np.tile(start.reshape(-1, LANES), (1, ROWS))))
        return blocks

    @cached_property
    def _tap_weights(self) -> npt.NDArray[np.int16]:
        """Stored weights of a depthwise layer, as `depthwise_ranges` takes them."""
        return replace(self.safe.for_kernels, weights=self.safe.layer.weights).taps.repeated

    @property
    def bytes_per_operand(self) -> int:
        """What `run` takes for an operand besides operands."""
        return int(np.dtype(self._layout.dtype).itemsize)

    def run(self, rows: Codes) -> tuple[int, int]:
        """Return the least and greatest running sum of all outputs.

        Parameters
        ----------
        rows : integer array
            As in `SafeLayer.run`; at least one sample.
        """
        safe, geometry = self.safe, self.safe.layer.geometry
        operands = safe.operands(rows)
        image = image_of(operands, self._layout.dtype, safe.shift - safe.layer.input_offset)
        if geometry is None:
            windows = Windows.of_vectors(len(rows), safe.layer.reduction)
        else:
            windows = Windows.of(geometry, len(rows), safe.depthwise)
        least, most = self._depthwise(image, windows) if safe.depthwise else self._dense(image, windows)
        if not safe.asymmetric:
            return least, most
        last_least, last_most = self._last(operands, windows)
        return min(least, last_least), max(most, last_most)

    def _last(self, operands: Codes, windows: Windows) -> tuple[int, int]:
        """Return the least and greatest sum after addition (8), the last one."""
        safe, ends = self.safe, []
        per_group = len(safe.layer.weights) if safe.depthwise else safe.layer.num_outputs
        for group, _, sums in safe.sums(operands, windows):
            some = sums.reshape(-1, per_group) if safe.depthwise else sums[:, :per_group]
            start = safe.start[group * per_group : (group + 1) * per_group]
            ends.append((int((some.min(axis=0) + start).min()), int((some.max(axis=0) + start).max())))
        return min(low for low, _ in ends), max(high for _, high in ends)

    def _dense(self, image: npt.NDArray[Any], windows: Windows) -> tuple[int, int]:
        """Run all channels of every group over its windows."""
        ends, num_outputs = [], self.safe.layer.num_outputs
        for group, (own, start) in enumerate(self._blocks):
            least, most = start.copy(), start.copy()
            number = np.int64(0 if self._layout.kind == PRODUCTS else own.tile)
            bases = windows.bases + group * windows.group_offset
            range_blocks(image, bases, own.places, own.vectors, start, number, least, most)
            by_channel = (values.reshape(-1, ROWS, LANES).transpose(0, 2, 1) for values in (least, most))
            own_least, own_most = (values.reshape(-1, ROWS)[:num_outputs] for values in by_channel)
            ends.append((int(own_least.min()), int(own_most.max())))
        return min(low for low, _ in ends), max(high for _, high in ends)

    def _depthwise(self, image: npt.NDArray[Any], windows: Windows) -> tuple[int, int]:
        """Run every channel over its own windows."""
        weights, start = self._tap_weights, self.safe.layer.start.astype(np.int32)
        start = np.tile(start, weights.shape[1] // start.size)
        least, most = start.copy(), start.copy()
        depthwise_ranges(
            image, windows.bases, np.int64(windows.run), windows.segments, weights, start, np.int64(self.tile), least,
            most,
        )  # fmt: skip
        return int(least.min()), int(most.max())
