"""Layers that run channels last: what is the same for all runs on a machine, and how codes come to them and back."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from accelsim.machine import Machine
from accelsim.program.layers import MacLayer
from accelsim.simulator.engine.bounds import for_kernels
from accelsim.simulator.engine.layer_ranges import LayerRanges
from accelsim.simulator.engine.safe import SafeLayer
from accelsim.simulator.layers.registry import Codes

_MADE: WeakKeyDictionary[MacLayer, tuple[tuple[Machine, bool], RowForm | None]] = WeakKeyDictionary()
"""Layers that ran before, with the machine of their last run and whether it tracked ranges."""


@dataclass(frozen=True, eq=False)
class RowForm:
    """How a layer runs channels last.

    Parameters
    ----------
    safe : SafeLayer
        The layer.
    always_safe : bool
        No register can overflow on the machine, whatever the codes.
    ranges : LayerRanges or None
        What finds its running range, where that is tracked.
    asymmetric_groups : int
        Groups whose weights have a zero point that is not 0.
    """

    safe: SafeLayer
    always_safe: bool
    ranges: LayerRanges | None
    asymmetric_groups: int

    @staticmethod
    def of(layer: MacLayer, machine: Machine, tracks_range: bool) -> RowForm | None:
        """Return the form, made once for runs on one machine; None where the layer has none for all that is tracked.

        Parameters
        ----------
        layer : MacLayer
            What runs.
        machine : Machine
            Where it runs.
        tracks_range : bool
            Whether running ranges are tracked.
        """
        made, conditions = _MADE.get(layer), (machine, tracks_range)
        if made is None or made[0] != conditions:
            made = _MADE[layer] = conditions, RowForm._prepared(layer, *conditions)
        return made[1]

    @staticmethod
    def _prepared(layer: MacLayer, machine: Machine, tracks_range: bool) -> RowForm | None:
        """Return the form, see `of`."""
        safe = SafeLayer.of(layer, machine)
        if safe is None:
            return None
        ranges = LayerRanges.of(safe, machine) if tracks_range else None
        if tracks_range and ranges is None:
            return None
        return RowForm(safe, safe.is_safe_always(machine), ranges, asymmetric_groups(layer))

    @staticmethod
    def rows(layer: MacLayer, codes: Codes) -> Codes:
        """Return codes, samples along axis 0, as kernels read them: contiguous, channels last, or vectors."""
        if layer.geometry is None:
            return for_kernels(codes.reshape(-1, layer.reduction))
        channels, height, width = layer.geometry.input_shape
        if layer.depth is not None:
            codes = unfolded(layer, codes, layer.pad_value + layer.input_offset)
        elif layer.channels_last:
            return for_kernels(codes.reshape(-1, height, width, channels))
        return for_kernels(codes.reshape(-1, channels, height, width).transpose(0, 2, 3, 1))

    @staticmethod
    def stored(layer: MacLayer, rows: Codes, num_samples: int) -> Codes:
        """Return what a layer computed channels last as it stores it: (samples, *output shape)."""
        shape = num_samples, *layer.output_shape
        if layer.geometry is None or (layer.channels_last and layer.depth is None):
            return rows.reshape(shape)
        if layer.depth is None:
            return rows.transpose(0, 3, 1, 2).reshape(shape)
        volumes = rows.reshape(-1, layer.depth.num_positions, *rows.shape[1:])
        return volumes.transpose(0, 4, 1, 2, 3).reshape(shape)


def asymmetric_groups(layer: MacLayer) -> int:
    """Return in how many groups of a layer weights have a zero point that is not 0."""
    return int(layer.weight_zero_points.reshape(layer.groups, -1).any(axis=1).sum())


def unfolded(layer: MacLayer, values: Codes, pad: int) -> Codes:
    """Return the planes of a three-dimensional convolution, (planes, channels * taps, height, width), contiguous.

    Parameters
    ----------
    layer : MacLayer
        The convolution.
    values : integer array, samples along axis 0
        Codes or operands.
    pad : int
        What a padded tap holds among them.
    """
    geometry, depth = layer.geometry, layer.depth
    assert geometry is not None
    assert depth is not None
    channels, height, width = geometry.input_shape
    volumes = values.reshape(-1, channels // depth.kernel, depth.length, height, width)
    shape = (volumes.shape[0], depth.num_positions, channels // depth.kernel, depth.kernel, height, width)
    planes_of_taps = np.full(shape, pad, dtype=values.dtype)
    for position, taps in enumerate(depth.taps()):
        for tap, index in enumerate(taps):
            if index is not None:
                planes_of_taps[:, position, :, tap] = volumes[:, :, index]
    return planes_of_taps.reshape(-1, *geometry.input_shape)
