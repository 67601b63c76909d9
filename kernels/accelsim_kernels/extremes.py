"""Whole layers proven safe by the extremes of their windows while they run: docs/numerics.md (114), (118)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, callee, kernel
from accelsim_kernels.layer_rows import Places, fill_bases, requantize_lanes
from accelsim_kernels.vectors.code import GROUP_BYTES, LANES, Bytes, prefer_wide_vectors
from accelsim_kernels.vectors.dots import ROWS_OF_NARROW_TILE
from accelsim_kernels.vectors.extreme_tiles import ROWS_OF_TILE, extreme_1, extreme_2, extreme_4

Narrow = npt.NDArray[np.int32]
Wide = npt.NDArray[np.int64]

Terms = tuple[Any, Any, Any, Any, Any]
"""Of the step's arguments ``places``, ``taken``, ``parts``, ``channels`` and ``constants``."""

_FOUR, _TWO = 4 * LANES, 2 * LANES
_ROWS_OF_FOUR, _ROWS_OF_TWO, _ROWS_OF_ONE = (ROWS_OF_TILE[vectors] for vectors in (4, 2, 1))

REACH_ITEMS = 1 << 15
"""Extremes that are held at a time, where an image has no more: with the sums they stay in the second-level cache."""


@callee
def most_of_windows(rows: Bytes, flipped: Int, halvings: Int, steps: Wide, near: Bytes, far: Bytes) -> None:
    """Set ``near[i]`` to the greatest of the activations, or of their complements, of some channels in a window.

    Parameters
    ----------
    rows : uint8 array
        Activations, channels last.
    flipped : int64
        255 for complements ``255 - x'``, else 0.
    halvings : int64
        ``2**halvings`` channels are one item.
    steps : int64 array, shape (2, 2)
        Of both axes of a window: how many taps, and the distance from one to the next in items.
    near, far : uint8 arrays
        Room for the items, or for those of two channels, and as many behind them as a window spans. ``near`` is the
        output; where a window would end behind the activations, anything.
    """
    prefer_wide_vectors()
    flip, size = np.uint8(flipped), rows.size >> halvings
    if halvings == 0:
        for i in range(size):
            near[i] = rows[i] ^ flip
    else:
        most_of_pairs(rows, flipped, near)
        for halving in range(1, halvings):
            left = rows.size >> (halving + 1)
            most_of_pairs(near[: 2 * left], np.int64(0), far)
            for i in range(left):
                near[i] = far[i]
    (columns, across), (rows_of_window, down) = steps
    spread_most(near, columns, across, far[:size])
    spread_most(far, rows_of_window, down, near[:size])


@callee
def most_of_pairs(items: Bytes, flipped: Int, most: Bytes) -> None:
    """Set ``most[i]`` to the greater of ``items[2 * i]`` and the next one, bits flipped."""
    prefer_wide_vectors()
    pairs, flips = items.view(np.uint16), np.uint16(257 * flipped)
    for i in range(pairs.size):
        pair = np.uint16(pairs[i] ^ flips)  # numba widens what is not narrowed at once
        first, second = np.uint16(pair & np.uint16(255)), np.uint16(pair >> np.uint16(8))
        most[i] = np.uint8(first if first > second else second)


@callee
def spread_most(items: Bytes, taps: Int, step: Int, most: Bytes) -> None:
    """Set ``most[i] = max(items[i], items[i + step], ...)`` of as many items as there are taps."""
    prefer_wide_vectors()
    second, third = items[min(1, taps - 1) * step :], items[min(2, taps - 1) * step :]
    for i in range(most.size):  # three at once: most windows have no more
        most[i] = max(max(items[i], second[i]), third[i])
    for tap in range(3, taps):
        others = items[tap * step :]
        for i in range(most.size):
            most[i] = max(most[i], others[i])


@callee
def reach_of_windows(
    rows: Bytes, offset: Int, halvings: Int, steps: Wide, near: Bytes, far: Bytes, reach: Narrow
) -> None:
    """Set reach to what activations lie between in every window, 0 among it: two numbers of 16 bits each.

    Parameters
    ----------
    rows, near, far
        As of `most_of_windows`.
    offset : int64
        What the kernels' operands are less than the activations as the PEs multiply them; with 0 none is negative.
    halvings : int64
        ``2**halvings`` channels make a part.
    steps : int64 array, shape (2, 2)
        As of `most_of_windows`; where no activation is negative, an item is half a part if that is more than a channel.
    reach : int32 array
        Output, one for each part. The low number is the greatest activation and the high one the least one's magnitude;
        where none is negative, they are the greatest of one half of the channels and of the other.
    """
    prefer_wide_vectors()
    if offset == 0 and halvings > 0:
        most_of_windows(rows, np.int64(0), halvings - 1, steps, near, far)
        halves = near[: 2 * (rows.size >> halvings)].view(np.uint16)
        for i in range(halves.size):
            pair = np.int32(halves[i])
            reach[i] = (pair & np.int32(255)) | ((pair >> np.int32(8)) << np.int32(16))
        return
    size, more = rows.size >> halvings, np.int32(offset)
    most_of_windows(rows, np.int64(0), halvings, steps, near, far)
    for i in range(size):
        reach[i] = max(np.int32(near[i]) + more, np.int32(0))
    if offset != 0:
        most_of_windows(rows, np.int64(255), halvings, steps, near, far)
        for i in range(size):
            reach[i] |= max(np.int32(near[i]) - np.int32(255) - more, np.int32(0)) << np.int32(16)


