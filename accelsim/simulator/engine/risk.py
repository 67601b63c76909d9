"""Which outputs of channels at risk may overflow, by their own products: docs/numerics.md (103) to (105)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.machine import Machine
from accelsim.simulator.engine.bounds import ChannelBounds, register
from accelsim.simulator.engine.exact import exact_sums, in_large_pages
from accelsim_kernels.exact import mark_at_risk
from accelsim_kernels.vectors.steps import CHANNELS

Integers = npt.NDArray[Any]
Int64 = npt.NDArray[np.int64]
Marks = npt.NDArray[np.bool_]
Limits = tuple[np.int64, np.int64]

_GROUP = 16
"""Successive products that the first bound takes together."""

_SAMPLE = 128
"""Positions that are looked at before all are."""

_FEW = 0.25
"""Share of the outputs at risk up to which it pays to sum all of them twice and step these."""

_WIDEST_OPERAND = 1 << 16
"""Greatest magnitude of an operand: sums of `MAX_REDUCTION` products and a start stay far inside 64 bits."""

_GROUP_MACS = 1 << 20
"""What handling one more group of channels costs, in products stepped in the same time."""


@dataclass(frozen=True)
class AtRisk:
    """Outputs of which every addition must be stepped.

    Parameters
    ----------
    positions : int64 array
        Positions with such outputs, and perhaps others.
    columns : integer array, shape (k, positions)
        Their activations.
    marks : bool array, shape (channels, positions)
        The outputs.
    """

    positions: Int64
    columns: Integers
    marks: Marks


@dataclass(frozen=True, eq=False)
class OutputBounds:
    """Bounds of the partial sums of single outputs, in any order.

    Parameters
    ----------
    bounds : ChannelBounds
        With weights and start values, in units of the accumulator, of the channels that no bound proves as a whole.
    rows : int64 array
        Their numbers.
    ends : tuple of int
        Range of the activations.
    machine : Machine
        Dataflow, widths.

    Notes
    -----
    With ``S = Σ_k w·x`` and ``A = Σ_k |w·x|``, the positive products of an output add up to (S + A) / 2 and the
    negative ones to (S - A) / 2. Whatever has been added so far, in any order and grouping, is a sum of some of them,
    which lies between the two. Where ``start`` plus both fits the accumulator, and both fit the partial sum or the
    adder tree, no addition is an event: (103), (104). A is a sum of products too, of |w| and |x|, and is computed as
    the sums are.

    This is asked only of positions that a cheaper bound leaves over, (105): in a group of successive products none has
    an activation of greater magnitude than the group's greatest, so this times the weights of either sign bounds them.
    """

    bounds: ChannelBounds
    rows: Int64
    ends: tuple[int, int]
    machine: Machine

    @staticmethod
    def of(bounds: ChannelBounds, rows: Int64, ends: tuple[int, int], machine: Machine) -> OutputBounds:
        """Choose some channels of all."""
        some = ChannelBounds(bounds.weights[rows], bounds.start[rows], bounds.weight_zero_points[rows])
        return OutputBounds(some, rows, ends, machine)

    @property
    def _limits(self) -> tuple[Limits, Limits]:
        """Ranges of the accumulators, and of the partial sums or adder trees."""
        machine, inner = self.machine, None
        if machine.dataflow != "output_stationary":
            inner = machine.adder_tree_bits if machine.dataflow == "broadcast" else machine.partial_sum_bits
        accumulator, partial = (register(bits, machine.overflow)[:2] for bits in (machine.accumulator_bits, inner))
        return accumulator, partial

    def positions_left(self, columns: Integers) -> Int64 | None:
        """Return the positions that the cheaper bound does not prove safe for all channels.

        Parameters
        ----------
        columns : integer array, shape (k, p)
            Activations, contiguous.

        Returns
        -------
        int64 array or None
            None where it does not pay to prove single outputs: too many of a sample are at risk, products are
            truncated, operands are too wide.
        """
        weights, start = self.bounds.weights, self.bounds.start
        widest = max(map(abs, (*self.ends, int(weights.min()), int(weights.max()))))
        if self.machine.product_shift_bits > 0 or widest > _WIDEST_OPERAND:
            return None
        (_, accumulator), (_, partial) = self._limits
        margins = np.minimum(accumulator - np.abs(start), partial)
        positions = np.flatnonzero((_group_bounds(weights, columns, self.ends) > margins[:, None]).any(axis=0))
        step = positions.size // _SAMPLE
        if step > 1:
            sample = columns.take(positions[::step], axis=1)
            marks = self._mark(sample, start[:, None] + _sums(weights, sample, self.ends))
            if marks.mean() * positions.size > _FEW * columns.shape[1]:
                return None
        return positions

    def outputs_at_risk(self, columns: Integers, positions: Int64, accumulators: Int64) -> AtRisk:
        """Find the outputs whose registers may leave their range on the way, in some order of additions.

        Parameters
        ----------
        columns : integer array, shape (k, p)
            Activations, contiguous.
        positions : int64 array
            The positions to look at.
        accumulators : int64 array, shape (n, p)
            Exact sums of all channels.

        Returns
        -------
        AtRisk
            All other outputs of the channels have no events, and their values are the exact sums.
        """
        if positions.size < columns.shape[1]:
            columns, accumulators = columns.take(positions, axis=1), accumulators.take(positions, axis=1)
        if self.rows.size < len(accumulators):
            accumulators = accumulators[self.rows]
        return AtRisk(positions, columns, self._mark(columns, accumulators))

    def _mark(self, columns: Integers, sums: Int64) -> Marks:
        """Mark what (103) and (104) do not prove safe."""
        marks = np.empty((len(self.rows), columns.shape[1]), dtype=np.bool_)
        if marks.size:
            weights, most = np.abs(self.bounds.weights), max(map(abs, self.ends))
            magnitudes = _sums(weights, _magnitudes(columns, self.ends), (0, most))
            mark_at_risk(sums, magnitudes, self.bounds.start, *self._limits, marks)
        return marks


def _sums(weights: Integers, columns: Integers, ends: tuple[int, int]) -> Int64:
    """Return ``Σ_k W[n, k] * X[k, p]``."""
    nothing = np.zeros(len(weights), dtype=np.int64)
    sums = in_large_pages((len(weights), columns.shape[1]))
    bounds = ChannelBounds(weights, nothing, nothing)
    exact_sums(bounds, columns, *ends, np.arange(len(weights)), sums)
    return sums


def _magnitudes(columns: Integers, ends: tuple[int, int]) -> Integers:
    """Return |X|."""
    magnitudes: Integers = columns if ends[0] >= 0 else np.abs(columns.astype(np.int32))
    return magnitudes


def _group_bounds(weights: Integers, columns: Integers, ends: tuple[int, int]) -> Int64:
    """Return what the positive and what the negative products of every output exceed in no case, (105)."""
    greatest = _by_group(_magnitudes(columns, ends), np.maximum)
    weights = np.ascontiguousarray(weights.T)
    if ends[0] >= 0:
        either = np.maximum(_by_group(np.maximum(weights, 0), np.add), -_by_group(np.minimum(weights, 0), np.add))
    else:
        either = _by_group(np.abs(weights), np.add)
    return _sums(np.ascontiguousarray(either.T), greatest, (0, max(map(abs, ends))))


def _by_group(operands: Integers, operation: np.ufunc) -> Integers:
    """Reduce every `_GROUP` successive rows, and the rest at the end, to one."""
    whole = len(operands) // _GROUP
    grouped = operands[: whole * _GROUP].reshape(whole, _GROUP, operands.shape[1])
    parts: Integers = operation.reduce(grouped, axis=1, dtype=operands.dtype)
    if whole * _GROUP < len(operands):
        rest = operation.reduce(operands[whole * _GROUP :], axis=0, dtype=operands.dtype)
        parts = np.concatenate([parts, rest[None]])
    return parts


def groups_at_risk(marks: Marks, reduction: int) -> Iterator[tuple[Int64, Int64]]:
    """Gather marked outputs into groups that are stepped at once.

    Parameters
    ----------
    marks : bool array, shape (channels, positions)
        The outputs that must be stepped.
    reduction : int
        Products of each.

    Yields
    ------
    tuple of int64 arrays
        Channels and positions, as places in the marks. Every marked output is in exactly one group.

    Notes
    -----
    Channels with many marked outputs come first, a vector's six at a time. Six more join a group where stepping all its
    channels at all its positions costs no more than a group of their own.
    """
    counts = np.count_nonzero(marks, axis=1)
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    fixed = _GROUP_MACS / reduction
    group: Marks = np.zeros(marks.shape[1], dtype=np.bool_)
    first = 0
    for begin in range(0, order.size, CHANNELS):
        more: Marks = np.any(marks[order[begin : begin + CHANNELS]], axis=0)
        end = min(begin + CHANNELS, order.size)
        together = np.count_nonzero(group | more) * (end - first)
        apart = np.count_nonzero(group) * (begin - first) + np.count_nonzero(more) * (end - begin)
        if begin and together > apart + fixed:
            yield order[first:begin], np.flatnonzero(group)
            first, group = begin, more
        else:
            group = group | more
    if order.size:
        yield order[first:], np.flatnonzero(group)
