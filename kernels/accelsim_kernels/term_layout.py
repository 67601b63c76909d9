"""Weights and activations of a product in the order in which the steps of six rows by sixteen lanes read them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, callee, kernel
from accelsim_kernels.vectors.code import LANES
from accelsim_kernels.vectors.columns import POSITIONS

Narrow = npt.NDArray[np.int32]

Form = tuple[Any, Any, Any, Any, Any, Any, Any]
"""How operands lie for `accelsim_kernels.ordered_tiles.step_tile`: terms after which a new pair begins; by how much the
lanes' and the rows' terms are shifted; numbers of a row; whether they are halves; items of a block of lanes; the
`Stepping`."""


@callee
def lay_terms(values: Any, num_terms: Int, tile: Int, shift: Int, paired: bool, halves: bool, numbers: Narrow) -> None:
    """Bring terms into the order in which steps read them.

    Parameters
    ----------
    values : int8, uint8, int16 or int32 array
        Terms.
    num_terms, tile, shift : int64
        Terms; after how many a new pair begins; by how much each is shifted to the left.
    paired, halves : bool
        The form; see `accelsim_kernels.vectors.tile`.
    numbers : int32 array
        Output; beside the last term of an odd tile is 0.

    Notes
    -----
    Where no tile is odd, or there is but one, the loops have no branches and run in vectors.
    """
    whole: Int = 0
    if paired and (tile % 2 == 0 or tile >= num_terms):
        whole = num_terms // 2 * 2
        if halves:
            for k in range(whole):
                odd = k & 1
                numbers[k] = (np.int64(values[k]) << (shift + 16 * odd)) & (0xFFFF | -odd)
        else:
            for i in range(whole // 2):
                low, high = np.int64(values[2 * i]), np.int64(values[2 * i + 1])
                numbers[i] = (low << shift) & 0xFFFF | high << (16 + shift)
    place = whole if halves else whole // 2
    for first in range(whole, num_terms, tile):
        last = min(first + tile, num_terms)
        for k in range(first, last, 2 if paired else 1):
            low, high = np.int64(values[k]) << shift, np.int64(0)
            if paired and k + 1 < last:
                high = np.int64(values[k + 1]) << shift
            if not paired:
                numbers[place] = low
            elif halves:
                numbers[place], numbers[place + 1] = low & 0xFFFF, high << 16
                place += 1
            else:
                numbers[place] = low & 0xFFFF | high << 16
            place += 1


@kernel
def lay_numbers(weights: Narrow, tile: Int, shift: Int, paired: bool, halves: bool, numbers: Narrow) -> None:
    """Bring rows' terms into the order in which steps read them.

    Parameters
    ----------
    weights : int32 array, shape (rows, k)
        Terms.
    tile : int64
        Terms after which a new pair begins.
    shift : int64
        By how much each is shifted to the left.
    paired, halves : bool
        The form; see `accelsim_kernels.vectors.tile`.
    numbers : int32 array, shape (rows or more, length)
        Output, of zeros.
    """
    for n in range(weights.shape[0]):
        lay_terms(weights[n], weights.shape[1], tile, shift, paired, halves, numbers[n])


@callee
def lay_channels(weights: Any, num_terms: Int, form: Any, words: Narrow, as_lanes: bool, paired: bool) -> None:
    """Lay all weights out in a form.

    Parameters
    ----------
    weights : int8 or int16 array, shape (n, length)
        In whole groups.
    num_terms : int64
        K.
    form : tuple
        See `Form`.
    words : int32 array, shape (blocks of channels, words) or (n, words)
        Output; lanes that are no channels are left alone.
    as_lanes, paired : bool
        Whether channels are lanes, and whether two terms are a word.
    """
    tile, lane_shift, row_shift, _, halves, _, _ = form
    line = np.empty(words.shape[1] // LANES, dtype=np.int32)
    for n in range(weights.shape[0]):
        if as_lanes:
            lay_terms(weights[n], num_terms, tile, lane_shift, paired, halves and not as_lanes, line)
            own = words[n // LANES]
            for i in range(line.size):
                own[i * LANES + n % LANES] = line[i]
        else:
            lay_terms(weights[n], num_terms, tile, row_shift, paired, halves, words[n])


@callee
def lay_position(
    packed: Any, position: Int, num_terms: Int, form: Any, paired: bool, line: Any, numbers: Narrow
) -> None:
    """Lay the activations of a position of some panels out as a row.

    Parameters
    ----------
    packed : uint8 or int16 array
        Panels.
    position : int64
        Counted from the first panel's first.
    num_terms, form, paired
        As of `lay_channels`.
    line : uint8 or int16 array, shape (whole groups,)
        Overwritten.
    numbers : int32 array
        Output.
    """
    tile, _, shift, _, halves, _, _ = form
    words, groups = packed.view(np.int32), line.view(np.int32)
    own = words[position // POSITIONS * groups.size * POSITIONS + position % POSITIONS :]
    for group in range(groups.size):
        groups[group] = own[group * POSITIONS]
    lay_terms(line, num_terms, tile, shift, paired, halves, numbers)


@callee
def lay_block(packed: Any, position: Int, num_terms: Int, form: Any, paired: bool, line: Any, words: Narrow) -> None:
    """Lay the activations of sixteen positions of some panels out as lanes.

    Parameters
    ----------
    packed, num_terms, form, paired, line
        As of `lay_position`.
    position : int64
        The first of them, a multiple of sixteen.
    words : int32 array
        Output: by pair of terms, or by term, then by position.
    """
    tile, shift, _, _, _, _, _ = form
    groups, per_group = line.view(np.int32), line.size // line.view(np.int32).size
    own = packed.view(np.int32)[position // POSITIONS * groups.size * POSITIONS + position % POSITIONS :]
    if paired and (tile % 2 == 0 or tile >= num_terms):  # no pair is cut
        narrow, bits = per_group == 4, 8 if per_group == 4 else 16
        for pair in range(words.size // LANES):
            group, begin = (pair // 2, pair % 2 * 16) if narrow else (pair, 0)
            for lane in range(LANES):
                word = np.int64(own[group * POSITIONS + lane]) >> begin
                low, high = word << shift, word >> bits
                if narrow:
                    low, high = (word & 0xFF) << shift, high & 0xFF
                words[pair * LANES + lane] = low & 0xFFFF | high << (16 + shift)
        return
    column = np.empty(words.size // LANES, dtype=np.int32)
    for lane in range(LANES):
        for group in range(groups.size):
            groups[group] = own[group * POSITIONS + lane]
        lay_terms(line, num_terms, tile, shift, paired, False, column)
        for i in range(column.size):
            words[i * LANES + lane] = column[i]
