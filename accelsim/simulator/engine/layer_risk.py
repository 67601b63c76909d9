"""Layers with channels at risk: sums as of safe layers, and only outputs that their own products leave at risk stepped.

docs/numerics.md (103), (104) and (106) prove an output safe; what they leave is stepped in the order of the dataflow
and put in the place of its exact sum, before the sums are requantized.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.machine import Machine
from accelsim.simulator.engine.dots import aligned_empty
from accelsim.simulator.engine.lanes import LaneConstants
from accelsim.simulator.engine.layer_marks import LayerMarks, fed_range, less_than_nothing
from accelsim.simulator.engine.layer_operands import Codes
from accelsim.simulator.engine.layer_steps import LayerEvents, LayerSteps, Marked
from accelsim.simulator.engine.part_proofs import MOST_PARTS
from accelsim.simulator.engine.safe import SUM_BYTES, Int64, SafeLayer
from accelsim.simulator.engine.windows import Windows
from accelsim_kernels.depthwise import depthwise_rows
from accelsim_kernels.layer_rows import requantize_lanes
from accelsim_kernels.vectors.code import GROUP_BYTES, LANES

Int32 = npt.NDArray[np.int32]

_ROOM = 1 << 30
"""Greatest magnitude of what the kernels' sums are less than the accumulators: a register's value less it fits 32."""


_ASKED, _ASKED_EVERY = 256, 8
"""Positions of the first of so many pieces, which tell whether sums and bounds of the others are worth their time."""


@dataclass(frozen=True, eq=False)
class LayerAtRisk:
    """A layer in the form that the fast kernels take, on a machine on which its outputs may overflow.

    Parameters
    ----------
    safe : SafeLayer
        The layer.
    steps : LayerSteps
        How what is left at risk is stepped.
    """

    safe: SafeLayer
    steps: LayerSteps

    @staticmethod
    def of(safe: SafeLayer, machine: Machine) -> LayerAtRisk | None:
        """Return the layer in this form, made once for runs on one machine; None where it has none.

        Parameters
        ----------
        safe : SafeLayer
            The layer.
        machine : Machine
            Without truncated products.

        Notes
        -----
        Besides (102), ``|S'| + A`` must fit 32 bits for every output, and so must what an accumulator holds less what
        the kernels' sums are less than it.
        """
        made = safe.on_machines.get("last")
        if made is None or made[0] != machine:  # another thread may replace what is kept, but not what is returned
            made = safe.on_machines["last"] = machine, LayerAtRisk._prepared(safe, machine)
        found: LayerAtRisk | None = made[1]
        return found

    @staticmethod
    def _prepared(safe: SafeLayer, machine: Machine) -> LayerAtRisk | None:
        """Return the layer in this form, see `of`."""
        if safe.asymmetric:  # (8) would be stepped after the others
            return None
        steps, magnitudes = LayerSteps.of(safe, machine), np.abs(safe.layer.weights.astype(np.int64))
        most, shifted = max(map(abs, fed_range(safe))), max(map(abs, safe.shifted_range))
        if steps is None or int(magnitudes.sum(axis=1).max(initial=0)) * (shifted + most) >= (1 << 31) - 1:
            return None
        if int(np.abs(safe.start).max(initial=0)) >= _ROOM:
            return None
        return LayerAtRisk(safe, steps)

    @cached_property
    def _marks(self) -> LayerMarks:
        """Bounds of the layer's outputs."""
        return self.steps.marks

    @cached_property
    def _bytes(self) -> bool:
        """Whether the kernels' operands are the activations themselves, unsigned and of 8 bits."""
        return not self.safe.words and self._marks.offset == 0

    def run(self, rows: Codes) -> tuple[Codes, LayerEvents]:
        """Run the layer.

        Parameters
        ----------
        rows : integer array
            As in `SafeLayer.run`.

        Returns
        -------
        tuple
            Codes as of `SafeLayer.run`, and the events that were counted.
        """
        geometry, depthwise = self.safe.layer.geometry, self.safe.depthwise
        operands = self.safe.operands(rows, MOST_PARTS * GROUP_BYTES)
        windows = self.safe.windows(len(rows))
        codes, events = (self._depthwise if depthwise else self._dot)(operands, windows)
        return (codes if geometry is None else codes.reshape(len(rows), *geometry.output_shape, -1)), events

    def _dot(self, operands: Codes, windows: Windows) -> tuple[Codes, LayerEvents]:
        """Multiply windows with all channels; returns (positions, channels)."""
        safe = self.safe
        outputs = np.empty((windows.num_windows, len(safe.layer.weights)), dtype=safe.requantizers[0].dtype)
        run, events = _Pieces(self, operands, windows, outputs), LayerEvents()
        for group, proofs in enumerate(self._marks.extremes):
            left = None if proofs is None else proofs.run(operands, outputs)
            events += run.run(group, left)
        return outputs, events

    def _depthwise(self, operands: Codes, windows: Windows) -> tuple[Codes, LayerEvents]:
        """Convolve every channel with its own kernel; returns (positions, channels)."""
        safe, run, channels = self.safe, windows.run, len(self.safe.layer.weights)
        requantizer, fed, events = safe.requantizers[0], self._fed(operands), LayerEvents()
        outputs = np.empty((windows.num_windows, run), dtype=requantizer.dtype)
        step = min(max(1, SUM_BYTES // (4 * run)), windows.num_windows)
        room, reaching = (aligned_empty((step * run + LANES,), np.int32)[:-LANES].reshape(step, run) for _ in range(2))
        magnitudes, all_bases = self._magnitudes(fed), windows.make_bases()
        for begin in range(0, all_bases.size, step):
            bases = all_bases[begin : begin + step]
            sums, reached = room[: bases.size], reaching[: bases.size]
            for rows, weights, target in (
                (operands, safe.depthwise_weights, sums), (magnitudes, self._marks.depthwise_magnitudes, reached)
            ):  # fmt: skip
                depthwise_rows(rows, bases, np.int64(run), windows.segments, weights, target.reshape(-1))
            by_position = sums.reshape(-1, channels)
            marks = self._marks.mark(0, by_position, reached.reshape(-1, channels), bases, None)
            marked = Marked(0, *marks, bases, run // channels)
            events += self.steps.step(marked, fed, lambda: fed, by_position)
            if not safe.group_lanes:
                requantizer.store(sums, outputs[begin : begin + step])
                continue
            lanes, place, flat = safe.group_lanes[0], begin * run, sums.reshape(-1)
            width = lanes.constants.shape[1]
            whole, done = flat.size // width, flat.size // width * width
            _requantize(flat, whole, width, lanes, outputs, place, width)
            _requantize(flat[done:], 1, flat.size - done, lanes, outputs, place + done, width)
        return outputs.reshape(-1, channels), events

    @property
    def bytes_per_operand(self) -> int:
        """What `_fed`, `_magnitudes` and `LayerSteps.image` take at once for an operand."""
        if self._bytes:
            return self.steps.bytes_of_image
        return self.steps.bytes_of_image + (0 if self._marks.offset == 0 else 2) + (6 if self.safe.words else 3)

    @property
    def scratch_bytes(self) -> int:
        """What proofs by extremes hold at once."""
        return max((proofs.scratch_bytes for proofs in self._marks.extremes if proofs is not None), default=0)

    def _fed(self, operands: Codes) -> Codes:
        """Return the kernels' operands as the PEs multiply them, int16 where they differ."""
        if self._marks.offset == 0:
            return operands
        fed = operands.astype(np.int16)
        fed += np.int16(self._marks.offset)
        return fed

    def _magnitudes(self, fed: Codes) -> Codes:
        """Return ``|x|``, of 16 bits ``-|x|``, in the kernels' type."""
        if self._bytes:
            return fed
        if self.safe.words:
            return less_than_nothing(fed)
        return np.abs(fed).astype(np.uint8)


class _Pieces:
    """A layer that runs piece by piece: sums, bounds, proofs, steps and codes of some positions, then of more.

    Parameters
    ----------
    at_risk : LayerAtRisk
        The layer.
    operands : uint8 or int16 array
        From `SafeLayer.operands`.
    windows : Windows
        Where they lie.
    outputs : array, shape (positions, channels)
        Output.
    """

    def __init__(self, at_risk: LayerAtRisk, operands: Codes, windows: Windows, outputs: Codes) -> None:
        self.at_risk, self.operands, self.windows, self.outputs = at_risk, operands, windows, outputs

    @cached_property
    def _fed(self) -> Codes:
        return self.at_risk._fed(self.operands)

    @cached_property
    def _magnitudes(self) -> Codes:
        return self.at_risk._magnitudes(self._fed)

    @cached_property
    def _image(self) -> npt.NDArray[Any]:
        return self.at_risk.steps.image(self._fed)

    @cached_property
    def _bases(self) -> Int64:
        return self.windows.make_bases()

    def run(self, group: int, places: Int64 | None) -> LayerEvents:
        """Store the codes of a group of channels, and return the events that were counted.

        Parameters
        ----------
        group : int
            Of channels.
        places : int64 array, optional
            Positions, ascending; all by default.
        """
        events = LayerEvents()
        if places is not None and places.size == 0:
            return events
        at_risk, windows = self.at_risk, self.windows
        safe, marking = at_risk.safe, at_risk.steps.marks
        packed, reach, proofs = safe.packed[group], marking.packed_magnitudes[group], marking.proofs[group]
        count, first = len(self.outputs) if places is None else places.size, group * windows.group_offset
        step = min(packed.positions_at_a_time(SUM_BYTES), count)
        room, reaching = packed.room_for(step), None if reach is None else reach.room_for(step)
        prove = None if proofs is None else partial(proofs.unmark, self.operands, self._magnitudes)
        step_all = False
        for begin, end, asked in _pieces(count, step):
            chosen = slice(begin, end) if places is None else places[begin:end]
            some = (self._bases[chosen] if places is None else windows.bases_at(places[begin:end])) + first
            if step_all and not asked:
                sums, marks = room[: some.size], marking.everything(group, some.size)
            else:
                sums = packed.sums(self.operands, some, windows.segments, room)
                if reach is not None and reaching is not None:
                    reached = reach.sums(self._magnitudes, some, windows.segments, reaching)
                    marks = marking.mark(group, sums, reached, some, prove)
                    step_all = marking.are_most(group, marks, some.size)
            if reach is not None:
                events += at_risk.steps.step(Marked(group, *marks, some, 1), self._fed, lambda: self._image, sums)
            if places is None:
                self._store(group, sums, self.outputs[begin:end])
            else:
                codes = np.empty((some.size, self.outputs.shape[1]), dtype=self.outputs.dtype)
                self._store(group, sums, codes)
                part = self._part(group)
                self.outputs[chosen, part] = codes[:, part]
        return events

    def _part(self, group: int) -> slice:
        """Return the channels of a group."""
        per_group = self.at_risk.safe.layer.num_outputs
        return slice(group * per_group, (group + 1) * per_group)

    def _store(self, group: int, sums: Int32, codes: Codes) -> None:
        """Bring the sums of a group to its channels among codes (positions, channels)."""
        safe, part = self.at_risk.safe, self._part(group)
        if not safe.group_lanes:
            safe.requantizers[group].store(sums, codes[:, part])
            return
        lanes = safe.group_lanes[group]
        _requantize(sums, len(codes), part.stop - part.start, lanes, codes, part.start, codes.shape[1])


def _pieces(count: int, step: int) -> Iterator[tuple[int, int, bool]]:
    """Cut positions into pieces ``begin .. end - 1``, and say which are asked whether most blocks are at risk."""
    begin = number = 0
    while begin < count:
        asked = number % _ASKED_EVERY == 0
        end = min(begin + (min(_ASKED, step) if asked else step), count)
        yield begin, end, asked
        begin, number = end, number + 1


def _requantize(
    sums: Int32, count: int, valid: int, lanes: LaneConstants, outputs: Codes, place: int, stride: int
) -> None:
    """Bring sums to codes in 32-bit lanes; see `accelsim_kernels.layer_rows.requantize_lanes`."""
    stored = outputs.reshape(-1).view(f"uint{8 * outputs.itemsize}")
    requantize_lanes(
        sums.reshape(-1), np.int64(count), np.int64(valid), lanes.constants, lanes.two, stored, np.int64(place),
        np.int64(stride),
    )  # fmt: skip
