"""Bit toggles of a layer from its operands, piece by piece: docs/energy.md section 4."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.machine import Machine
from accelsim.program.geometry import Geometry
from accelsim.simulator.counts import Toggles
from accelsim.simulator.engine.bounds import register
from accelsim.simulator.engine.convolution import convolution_columns, positions_at_a_time
from accelsim.simulator.engine.gemm import Int32, Int64, in_accumulator_units, product_rounding
from accelsim.simulator.widths import GridWidths
from accelsim_kernels import activity as kernels

Codes = npt.NDArray[Any]


@dataclass(frozen=True)
class Sampling:
    """How toggles of products and sums are counted.

    Parameters
    ----------
    max_folds : int or None
        Folds of a layer that are counted; None counts all.
    seed : int
        Of the choice of folds.
    """

    max_folds: int | None = None
    seed: int = 0


def count_convolution(counter: ToggleCounter, images: Int32, geometry: Geometry, pad_value: int, where: str) -> None:
    """Count the bit toggles of a convolution of images (batch, channels, height, width); ``where`` is for errors."""
    positions = images.shape[0] * geometry.num_positions
    step = positions_at_a_time(geometry.reduction, positions, "fast", where)
    for group in range(geometry.groups):
        for begin in range(0, positions, step):
            end = min(begin + step, positions)
            counter.add(
                group, convolution_columns(images, geometry, group, begin, end, pad_value, counter.machine)
            )  # fmt: skip


class ToggleCounter:
    """Bit toggles of a layer, docs/energy.md (10) and (11).

    Parameters
    ----------
    weights : int32 array, shape (groups * n, k)
        Operands as the PEs multiply them.
    start : int64 array, shape (groups * n,)
        What the accumulators are loaded with.
    groups : int
        GEMMs of one shape.
    num_positions : int
        P of each, over all pieces.
    machine, widths
        Grid and widths.
    sampling : Sampling
        Which folds products and sums are counted in.
    """

    def __init__(
        self,
        weights: Int32,
        start: Int64,
        groups: int,
        num_positions: int,
        machine: Machine,
        widths: GridWidths,
        sampling: Sampling,
    ) -> None:
        self.machine, self.widths, self.num_positions = machine, widths, num_positions
        self.weights = weights.copy().reshape(groups, -1, weights.shape[1])
        self.start = in_accumulator_units(start, machine).reshape(groups, -1)
        self.weight = self.activation = self.product = self.sum = self.counted_macs = 0
        self.sizes = _fold_tiles(machine, self.weights.shape[1], self.weights.shape[2], num_positions)
        self.folds_per_group = ceil(self.sizes[0] / self.sizes[1]) * ceil(self.sizes[2] / self.sizes[3])
        self.num_folds = groups * self.folds_per_group
        self.seed = sampling.seed
        self.chosen: list[int] | None = None
        if sampling.max_folds is not None and sampling.max_folds < self.num_folds:
            generator = np.random.default_rng(sampling.seed)
            picked = generator.choice(self.num_folds, sampling.max_folds, replace=False, shuffle=False)
            self.chosen = sorted(picked.tolist())
        chained = machine.dataflow in ("weight_stationary", "input_stationary")
        self.masks = (_mask(widths.product), _mask(widths.inner if chained else widths.accumulator))
        self.seen = [0] * groups  # positions so far
        self.before = np.zeros((groups, weights.shape[1], 1), dtype=np.int32)  # the last vector that streamed through
        self.held = np.zeros((groups, machine.rows, machine.columns), dtype=np.int64)
        for group in range(groups):
            self._weights_of(group)

    def add(self, group: int, columns: Int32) -> None:
        """Take in the next operands (k, positions) of a group."""
        begin = self.seen[group]
        self.seen[group] += columns.shape[1]
        last = self.seen[group] == self.num_positions
        num_outputs, mask = self.weights.shape[1], _mask(self.widths.activation)
        match self.machine.dataflow:
            case "output_stationary":
                self.activation += num_outputs * _streams(columns, 1, mask)
            case "broadcast":
                self.activation += num_outputs * _streams(columns, self.machine.columns, mask)
            case "input_stationary":
                vectors = np.ascontiguousarray(columns.T)
                self.activation += int(kernels.kept_toggles(vectors, np.int64(begin), mask, self.held[group]))
                if last:
                    self.activation += self._unused(self.held[group], self.num_positions, mask)
            case "weight_stationary":
                columns = np.concatenate([self.before[group], columns], axis=1)
                if last:  # the bubble after the fold
                    columns = np.concatenate([columns, np.zeros_like(self.before[group])], axis=1)
                self.before[group] = columns[:, -1:]
                toggles = kernels.successive_toggles(np.ascontiguousarray(columns.T), np.int64(1), mask)
                self.activation += num_outputs * int(toggles)
        for fold in self._folds(group):
            self._count(group, columns, begin, fold)

    def toggles(self) -> Toggles:
        """Return the counts over everything that was taken in."""
        scale = self.weights.size * self.num_positions, self.counted_macs
        exact = self.chosen is None
        return Toggles(
            self.weight,
            self.activation,
            self.product if exact else _scaled(self.product, *scale),
            self.sum if exact else _scaled(self.sum, *scale),
            not exact,
            self.num_folds if self.chosen is None else len(self.chosen),
            self.num_folds,
            None if exact else self.seed,
        )

    def _weights_of(self, group: int) -> None:
        """Count the toggles of the weight registers, which need no activations."""
        weights, mask, positions = self.weights[group], _mask(self.widths.weight), self.num_positions
        match self.machine.dataflow:
            case "output_stationary":
                self.weight += positions * _streams(weights.T, 1, mask)
            case "broadcast":
                self.weight += positions * _streams(weights.T, self.machine.columns, mask)
            case "weight_stationary":
                held = np.zeros_like(self.held[group])
                kept = np.ascontiguousarray(weights)
                self.weight += int(kernels.kept_toggles(kept, np.int64(0), mask, held))
                self.weight += self._unused(held, len(weights), mask)
            case "input_stationary":
                self.weight += positions * _streams(weights, 1, mask)

    def _unused(self, held: Int64, count: int, mask: np.int64) -> int:
        """Count the toggles of the columns that a last, ragged tile of kept operands leaves empty."""
        used = count % self.machine.columns
        if used == 0:
            return 0
        rest = np.ascontiguousarray(held[:, used:].astype(np.int32).reshape(1, -1))
        both = np.concatenate([rest, np.zeros_like(rest)])
        return int(kernels.successive_toggles(both, np.int64(1), mask))

    def _folds(self, group: int) -> Iterator[tuple[slice, slice]]:
        """Yield the outer and the inner range of each chosen fold of a group; all at once where all are chosen."""
        outer_length, outer, inner_length, inner = self.sizes
        if self.chosen is None:
            yield slice(0, outer_length), slice(0, inner_length)
            return
        passes = ceil(inner_length / inner)
        for index in self.chosen:
            of_group, number = divmod(index, self.folds_per_group)
            if of_group == group:
                first, second = divmod(number, passes)
                yield (
                    slice(first * outer, min((first + 1) * outer, outer_length)),
                    slice(second * inner, min((second + 1) * inner, inner_length)),
                )

    def _count(self, group: int, columns: Int32, begin: int, fold: tuple[slice, slice]) -> None:
        """Count products and sums of a fold, as far as a piece's positions belong to it."""
        machine, (outer, inner), weights = self.machine, fold, self.weights[group]
        rounding = product_rounding(machine)
        if machine.dataflow in ("output_stationary", "broadcast"):
            part = slice(max(inner.start - begin, 0), max(inner.stop - begin, 0))
            some = np.ascontiguousarray(columns[:, part])
            tile = 1 if machine.dataflow == "output_stationary" else machine.columns
            bits = None if machine.dataflow == "output_stationary" else machine.adder_tree_bits
            product, total = kernels.resident_toggles(
                np.ascontiguousarray(weights[outer]), some, np.ascontiguousarray(self.start[group, outer]),
                np.int64(tile), rounding, register(bits, machine.overflow),
                register(machine.accumulator_bits, machine.overflow), self.masks,
            )  # fmt: skip
            macs = weights[outer].size * some.shape[1]
        else:
            if machine.dataflow == "weight_stationary":
                kept, moving = weights[outer, inner], columns[inner]
                macs = kept.size * (self.seen[group] - begin)
            else:
                part = slice(max(outer.start - begin, 0), max(outer.stop - begin, 0))
                kept, moving = columns[inner, part].T, np.pad(weights[:, inner].T, ((0, 0), (1, 1)))
                macs = kept.size * len(weights)
            product, total = kernels.passing_toggles(
                np.ascontiguousarray(kept), np.ascontiguousarray(moving), np.int64(machine.rows), rounding,
                register(machine.partial_sum_bits, machine.overflow), self.masks,
            )  # fmt: skip
        self.product += int(product)
        self.sum += int(total)
        self.counted_macs += macs


def _fold_tiles(machine: Machine, num_outputs: int, reduction: int, num_positions: int) -> tuple[int, int, int, int]:
    """Return (length, tile) of the outer and of the inner dimension of the folds, docs/timing.md section 1."""
    rows, columns = machine.rows, machine.columns
    match machine.dataflow:
        case "output_stationary":
            return num_outputs, columns, num_positions, rows
        case "weight_stationary":
            return num_outputs, columns, reduction, rows
        case "input_stationary":
            return num_positions, columns, reduction, rows
        case "broadcast":
            return num_outputs, rows, num_positions, 1


def _streams(values: Int32, distance: int, mask: np.int64) -> int:
    """Count the toggles of streams along axis 0 that begin and end in a bubble; each register sees every n-th value."""
    padded = np.pad(values, ((distance, distance), (0, 0)))
    return int(kernels.successive_toggles(np.ascontiguousarray(padded), np.int64(distance), mask))


def _mask(bits: int) -> np.int64:
    """Return ones for the bits of a register."""
    return np.int64(-1 if bits >= 64 else (1 << bits) - 1)


def _scaled(count: int, whole: int, part: int) -> int:
    """Scale a count from a part to the whole, rounded down."""
    return count * whole // part
