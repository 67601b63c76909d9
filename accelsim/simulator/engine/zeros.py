"""Zero operands of a layer from its operands, piece by piece: docs/energy.md section 3."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from accelsim.program.geometry import Geometry
from accelsim.program.layers import MacLayer
from accelsim.simulator.counts import ZeroOperands
from accelsim.simulator.engine.bounds import for_kernels
from accelsim.simulator.engine.dots import unsigned
from accelsim.simulator.engine.meeting import Meeting
from accelsim_kernels import activity as kernels

Codes = npt.NDArray[Any]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

ByPlace = tuple[Int64, Int32]
"""Kind of each row of an image, and counts of shape (kinds, width * channels), to which is added."""

_REPEATED = 1024
"""Counters of a loop over vectors, so that it is worth entering."""

_ONE_KIND = np.zeros(1, dtype=np.int64)
"""Kinds of rows, where all are alike."""

_WEIGHTS: WeakKeyDictionary[MacLayer, NonzeroWeights] = WeakKeyDictionary()
"""What is known of the weights of layers that ran before."""


@dataclass(frozen=True, eq=False)
class NonzeroWeights:
    """How many weights of a layer are not 0.

    Parameters
    ----------
    of_terms : int64 array, shape (groups, k)
        Of each term, over the channels of a group.
    num_outputs : int
        Channels of a group.
    """

    of_terms: Int64
    num_outputs: int

    @staticmethod
    def of(weights: npt.NDArray[Any], groups: int) -> NonzeroWeights:
        """Count weights (groups * n, k), operands as the PEs multiply them."""
        shaped = weights.reshape(groups, -1, weights.shape[1])
        counts = np.zeros((groups, weights.shape[1]), dtype=np.int32)
        for group, count in zip(_comparable(shaped), counts, strict=True):
            kernels.count_unequal_rows(group.reshape(-1), np.int64(0), _ONE_KIND, count.reshape(1, -1))
        return NonzeroWeights(counts.astype(np.int64), shaped.shape[1])

    @staticmethod
    def of_layer(layer: MacLayer) -> NonzeroWeights:
        """Count the weights of a layer, once for all runs."""
        made = _WEIGHTS.get(layer)
        if made is None:
            made = _WEIGHTS[layer] = NonzeroWeights.of(layer.weights, layer.groups)
        return made

    @cached_property
    def total(self) -> int:
        """How many there are in all."""
        return int(self.of_terms.sum())

    def at_places(self, geometry: Geometry | None, spatial_first: bool) -> PlacesMet:
        """Return what activations of images, or of vectors, meet; kept, as a layer has one geometry and order."""
        made = self._met.get(spatial_first)
        if made is None:
            if geometry is None or geometry.is_pointwise:
                made = PlacesMet.of_vectors(self.of_terms.reshape(-1))
            else:
                made = PlacesMet.of(geometry, _of_taps(self.of_terms, geometry, spatial_first))
            self._met[spatial_first] = made
        return made

    @cached_property
    def _met(self) -> dict[bool, PlacesMet]:
        """What `at_places` keeps."""
        return {}


def _of_taps(of_terms: Int64, geometry: Geometry, spatial_first: bool) -> Int64:
    """Bring numbers (groups, k) of a convolution's terms to (kernel rows, kernel columns, channels)."""
    rows, columns = geometry.kernel_shape
    if spatial_first:
        return of_terms.reshape(len(of_terms), rows, columns, -1).transpose(1, 2, 0, 3).reshape(rows, columns, -1)
    return of_terms.reshape(-1, rows, columns).transpose(1, 2, 0)


