"""What the arrays of a batch take: how many samples may run at a time, and what a run reports of its memory.

Counted is every array that grows with the batch: inputs as they are fed and as they are stored, tensors between
layers, and what a layer holds while it runs: codes in another order, padded operands, columns, sums, accumulators. A
layer that works piece by piece holds the arrays of one piece, `_Stage.piece_bytes` at most. Weights, packed weights
and tables belong to the program; Python's objects and what is returned are not counted.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from weakref import WeakKeyDictionary

from accelsim.machine import Machine
from accelsim.program import layers as kinds
from accelsim.program.program import IntegerProgram
from accelsim.program.storage import PlainTensor
from accelsim.simulator.engine.codes import narrowest_type
from accelsim.simulator.engine.convolution import _FAST_COLUMN_BYTES
from accelsim.simulator.engine.dots import BYTES_GATHERED, GATHERED_BYTES
from accelsim.simulator.engine.exact import _LARGE_BYTES
from accelsim.simulator.engine.layer_calls import NEAR_SUM_BYTES
from accelsim.simulator.engine.layer_ranges import LayerRanges
from accelsim.simulator.engine.layer_risk import LayerAtRisk
from accelsim.simulator.engine.nonzero_weights import counter_bytes
from accelsim.simulator.engine.safe import SUM_BYTES, SafeLayer
from accelsim_kernels.processor import has_dot_instructions
from accelsim_kernels.vectors.code import LANES

_LARGE_ARRAYS = 11
"""Arrays as large as its accumulators that a piece of a layer has at most, where additions are stepped."""

_MOST_ANSWERS = 64
"""Lengths of batches whose bytes are remembered."""

_PAIRS = 1 << 16
"""Additions from which on they go by a table."""


@dataclass(frozen=True)
class _Stage:
    """Arrays that a batch has at once, in bytes.

    Parameters
    ----------
    per_sample : int
        Of each sample.
    piece_bytes, piece_per_sample : int
        Of what is worked on piece by piece: at most, and of each sample where that is less.
    large_bytes, large_per_sample : int
        Likewise, of each of `_LARGE_ARRAYS` that ask for large pages.
    """

    per_sample: int
    piece_bytes: int = 0
    piece_per_sample: int = 0
    large_bytes: int = 0
    large_per_sample: int = 0

    def bytes(self, samples: int) -> int:
        """Return the bytes of some samples."""
        large = min(self.large_bytes, samples * self.large_per_sample)
        if large > _LARGE_BYTES // 8:
            large = max(large, _LARGE_BYTES)
        piece = min(self.piece_bytes, samples * self.piece_per_sample)
        return samples * self.per_sample + piece + _LARGE_ARRAYS * large


@dataclass(frozen=True)
class WorkingMemory:
    """What batches of a program take on a machine.

    Parameters
    ----------
    counters : int
        Bytes of the counters of zero operands, whatever the batch.
    stages : tuple
        What there is at once: while inputs are stored, while each layer runs, while outputs become real.
    """

    counters: int
    stages: tuple[_Stage, ...]

    @staticmethod
    def of(
        program: IntegerProgram, machine: Machine, by_rows: bool, pieces: bool, keep: frozenset[str],
        ranges: bool = False,
    ) -> WorkingMemory:  # fmt: skip
        """Return what batches take, worked out once for runs of a program under the same conditions.

        Parameters
        ----------
        program : IntegerProgram
            What runs.
        machine : Machine
            Where.
        by_rows : bool
            Layers run channels last where they can: on the fast engine, with no toggles counted.
        pieces : bool
            Layers of the grid work piece by piece: on the fast engine.
        keep : frozenset of str
            Tensors that are kept to the end of a batch.
        ranges : bool
            Running ranges are tracked.
        """
        conditions = machine, by_rows, pieces, keep, ranges, has_dot_instructions()
        made = _MADE.get(program)
        if made is None or made[0] != conditions:
            model = _Model(program, machine, by_rows, pieces, keep, ranges)
            made = _MADE[program] = conditions, WorkingMemory(model.counters(), tuple(model.stages()))
        return made[1]

    def bytes(self, samples: int) -> int:
        """Return the bytes that a batch of some samples takes at most, with its counters; a few answers are kept."""
        answer = self._answers.get(samples)
        if answer is None:
            if len(self._answers) >= _MOST_ANSWERS:
                self._answers.clear()
            answer = self._answers[samples] = self.counters + max(stage.bytes(samples) for stage in self.stages)
        return answer

    @cached_property
    def _answers(self) -> dict[int, int]:
        """What `bytes` keeps."""
        return {}

    def samples(self, num_bytes: int, most: int) -> int:
        """Return how many samples fit some bytes; at least 1, at most ``most``."""
        if self.bytes(most) <= num_bytes:
            return most
        numbers = range(1, most)
        return max(1, bisect_right(numbers, num_bytes, key=self.bytes))


_MADE: WeakKeyDictionary[IntegerProgram, tuple[tuple[object, ...], WorkingMemory]] = WeakKeyDictionary()
"""What was worked out for the last run of each program, with its conditions."""


@dataclass(frozen=True, eq=False)
class _Model:
    """A program on a machine, see `WorkingMemory.of`."""

    program: IntegerProgram
    machine: Machine
    by_rows: bool
    pieces: bool
    keep: frozenset[str]
    ranges: bool

    @cached_property
    def _sizes(self) -> dict[str, int]:
        """Elements of each tensor, of one sample; a layer may read a constant."""
        sizes = {name: int(values.size) for name, values in self.program.constants.items()}
        sizes |= {tensor.name: prod(length or 1 for length in tensor.shape) for tensor in self.program.inputs}
        sizes.update({layer.output: prod(layer.output_shape) for layer in self.program.layers})
        return sizes

    def counters(self) -> int:
        """Return the bytes of the counters of zero operands, which lie by place."""
        return sum(counter_bytes(layer) for layer in self.program.layers if isinstance(layer, kinds.MacLayer))

    def stages(self) -> list[_Stage]:
        """Return what there is at once, see `WorkingMemory`."""
        sizes, widths = self._sizes, {}
        layouts: set[str] = set()  # images that lie channels last in memory, though their shape does not say so
        feeding = 0
        for tensor in self.program.inputs:
            stored = self.program.tensors[tensor.name]
            widths[tensor.name] = max(1, stored.format.dtype.itemsize)
            kernel = not isinstance(stored, PlainTensor) and not stored.per_channel
            feeding += sizes[tensor.name] * (4 + widths[tensor.name] + (0 if kernel else 8))
            if kernel and len(tensor.shape) == 4:
                layouts.add(tensor.name)
        stages = [_Stage(feeding)]
        alive = {tensor.name: sizes[tensor.name] * widths[tensor.name] for tensor in self.program.inputs}
        for layer, done_with in zip(self.program.layers, self.program.last_uses, strict=True):
            width, last, scratch = self._layer(layer, widths, layouts)
            widths[layer.output] = width
            if last:
                layouts.add(layer.output)
            alive[layer.output] = width * sizes[layer.output]
            stages.append(replace(scratch, per_sample=sum(alive.values()) + scratch.per_sample))
            for name in done_with:
                if name not in self.keep:
                    alive.pop(name, None)
        stages.append(_Stage(24 * max(sizes.get(name, 0) for name in self.program.outputs)))  # int64, int64, float32
        return stages

    def _layer(self, layer: kinds.Layer, widths: dict[str, int], layouts: set[str]) -> tuple[int, bool, _Stage]:
        """Return a layer's bytes for an element of its output, whether that lies channels last, and what it holds."""
        read = [name for name in layer.inputs if name in widths]
        elements, outputs = sum(self._sizes[name] for name in read), self._sizes[layer.output]
        first = max((widths[name] for name in read), default=4)
        match layer:
            case kinds.MacLayer():
                return self._product(layer, first, layer.inputs[0] in layouts)
            case kinds.AddLayer():
                width = narrowest_type(*layer.clamp).itemsize
                like = len({name in layouts for name in layer.inputs}) == 1 and elements == 2 * outputs
                held = (0 if like else elements * first) + (outputs * width if layer.channel_clamps is not None else 0)
                last = layer.inputs[0] in layouts
                if first == 1:
                    return width, last, _Stage(held, 13 * _PAIRS, 13 * outputs)
                return width, last, _Stage(held + 13 * outputs)
            case kinds.ReshapeLayer() | kinds.TransposeLayer():
                return first, False, _Stage(0)
            case kinds.MaxPoolLayer() | kinds.AveragePoolLayer() | kinds.TableLayer() | kinds.ConcatLayer():
                return 4, False, _Stage(8 * elements + 8 * outputs)
            case kinds.RuntimeMacLayer():  # sample by sample
                one = 32 * (elements + outputs) + 16 * layer.reduction * layer.num_outputs * layer.groups
                return 4, False, _Stage(4 * elements, one + 2 * _FAST_COLUMN_BYTES, one)
            case _:
                return max(4, first), False, _Stage(28 * elements + 24 * outputs)

    def _product(self, layer: kinds.MacLayer, first: int, last: bool) -> tuple[int, bool, _Stage]:
        """Return what `_layer` does of a convolution or matrix product that reads codes of ``first`` bytes."""
        safe = SafeLayer.of(layer, self.machine) if self.by_rows else None
        if safe is not None and self.ranges and LayerRanges.of(safe, self.machine) is None:
            safe = None
        convolved = layer.geometry is not None
        if safe is not None:
            width = narrowest_type(*layer.clamp).itemsize
            if safe.is_safe_always(self.machine):
                return width, convolved and not layer.channels_last, self._rows(safe, first, last, None)
            at_risk = LayerAtRisk.of(safe, self.machine)
            if at_risk is not None and self.machine.overflow != "error":
                return width, convolved and not layer.channels_last, self._rows(safe, first, last, at_risk)
        elements, outputs = self._sizes[layer.inputs[0]], self._sizes[layer.output]
        unfolded = layer.depth.kernel if layer.depth is not None else 1
        positions = _FAST_COLUMN_BYTES // (4 * layer.reduction) + 1
        columns, sums = 12 * layer.reduction, 8 * layer.num_outputs
        held = elements * (8 + 4 * unfolded) + 8 * outputs
        whole = _Stage(
            held, positions * columns, layer.num_positions * columns, positions * sums, layer.num_positions * sums
        )  # fmt: skip
        unbounded = 1 << 62
        return 4, False, whole if self.pieces else replace(whole, piece_bytes=unbounded, large_bytes=unbounded)

    def _rows(self, safe: SafeLayer, first: int, last: bool, at_risk: LayerAtRisk | None) -> _Stage:
        """Return what a layer holds that runs channels last, perhaps with outputs at risk."""
        layer, geometry = safe.layer, safe.layer.geometry
        elements, outputs = self._sizes[layer.inputs[0]], self._sizes[layer.output]
        held = 0 if last or geometry is None or layer.channels_last else first * elements
        if geometry is not None and layer.depth is not None:  # its planes, and these channels last
            elements = layer.depth.num_positions * prod(geometry.input_shape)
            held = 2 * first * elements
        if safe.times > 1:
            elements *= safe.times
            held += first * elements
        operand, operands = 2 if safe.words else 1, elements
        if geometry is not None:
            channels, height, width = geometry.input_shape
            images = elements // prod(geometry.input_shape)
            top, left, bottom, right = geometry.pads
            operands = images * channels * (height + top + bottom) * (width + left + right)
        if safe.operand_form.copies() or operands != elements or first != operand:
            held += operand * operands + (operand * elements if first != operand else 0)
        ranges = LayerRanges.of(safe, self.machine) if self.ranges else None
        if ranges is not None:
            held += ranges.bytes_per_operand * operands + 16 * layer.num_positions
        if not safe.depthwise:  # sums of a group are filled up to whole vectors
            outputs = -(-layer.num_outputs // LANES) * LANES * layer.groups * layer.num_positions
        if safe.in_lanes and at_risk is None and not (ranges is not None and safe.asymmetric):
            return _Stage(held, NEAR_SUM_BYTES, 4 * outputs)
        held += 16 * layer.num_positions + (0 if at_risk is None else at_risk.bytes_per_operand * operands)
        gathered = 0 if has_dot_instructions() else layer.reduction * layer.groups * layer.num_positions
        pieces = (2 + safe.wide if at_risk is None else 6) * SUM_BYTES + (GATHERED_BYTES if gathered else 0)
        pieces += 0 if at_risk is None else at_risk.scratch_bytes
        return _Stage(held, pieces, 32 * outputs + BYTES_GATHERED * gathered)
