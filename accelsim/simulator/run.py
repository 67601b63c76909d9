"""Run an integer program on a machine, sample by sample in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.arrays import whole_number
from accelsim.errors import LoweringError, ModelError, OperandError
from accelsim.graph.feeds import Feeds, Images
from accelsim.graph.quantized import QuantizedGraph
from accelsim.machine import Machine
from accelsim.program.layers import GridLayer
from accelsim.program.lowering import lower
from accelsim.program.program import IntegerProgram, Rebatchable
from accelsim.program.storage import PlainTensor, StoredTensor
from accelsim.simulator.batches import BatchRun
from accelsim.simulator.energy import EnergyTable
from accelsim.simulator.engine.activity import Sampling
from accelsim.simulator.engine.gemm import EngineName, Track
from accelsim.simulator.execute import Execution
from accelsim.simulator.fixed_batches import FIXED_BYTES, MOST_KINDS
from accelsim.simulator.gemm import checked_machine
from accelsim.simulator.results import SimulationResult
from accelsim.simulator.working_memory import WorkingMemory

DEFAULT_MEMORY_BYTES = 64 << 20
"""What the arrays of all batches that run at a time may take."""

BATCH_BYTES = 16 << 20
"""What the arrays of one batch take at most, where ``memory_bytes`` allows more: larger ones leave the caches."""

WORTH_A_THREAD = 60_000
"""Codes that a layer stores of a batch, on average over the layers, from which on threads are faster than one.

Where kernels are shorter than some hundredths of a millisecond, threads wait for the interpreter's lock instead.
"""

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
    threads: int = 1,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
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
    threads : int
        Batches that run at a time, at most: small ones run in fewer threads, see `WORTH_A_THREAD`; results are the same
        for any number. Bit toggles are counted in one thread, as they depend on the sample before, and the stepped
        engine has one batch.
    memory_bytes : int
        Bound of what the arrays of all running batches take together, see `accelsim.simulator.working_memory`, and each
        takes at most `BATCH_BYTES`; at least one sample runs at a time in each thread. The stepped engine, and what is
        returned, are not bounded by it.

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
    threads, memory_bytes = whole_number("threads", threads, 1), whole_number("memory_bytes", memory_bytes, 1)
    sampling = Sampling(activity_folds, seed) if activity else None
    if program.coupled:
        program = for_samples(program, machine, images)
    feeds = Feeds(program, images, program.whole)
    if sampling is not None:
        threads = 1
    kept = list(program.tensors) if keep_intermediates else list(program.outputs)
    fast = engine == "fast"
    by_rows = fast and sampling is None
    memory = WorkingMemory.of(program, machine, by_rows, fast, frozenset(kept), track == "range")
    size, threads = (
        spread(program, feeds.num_samples, memory, memory_bytes, threads) if fast else (feeds.num_samples, 1)
    )  # fmt: skip
    executions = [
        Execution(program, machine, engine, track, feeds.num_samples, energy, sampling) for _ in range(threads)
    ]

    def done(count: int) -> None:
        if progress is not None:
            progress("samples", count, feeds.num_samples)

    alike = fast and memory_bytes // threads >= MOST_KINDS * FIXED_BYTES
    if not alike:
        for each in executions:
            each.drop_fixed()
    batches = BatchRun(program, feeds, size, kept, done, alike)
    batches.run(executions)
    execution, arrays = executions[0], batches.arrays
    for other in executions[1:]:
        execution.absorb(other)
    if program.whole:
        arrays = {name: _samples_merged(array) for name, array in arrays.items()}
    outputs = {name: arrays[name] for name in program.outputs}
    layers = execution.records()
    for each in executions:
        each.end()
    return SimulationResult(
        outputs=outputs,
        real_outputs={name: _real(program.tensors[name], codes, size) for name, codes in outputs.items()},
        layers=layers,
        num_samples=feeds.num_samples * ((program.inputs[0].shape[0] or 1) if program.coupled else 1),
        tensors=arrays if keep_intermediates else {},
        batch_samples=size,
        peak_batch_bytes=max(threads * memory.bytes(size), sum(each.fixed_bytes for each in executions)),
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


def spread(
    program: IntegerProgram, num_samples: int, memory: WorkingMemory, memory_bytes: int, threads: int
) -> tuple[int, int]:
    """Return how many samples run at a time, and in how many threads: not in more than pay, see `WORTH_A_THREAD`."""
    for count in range(min(threads, num_samples), 1, -1):
        size, used = batches_of(num_samples, memory, memory_bytes, count)
        stored = size * sum(prod(layer.output_shape) for layer in program.layers)
        if stored >= WORTH_A_THREAD * len(program.layers):
            return size, used
    return batches_of(num_samples, memory, memory_bytes, 1)


def batches_of(num_samples: int, memory: WorkingMemory, memory_bytes: int, threads: int) -> tuple[int, int]:
    """Return how many samples run at a time, and in how many threads: batches of one size, as many for each thread."""
    threads = min(threads, num_samples)
    most = memory.samples(min(BATCH_BYTES, memory_bytes // threads), -(-num_samples // threads))
    rounds = -(-num_samples // (most * threads))
    size = -(-num_samples // (rounds * threads))
    return size, min(threads, -(-num_samples // size))


def _real(stored: StoredTensor, codes: npt.NDArray[Any], size: int) -> npt.NDArray[np.float32]:
    """Return the real numbers of codes, a batch at a time, as their 64-bit integers take more than they do."""
    if codes.ndim == 0 or len(codes) <= size or (not isinstance(stored, PlainTensor) and stored.per_channel):
        return stored.dequantize(codes)
    real = np.empty(codes.shape, dtype=np.float32)
    for begin in range(0, len(codes), size):
        real[begin : begin + size] = stored.dequantize(codes[begin : begin + size])
    return real


def batch_size(program: IntegerProgram, memory_bytes: int = 128 << 20) -> int:
    """Return how many samples run at a time where every tensor and the accumulators of a layer are kept in full."""
    elements = sum(prod(length or 1 for length in tensor.shape) for tensor in program.inputs)
    elements += sum(prod(layer.output_shape) for layer in program.layers)
    widest = max((prod(layer.output_shape) for layer in program.layers if isinstance(layer, GridLayer)), default=0)
    return int(max(1, memory_bytes // (4 * elements + 8 * widest)))


def placed(
    network: QuantizedGraph | IntegerProgram, machine: Machine | None, engine: EngineName, track: Track
) -> tuple[IntegerProgram, Machine]:
    """Return the program and the machine to run it on; parameters and errors as in `simulate`."""
    if isinstance(network, QuantizedGraph):
        machine = checked_machine(machine, engine, track)
        return lower(network, machine), machine
    if not isinstance(network, IntegerProgram):
        raise ModelError(
            f"network must be a QuantizedGraph or an IntegerProgram, got {type(network).__name__}; a float network is "
            "quantized first"
        )
    machine = checked_machine(network.machine if machine is None else machine, engine, track)
    if machine is network.machine:
        return network, machine
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
