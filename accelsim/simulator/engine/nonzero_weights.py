"""Weights that are not 0, by what meets them: terms of the reduction, and places of stored images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from accelsim.program.geometry import Geometry
from accelsim.program.layers import MacLayer
from accelsim.simulator.engine.bounds import for_kernels
from accelsim.simulator.engine.dots import unsigned
from accelsim.simulator.engine.meeting import Meeting
from accelsim_kernels import activity as kernels

Codes = npt.NDArray[Any]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

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
        for group, count in zip(comparable(shaped), counts, strict=True):
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


def counter_bytes(layer: MacLayer) -> int:
    """Return what the counters by place of a layer take."""
    geometry = layer.geometry
    if geometry is None or geometry.is_pointwise:
        length = layer.groups * layer.reduction
        return 4 * max(1, _REPEATED // length) * length
    channels, _, width = geometry.input_shape
    return 4 * int(Meeting.of(geometry).rows.shape[1]) * width * channels


def unsigned_codes(codes: Codes) -> Codes:
    """Return codes as unsigned integers of their width, in 16 bits where they are wider than that."""
    narrow = codes if codes.itemsize <= 2 else codes.astype(np.uint16)
    return narrow.view(unsigned(narrow.itemsize))


def comparable(operands: Codes) -> Codes:
    """Return unsigned integers of 8 or 16 bits that are 0 where the operands are, ready for the kernels."""
    return for_kernels(unsigned_codes(operands) if operands.itemsize <= 2 else (operands != 0).view(np.uint8))
