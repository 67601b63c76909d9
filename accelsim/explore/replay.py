"""Run a network again from where something changes: one layer, or the rest of the network, on given codes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.explore.multiplier import codes_of
from accelsim.explore.observation import Codes, Observation, narrowed
from accelsim.machine import Machine
from accelsim.program.layers import Layer, MacLayer
from accelsim.program.program import IntegerProgram
from accelsim.simulator.execute import Execution
from accelsim.simulator.ranges import as_stored, exact_accumulators
from accelsim.simulator.run import batch_size

MAX_KEPT_BYTES = 256 << 20
"""Exact accumulators that are kept while a layer's requantizer is changed again and again."""

Which = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Replayed:
    """The network's first output with something changed.

    Parameters
    ----------
    outputs : array, shape (samples, ...)
        Codes.
    events, partial_events : int
        Overflows of accumulators, and of partial sums or adder trees.
    num_run : int
        Samples that were run again.
    """

    outputs: npt.NDArray[Any]
    events: int
    partial_events: int
    num_run: int


class Replay:
    """Runs that share what an observation knows.

    Parameters
    ----------
    program : IntegerProgram
        The network.
    machine : Machine
        On which the rest of the network runs; its registers hold everything.
    observation : Observation
        With the stored tensors of the samples that may be run again.
    """

    def __init__(self, program: IntegerProgram, machine: Machine, observation: Observation) -> None:
        self.program, self.observation = program, observation
        self.machine = machine.replace(
            accumulator_bits=64, partial_sum_bits=None, adder_tree_bits=None, overflow="wrap"
        )
        self.num_samples = len(next(iter(observation.stored.values())))
        self._kept: dict[tuple[str, int], npt.NDArray[np.int64]] = {}
        self.places = {layer.name: index for index, layer in enumerate(program.layers)}

    @property
    def exact(self) -> npt.NDArray[Any]:
        """The first output's codes with nothing changed."""
        return self.observation.stored[self.program.outputs[0]]

    def one_layer(self, layer: Layer, machine: Machine, samples: Which) -> Replayed:
        """Change one layer.

        Parameters
        ----------
        layer : Layer
            In the place of the program's layer of that name.
        machine : Machine
            Where it runs; the others run as before.
        samples : integer array
            Which samples it may change; the others keep their outputs.

        Returns
        -------
        Replayed
            Of samples whose stored tensor does not change nothing after the layer is run again.
        """
        stored = self.observation.stored
        outputs, events, partial_events = self.exact.copy(), 0, 0
        for part in self._parts(samples):
            execution = self._execution((layer,), machine, len(part))
            codes = {name: stored[name][part] for name in layer.inputs if name in stored}
            made = execution.run(codes, keep=[layer.output])[layer.output]
            tally = execution.grid.tallies[layer.name]
            events, partial_events = events + tally.events, partial_events + tally.partial
            self._follow(layer, made, part, outputs)
        return Replayed(outputs, events, partial_events, len(samples))

    def one_requantizer(self, layer: MacLayer) -> Replayed:
        """Change the requantizer of one layer; parameters as in `one_layer`. Its accumulators are computed once."""
        outputs = self.exact.copy()
        for number, part in enumerate(self._parts(np.arange(self.num_samples))):
            codes = codes_of(layer, self._accumulators(layer, number, part))
            self._follow(layer, as_stored(codes, layer, len(part)), part, outputs)
        return Replayed(outputs, 0, 0, self.num_samples)

    def _accumulators(self, layer: MacLayer, number: int, part: Which) -> npt.NDArray[np.int64]:
        """Return a part's exact accumulators, kept as long as there is room for them."""
        key = layer.name, number
        if key in self._kept:
            return self._kept[key]
        codes = self.observation.stored[layer.inputs[0]][part]
        accumulators = exact_accumulators(layer, codes, self.machine)
        if accumulators.nbytes + sum(array.nbytes for array in list(self._kept.values())) <= MAX_KEPT_BYTES:
            self._kept[key] = accumulators
        return accumulators

    def forget(self, layer: MacLayer) -> None:
        """Drop what is kept of a layer."""
        for key in [key for key in list(self._kept) if key[0] == layer.name]:
            self._kept.pop(key, None)

    def _follow(self, layer: Layer, made: npt.NDArray[Any], part: Which, outputs: npt.NDArray[Any]) -> None:
        """Run the rest of the network for the samples whose stored tensor has changed."""
        differs = (made != self.observation.stored[layer.output][part]).reshape(len(part), -1).any(axis=1)
        if differs.any():
            index = self.places[layer.name]
            outputs[part[differs]] = self._rest(index, {layer.output: made[differs]}, part[differs])

    def all_layers(self, machine: Machine, first_layers: npt.NDArray[np.intp]) -> Replayed:
        """Change every layer.

        Parameters
        ----------
        machine : Machine
            Where all of them run.
        first_layers : integer array, shape (samples,)
            Index of the first layer that may come out otherwise, per sample; the program's length where none does.
        """
        outputs, events, partial_events = self.exact.copy(), 0, 0
        changed = np.flatnonzero(first_layers < len(self.program.layers))
        order = changed[np.argsort(first_layers[changed], kind="stable")]
        for part in self._parts(order):
            first = int(first_layers[part].min())
            execution = self._execution(self.program.layers[first:], machine, len(part))
            made = execution.run(self._alive(first, part), keep=[self.program.outputs[0]])
            outputs[part] = narrowed(self.program, self.program.outputs[0], made[self.program.outputs[0]])
            for tally in execution.grid.tallies.values():
                events, partial_events = events + tally.events, partial_events + tally.partial
        return Replayed(outputs, events, partial_events, len(order))

    def _rest(self, index: int, made: Codes, part: Which) -> npt.NDArray[Any]:
        """Return the first output where the layer at an index made some codes."""
        output, layers = self.program.outputs[0], self.program.layers[index + 1 :]
        if output in made:
            return narrowed(self.program, output, made[output])
        execution = self._execution(layers, self.machine, len(part), track=False)
        final = execution.run({**self._alive(index + 1, part), **made}, keep=[output])
        return narrowed(self.program, output, final[output])

    def _alive(self, index: int, part: Which) -> Codes:
        """Return the stored tensors that the layers from an index on read and do not make."""
        layers = self.program.layers[index:]
        made = {layer.output for layer in layers}
        read = {name for layer in layers for name in layer.inputs} | {self.program.outputs[0]}
        stored = self.observation.stored
        return {name: stored[name][part] for name in read - made if name in stored}

    def _execution(
        self, layers: tuple[Layer, ...], machine: Machine, num_samples: int, track: bool = True
    ) -> Execution:
        """Return a run of some layers."""
        program = replace(self.program, layers=layers)
        return Execution(program, machine, "fast", "overflow" if track else "none", num_samples)

    def _parts(self, samples: Which) -> list[Which]:
        """Split samples into batches."""
        size = batch_size(self.program)
        return [samples[begin : begin + size] for begin in range(0, len(samples), size)]
