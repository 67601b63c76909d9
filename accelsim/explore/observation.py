"""One range-tracking pass over the data: how wide each register had to be, for every output and every sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import OperandError
from accelsim.explore.bounds import Int64, register_bits
from accelsim.explore.multiplier import NARROWEST, has_integer_multiplier, needed_multiplier_bits
from accelsim.graph.feeds import Feeds, Images
from accelsim.machine import Machine
from accelsim.machine.machine import MIN_REGISTER_BITS
from accelsim.program.layers import MacLayer, RuntimeMacLayer
from accelsim.program.program import IntegerProgram
from accelsim.simulator.execute import Execution
from accelsim.simulator.ranges import RangePiece, register_ranges
from accelsim.simulator.run import batch_size

Progress = Callable[[str, int, int], None]
Codes = dict[str, npt.NDArray[Any]]
_POWERS = np.array([1 << i for i in range(63)], dtype=np.int64)
_WIDTHS = 65


def needed_bits(least: Int64, greatest: Int64) -> Int64:
    """Return the width of the narrowest register, of at least 4 bits, that holds both values, element by element."""
    magnitude = np.maximum(greatest, -1 - least)
    if int(magnitude.max(initial=0)) < 1 << 52:  # exact in float64, and several times faster than a search
        length = np.frexp(np.maximum(magnitude, 0).astype(np.float64))[1].astype(np.int64)
    else:
        length = np.searchsorted(_POWERS, magnitude, side="right")
    return np.maximum(length + 1, MIN_REGISTER_BITS)


@dataclass
class RegisterSeen:
    """What one kind of register held in one layer.

    Parameters
    ----------
    samples : int
        How many will be seen.
    low, high : int or None
        Least and greatest value so far; None before any.
    histogram : int64 array
        Outputs by the width that they needed.
    sample_bits : int64 array, shape (samples,)
        Width that a sample needed.
    """

    samples: int
    low: int | None = None
    high: int | None = None
    histogram: Int64 = field(default_factory=lambda: np.zeros(_WIDTHS, dtype=np.int64))
    sample_bits: Int64 = field(init=False)

    def __post_init__(self) -> None:
        self.sample_bits = np.full(self.samples, MIN_REGISTER_BITS, dtype=np.int64)

    @property
    def bits(self) -> int:
        """Width that holds everything."""
        return register_bits(self.low or 0, self.high or 0)

    @property
    def distribution(self) -> tuple[tuple[int, int], ...]:
        """(width, how many outputs needed exactly it), narrowest first."""
        return tuple((int(bits), int(self.histogram[bits])) for bits in np.flatnonzero(self.histogram))

    def add(self, least: Int64, greatest: Int64, samples: npt.NDArray[np.int64]) -> None:
        """Take in ranges of shape (channels, positions), and the sample of each position."""
        low, high = int(least.min()), int(greatest.max())
        self.low = low if self.low is None else min(self.low, low)
        self.high = high if self.high is None else max(self.high, high)
        bits = needed_bits(least, greatest)
        self.histogram += np.bincount(bits.reshape(-1), minlength=_WIDTHS)
        np.maximum.at(self.sample_bits, samples, bits.max(axis=0))


@dataclass
class LayerSeen:
    """The registers of one layer; partial is None on an output-stationary grid."""

    accumulator: RegisterSeen
    partial: RegisterSeen | None
    multiplier_bits: int | None


@dataclass(frozen=True)
class Observation:
    """What a program's registers held on some samples, with registers that hold everything.

    Parameters
    ----------
    layers : dict of str to LayerSeen
        By the name of the layer; those on the grid only.
    outputs : array, shape (samples, ...)
        Codes of the program's first output.
    stored : dict of str to array
        Codes of every stored tensor of the first samples, where they were asked for.
    """

    layers: dict[str, LayerSeen]
    outputs: npt.NDArray[Any]
    stored: Codes

    def exceeding(self, machine: Machine) -> npt.NDArray[np.bool_]:
        """Return which layers of which samples would overflow on a machine: bool (layers, samples)."""
        inner = machine.adder_tree_bits if machine.dataflow == "broadcast" else machine.partial_sum_bits
        rows = []
        for seen in self.layers.values():
            row = seen.accumulator.sample_bits > machine.accumulator_bits
            if inner is not None and seen.partial is not None:
                row = row | (seen.partial.sample_bits > inner)
            rows.append(row)
        return np.array(rows)


def observe(
    program: IntegerProgram,
    images: Images,
    machine: Machine,
    *,
    keep_samples: int = 0,
    partials: bool = True,
    multiplier: bool = True,
    progress: Progress | None = None,
) -> Observation:
    """Run a program once with registers that hold everything, and record what they held.

    Parameters
    ----------
    program : IntegerProgram
        Lowered for the machine.
    images : array or mapping of input name to array
        As in `accelsim.simulate`.
    machine : Machine
        Its order of additions.
    keep_samples : int
        Keep the stored tensors of so many samples.
    partials : bool
        Look at partial sums or adder trees, too, where the grid has them.
    multiplier : bool
        Look at narrower requantization multipliers, too.
    progress : callable, optional
        Called with ("ranges", samples done, samples in all).

    Returns
    -------
    Observation
        One entry per layer on the grid.

    Raises
    ------
    OperandError
        When a layer multiplies two computed tensors, or samples depend on each other.
    """
    if program.coupled:
        raise OperandError(
            f"model {program.name!r} computes a sample from the others, too: widths are analysed sample by sample; "
            "take the model's float form"
        )
    for layer in program.layers:
        if isinstance(layer, RuntimeMacLayer):
            raise OperandError(
                f"layer {layer.name!r} multiplies two tensors that the run computes; widths are analysed for constant "
                "weights only: take the model's float form, or simulate the widths that you have in mind"
            )
    feeds = Feeds(program, images, program.whole)
    on_grid = [layer for layer in program.layers if isinstance(layer, MacLayer)]
    total = feeds.num_samples
    partial = partials and machine.dataflow != "output_stationary"
    layers = {
        layer.name: LayerSeen(
            RegisterSeen(total),
            RegisterSeen(total) if partial else None,
            NARROWEST if multiplier and has_integer_multiplier(layer) else None,
        )
        for layer in on_grid
    }
    wide = machine.replace(accumulator_bits=64, partial_sum_bits=None, adder_tree_bits=None, overflow="wrap")
    execution = Execution(program, wide, "fast", "none", total)
    kept: dict[str, list[npt.NDArray[Any]]] = {}
    outputs: list[npt.NDArray[Any]] = []
    for first, codes in _batches(program, feeds):
        count = len(next(iter(codes.values())))
        stored = {**codes, **execution.run(codes, keep=list(program.tensors))}
        for layer in on_grid:
            for piece in register_ranges(layer, stored[layer.inputs[0]], machine, partial):
                _take_in(layers[layer.name], layer, piece, first)
        outputs.append(narrowed(program, program.outputs[0], stored[program.outputs[0]]))
        if first < keep_samples:
            for name, values in stored.items():
                kept.setdefault(name, []).append(narrowed(program, name, values[: keep_samples - first]))
        if progress is not None:
            progress("ranges", first + count, total)
    return Observation(layers, np.concatenate(outputs), {name: np.concatenate(parts) for name, parts in kept.items()})


def narrowed(program: IntegerProgram, name: str, codes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return codes in the narrowest type of their format."""
    return codes.astype(program.tensors[name].format.dtype)


def _batches(program: IntegerProgram, feeds: Feeds) -> Iterator[tuple[int, Codes]]:
    """Yield the number of the first sample of a batch, and the batch's stored inputs."""
    first = 0
    for batch in feeds.batches(batch_size(program)):
        codes = {name: program.store(name, values) for name, values in batch.items()}
        yield first, codes
        first += len(next(iter(codes.values())))


def _take_in(seen: LayerSeen, layer: MacLayer, piece: RangePiece, first_sample: int) -> None:
    """Count in one piece of a layer."""
    values = piece.values
    if values.range_min is None or values.range_max is None:
        raise AssertionError("ranges were asked for")
    positions = np.arange(piece.first_position, piece.first_position + values.range_min.shape[1])
    samples = first_sample + positions // layer.num_positions
    seen.accumulator.add(values.range_min, values.range_max, samples)
    if seen.partial is not None and piece.partial_least is not None and piece.partial_greatest is not None:
        seen.partial.add(piece.partial_least, piece.partial_greatest, samples)
    if seen.multiplier_bits is not None:
        seen.multiplier_bits = needed_multiplier_bits(layer, values.accumulators, piece.channels, seen.multiplier_bits)
