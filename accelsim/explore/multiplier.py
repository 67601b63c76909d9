"""How wide an integer requantization multiplier must be: docs/widths.md section 3."""

from __future__ import annotations

from dataclasses import replace
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from accelsim.explore.bounds import Bounds
from accelsim.program.layers import MacLayer
from accelsim.program.rescale import Rescale
from accelsim.simulator.engine.codes import requantize

WIDEST, NARROWEST = 32, 8
"""Bits of an integer multiplier; the codes that the widest one gives are what a narrower one is held to."""

Int64 = npt.NDArray[np.int64]
_MOST_ELEMENTS = 1 << 22

_MADE: WeakKeyDictionary[MacLayer, dict[int, MacLayer]] = WeakKeyDictionary()
"""Layers with multipliers of other widths: the same ones are asked for with every piece of a layer's accumulators."""


def has_integer_multiplier(layer: MacLayer) -> bool:
    """Whether the width of the multiplier is a choice at all."""
    return layer.rescale is not None and layer.rescale.requantizer.multiplier == "integer"


def with_multiplier_bits(layer: MacLayer, bits: int) -> MacLayer:
    """Return a layer whose multipliers have another width."""
    made = _MADE.setdefault(layer, {})
    if bits not in made:
        rescale = layer.multipliers
        requantizer = rescale.requantizer.model_copy(update={"multiplier_bits": bits})
        narrowed = Rescale.of(requantizer, [rescale.reals], np.float64(1), f"layer {layer.name!r}")
        made[bits] = replace(layer, rescale=narrowed)
    return made[bits]


def codes_of(layer: MacLayer, accumulators: Int64, channels: slice = slice(None)) -> npt.NDArray[np.int32]:
    """Bring accumulators (channels, p) to codes as the layer does."""
    rescale = layer.multipliers if layer.multipliers.reals.size == 1 else layer.multipliers.channels(channels)
    return requantize(accumulators, rescale, layer.zero_point, layer.bounds(channels), layer.stored_format)


def proven_multiplier_bits(layer: MacLayer, bounds: Bounds) -> int | None:
    """Return a width from which on no accumulator inside the bounds gets another code, docs/widths.md (9), (10).

    Parameters
    ----------
    layer : MacLayer
        With an integer multiplier.
    bounds : Bounds
        Of its accumulators.

    Returns
    -------
    int or None
        Every width from it to 32 gives the codes of 32 bits. None where an accumulator may leave the range in which the
        requantizer is monotone, so that nothing is proven.
    """
    widest = with_multiplier_bits(layer, WIDEST)
    if not _monotone(widest, bounds):
        return None
    step = max(1, _MOST_ELEMENTS // (2 * (layer.clamp[1] - layer.clamp[0]) + 4))
    narrow = [with_multiplier_bits(layer, bits) for bits in range(NARROWEST, WIDEST)]
    proven = NARROWEST
    for begin in range(0, layer.weights.shape[0], step):
        channels = slice(begin, begin + step)
        points = _jumps(widest, bounds.low[channels], bounds.high[channels], channels)
        proven = max(proven, _narrowest_equal(widest, narrow, points, channels))
    return proven


def needed_multiplier_bits(layer: MacLayer, accumulators: Int64, channels: slice, at_least: int) -> int:
    """Return the narrowest width from which on some accumulators get the codes of 32 bits.

    Parameters
    ----------
    layer : MacLayer
        With an integer multiplier.
    accumulators : int64 array, shape (channels, p)
        Values.
    channels : slice
        Which channels.
    at_least : int
        Narrower widths are not looked at: the answer for other values.

    Returns
    -------
    int
        Bits, ``at_least`` to 32.
    """
    widest = with_multiplier_bits(layer, WIDEST)
    narrow = [with_multiplier_bits(layer, bits) for bits in range(at_least, WIDEST)]
    return _narrowest_equal(widest, narrow, accumulators, channels)


def _narrowest_equal(widest: MacLayer, narrow: list[MacLayer], accumulators: Int64, channels: slice) -> int:
    """Return the width from which on all layers give the widest one's codes."""
    wanted = codes_of(widest, accumulators, channels)
    for layer in reversed(narrow):
        if not np.array_equal(codes_of(layer, accumulators, channels), wanted):
            return layer.multipliers.requantizer.multiplier_bits + 1
    return narrow[0].multipliers.requantizer.multiplier_bits if narrow else WIDEST


def _monotone(layer: MacLayer, bounds: Bounds) -> bool:
    """Whether (21), (24a) and (41) wrap nowhere inside the bounds; (20) and a clamp keep the order."""
    if not layer.multipliers.requantizer.saturates:
        return False
    if len(layer.multipliers.requantizer.rounding) == 1:
        return True
    # a narrower mantissa may round up to the next power of two
    left = max(0, int(layer.multipliers.exponents.max()) + 1) + layer.multipliers.requantizer.pre_shift_bits
    largest = max(int(bounds.high.max()), -int(bounds.low.min()) - 1)
    return largest << left < 1 << 31


def _jumps(layer: MacLayer, low: Int64, high: Int64, channels: slice) -> Int64:
    """Return the accumulators at which codes change, those just below, and the ends: int64 (channels, values).

    The code is a monotone function of the accumulator. So two of them that agree at both sides of every change of the
    one agree everywhere between the ends.
    """
    codes = np.arange(layer.clamp[0] + 1, layer.clamp[1] + 1)
    below = np.repeat(low[:, None], codes.size, axis=1)
    above = np.repeat(high[:, None], codes.size, axis=1)
    # least value of low..high whose code is at least c, by halving; high where there is none
    while (below < above).any():
        middle = below + (above - below) // 2
        reached = codes_of(layer, middle, channels) >= codes
        above = np.where(reached, middle, above)
        below = np.where(reached, below, np.minimum(middle + 1, above))
    return np.concatenate([below, np.maximum(below - 1, low[:, None]), low[:, None], high[:, None]], axis=1)
