"""Execute the layers of a program on batches, and add up what happens in each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from math import prod
from weakref import WeakKeyDictionary

from accelsim.machine import Machine
from accelsim.program import layers as kinds
from accelsim.program.program import IntegerProgram
from accelsim.simulator.accesses import gemm_accesses, vector_accesses
from accelsim.simulator.counts import AccessCount, Toggles, ZeroOperands
from accelsim.simulator.energy import EnergyTable, weigh
from accelsim.simulator.engine.activity import Sampling
from accelsim.simulator.engine.gemm import EngineName, Track
from accelsim.simulator.fixed_batches import AlikeBatches
from accelsim.simulator.layers import elementwise, moving, onnx, pooling, tables, tflite
from accelsim.simulator.layers.counting import layer_operations
from accelsim.simulator.layers.grid import Grid
from accelsim.simulator.layers.registry import Codes
from accelsim.simulator.memory import GemmShape, MemoryTraffic, gemm_traffic
from accelsim.simulator.results import LayerRecord
from accelsim.simulator.timing import gemm_cycles, vector_cycles
from accelsim.simulator.widths import GridWidths, narrowest

FAMILIES = (elementwise, moving, onnx, pooling, tables, tflite)
"""Modules whose layers are registered by being imported."""


Conditions = tuple[Machine, int, EnergyTable, bool, bool]
"""Machine, number of samples, prices, and whether overflows and toggles are counted."""

Records = dict[tuple[int, int], LayerRecord]
"""By layer and asymmetric groups; of a layer of the grid as if it had met no zeros, overflows or toggles."""

Parts = tuple[Grid, AlikeBatches]
"""What runs a program, and takes time to make."""

_MOST_CONDITIONS = 4
"""Conditions under which a program is remembered to have run."""

_MOST_RUNS = 16
"""Runs that leave something of a program: each of a thread."""

_PRICES = EnergyTable()
"""Where none are given."""


class _Kept:
    """What runs of a program leave for the next.

    Conditions are compared one by one: mostly they are the same objects, whose hashes would take longer.
    """

    def __init__(self) -> None:
        self._records: list[tuple[Conditions, Records]] = []
        self._parts: list[tuple[tuple[Machine, Track], Parts]] = []

    def records(self, conditions: Conditions) -> Records:
        """Return what was counted in closed form under some conditions."""
        for known, records in self._records:
            if known == conditions:
                return records
        if len(self._records) >= _MOST_CONDITIONS:
            self._records.clear()
        self._records.append((conditions, {}))
        return self._records[-1][1]

    def parts(self, machine: Machine, track: Track) -> Parts | None:
        """Return what a run on the machine left, with a grid that forgot it; None where there is nothing."""
        while self._parts:
            try:
                known, parts = self._parts.pop()
            except IndexError:  # another thread was faster
                return None
            if known == (machine, track):
                parts[0].clear()
                return parts
        return None

    def keep(self, machine: Machine, track: Track, parts: Parts) -> None:
        """Keep what a run leaves that is over."""
        if len(self._parts) < _MOST_RUNS:
            self._parts.append(((machine, track), parts))


_KEPT: WeakKeyDictionary[IntegerProgram, _Kept] = WeakKeyDictionary()
"""Of the programs that ran before."""


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
        self.program, self.machine = program, machine
        self.engine, self.track, self.num_samples = engine, track, num_samples
        self.energy, self.sampling = energy or _PRICES, sampling
        self._kept = _KEPT.get(program) or _KEPT.setdefault(program, _Kept())
        self.grid, self._alike = self._left_over() or self._parts()

    def _left_over(self) -> Parts | None:
        """Return what an earlier run left, if there is such a run."""
        return self._kept.parts(self.machine, self.track) if self._lasts else None

    def _parts(self) -> Parts:
        """Return a grid that met nothing, and its batches."""
        on_grid = [layer for layer in self.program.layers if isinstance(layer, kinds.GridLayer)]
        grid = Grid(self.machine, self.engine, self.track, on_grid, self.num_samples, self.sampling)
        return grid, AlikeBatches(self.program.layers, self.program.constants, self.program.tensors, grid)

    @property
    def _lasts(self) -> bool:
        """Whether another run may have the grid: not one that counts toggles of so many samples."""
        return self.engine == "fast" and self.sampling is None

    def end(self) -> None:
        """Leave the grid to other runs; records were made before, and nothing runs here any more."""
        if self._lasts:
            self._kept.keep(self.machine, self.track, (self.grid, self._alike))

    def run(self, codes: dict[str, Codes], keep: Iterable[str]) -> dict[str, Codes]:
        """Run one batch.

        Parameters
        ----------
        codes : dict of input name to int32 array
            Stored inputs, samples along axis 0; taken over, so that they are dropped after their last use, too.
        keep : iterable of str
            Tensors to return; all others are dropped after their last use.

        Returns
        -------
        dict of str to int32 array
            Codes of the kept tensors.
        """
        kept = set(keep)
        alive, constants = codes, self.program.constants
        for layer, done_with in zip(self.program.layers, self.program.last_uses, strict=True):
            inputs = [alive[name] if name in alive else constants[name] for name in layer.inputs]
            alive[layer.output] = self.grid.execute(layer, inputs)
            for name in done_with:
                if name not in kept:
                    alive.pop(name, None)
        return {name: values for name, values in alive.items() if name in kept}

    def run_alike(self, codes: dict[str, Codes], keep: Iterable[str]) -> dict[str, Codes]:
        """Run one batch of several that are alike, as `run` does; what is returned lasts until the next.

        The arrays of small ones stay, see `accelsim.simulator.fixed_batches`.
        """
        stored = self._alike.run(codes)
        if stored is None:
            return self.run(codes, keep)
        return {name: stored[name] for name in keep if name in stored}

    def drop_fixed(self) -> None:
        """Drop the arrays that an earlier run left."""
        self._alike.clear()

    @property
    def fixed_bytes(self) -> int:
        """Bytes of the arrays that stay from batch to batch."""
        return self._alike.num_bytes

    def absorb(self, other: Execution) -> None:
        """Add what another execution of the same program met on other samples."""
        self.grid.absorb(other.grid)

    def records(self) -> tuple[LayerRecord, ...]:
        """Return a record per layer over all batches that were run."""
        zeros = self.grid.zero_operands()
        return tuple(
            self._record(index, layer, zeros) if isinstance(layer, kinds.GridLayer) else self._counted(index, layer, 0)
            for index, layer in enumerate(self.program.layers)
        )

    def _record(self, index: int, layer: kinds.GridLayer, zeros: Mapping[str, ZeroOperands]) -> LayerRecord:
        """Return the record of a layer of the grid over all samples; ``zeros`` are those of all layers."""
        counted, tally = self._counted(index, layer, self.grid.asymmetric_groups(layer)), self.grid.tallies[layer.name]
        met: dict[str, object] = {
            "zero_operands": zeros.get(layer.name, counted.zero_operands),
            "range_min": tally.least,
            "range_max": tally.most,
        }
        if self.sampling is not None:
            met["toggles"] = self.grid.toggles(layer)
        if self.track != "none":
            met["overflow_events"], met["overflowed_outputs"] = tally.events, tally.outputs
            met["partial_overflow_events"] = tally.partial
        return counted.having_met(met)

    def _counted(self, index: int, layer: kinds.Layer, asymmetric: int) -> LayerRecord:
        """Return what is counted whatever the values; ``asymmetric`` groups have weights with a zero point."""
        known = self._known.get((index, asymmetric))
        if known is None:
            known = self._known[index, asymmetric] = self._count(layer, asymmetric)
        return known

    @cached_property
    def _known(self) -> Records:
        """What runs of this program under the same conditions have counted in closed form."""
        conditions = self.machine, self.num_samples, self.energy, self.track != "none", self.sampling is None
        return self._kept.records(conditions)

    def _count(self, layer: kinds.Layer, asymmetric: int) -> LayerRecord:
        """Count what does not depend on values; parameters as of `_counted`."""
        bits = [self._bits(name) for name in (*layer.inputs, layer.output)]
        operations = layer_operations(layer, self.num_samples, self.machine, bits, asymmetric)
        cycles = vector_cycles(operations.vector_operations, self.machine)
        macs, traffic, accesses = 0, MemoryTraffic(), self._vector_accesses(layer, bits)
        if isinstance(layer, kinds.GridLayer):
            macs = layer.macs * self.num_samples
            shape = self._shape(layer)
            cycles = gemm_cycles(machine=self.machine, **vars(shape))
            traffic = gemm_traffic(shape, self.machine)
            widths = GridWidths.of(self.machine, layer.weight_format.bits, layer.input_format.bits)
            accesses = gemm_accesses(shape, traffic, asymmetric, self.machine, widths)
        events = 0 if self.track != "none" else None
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
            zero_operands=ZeroOperands(),
            toggles=None if self.sampling is None else Toggles(),
            utilisation=macs / (self.machine.num_pes * cycles.total) if cycles.total else 0.0,
            overflow_events=events,
            overflowed_outputs=events,
            partial_overflow_events=events,
            range_min=None,
            range_max=None,
        )

    @cached_property
    def _sizes(self) -> dict[str, int]:
        """Elements of each tensor, of one sample."""
        sizes = {tensor.name: prod(length or 1 for length in tensor.shape) for tensor in self.program.inputs}
        sizes.update({name: int(codes.size) for name, codes in self.program.constants.items()})
        sizes.update({layer.output: prod(layer.output_shape) for layer in self.program.layers})
        return sizes

    def _bits(self, name: str) -> int:
        """Return the width of a tensor's codes; of a constant's the narrowest that holds them."""
        if name in self.program.tensors:
            return self.program.tensors[name].format.bits
        constant = self.program.constants[name]
        return 8 * constant.itemsize if constant.dtype.kind == "f" else narrowest(constant)

    def _vector_accesses(self, layer: kinds.Layer, bits: list[int]) -> AccessCount:
        """Return the accesses of a layer without multiplications over all samples."""
        if isinstance(layer, kinds.ReshapeLayer | kinds.TransposeLayer | kinds.PadLayer):
            return AccessCount()  # they change addresses
        inputs = [
            (self._sizes[name] * self.num_samples, width) for name, width in zip(layer.inputs, bits, strict=False)
        ]
        return vector_accesses(inputs, (prod(layer.output_shape) * self.num_samples, bits[-1]))

    def _shape(self, layer: kinds.GridLayer) -> GemmShape:
        """Return the GEMM of a layer over all samples."""
        inputs = layer.input_elements
        return GemmShape(
            layer.num_outputs,
            layer.reduction,
            layer.num_positions * self.num_samples,
            None if inputs is None else inputs * self.num_samples,
            layer.weight_format.bits,
            layer.input_format.bits,
            self.program.tensors[layer.output].format.bits,
            layer.groups,
        )