@dataclass(frozen=True, eq=False)
class PlacesMet:
    """What the places of a layer's images meet, over all positions, and what its padding meets.

    Vectors are rows of an image that has several of them side by side: loops over short ones are not worth entering.

    Parameters
    ----------
    kinds : int64 array, shape (height,)
        Kind of each row of an image, see `Meeting`.
    terms : int64 array, shape (kinds of rows, width)
        Terms that an activation at a place is part of, for each channel of the output.
    weights : int64 array, shape (kinds of rows, width, channels)
        Weights that are not 0 that it meets.
    padding_terms, padding_weights : int
        Likewise, for all padded taps of an image.
    """

    kinds: Int64
    terms: Int64
    weights: Int64
    padding_terms: int
    padding_weights: int

    @staticmethod
    def of(geometry: Geometry, nonzero: Int64) -> PlacesMet:
        """Return it for weights of which ``nonzero`` are not 0: (kernel rows, kernel columns, channels)."""
        meeting = Meeting.of(geometry)
        columns = np.zeros((geometry.kernel_shape[1], geometry.input_shape[2]), dtype=np.int64)
        for tap, (first, count) in enumerate(meeting.columns.T):
            columns[tap, first : first + count * geometry.strides[1] : geometry.strides[1]] = 1
        rows = meeting.rows.astype(np.int64)
        by_column = np.tensordot(rows, nonzero, (0, 0))  # (kinds, kernel columns, channels)
        weights = np.tensordot(columns, by_column, (0, 1)).transpose(1, 0, 2)
        terms = np.outer(rows.sum(axis=0), columns.sum(axis=0))
        padding, channels = meeting.outside, nonzero.shape[2]
        return PlacesMet(
            meeting.kinds, terms, np.ascontiguousarray(weights), int(padding.sum()) * channels,
            int(np.vdot(padding, nonzero.sum(axis=2))),
        )  # fmt: skip

    @property
    def counted(self) -> tuple[int, int]:
        """Shape of the counts by place: kinds of rows, width times channels."""
        return len(self.terms), self.weights[0].size

    @staticmethod
    def of_vectors(nonzero: Int64) -> PlacesMet:
        """Return it for vectors whose elements meet ``nonzero`` weights that are not 0."""
        repeats = max(1, _REPEATED // nonzero.size)
        terms, weights = np.ones((1, repeats), dtype=np.int64), np.tile(nonzero, (1, repeats, 1))
        return PlacesMet(_ONE_KIND, terms, weights, 0, 0)


def counter_bytes(layer: MacLayer) -> int:
    """Return what the counters by place of a layer take."""
    geometry = layer.geometry
    if geometry is None or geometry.is_pointwise:
        length = layer.groups * layer.reduction
        return 4 * max(1, _REPEATED // length) * length
    channels, _, width = geometry.input_shape
    return 4 * int(Meeting.of(geometry).rows.shape[1]) * width * channels


class ZeroCounter:
    """Multiplications of a layer with a zero operand, docs/energy.md (9).

    Parameters
    ----------
    weights : NonzeroWeights
        Of the layer.
    spatial_first : bool
        Order of a convolution's reduction.
    met, places : PlacesMet and int32 array, optional
        What the places of its images meet, and zeros in which they are counted; made where they are needed if left out.

    Notes
    -----
    Activations that are not 0 are counted for each term, `nonzero`; stored ones that lie channels last for each place
    and kind of row instead, `_places`, as that takes one comparison each. What a place meets is known before.
    """

    def __init__(
        self,
        weights: NonzeroWeights,
        spatial_first: bool = False,
        met: PlacesMet | None = None,
        places: Int32 | None = None,
    ) -> None:
        self.weights, self.spatial_first = weights, spatial_first
        self.num_positions = 0
        self._terms: Int64 | None = None  # (groups, k)
        self._places = places  # (kinds of rows, width * channels)
        self._met = met  # of the images in `_places`
        self._padded_images = 0  # among them, where padding is not 0
        self._products = weights.of_terms.size * weights.num_outputs  # of a position

    def clear(self) -> None:
        """Forget what was taken in, but for the counts by place, which are cleared by whoever made them."""
        self.num_positions = self._padded_images = 0
        self._terms = None

    def absorb(self, other: ZeroCounter) -> None:
        """Add what another counter of the same layer has seen."""
        if self._places is None:
            self._places, self._met = other._places, other._met
        elif other._places is not None:
            self._places += other._places
        self._padded_images += other._padded_images
        if other._terms is not None:
            self.add_counts(other._terms, 0)
        self.num_positions += other.num_positions

    def by_place(self, length: int, geometry: Geometry | None, pad_value: int) -> ByPlace:
        """Return where the stored codes of a batch are counted that are not 0 for the PEs, see `count_by_place`.

        Parameters
        ----------
        length : int
            Images, or vectors.
        geometry : Geometry or None
            Of a convolution.
        pad_value : int
            What its padding holds.
        """
        if self._places is None or self._met is None:
            self._met = self.weights.at_places(geometry, self.spatial_first)
            self._places = np.zeros(self._met.counted, dtype=np.int32)
        if geometry is None:
            self.num_positions += length
        else:
            self._padded_images += length if pad_value else 0
            self.num_positions += length * geometry.num_positions
        return self._met.kinds, self._places

    def add_columns(self, columns: Codes) -> None:
        """Take in operands (k, positions) as the PEs multiply them."""
        counts = np.zeros(len(columns), dtype=np.int64)
        kernels.count_nonzero_rows(_comparable(columns), counts)
        self.add_counts(counts, columns.shape[1])

    def add_counts(self, nonzero: Int64, num_positions: int) -> None:
        """Take in what was counted elsewhere: of every term, group by group, the operands that are not 0."""
        shaped = nonzero.reshape(self.weights.of_terms.shape)
        self._terms = shaped if self._terms is None else self._terms + shaped
        self.num_positions += num_positions

    def add_rows(self, rows: Int32) -> None:
        """Take in vectors (positions, k) of a matrix product."""
        counts = np.zeros(rows.shape[1], dtype=np.int64)
        kernels.count_nonzero_columns(np.ascontiguousarray(rows), counts)
        self.add_counts(counts, len(rows))

    def add_images(self, images: Codes, geometry: Geometry, pad_value: int) -> None:
        """Take in images (batch, channels, height, width) of a convolution."""
        taps = np.zeros((images.shape[1], *geometry.kernel_shape), dtype=np.int64)
        kernels.count_nonzero_taps(
            _comparable(images), geometry.kernel_shape, geometry.strides, geometry.pads[:2], geometry.dilations,
            geometry.output_shape, taps,
        )  # fmt: skip
        if pad_value:
            taps += len(images) * Meeting.of(geometry).outside
        grouped = taps.reshape(len(self.weights.of_terms), -1, *geometry.kernel_shape)
        if self.spatial_first:
            grouped = grouped.transpose(0, 2, 3, 1)
        self.add_counts(grouped, len(images) * geometry.num_positions)

    def nonzero(self) -> Int64:
        """Return how many activations that are not 0 every term met, (groups, k), but for those counted by place."""
        return np.zeros_like(self.weights.of_terms) if self._terms is None else self._terms

    def zero_operands(self) -> ZeroOperands:
        """Return the counts over everything that was taken in."""
        if self._places is None or self._met is None:
            return self.having_met(0, 0)
        return self.having_met(*MetAtPlaces.of([self._met]).counts(self._places.reshape(-1))[0])

    def having_met(self, terms: int, weights: int) -> ZeroOperands:
        """Return the counts over everything, of which activations at counted places met some terms and weights."""
        everything = self._products * self.num_positions
        if self._terms is not None:
            terms, weights = terms + int(self._terms.sum()), weights + int(np.vdot(self.weights.of_terms, self._terms))
        if self._padded_images and self._met is not None:
            terms += self._padded_images * self._met.padding_terms
            weights += self._padded_images * self._met.padding_weights
        return ZeroOperands(
            everything - self.weights.total * self.num_positions,
            everything - terms * self.weights.num_outputs,
            everything - weights,
        )


@dataclass(frozen=True, eq=False)
class MetAtPlaces:
    """What the places of several layers' images meet, one layer after the other: see `met_at_places`.

    Parameters
    ----------
    terms, weights : int64 array
        As in `PlacesMet`.
    lengths : int64 array, shape (layers, 2)
        Kinds of rows times width, and channels.
    """

    terms: Int64
    weights: Int64
    lengths: Int64

    @staticmethod
    def of(layers: Sequence[PlacesMet]) -> MetAtPlaces:
        """Put layers, at least one, behind each other."""
        terms, weights = ([getattr(met, of).reshape(-1) for met in layers] for of in ("terms", "weights"))
        lengths = [(met.terms.size, met.weights.shape[2]) for met in layers]
        return MetAtPlaces(np.concatenate(terms), np.concatenate(weights), np.array(lengths, dtype=np.int64))

    def counts(self, places: Int32) -> list[tuple[int, int]]:
        """Return what counts by place, of all layers in one line, met of terms and weights in each layer."""
        met = np.empty_like(self.lengths)
        kernels.met_at_places(places, self.terms, self.weights, self.lengths, met)
        counts: list[tuple[int, int]] = met.tolist()
        return counts


class ZeroCounters:
    """Zero operands of the layers of a run. Their counts by place lie in one array, which one call adds up.

    Parameters
    ----------
    layers : iterable of MacLayer
        Every layer.
    by_place : collection of str
        Names of those whose stored codes will be counted by place.
    spatial_first : bool
        Order of the reduction of convolutions.
    """

    def __init__(self, layers: Sequence[MacLayer], by_place: Container[str], spatial_first: bool) -> None:
        weights = {layer.name: NonzeroWeights.of_layer(layer) for layer in layers}
        self._met = {
            layer.name: weights[layer.name].at_places(layer.geometry, spatial_first)
            for layer in layers if layer.name in by_place
        }  # fmt: skip
        ends = np.cumsum([prod(met.counted) for met in self._met.values()], dtype=np.int64)
        self._places = np.zeros(ends[-1] if ends.size else 0, dtype=np.int32)
        parts = dict(zip(self._met, np.split(self._places, ends[:-1]), strict=True)) if ends.size else {}
        self.of = {name: ZeroCounter(some, spatial_first) for name, some in weights.items()}
        for name, met in self._met.items():
            self.of[name] = ZeroCounter(weights[name], spatial_first, met, parts[name].reshape(met.counted))

    @cached_property
    def _at_places(self) -> MetAtPlaces:
        """What counts by place meet; the numbers are many, and only runs that are over ask for them."""
        return MetAtPlaces.of(list(self._met.values()))

    def clear(self) -> None:
        """Forget what was taken in."""
        self._places.fill(0)
        for counter in self.of.values():
            counter.clear()

    def absorb(self, other: ZeroCounters) -> None:
        """Add what counters of the same layers have seen."""
        for name, counter in self.of.items():
            counter.absorb(other.of[name])

    def zero_operands(self) -> dict[str, ZeroOperands]:
        """Return the counts of every layer over everything that was taken in."""
        met = dict.fromkeys(self.of, (0, 0))
        if self._met:
            met.update(zip(self._met, self._at_places.counts(self._places), strict=True))
        return {name: counter.having_met(*met[name]) for name, counter in self.of.items()}


def count_by_place(codes: Codes, zero: int, by_place: ByPlace) -> None:
    """Count the stored codes that are not ``zero``, (images, height, width, channels) or (positions, k), contiguous."""
    kinds, counts = by_place
    kernels.count_unequal_rows(_unsigned(codes.reshape(-1)), bits_of_code(codes, zero), kinds, counts)


def _unsigned(codes: Codes) -> Codes:
    """Return codes as unsigned integers of their width, in 16 bits where they are wider than that."""
    narrow = codes if codes.itemsize <= 2 else codes.astype(np.uint16)
    return narrow.view(unsigned(narrow.itemsize))


def _comparable(operands: Codes) -> Codes:
    """Return unsigned integers of 8 or 16 bits that are 0 where the operands are, ready for the kernels."""
    return for_kernels(_unsigned(operands) if operands.itemsize <= 2 else (operands != 0).view(np.uint8))


def bits_of_code(codes: Codes, code: int) -> np.int64:
    """Return a code as `_unsigned` shows it among others."""
    bits = 8 if codes.itemsize == 1 else 16
    return np.int64(code % (1 << bits))