@callee
def part_planes(rows: Bytes, size: Int, planes: Int, apart: Bytes) -> None:
    """Bring images of so many bytes, channels last, to planes of their channels, one behind the other."""
    plane = size // planes
    for image in range(0, rows.size, size):
        for channel in range(planes):
            source, target = rows[image + channel : image + size], apart[image + channel * plane :]
            for i in range(plane):
                target[i] = source[i * planes]


@callee
def bound_rows(
    rows: Bytes, bases: Wide, terms: Terms, reach: Narrow, corners: Wide, offset: Int, sums: Narrow, found: Bytes
) -> None:
    """Multiply positions with channels and find those that are not proven safe; arguments are those of the step."""
    places, taken, parts, channels, constants = terms
    column = 0
    while column < sums.shape[1]:
        left, begin = sums.shape[1] - column, column * places.size * GROUP_BYTES
        if left >= _FOUR:
            for first in range(0, sums.shape[0], _ROWS_OF_FOUR):
                extreme_4(
                    rows, bases, first, places, taken, channels, begin, reach, corners, parts, constants, offset, sums,
                    column, found,
                )  # fmt: skip
            column += _FOUR
        elif left >= _TWO:
            for first in range(0, sums.shape[0], _ROWS_OF_TWO):
                extreme_2(
                    rows, bases, first, places, taken, channels, begin, reach, corners, parts, constants, offset, sums,
                    column, found,
                )  # fmt: skip
            column += _TWO
        else:
            for first in range(0, sums.shape[0], _ROWS_OF_ONE):
                extreme_1(
                    rows, bases, first, places, taken, channels, begin, reach, corners, parts, constants, offset, sums,
                    column, found,
                )  # fmt: skip
            column += LANES


@kernel
def bound_layer(
    rows: Bytes, image: tuple[Any, Any, Any, Any], where: tuple[Places, Places], extremes: tuple[Any, Any, Any],
    terms: Terms, sums: Narrow, storing: tuple[Any, Any], codes: Bytes, part: tuple[Any, Any, Any], found: Bytes,
) -> None:  # fmt: skip
    """Multiply all windows with the channels of a group, store their codes, and find those that are not proven safe.

    Parameters
    ----------
    rows : uint8 array
        Activations of images, channels last, with some slack behind them.
    image : tuple of int64
        Bytes of an image; how many planes its channels become, 1 where they stay; where those of the group begin, in
        bytes and in items.
    where : tuple
        Where windows begin, counted in bytes and in items.
    extremes : tuple
        Offset, halvings and steps of `reach_of_windows`.
    terms : tuple
        See `Terms`.
    sums : int32 array, shape (positions, channels)
        Room for sums; its size is how many positions are worked on at a time, a multiple of `ROWS_OF_NARROW_TILE`.
    storing : tuple
        ``constants`` and ``two`` of `accelsim_kernels.layer_rows.requantize_lanes`.
    codes, part
        As of `accelsim_kernels.layer_rows.dot_layer`.
    found : uint8 array, shape (positions,)
        Output, as many as are looked at: whether a register may leave its range. The codes are those of exact sums.
    """
    (size, planes, first_byte, first_item), (offset, halvings, steps), (stride, channel, valid) = image, extremes, part
    windows, at_a_time, flat = where[0][0] * where[0][1], sums.shape[0], sums.reshape(-1)
    items, span = size >> halvings, (steps[0, 0] - 1) * steps[0, 1] + (steps[1, 0] - 1) * steps[1, 1]
    num_images = (found.size + windows - 1) // windows
    held = size >> min(halvings, 1)  # before items are put together once more
    images = min(max(REACH_ITEMS // held, 1), num_images)
    near, far = np.empty(images * held + span, dtype=np.uint8), np.empty(images * held + span, dtype=np.uint8)
    reach, marks = np.empty(images * items, dtype=np.int32), np.empty(at_a_time, dtype=np.uint8)
    bases, corners = np.empty(at_a_time, dtype=np.int64), np.empty(at_a_time, dtype=np.int64)
    apart = np.empty(images * size + GROUP_BYTES if planes > 1 else 0, dtype=np.uint8)
    for first in range(0, num_images, images):
        some = min(images, num_images - first)
        own, done = rows[first * size :], first * windows
        if planes > 1:
            part_planes(own[: some * size], size, planes, apart)
            own = apart
        reach_of_windows(own[: some * size], offset, halvings, steps, near, far, reach)
        left = min(some * windows, found.size - done)
        for begin in range(0, left, at_a_time):
            count = min(at_a_time, left - begin)
            tiles = (count + ROWS_OF_NARROW_TILE - 1) // ROWS_OF_NARROW_TILE * ROWS_OF_NARROW_TILE
            for places, into in ((where[0], bases), (where[1], corners)):
                fill_bases(begin, places, into[:count])
                into[count:tiles] = into[count - 1]
            marks[:tiles] = 0
            bound_rows(
                own[first_byte:], bases[:tiles], terms, reach[first_item:], corners, offset, sums[:tiles], marks
            )  # fmt: skip
            for i in range(count):
                found[done + begin + i] = marks[i]
            place = (done + begin) * stride + channel
            requantize_lanes(flat, count, valid, *storing, codes, place, stride)
