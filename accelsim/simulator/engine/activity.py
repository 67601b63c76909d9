"""Zero operands and bit toggles of a layer from its operands, piece by piece: docs/energy.md sections 3 and 4."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from accelsim.machine import Machine
from accelsim.program.geometry import Geometry
from accelsim.program.layers import MacLayer
from accelsim.simulator.counts import Toggles, ZeroOperands
from accelsim.simulator.engine.bounds import for_kernels, register
from accelsim.simulator.engine.convolution import convolution_columns, positions_at_a_time
from accelsim.simulator.engine.gemm import Int32, Int64, in_accumulator_units, product_rounding
from accelsim.simulator.engine.meeting import Meeting
from accelsim.simulator.widths import GridWidths
from accelsim_kernels import activity as kernels

Codes = npt.NDArray[Any]

_REPEATED = 1024
"""Counters of a loop over vectors, so that it is worth entering."""

_ONE_KIND = np.zeros(1, dtype=np.int64)
"""Kinds of rows, where all are alike."""

_WEIGHTS: WeakKeyDictionary[MacLayer, tuple[Int64, int]] = WeakKeyDictionary()
"""How many weights are not 0, of each term and in all, of layers that ran before."""


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


class ZeroCounter:
    """Multiplications of a layer with a zero operand, docs/energy.md (9).

    Parameters
    ----------
    weights : int32 array, shape (groups * n, k)
        Operands as the PEs multiply them.
    groups : int
        GEMMs of one shape.
    spatial_first : bool
        Order of a convolution's reduction.
    """

    def __init__(self, weights: Int32, groups: int, spatial_first: bool = False) -> None:
        shaped = weights.reshape(groups, -1, weights.shape[1])
        counts = np.zeros((groups, weights.shape[1]), dtype=np.int32)
        for group, count in zip(_comparable(shaped), counts, strict=True):
            kernels.count_unequal_rows(group.reshape(-1), np.int64(0), _ONE_KIND, count.reshape(1, -1))
        self._begin((counts.astype(np.int64), int(counts.sum())), shaped.shape[1], spatial_first)

    def _begin(self, counted: tuple[Int64, int], num_outputs: int, spatial_first: bool) -> None:
        """Count nothing yet; of weights are ``counted`` those that are not 0: (groups, k), and in all."""
        self.weights, self.num_weights = counted
        self.num_outputs, self.spatial_first = num_outputs, spatial_first
        self.activations = np.zeros_like(self.weights)
        self.num_positions = 0
        self._geometry: Geometry | None = None
        self._places: Int32 | None = None  # (kinds of rows, width, channels): rows with something else than 0 there
        self._padded_images = 0  # images whose padded taps are still to be counted

    @classmethod
    def of_layer(cls, layer: MacLayer, spatial_first: bool) -> ZeroCounter:
        """Return a counter for a layer, whose weights are looked at once for all runs."""
        counter = cls.__new__(cls)
        if layer not in _WEIGHTS:
            made = cls(layer.weights, layer.groups)
            _WEIGHTS[layer] = made.weights, made.num_weights
        counter._begin(_WEIGHTS[layer], layer.num_outputs, spatial_first)
        return counter

    def absorb(self, other: ZeroCounter) -> None:
        """Add what another counter of the same layer has seen."""
        if self._places is None:
            self._places = other._places
        elif other._places is not None:
            self._places += other._places
        self._geometry = self._geometry or other._geometry
        self._padded_images += other._padded_images
        self.activations += other.activations
        self.num_positions += other.num_positions

    def add_vectors(self, rows: Codes, zero: int) -> None:
        """Take in stored vectors (positions, k) of a matrix product, contiguous; ``zero`` is what the PEs see as 0."""
        self.activations += self._count_unequal(rows, zero).reshape(self.activations.shape)
        self.num_positions += len(rows)

    def add_channels_last(self, images: Codes, zero: int, geometry: Geometry, pad_value: int) -> None:
        """Take in stored images (images, height, width, channels) of a convolution, contiguous; ``zero`` as before."""
        if geometry.is_pointwise:
            self.activations += self._count_unequal(images, zero).reshape(self.activations.shape)
        else:
            meeting = Meeting.of(geometry)
            if self._places is None:
                self._places = np.zeros((meeting.rows.shape[1], *images.shape[2:]), dtype=np.int32)
            flat, code = self._places.reshape(len(self._places), -1), _unsigned_code(images, zero)
            kernels.count_unequal_rows(_unsigned(images).reshape(-1), code, meeting.kinds, flat)
            self._add_padding(len(images), geometry, pad_value)
        self.num_positions += len(images) * geometry.num_positions

    def _count_unequal(self, codes: Codes, zero: int) -> Int64:
        """Count what is not 0 of each element of the last axis; those are repeated, for long loops."""
        length = codes.shape[-1]
        counts = np.zeros((1, max(1, _REPEATED // length) * length), dtype=np.int32)
        kernels.count_unequal_rows(_unsigned(codes).reshape(-1), _unsigned_code(codes, zero), _ONE_KIND, counts)
        total: Int64 = counts.reshape(-1, length).sum(axis=0, dtype=np.int64)
        return total

    def _add_padding(self, num_images: int, geometry: Geometry, pad_value: int) -> None:
        """Count the padded taps of images later, unless they are 0."""
        self._geometry = geometry
        if pad_value:
            self._padded_images += num_images

    def _add_taps(self, taps: Int64) -> None:
        """Add counts (channels, kernel rows, kernel columns)."""
        grouped = taps.reshape(len(self.weights), -1, *taps.shape[1:])
        if self.spatial_first:
            grouped = grouped.transpose(0, 2, 3, 1)
        self.activations += grouped.reshape(self.activations.shape)

    def _count_places(self) -> None:
        """Add what every tap met: at the places of the images, and padding."""
        if self._geometry is None:
            return
        geometry = self._geometry
        meeting = Meeting.of(geometry)
        taps = np.zeros((*geometry.kernel_shape, geometry.input_shape[0]), dtype=np.int64)
        if self._places is not None:
            kernels.count_taps(
                self._places, meeting.rows, meeting.columns, np.int64(geometry.strides[1]), taps
            )  # fmt: skip
        if self._padded_images:
            taps += self._padded_images * meeting.outside[:, :, np.newaxis]
        self._add_taps(taps.transpose(2, 0, 1))
        self._places, self._padded_images = None, 0

    def add_columns(self, columns: Codes) -> None:
        """Take in operands (k, positions) as the PEs multiply them."""
        counts = np.zeros(len(columns), dtype=np.int64)
        kernels.count_nonzero_rows(_comparable(columns), counts)
        self.activations[0] += counts
        self.num_positions += columns.shape[1]

    def add_counts(self, nonzero: Int64, num_positions: int) -> None:
        """Take in what was counted elsewhere: of every term (groups, k) the operands that are not 0."""
        self.activations += nonzero
        self.num_positions += num_positions

    def add_rows(self, rows: Int32) -> None:
        """Take in vectors (positions, k) of a matrix product."""
        kernels.count_nonzero_columns(np.ascontiguousarray(rows), self.activations[0])
        self.num_positions += len(rows)

    def add_images(self, images: Codes, geometry: Geometry, pad_value: int) -> None:
        """Take in images (batch, channels, height, width) of a convolution."""
        taps = np.zeros((images.shape[1], *geometry.kernel_shape), dtype=np.int64)
        kernels.count_nonzero_taps(
            _comparable(images), geometry.kernel_shape, geometry.strides, geometry.pads[:2], geometry.dilations,
            geometry.output_shape, taps,
        )  # fmt: skip
        self._add_taps(taps)
        self._add_padding(images.shape[0], geometry, pad_value)
        self.num_positions += images.shape[0] * geometry.num_positions

    def nonzero(self) -> Int64:
        """Return how many activations that are not 0 every term met, (groups, k)."""
        self._count_places()
        return self.activations

    def zero_operands(self) -> ZeroOperands:
        """Return the counts over everything that was taken in."""
        self._count_places()
        n, p = self.num_outputs, self.num_positions
        everything = self.weights.size * n * p
        return ZeroOperands(
            everything - self.num_weights * p,
            everything - int(self.activations.sum()) * n,
            everything - int(np.vdot(self.weights, self.activations)),
        )


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


def _unsigned(codes: Codes) -> Codes:
    """Return codes as unsigned integers of their width, in 16 bits where they are wider than that."""
    narrow = codes if codes.itemsize <= 2 else codes.astype(np.uint16)
    return narrow.view(np.uint8 if narrow.itemsize == 1 else np.uint16)


def _comparable(operands: Codes) -> Codes:
    """Return unsigned integers of 8 or 16 bits that are 0 where the operands are, ready for the kernels."""
    return for_kernels(_unsigned(operands) if operands.itemsize <= 2 else (operands != 0).view(np.uint8))


def _unsigned_code(codes: Codes, code: int) -> np.int64:
    """Return a code as `_unsigned` shows it; no code of 8 bits where it has none."""
    bits = 8 if codes.itemsize == 1 else 16
    return np.int64(code % (1 << bits))
