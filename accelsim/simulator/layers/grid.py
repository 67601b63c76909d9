"""Convolutions and matrix products on the grid, with what is tallied of them over all batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.machine import Machine
from accelsim.program import layers as kinds
from accelsim.simulator.counts import Toggles, ZeroOperands
from accelsim.simulator.engine import codes as engine_codes
from accelsim.simulator.engine.activity import Sampling, ToggleCounter, count_convolution
from accelsim.simulator.engine.convolution import positions_at_a_time, run_convolution
from accelsim.simulator.engine.dots import Room
from accelsim.simulator.engine.gemm import EngineName, Int32, Int64, Track, run_gemm
from accelsim.simulator.engine.gemm_operands import GemmOperands, GemmValues
from accelsim.simulator.engine.layer_calls import Call
from accelsim.simulator.engine.layer_risk import LayerAtRisk
from accelsim.simulator.engine.layer_steps import LayerEvents
from accelsim.simulator.engine.nonzero_weights import NonzeroWeights
from accelsim.simulator.engine.steps import Bound
from accelsim.simulator.engine.zeros import ByPlace, ZeroCounter, ZeroCounters, count_by_place
from accelsim.simulator.gemm import refuse_overflow, tracking_level
from accelsim.simulator.layers.registry import Codes, bind_layer, execute_layer, from_planes, planes, wide
from accelsim.simulator.layers.row_form import RowForm, asymmetric_groups, unfolded
from accelsim.simulator.widths import GridWidths


@dataclass
class Tally:
    """Overflow counts and range of one layer so far."""

    events: int = 0
    outputs: int = 0
    partial: int = 0
    least: int | None = None
    most: int | None = None

    def add(self, values: GemmValues) -> None:
        """Take in the values of some positions."""
        if values.events is not None:
            totals = values.events.totals()
            self.events += totals.events
            self.outputs += totals.outputs
            self.partial += totals.partial
        if values.range_min is not None and values.range_max is not None:
            self.widen(int(values.range_min.min()), int(values.range_max.max()))

    def add_events(self, events: LayerEvents) -> None:
        """Take in the events of some positions."""
        self.events += events.events
        self.outputs += events.outputs
        self.partial += events.partial

    def absorb(self, other: Tally) -> None:
        """Add what another tally has seen."""
        self.events += other.events
        self.outputs += other.outputs
        self.partial += other.partial
        if other.least is not None and other.most is not None:
            self.widen(other.least, other.most)

    def widen(self, least: int, most: int) -> None:
        """Take values into the range."""
        self.least = least if self.least is None else min(self.least, least)
        self.most = most if self.most is None else max(self.most, most)


def images_of(layer: kinds.MacLayer, fed: npt.NDArray[Any]) -> Int32:
    """Return what a convolution slides over: (images, channels, height, width), contiguous.

    Parameters
    ----------
    layer : MacLayer
        A convolution.
    fed : integer array, samples along axis 0
        Operands as the PEs multiply them.
    """
    geometry, depth = layer.geometry, layer.depth
    assert geometry is not None
    if depth is None:
        return planes(fed, geometry.input_shape, layer.channels_last)
    return unfolded(layer, fed.astype(np.int32, copy=False), layer.pad_value)


class Grid:
    """The grid during a run.

    Parameters
    ----------
    machine : Machine
        Where it runs.
    engine, track
        As in `accelsim.simulate`.
    on_grid : list of GridLayer
        Every layer that will run.
    num_samples : int
        Samples of the whole run.
    sampling : Sampling or None
        How bit toggles are counted; None counts none.
    """

    def __init__(
        self,
        machine: Machine,
        engine: EngineName,
        track: Track,
        on_grid: list[kinds.GridLayer],
        num_samples: int,
        sampling: Sampling | None,
    ) -> None:
        self.machine, self.engine = machine, engine
        self.level = tracking_level(track, machine)
        self.tallies = {layer.name: Tally() for layer in on_grid}
        self._spatial_first = machine.reduction_order == "spatial_first"
        known = [layer for layer in on_grid if isinstance(layer, kinds.MacLayer)]
        by_rows = engine == "fast" and sampling is None
        forms = {layer.name: RowForm.of(layer, machine, self.level == "range") for layer in known if by_rows}
        self._forms = {name: form for name, form in forms.items() if form is not None}
        self._known_zeros = ZeroCounters(known, self._forms, self._spatial_first)
        self._zeros = dict(self._known_zeros.of)
        self._bound_zeros: dict[str, ZeroOperands] = {}
        self._asymmetric: dict[str, int] = {}
        self._toggles: dict[str, ToggleCounter] = {}
        if sampling is not None:
            for layer in known:
                widths = GridWidths.of(machine, layer.weight_format.bits, layer.input_format.bits)
                positions = layer.num_positions * num_samples
                self._toggles[layer.name] = ToggleCounter(
                    layer.weights, layer.start, layer.groups, positions, machine, widths, sampling
                )

    def clear(self) -> None:
        """Forget what was met, for another run; not for one that counts bit toggles."""
        self.tallies = {name: Tally() for name in self.tallies}
        self._known_zeros.clear()
        self._bound_zeros.clear()
        self._asymmetric.clear()

    def absorb(self, other: Grid) -> None:
        """Add what another run of the same layers met on other samples; bit toggles are not among it."""
        for name, tally in other.tallies.items():
            self.tallies[name].absorb(tally)
        self._known_zeros.absorb(other._known_zeros)
        for name, operands in other._bound_zeros.items():
            self._bound_zeros[name] = self._bound_zeros.get(name, ZeroOperands()) + operands
        for name, groups in other._asymmetric.items():
            self._asymmetric[name] = max(self._asymmetric.get(name, 0), groups)

    def zero_operands(self) -> dict[str, ZeroOperands]:
        """Return how many multiplications of each layer had a zero operand so far; layers that did not run may lack."""
        return self._known_zeros.zero_operands() | self._bound_zeros

    def asymmetric_groups(self, layer: kinds.GridLayer) -> int:
        """Return in how many groups of a layer weights have a zero point that is not 0."""
        if isinstance(layer, kinds.RuntimeMacLayer):
            return self._asymmetric.get(layer.name, 0)
        form = self._forms.get(layer.name)
        return asymmetric_groups(layer) if form is None else form.asymmetric_groups

    def toggles(self, layer: kinds.GridLayer) -> Toggles:
        """Return the bit toggles of a layer so far; zeros where they are not counted."""
        return self._toggles[layer.name].toggles() if layer.name in self._toggles else Toggles()

    def run(self, layer: kinds.MacLayer, codes: Codes) -> Codes:
        """Run a convolution or matrix product and requantize it.

        Parameters
        ----------
        layer : MacLayer
            What runs.
        codes : integer array, samples along axis 0
            What it reads.

        Returns
        -------
        integer array, shape (samples, *layer.output_shape)
            What it stores.

        Raises
        ------
        AccumulatorOverflowError
            When a register overflowed and the machine's mode is ``error``.
        """
        form = self._forms.get(layer.name)
        if form is not None:
            if form.always_safe or form.safe.is_safe(self.machine, codes):
                return self._run_rows(layer, codes, form, form.safe.run)
            at_risk = LayerAtRisk.of(form.safe, self.machine)
            if at_risk is not None:
                stored, events = self._run_at_risk(layer, codes, form, at_risk)
                if self.machine.overflow != "error" or events == LayerEvents():
                    return stored
        fed = wide(codes)
        if layer.input_offset:
            fed = fed - np.int32(layer.input_offset)
        return self._matrix_product(layer, fed) if layer.geometry is None else self._convolution(layer, fed)

    def _run_at_risk(
        self, layer: kinds.MacLayer, codes: Codes, form: RowForm, at_risk: LayerAtRisk
    ) -> tuple[Codes, LayerEvents]:
        """Run a layer with outputs at risk and tally its events."""
        met = []

        def run(rows: Codes, by_place: ByPlace) -> Codes:
            count_by_place(rows, layer.input_offset, by_place)
            stored, events = at_risk.run(rows)
            met.append(events)
            return stored

        stored = self._run_rows(layer, codes, form, run)
        if self.level != "none":
            self.tallies[layer.name].add_events(met[0])
        return stored, met[0]

    def _run_rows(self, layer: kinds.MacLayer, codes: Codes, form: RowForm, run: Call) -> Codes:
        """Run a layer channels last and tally its zero operands.

        Parameters
        ----------
        layer : MacLayer
            The layer.
        codes : integer array, samples along axis 0
            What it reads.
        form : RowForm
            How it runs channels last.
        run : callable
            Computes it, as `SafeLayer.run` does.
        """
        rows = form.rows(layer, codes)
        by_place = self._zeros[layer.name].by_place(len(rows), layer.geometry, layer.pad_value)
        if form.ranges is not None:
            self.tallies[layer.name].widen(*form.ranges.run(rows))
        return form.stored(layer, run(rows, by_place), len(codes))

    def _convolution(self, layer: kinds.MacLayer, fed: Int32) -> Int32:
        """Run a convolution."""
        geometry = layer.geometry
        assert geometry is not None
        images = images_of(layer, fed)
        self._zeros[layer.name].add_images(images, geometry, layer.pad_value)
        if layer.name in self._toggles:
            where = f"layer {layer.name!r}"
            count_convolution(self._toggles[layer.name], images, geometry, layer.pad_value, where)
        channels, num_images = layer.weights.shape[0], images.shape[0]
        output = np.empty((channels, num_images * geometry.num_positions), dtype=np.int32)
        per_group = layer.num_outputs
        none = np.empty((layer.reduction, 0), dtype=np.int32)
        operands = [
            GemmOperands(layer.weights[part], none, layer.start[part], layer.weight_zero_points[part])
            for part in (slice(g * per_group, (g + 1) * per_group) for g in range(layer.groups))
        ]
        for group, begin, end, values in run_convolution(
            images, operands, geometry, layer.pad_value, self.machine, self.engine, self.level, f"layer {layer.name!r}"
        ):
            part = slice(group * per_group, (group + 1) * per_group)
            output[part, begin:end] = self._requantize(layer, values, part)
        return samples_first(output, layer, fed.shape[0])

    def _matrix_product(self, layer: kinds.MacLayer, fed: Int32) -> Int32:
        """Run a product over the last axis."""
        rows = fed.reshape(-1, layer.reduction)
        step = positions_at_a_time(layer.reduction, len(rows), self.engine, f"layer {layer.name!r}")
        self._zeros[layer.name].add_rows(rows)
        output = np.empty((len(rows), layer.weights.shape[0]), dtype=np.int32)
        for begin in range(0, len(rows), step):
            columns = np.ascontiguousarray(rows[begin : begin + step].T)
            if layer.name in self._toggles:
                self._toggles[layer.name].add(0, columns)
            operands = GemmOperands(layer.weights, columns, layer.start, layer.weight_zero_points)
            values = run_gemm(operands, self.machine, self.engine, self.level)
            output[begin : begin + step] = self._requantize(layer, values, slice(None)).T
        return output.reshape(fed.shape[0], *layer.output_shape)

    def _requantize(self, layer: kinds.MacLayer, values: GemmValues, channels: slice) -> Int32:
        """Tally what was tracked and bring accumulators to codes."""
        refuse_overflow(values, self.machine, f"layer {layer.name!r}")
        self.tallies[layer.name].add(values)
        return self._stored(layer, values.accumulators, channels)

    def _stored(self, layer: kinds.MacLayer, accumulators: Int64, channels: slice) -> Int32:
        """Return what is stored of accumulators: codes, or themselves in units of a product."""
        if layer.rescale is None:
            return (accumulators << self.machine.product_shift_bits).astype(np.int32)
        rescale = layer.rescale if layer.rescale.reals.size == 1 else layer.rescale.channels(channels)
        return engine_codes.requantize(
            accumulators, rescale, layer.zero_point, layer.bounds(channels), layer.stored_format
        )

    def bind(self, layer: kinds.Layer, inputs: Sequence[Codes], room: Room) -> Bound | None:
        """Return steps that run a layer of any kind on what the same inputs hold later, and the codes that they leave.

        Parameters
        ----------
        layer, inputs
            As in `execute`.
        room : Room
            Whose sums the steps overwrite.

        Returns
        -------
        Bound or None
            None where a register could overflow, ranges are tracked, codes are copied before a kernel reads them, or
            the layer is more than kernel calls.
        """
        if isinstance(layer, kinds.MacLayer):
            return self._bind_rows(layer, inputs[0], room)
        return bind_layer(layer, inputs)

    def _bind_rows(self, layer: kinds.MacLayer, codes: Codes, room: Room) -> Bound | None:
        """Bind a layer that runs channels last and has no register at risk."""
        form = self._forms.get(layer.name)
        if form is None or not form.always_safe or form.ranges is not None:
            return None
        rows, counter = form.rows(layer, codes), self._zeros[layer.name]
        if not np.may_share_memory(rows, codes):
            return None
        bound = form.safe.bind(rows, counter.by_place(0, layer.geometry, layer.pad_value), room)
        if bound is None:
            return None
        stored = form.stored(layer, bound.codes, len(codes))
        if not np.may_share_memory(stored, bound.codes):
            return None
        count = partial(counter.by_place, len(rows), layer.geometry, layer.pad_value)
        return Bound([count, *bound.steps], stored, bound.num_bytes)

    def execute(self, layer: kinds.Layer, inputs: Sequence[Codes]) -> Codes:
        """Compute what a layer of any kind stores, from what it reads, samples along axis 0; constants as they are."""
        match layer:
            case kinds.MacLayer():
                return self.run(layer, inputs[0])
            case kinds.RuntimeMacLayer():
                return self.run_bound(layer, inputs)
            case _:
                return execute_layer(layer, inputs)

    def run_bound(self, layer: kinds.RuntimeMacLayer, inputs: Sequence[npt.NDArray[Any]]) -> Int32:
        """Run a product whose operands a run computes, sample by sample.

        Parameters
        ----------
        layer : RuntimeMacLayer
            What runs.
        inputs : sequence of array
            What it reads, samples along axis 0; constants have one.

        Returns
        -------
        int32 array, shape (samples, *layer.output_shape)
            What it stores.
        """
        num_samples = max(array.shape[0] for array in inputs)
        output = np.empty((num_samples, *layer.output_shape), dtype=np.int32)
        for sample in range(num_samples):
            own = [array[min(sample, array.shape[0] - 1)] for array in inputs]
            parts = []
            for part, codes in layer.bind(own):
                product = replace(part, name=layer.name)
                zeros = ZeroCounter(NonzeroWeights.of(product.weights, product.groups), self._spatial_first)
                asymmetric = product.weight_zero_points.reshape(product.groups, -1).any(axis=1)
                self._asymmetric[layer.name] = max(self._asymmetric.get(layer.name, 0), int(asymmetric.sum()))
                self._zeros[layer.name] = zeros
                parts.append(self.run(product, codes.astype(np.int32)[np.newaxis]).reshape(-1))
                self._bound_zeros[layer.name] = (
                    self._bound_zeros.get(layer.name, ZeroOperands()) + zeros.zero_operands()
                )
            output[sample] = np.concatenate(parts).reshape(layer.output_shape)
        return output


def samples_first(output: Int32, layer: kinds.MacLayer, num_samples: int) -> Int32:
    """Bring (channels, images * positions) to (samples, *output shape)."""
    assert layer.geometry is not None
    channels, depth = output.shape[0], 1 if layer.depth is None else layer.depth.num_positions
    apart = output.reshape(channels, -1, depth, layer.geometry.num_positions).transpose(1, 0, 2, 3)
    images = np.ascontiguousarray(apart).reshape(apart.shape[0], channels, -1)
    return from_planes(images, (num_samples, *layer.output_shape), layer.channels_last)
