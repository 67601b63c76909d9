"""Matrix products with channels at risk: all sums and their bounds in one pass, then what those leave is stepped."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.machine import Machine
from accelsim.simulator.engine.bounds import ChannelBounds, for_kernels, register
from accelsim.simulator.engine.events import ListedEvents
from accelsim.simulator.engine.exact import ColumnSurvey
from accelsim.simulator.engine.tracked import Layout, inner_bits, layout, order_in_lanes
from accelsim_kernels.column_risk import limit_channels, sum_and_step
from accelsim_kernels.marked_outputs import ALONE, FEW, THIN
from accelsim_kernels.processor import has_dot_instructions, settings, takes_bytes
from accelsim_kernels.vectors.code import GROUP_BYTES, LANES

Integers = npt.NDArray[Any]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

_WIDEST = 30
"""Widest accumulators that the steps take, docs/numerics.md (102)."""

_NOBODY = np.zeros(0, dtype=np.int32)
_NO_INNER = _NOBODY, _NOBODY, np.int64(0), np.int64(0)
"""The registers inside a tile where they have no width."""

_NO_FORM = (*[np.int64(0)] * 4, False, np.int64(0), (np.int64(0),) * 6)
"""A form in which nothing is stepped."""

_MOST = 10
"""Of 16 rows, how many are stepped after all sums were made; where more must be, it is faster to step all at once."""


_MOST_ALONE, _ALL = 48, 1 << 10
"""The same where no row is stepped whole, but all outputs could be; and where that would take 64-bit lanes."""


@dataclass(frozen=True, eq=False)
class ColumnsAtRisk:
    """A matrix product in the form that the fast kernels take, on a machine on which its outputs may overflow.

    Parameters
    ----------
    weights : int8 or int16 array, shape (n, length)
        In whole groups of `GROUP_BYTES`.
    columns : integer array, shape (k, p)
        Activations, of 8 bits without a sign or of 16 with one, as the weights are.
    start : int64 array, shape (n,)
        What the accumulators are loaded with.
    bounds : int32 array, shape (4, n)
        See `accelsim_kernels.column_risk.limit_channels`.
    greatest : int64
        Greatest magnitude of a weight.
    inner : tuple
        See `accelsim_kernels.column_risk`.
    steps : tuple
        See `accelsim_kernels.marked_tiles.Steps`.
    lane : integer array
        Empty, of the type of the lanes' terms.
    limits : tuple of int64
        ``few``, ``thin`` and ``most`` of `accelsim_kernels.column_risk.sum_and_step`.
    safe : bool
        Whether no register can overflow, where nothing is added by (8).
    """

    weights: Integers
    columns: Integers
    start: Int64
    bounds: Int32
    greatest: np.int64
    inner: tuple[Any, ...]
    steps: tuple[Any, ...]
    lane: Integers
    limits: tuple[np.int64, np.int64, np.int64]
    safe: bool

    @staticmethod
    def of(
        bounds: ChannelBounds, columns: Integers, ends: tuple[int, int], machine: Machine, tile: int
    ) -> ColumnsAtRisk | None:
        """Return the product in this form; None where a value may leave its 32 bits.

        Parameters
        ----------
        bounds : ChannelBounds
            With weights and start values, in units of the accumulator.
        columns : integer array, shape (k, p)
            Activations.
        ends : tuple of int
            Their range.
        machine : Machine
            Dataflow, widths, overflow mode.
        tile : int
            Products that reach the accumulator in one addition.

        Notes
        -----
        Twice the sum of the magnitudes of a channel's weights, times the greatest activation, fits 32 bits.
        """
        narrow, most = bounds.narrow, max(map(abs, ends))
        if narrow is None or machine.product_shift_bits > 0 or not has_dot_instructions():
            return None
        if machine.accumulator_bits > _WIDEST:
            return None
        bytes_fit = narrow.itemsize == 1 and ends[0] >= 0 and ends[1] <= 255
        words = not (bytes_fit and takes_bytes())
        if not bytes_fit and (most > 1 << 15 or ends[1] >= 1 << 15):
            return None
        weights, start = _in_groups(narrow, words), for_kernels(bounds.start)
        limits = np.empty((4, len(weights)), np.int32)
        least, greatest, widest, safe = limit_channels(
            weights, start, (np.int64(min(0, ends[0])), np.int64(max(0, ends[1]))),
            register(machine.accumulator_bits, machine.overflow)[:2],
            register(inner_bits(machine), machine.overflow)[:2], limits,
        )  # fmt: skip
        own = int(least), int(greatest)
        steps = _steps(machine, narrow.shape[1], tile, own, ends)
        if steps is None or widest * most >= 1 << 30:
            return None
        inner = _inner(narrow, tile, machine)
        return ColumnsAtRisk(weights, columns, start, limits, np.int64(max(map(abs, own))), inner, *steps, safe)

    def run(self, accumulators: Int64) -> tuple[Int32, ListedEvents, ColumnSurvey] | None:
        """Compute all sums and step what they leave.

        Parameters
        ----------
        accumulators : int64 array, shape (n, p)
            Output.

        Returns
        -------
        tuple or None
            Marks of the outputs that were stepped, those that have events, and what was seen of the activations; None
            where so many must be stepped that it is faster to step all of them.
        """
        kind: Any = np.int16 if self.weights.itemsize == 2 else np.uint8
        columns, bits = self.columns, np.uint8 if kind == np.uint8 else np.uint16
        if columns.dtype != np.uint8:
            columns = columns.astype(kind, copy=False).view(bits)
        one, other = for_kernels(columns), np.empty((0, 0), dtype=bits)
        if columns.itemsize == 1:
            both = one, other
        else:
            both = np.empty((0, 0), dtype=np.uint8), one
        done, survey, listed, masks = sum_and_step(
            self.weights, both, np.empty(0, dtype=kind), self.start, self.bounds, self.greatest, self.inner, self.steps,
            self.lane, *self.limits, accumulators,
        )  # fmt: skip
        if not done:
            return None
        seen = ColumnSurvey(survey[: len(columns)], int(survey[-2]), int(survey[-1]))
        return masks, ListedEvents((*accumulators.shape,), listed), seen


@lru_cache(maxsize=64)
def _steps(
    machine: Machine, reduction: int, tile: int, own: tuple[int, int], ends: tuple[int, int]
) -> tuple[tuple[Any, ...], Integers, tuple[np.int64, np.int64, np.int64]] | None:
    """Return `steps`, `lane` and `limits` of `ColumnsAtRisk`; None where a value may leave its lane.

    Parameters
    ----------
    machine : Machine
        Dataflow, widths, overflow mode.
    reduction, tile : int
        K; products that reach the accumulator in one addition.
    own, ends : tuple of int
        Least and greatest weight and activation.
    """
    order = order_in_lanes(machine, reduction, tile, max(map(abs, own)) * max(map(abs, ends)))
    if order is None:
        return None
    limits = register(machine.accumulator_bits, machine.overflow)
    forms = layout(machine, reduction, tile, own, ends), layout(machine, reduction, tile, ends, own)
    # The steps of whole rows are compiled for pairs alone; with the JIT off there are no pairs.
    if any(form is None or form.paired == bool(settings.DISABLE_JIT) for form in forms):
        most = np.int64(_ALL if forms[1] is None else _MOST_ALONE)
        return (_NO_FORM, _NO_FORM, limits, order), np.empty(0, dtype=np.int16), (np.int64(FEW), np.int64(ALONE), most)
    taken = [form for form in forms if form is not None]
    steps = (*(_form(form, machine) for form in taken), limits, order)
    return steps, np.empty(0, dtype=taken[0].dtype), (np.int64(FEW), np.int64(THIN), np.int64(_MOST))


def _form(form: Layout, machine: Machine) -> tuple[Any, ...]:
    """Return `accelsim_kernels.term_layout.Form` of a layout."""
    sizes = (form.terms, form.lane_shift, form.row_shift, form.length)
    return (*map(np.int64, sizes), form.halves, np.int64(LANES * form.slots), form.stepping(machine)[0])


def _in_groups(weights: Integers, words: bool) -> Integers:
    """Return weights of 8 or 16 bits in whole groups of bytes."""
    kind = np.dtype(np.int16 if words else np.int8)
    per_group = GROUP_BYTES // kind.itemsize
    length = -(-weights.shape[1] // per_group) * per_group
    if length == weights.shape[1]:
        return for_kernels(weights.astype(kind, copy=False))
    filled = np.zeros((len(weights), length), dtype=kind)
    filled[:, : weights.shape[1]] = weights
    return filled


def _inner(weights: Integers, tile: int, machine: Machine) -> tuple[Any, ...]:
    """Return the kernels' tuple of the registers inside a tile; of no channels where they have no width."""
    bits = inner_bits(machine)
    if bits is None:
        return _NO_INNER
    begins = np.arange(0, weights.shape[1], tile)
    weights = weights.astype(np.int64)
    positive = np.add.reduceat(np.maximum(weights, 0), begins, axis=1, dtype=np.int64).max(axis=1)
    negative = np.add.reduceat(np.minimum(weights, 0), begins, axis=1, dtype=np.int64).min(axis=1)
    low, high, _ = register(bits, machine.overflow)
    return positive.astype(np.int32), negative.astype(np.int32), low, high
