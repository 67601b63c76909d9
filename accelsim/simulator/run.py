"""Run an integer program on a machine, sample by sample in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import LoweringError, OperandError
from accelsim.graph.feeds import Feeds, Images
from accelsim.graph.quantized import QuantizedGraph
from accelsim.machine import Machine
from accelsim.program.layers import GridLayer
from accelsim.program.lowering import lower
from accelsim.program.program import IntegerProgram, Rebatchable
from accelsim.simulator.energy import EnergyTable
from accelsim.simulator.engine.activity import Sampling
from accelsim.simulator.engine.gemm import EngineName, Track
from accelsim.simulator.execute import Execution
from accelsim.simulator.gemm import checked_machine
from accelsim.simulator.results import SimulationResult

MAX_BATCH_BYTES = 128 << 20
"""Codes of all tensors that are alive while a batch runs."""

BUILT_IN = ("requantizer", "zero_point", "reduction_order", "product_shift_bits", "weight_bits", "activation_bits")
"""Fields of a machine that lowering builds into a program, or checks it against."""

Progress = Callable[[str, int, int], None]
"""Called with (what, done, of how many)."""


def simulate(
    network: QuantizedGraph | IntegerProgram,
    images: Images,
    machine: Machine | None = None,
    *,
    engine: EngineName = "fast",
    track: Track = "overflow",
    keep_intermediates: bool = False,
    progress: Progress | None = None,
    energy: EnergyTable | None = None,
    activity: bool = False,
    activity_folds: int | None = None,
    seed: int = 0,
) -> SimulationResult:
    """Run a network on a machine, bit for bit.

    Parameters
    ----------
    network : QuantizedGraph or IntegerProgram
        What to run; a quantized graph is lowered for the machine first.
    images : array or mapping of input name to array
        Real inputs, samples along axis 0.
    machine : Machine, optional
        ``edge_16x16`` when left out; for a program, the machine that it was lowered for. A program that was read from
        a quantized model runs on any machine, others on machines with the arithmetic that they were lowered for.
    engine : {"fast", "stepped"}
        ``stepped`` moves every register of the grid in every cycle; both return the same. It runs all samples at once.
    track : {"overflow", "none", "range"}
        What is recorded of the accumulators.
    keep_intermediates : bool
        Return the codes of every stored tensor.
    progress : callable, optional
        Called with ("samples", done, all) after every batch.
    energy : EnergyTable, optional
        Prices of the energy proxy; the shipped ones when left out.
    activity : bool
        Count the bit toggles of the PEs' registers, too: docs/energy.md section 4.
    activity_folds : int, optional
        Count the toggles of products and sums in at most so many folds of each layer, drawn at random, and scale them
        up; all folds when left out.
    seed : int
        Of that draw.

    Returns
    -------
    SimulationResult
        Codes, real outputs, and a record per layer.

    Raises
    ------
    DataError
        When the images do not fit the network.
    LoweringError
        When the network has no integer form on the machine, or the program was lowered for another arithmetic.
    OperandError
        When an option is unknown or the stepped engine's memory would be exceeded.
    AccumulatorOverflowError
        When a register overflowed and the machine's mode is ``error``.
    """
    program, machine = placed(network, machine, engine, track)
    if activity_folds is not None and (not activity or activity_folds < 1):
        raise OperandError(f"activity_folds must be at least 1 and needs activity=True, got {activity_folds}")
    sampling = Sampling(activity_folds, seed) if activity else None
    if program.coupled:
        program = for_samples(program, machine, images)
    feeds = Feeds(program, images, program.whole)
    execution = Execution(program, machine, engine, track, feeds.num_samples, energy, sampling)
    size = feeds.num_samples if engine == "stepped" else batch_size(program)
    kept = list(program.tensors) if keep_intermediates else list(program.outputs)
    arrays: dict[str, npt.NDArray[Any]] = {}
    start = 0
    for batch in feeds.batches(size):
        codes = {name: program.store(name, values) for name, values in batch.items()}
        count = len(next(iter(codes.values())))
        stored = execution.run(codes, keep=kept)
        for name in kept:
            if name in stored:
                dtype = program.tensors[name].format.dtype
                whole = arrays.setdefault(name, np.empty((feeds.num_samples, *stored[name].shape[1:]), dtype=dtype))
                whole[start : start + count] = stored[name]
        start += count
        if progress is not None:
            progress("samples", start, feeds.num_samples)
    if program.whole:
        arrays = {name: _samples_merged(array) for name, array in arrays.items()}
    outputs = {name: arrays[name] for name in program.outputs}
    return SimulationResult(
        outputs=outputs,
        real_outputs={name: program.tensors[name].dequantize(codes) for name, codes in outputs.items()},
        layers=execution.records(),
        num_samples=feeds.num_samples,
        tensors=arrays if keep_intermediates else {},
    )


def for_samples(program: IntegerProgram, machine: Machine, images: Images) -> IntegerProgram:
    """Return a coupled program made anew for the number of samples in the images."""
    first = program.inputs[0].name
    array = np.asarray(images[first] if isinstance(images, Mapping) and first in images else images)
    if not isinstance(program.source, Rebatchable) or array.ndim == 0 or array.shape[0] == 0:
        return program  # what does not fit is refused when it is fed
    return program.source.with_batch(int(array.shape[0])).lower(machine)


def _samples_merged(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return runs of a whole model, stacked along an axis of their own, one after the other along the model's first."""
    if array.ndim == 1:  # the model stores a scalar
        return array.reshape(()) if array.size == 1 else array
    return array.reshape(-1, *array.shape[2:])


def batch_size(program: IntegerProgram) -> int:
    """Return how many samples the fast engine runs at a time: all tensors of a batch fit `MAX_BATCH_BYTES`."""
    elements = sum(prod(length or 1 for length in tensor.shape) for tensor in program.inputs)
    elements += sum(prod(layer.output_shape) for layer in program.layers)
    widest = max((prod(layer.output_shape) for layer in program.layers if isinstance(layer, GridLayer)), default=0)
    return int(max(1, MAX_BATCH_BYTES // (4 * elements + 8 * widest)))


def placed(
    network: QuantizedGraph | IntegerProgram, machine: Machine | None, engine: EngineName, track: Track
) -> tuple[IntegerProgram, Machine]:
    """Return the program and the machine to run it on; parameters and errors as in `simulate`."""
    if isinstance(network, QuantizedGraph):
        machine = checked_machine(machine, engine, track)
        return lower(network, machine), machine
    machine = checked_machine(network.machine if machine is None else machine, engine, track)
    changed = [field for field in BUILT_IN if getattr(network.machine, field) != getattr(machine, field)]
    if changed and network.source is not None:
        return network.source.lower(machine), machine
    for field in changed:
        if field not in ("weight_bits", "activation_bits"):
            built_in, asked = getattr(network.machine, field), getattr(machine, field)
            raise LoweringError(
                f"the program was lowered for {field} = {built_in!r}, the machine has {asked!r}; "
                f"lower it for this machine"
            )
    return network, machine
