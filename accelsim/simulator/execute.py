"""Execute the layers of a program on batches, and add up what happens in each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

import numpy as np

from accelsim.machine import Machine
from accelsim.program import layers as kinds
from accelsim.program.program import IntegerProgram
from accelsim.simulator.accesses import gemm_accesses, vector_accesses
from accelsim.simulator.counts import AccessCount, Toggles, ZeroOperands
from accelsim.simulator.energy import EnergyTable, weigh
from accelsim.simulator.engine import codes as engine_codes
from accelsim.simulator.engine.activity import Sampling, ToggleCounter, ZeroCounter, count_convolution
from accelsim.simulator.engine.convolution import positions_at_a_time, run_convolution, safe_depthwise
from accelsim.simulator.engine.gemm import EngineName, GemmOperands, GemmValues, Int32, Track, run_gemm
from accelsim.simulator.gemm import refuse_overflow, tracking_level
from accelsim.simulator.memory import GemmShape, MemoryTraffic, gemm_traffic
from accelsim.simulator.operations import layer_operations
from accelsim.simulator.results import LayerRecord
from accelsim.simulator.timing import gemm_cycles, vector_cycles
from accelsim.simulator.widths import GridWidths, narrowest


@dataclass
class _Tally:
    """Overflow counts and range of one layer so far."""

    events: int = 0
    outputs: int = 0
    partial: int = 0
    least: int | None = None
    most: int | None = None

    def add(self, values: GemmValues) -> None:
        """Take in the values of some positions."""
        if values.overflow_events is not None:
            self.events += int(values.overflow_events.sum())
            self.outputs += int(np.count_nonzero(values.overflow_events))
        if values.partial_overflow_events is not None:
            self.partial += int(values.partial_overflow_events.sum())
        if values.range_min is not None and values.range_max is not None:
            least, most = int(values.range_min.min()), int(values.range_max.max())
            self.least = least if self.least is None else min(self.least, least)
            self.most = most if self.most is None else max(self.most, most)


class Execution:
    """A run of a program on a machine.

    Parameters
    ----------
    program : IntegerProgram
        What runs.
    machine : Machine
        Where it runs.
    engine, track
        As in `accelsim.simulate`.
    num_samples : int
        Samples of the whole run, over all batches.
    energy : EnergyTable, optional
        Prices of the energy proxy.
    sampling : Sampling, optional
        How bit toggles are counted; without it none are.
    """

    def __init__(
        self,
        program: IntegerProgram,
        machine: Machine,
        engine: EngineName,
        track: Track,
        num_samples: int,
        energy: EnergyTable | None = None,
        sampling: Sampling | None = None,
    ) -> None:
        self.program, self.machine, self.engine = program, machine, engine
        self.track = track
        self.level = tracking_level(track, machine)
        self.num_samples = num_samples
        self.tallies = {layer.name: _Tally() for layer in program.layers if isinstance(layer, kinds.MacLayer)}
        self.energy, self.sampling = energy or EnergyTable(), sampling
        self.sizes = {tensor.name: prod(length or 1 for length in tensor.shape) for tensor in program.graph.inputs}
        self.sizes.update({name: int(codes.size) for name, codes in program.constants.items()})
        self.sizes.update({layer.output: prod(layer.output_shape) for layer in program.layers})
        spatial_first = machine.reduction_order == "spatial_first"
        on_grid = [layer for layer in program.layers if isinstance(layer, kinds.MacLayer)]
        self.zeros = {layer.name: ZeroCounter(layer.weights, layer.groups, spatial_first) for layer in on_grid}
        self.toggles: dict[str, ToggleCounter] = {}
        if sampling is not None:
            self.toggles = {layer.name: self._toggle_counter(layer, sampling) for layer in on_grid}
        self.last_use = {name: i for i, layer in enumerate(program.layers) for name in layer.inputs}

    def run(self, codes: dict[str, Int32], keep: Iterable[str]) -> dict[str, Int32]:
        """Run one batch.

        Parameters
        ----------
        codes : dict of input name to int32 array
            Stored inputs, samples along axis 0.
        keep : iterable of str
            Tensors to return; all others are dropped after their last use.

        Returns
        -------
        dict of str to int32 array
            Codes of the kept tensors.
        """
        kept = set(keep)
        alive = dict(codes)
        for index, layer in enumerate(self.program.layers):
            alive[layer.output] = self._execute(layer, alive)
            for name in layer.inputs:
                if self.last_use[name] == index and name not in kept:
                    alive.pop(name, None)
        return {name: values for name, values in alive.items() if name in kept}

    def records(self) -> tuple[LayerRecord, ...]:
        """Return a record per layer over all batches that were run."""
        return tuple(self._record(layer) for layer in self.program.layers)

    def _execute(self, layer: kinds.Layer, alive: dict[str, Int32]) -> Int32:
        """Compute the codes that a layer stores."""
        inputs = [alive[name] if name in alive else self.program.constants[name] for name in layer.inputs]
        first = inputs[0]
        shape = (first.shape[0], *layer.output_shape)
        match layer:
            case kinds.MacLayer():
                return self._multiply_accumulate(layer, first)
            case kinds.AddLayer():
                shape = np.broadcast_shapes(*(array.shape for array in inputs))
                a, b = (np.broadcast_to(array, shape) for array in inputs)
                (zero_a, zero_b), (rescale_a, rescale_b) = layer.zero_points, layer.rescales
                return engine_codes.add(
                    a, zero_a, rescale_a, b, zero_b, rescale_b, layer.sign, layer.left_shift, layer.rescale,
                    layer.zero_point, layer.clamp,
                )  # fmt: skip
            case kinds.MultiplyLayer():
                shape = np.broadcast_shapes(*(array.shape for array in inputs))
                a, b = (np.broadcast_to(array, shape) for array in inputs)
                zero_a, zero_b = layer.zero_points
                return engine_codes.multiply(a, zero_a, b, zero_b, layer.rescale, layer.zero_point, layer.clamp)
            case kinds.ConcatLayer():
                parts = [
                    codes
                    if rescale is None
                    else engine_codes.rescale_codes(codes, zero, rescale, layer.zero_point, layer.clamp)
                    for codes, zero, rescale in zip(inputs, layer.zero_points, layer.rescales, strict=True)
                ]
                return np.concatenate(parts, axis=layer.axis)
            case kinds.MaxPoolLayer():
                return engine_codes.max_pool(_planes(first, layer.geometry.input_shape), layer.geometry).reshape(shape)
            case kinds.AveragePoolLayer():
                planes = _planes(first, layer.geometry.input_shape)
                return engine_codes.average_pool(
                    planes, layer.geometry, layer.count_padding, layer.zero_point, layer.requantizer
                ).reshape(shape)
            case kinds.TableLayer():
                return engine_codes.look_up(first, layer.tables, layer.lowest)
            case kinds.SoftmaxLayer():
                last = np.moveaxis(first, layer.axis, -1)
                return np.moveaxis(engine_codes.softmax(last, layer.exponentials, layer.bits), -1, layer.axis)
            case kinds.ReshapeLayer():
                return first.reshape(shape)
            case kinds.TransposeLayer():
                return np.ascontiguousarray(first.transpose(layer.permutation))
            case kinds.PadLayer():
                half = len(layer.pads) // 2
                widths = list(zip(layer.pads[:half], layer.pads[half:], strict=True))
                return np.pad(first, widths, constant_values=layer.code)
        raise AssertionError(f"no execution for {type(layer).__name__}")

    def _multiply_accumulate(self, layer: kinds.MacLayer, codes: Int32) -> Int32:
        """Run a convolution or matrix product on the grid and requantize it."""
        fed = codes - np.int32(layer.input_offset) if layer.input_offset else codes
        if layer.geometry is None:
            return self._matrix_product(layer, fed)
        geometry, batch = layer.geometry, codes.shape[0]
        planes = _planes(fed, geometry.input_shape)
        self.zeros[layer.name].add_images(planes, geometry, layer.pad_value)
        if layer.name in self.toggles:
            where = f"layer {layer.name!r}"
            count_convolution(self.toggles[layer.name], planes, geometry, layer.pad_value, where)
        channels = layer.weights.shape[0]
        output = np.empty((channels, batch * geometry.num_positions), dtype=np.int32)
        depthwise = geometry.group_channels == 1 and self.engine == "fast" and self.level != "range"
        if depthwise and not layer.weight_zero_points.any():
            accumulators = safe_depthwise(planes, layer.weights, layer.start, geometry, layer.pad_value, self.machine)
            if accumulators is not None:
                output[:] = engine_codes.requantize(accumulators, layer.rescale, layer.zero_point, layer.clamp)
                return _batch_first(output, batch, layer.output_shape)
        per_group = layer.num_outputs
        none = np.empty((layer.reduction, 0), dtype=np.int32)
        operands = [
            GemmOperands(layer.weights[part], none, layer.start[part], layer.weight_zero_points[part])
            for part in (slice(g * per_group, (g + 1) * per_group) for g in range(layer.groups))
        ]
        for group, begin, end, values in run_convolution(
            planes, operands, geometry, layer.pad_value, self.machine, self.engine, self.level, f"layer {layer.name!r}"
        ):
            part = slice(group * per_group, (group + 1) * per_group)
            output[part, begin:end] = self._requantize(layer, values, part)
        return _batch_first(output, batch, layer.output_shape)

    def _matrix_product(self, layer: kinds.MacLayer, fed: Int32) -> Int32:
        """Run a product over the last axis."""
        rows = fed.reshape(-1, layer.reduction)
        step = positions_at_a_time(layer.reduction, len(rows), self.engine, f"layer {layer.name!r}")
        self.zeros[layer.name].add_rows(rows)
        output = np.empty((len(rows), layer.weights.shape[0]), dtype=np.int32)
        for begin in range(0, len(rows), step):
            columns = np.ascontiguousarray(rows[begin : begin + step].T)
            if layer.name in self.toggles:
                self.toggles[layer.name].add(0, columns)
            operands = GemmOperands(layer.weights, columns, layer.start, layer.weight_zero_points)
            values = run_gemm(operands, self.machine, self.engine, self.level)
            output[begin : begin + step] = self._requantize(layer, values, slice(None)).T
        return output.reshape(fed.shape[0], *layer.output_shape)

    def _toggle_counter(self, layer: kinds.MacLayer, sampling: Sampling) -> ToggleCounter:
        """Return a counter of a layer's bit toggles."""
        widths = GridWidths.of(self.machine, layer.weight_format.bits, layer.input_format.bits)
        positions = layer.num_positions * self.num_samples
        return ToggleCounter(layer.weights, layer.start, layer.groups, positions, self.machine, widths, sampling)

    def _requantize(self, layer: kinds.MacLayer, values: GemmValues, channels: slice) -> Int32:
        """Tally what was tracked and bring accumulators to codes."""
        refuse_overflow(values, self.machine, f"layer {layer.name!r}")
        self.tallies[layer.name].add(values)
        rescale = layer.rescale if layer.rescale.reals.size == 1 else layer.rescale.channels(channels)
        return engine_codes.requantize(values.accumulators, rescale, layer.zero_point, layer.clamp)

    def _record(self, layer: kinds.Layer) -> LayerRecord:
        """Return the record of a layer over all samples."""
        bits = [self._bits(name) for name in (*layer.inputs, layer.output)]
        operations = layer_operations(layer, self.num_samples, self.machine, bits)
        cycles = vector_cycles(operations.vector_operations, self.machine)
        macs, tally, traffic, accesses = 0, _Tally(), MemoryTraffic(), self._vector_accesses(layer, bits)
        zeros, toggles = ZeroOperands(), Toggles()
        if isinstance(layer, kinds.MacLayer):
            macs = layer.macs * self.num_samples
            tally = self.tallies[layer.name]
            shape = self._shape(layer)
            cycles = gemm_cycles(machine=self.machine, **vars(shape))
            traffic = gemm_traffic(shape, self.machine)
            widths = GridWidths.of(self.machine, layer.weight_format.bits, layer.input_format.bits)
            asymmetric = layer.weight_zero_points.reshape(layer.groups, -1).any(axis=1)
            accesses = gemm_accesses(shape, traffic, int(asymmetric.sum()), self.machine, widths)
            zeros = self.zeros[layer.name].zero_operands()
            toggles = self.toggles[layer.name].toggles() if layer.name in self.toggles else toggles
        tracked = self.track != "none"
        return LayerRecord(
            name=layer.name,
            op=layer.op,
            output=layer.output,
            output_shape=layer.output_shape,
            macs=macs,
            cycles=cycles,
            operations=operations,
            memory=traffic,
            accesses=accesses,
            energy=weigh(operations, accesses, self.energy, self.machine.memory),
            zero_operands=zeros,
            toggles=None if self.sampling is None else toggles,
            utilisation=macs / (self.machine.num_pes * cycles.total) if cycles.total else 0.0,
            overflow_events=tally.events if tracked else None,
            overflowed_outputs=tally.outputs if tracked else None,
            partial_overflow_events=tally.partial if tracked else None,
            range_min=tally.least,
            range_max=tally.most,
        )

    def _bits(self, name: str) -> int:
        """Return the width of a tensor's codes; of a constant's the narrowest that holds them."""
        if name in self.program.tensors:
            return self.program.tensors[name].format.bits
        return narrowest(self.program.constants[name])

    def _vector_accesses(self, layer: kinds.Layer, bits: list[int]) -> AccessCount:
        """Return the accesses of a layer without multiplications over all samples."""
        inputs = [(self.sizes[name] * self.num_samples, width) for name, width in zip(layer.inputs, bits, strict=False)]
        return vector_accesses(inputs, (prod(layer.output_shape) * self.num_samples, bits[-1]))

    def _shape(self, layer: kinds.MacLayer) -> GemmShape:
        """Return the GEMM of a layer over all samples."""
        inputs = None
        if layer.geometry is not None:
            inputs = prod(layer.geometry.input_shape) // layer.groups * self.num_samples
        return GemmShape(
            layer.num_outputs,
            layer.reduction,
            layer.num_positions * self.num_samples,
            inputs,
            layer.weight_format.bits,
            layer.input_format.bits,
            self.program.tensors[layer.output].format.bits,
            layer.groups,
        )


def _planes(codes: Int32, shape: tuple[int, int, int]) -> Int32:
    """Return codes as (batch, channels, height, width)."""
    return np.ascontiguousarray(codes).reshape(codes.shape[0], *shape)


def _batch_first(output: Int32, batch: int, shape: tuple[int, ...]) -> Int32:
    """Bring (channels, batch * positions) to (batch, channels, ...)."""
    channels = output.shape[0]
    return np.ascontiguousarray(output.reshape(channels, batch, -1).transpose(1, 0, 2)).reshape(batch, *shape)
