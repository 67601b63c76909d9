"""Norms of the activations of parts of a reduction, rounded up: what docs/numerics.md (108) bounds products by.

The panels are those of `accelsim_kernels.vectors.columns`.
"""

from __future__ import annotations

from math import isqrt
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir

from accelsim_kernels._jit import Int
from accelsim_kernels.vectors.code import (
    GROUP_BYTES,
    INT32,
    INT64,
    LANES,
    VECTOR,
    Arrays,
    Bytes,
    cgutils,
    index,
    spread,
    vectorised,
)
from accelsim_kernels.vectors.columns import POSITIONS
from accelsim_kernels.vectors.products import plus_squares, plus_words

_VECTORS = POSITIONS // LANES


def _norms(words: bool, shifted: bool) -> Any:
    """Make the step for a panel.

    Parameters
    ----------
    words : bool
        Two terms of 16 bits in a group, signed; else four of 8 bits, unsigned.
    shifted : bool
        Whether terms may have more than 10 bits, so that norms are shifted.

    Returns
    -------
    callable
        See `scalar` below.
    """

    def scalar(
        packed: Bytes, place: Int, num_groups: Int, part_groups: Int, shift: Int, norms: npt.NDArray[np.int32],
        panel: Int,
    ) -> None:  # fmt: skip
        """Set ``norms[panel, part, i]`` to no less than ``√Σ x² / 2**shift`` over a part's terms of a position.

        Parameters
        ----------
        packed : uint8 array
            Bytes of panels: by group and position.
        place : int64
            Where the panel begins.
        num_groups, part_groups : int64
            Groups of the reduction and of a part; the last one may have fewer.
        shift : int64
            By how many bits norms are shifted to the right, so that they have no more than 14; 0 unless ``shifted``.
        norms : int32 array, shape (panels, at least parts, 64)
            Output.
        panel : int64
            Where it goes.
        """
        terms = packed[place : place + num_groups * GROUP_BYTES * POSITIONS].view(np.int16 if words else np.uint8)
        groups = terms.astype(np.int64).reshape(num_groups, POSITIONS, -1)
        for part, begin in enumerate(range(0, num_groups, part_groups)):
            for i in range(POSITIONS):
                some = (groups[begin : begin + part_groups, i] ** 2).sum(axis=1)
                total = sum(-(-int(square) >> 2 * shift) for square in some)
                norms[panel, part, i] = isqrt(total - 1) + 1 if total else 0

    def generate(builder: Any, arrays: Arrays) -> None:
        _, place, num_groups, part_groups, shift, _, panel = arrays.values
        most, zeros = index(POSITIONS * GROUP_BYTES), ir.Constant(VECTOR, None)
        totals, roots = ([cgutils.alloca_once(builder, VECTOR) for _ in range(_VECTORS)] for _ in range(2))
        twice = spread(builder, builder.trunc(builder.add(shift, shift), INT32))
        ones = ir.Constant(VECTOR, [1] * LANES)
        rest = builder.sub(builder.shl(ones, twice), ones)
        parts = builder.extract_value(arrays.array(5).shape, 1)
        with cgutils.for_range_slice(builder, index(0), num_groups, part_groups, intp=INT64, inc=True) as (begin, part):
            for register in (*totals, *roots):
                builder.store(zeros, register)
            left = builder.sub(num_groups, begin)
            count = builder.select(builder.icmp_signed("<", left, part_groups), left, part_groups)
            with cgutils.for_range(builder, count, intp=INT64) as some:
                here = builder.add(place, builder.mul(builder.add(begin, some.index), most))
                for v, total in enumerate(totals):
                    terms = arrays.load(0, builder.add(here, index(v * GROUP_BYTES * LANES)), VECTOR)
                    if not shifted:
                        builder.store(plus_squares(builder, builder.load(total), terms, words), total)
                        continue
                    squares = builder.add(plus_squares(builder, zeros, terms, words), rest)
                    builder.store(builder.add(builder.load(total), builder.lshr(squares, twice)), total)
            for bit in reversed(range(14 if shifted else 12)):
                for total, root in zip(totals, roots, strict=True):
                    longer = builder.or_(builder.load(root), ir.Constant(VECTOR, [1 << bit] * LANES))
                    fits = builder.icmp_signed("<", plus_words(builder, zeros, longer, longer), builder.load(total))
                    builder.store(builder.select(fits, longer, builder.load(root)), root)
            line = builder.mul(builder.add(builder.mul(panel, parts), part), index(POSITIONS))
            for v, (total, root) in enumerate(zip(totals, roots, strict=True)):
                some = builder.icmp_signed(">", builder.load(total), zeros)
                one_more = builder.add(builder.load(root), builder.zext(some, VECTOR))
                arrays.store(one_more, 5, builder.add(line, index(v * LANES)), 4)

    return vectorised(scalar, generate)


norms_u8, norms_s16 = _norms(False, False), _norms(True, True)
norms_of_bytes = _norms(True, False)
"""Of terms of 8 bits that were widened to 16."""
