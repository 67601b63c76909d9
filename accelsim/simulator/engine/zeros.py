"""Zero operands of a layer from its operands, piece by piece: docs/energy.md section 3."""

from __future__ import annotations

from collections.abc import Container, Sequence
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.program.geometry import Geometry
from accelsim.program.layers import MacLayer
from accelsim.simulator.counts import ZeroOperands
from accelsim.simulator.engine.meeting import Meeting
from accelsim.simulator.engine.nonzero_weights import (
    MetAtPlaces,
    NonzeroWeights,
    PlacesMet,
    comparable,
    unsigned_codes,
)
from accelsim_kernels import activity as kernels

Codes = npt.NDArray[Any]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

ByPlace = tuple[Int64, Int32]
"""Kind of each row of an image, and counts of shape (kinds, width * channels), to which is added."""


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
        kernels.count_nonzero_rows(comparable(columns), counts)
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
            comparable(images), geometry.kernel_shape, geometry.strides, geometry.pads[:2], geometry.dilations,
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
    kernels.count_unequal_rows(unsigned_codes(codes.reshape(-1)), bits_of_code(codes, zero), kinds, counts)


def bits_of_code(codes: Codes, code: int) -> np.int64:
    """Return a code as `unsigned_codes` shows it among others."""
    bits = 8 if codes.itemsize == 1 else 16
    return np.int64(code % (1 << bits))
