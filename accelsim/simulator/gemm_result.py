"""What one GEMM or convolution on the grid leaves to be seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy.typing as npt

from accelsim.machine import Machine
from accelsim.simulator.counts import OperationCount, Toggles, ZeroOperands
from accelsim.simulator.engine.events import Events
from accelsim.simulator.engine.gemm import Int64
from accelsim.simulator.engine.nonzero_weights import NonzeroWeights
from accelsim.simulator.engine.trace import Trace
from accelsim.simulator.engine.zeros import ZeroCounter
from accelsim.simulator.operations import gemm_operations
from accelsim.simulator.timing import CycleCount, gemm_cycles
from accelsim.simulator.widths import GridWidths
from accelsim.tables import html_array


class GemmAccount(NamedTuple):
    """What is counted of a GEMM, each part when it is asked for.

    Parameters
    ----------
    machine : Machine
        What it ran on.
    weights : integer array, shape (groups * n, k)
        Operands as the PEs multiply them; nobody else may write to them.
    weight_zero_points : int64 array, shape (groups * n,)
        z_w of docs/numerics.md (8); likewise.
    num_positions : int
        P of each group.
    activation_ends : pair of int
        Least and greatest activation as the PEs multiply them.
    nonzero : int64 array, shape (groups, k)
        Of every term the activations that are not 0.
    input_elements : int, optional
        Stored inputs of one group; K·P when left out.
    """

    machine: Machine
    weights: npt.NDArray[Any]
    weight_zero_points: Int64
    num_positions: int
    activation_ends: tuple[int, int]
    nonzero: Int64
    input_elements: int | None = None

    @property
    def widths(self) -> GridWidths:
        """Widths around a PE."""
        weight_ends = int(self.weights.min()), int(self.weights.max())
        return GridWidths.of_ends(self.machine, weight_ends, self.activation_ends)

    @property
    def cycles(self) -> CycleCount:
        """Cycles; DRAM moves operands of the machine's widths, 8 bits where it gives none, and 8-bit outputs."""
        machine, groups = self.machine, len(self.nonzero)
        return gemm_cycles(
            num_outputs=len(self.weights) // groups, reduction=self.weights.shape[1], num_positions=self.num_positions,
            machine=machine, groups=groups, input_elements=self.input_elements,
            weight_bits=machine.weight_bits or 8, activation_bits=machine.activation_bits or 8,
        )  # fmt: skip

    @property
    def operations(self) -> OperationCount:
        """Operations, docs/energy.md (1) to (3)."""
        counted = self.weights, self.weight_zero_points, len(self.nonzero), self.num_positions
        return gemm_operations(*counted, self.machine, self.widths)

    @property
    def zero_operands(self) -> ZeroOperands:
        """Multiplications with a zero operand, docs/energy.md (9)."""
        counter = ZeroCounter(NonzeroWeights.of(self.weights, len(self.nonzero)))
        counter.add_counts(self.nonzero, self.num_positions)
        return counter.zero_operands()


@dataclass(frozen=True, eq=False)
class GemmResult:
    """A GEMM run on a machine; arrays of shape (n, p), for a convolution (batch, n, rows, columns).

    Parameters
    ----------
    accumulators : int64 array
        Values after the last addition.
    events : Events or None
        What `overflow_events`, `first_overflow` and `partial_overflow_events` are made from, when they are read; None
        with ``track="none"``.
    range_min, range_max : int64 array or None
        Least and greatest value of the unbounded running sum; with ``track="range"``.
    account : GemmAccount
        What `cycles`, `operations` and `zero_operands` are worked out from, when they are read.
    trace : Trace or None
        Registers of every multiply cycle; with ``trace=True``.
    toggles : Toggles or None
        Bit toggles of the PEs' registers; with ``activity=True``.
    """

    accumulators: Int64
    events: Events | None = field(repr=False)
    range_min: Int64 | None
    range_max: Int64 | None
    account: GemmAccount = field(repr=False)
    trace: Trace | None = None
    toggles: Toggles | None = None

    @property
    def overflow_events(self) -> Int64 | None:
        """Accumulator overflow events, int64 array; None with ``track="none"``."""
        return None if self.events is None else self.events.counts

    @property
    def first_overflow(self) -> Int64 | None:
        """Number of the first addition with an event, -1 where there was none; docs/numerics.md section 3."""
        return None if self.events is None else self.events.first

    @property
    def partial_overflow_events(self) -> Int64 | None:
        """Events of partial sums or adder trees, int64 array."""
        return None if self.events is None else self.events.partial

    @cached_property
    def cycles(self) -> CycleCount:
        """Cycles; for stalls operands have the machine's widths, 8 bits where it gives none, outputs 8."""
        return self.account.cycles

    @cached_property
    def operations(self) -> OperationCount:
        """What was computed."""
        return self.account.operations

    @cached_property
    def zero_operands(self) -> ZeroOperands:
        """Multiplications with a zero operand."""
        return self.account.zero_operands

    def _repr_html_(self) -> str:
        values, events = self.accumulators, self.overflow_events
        count = "not tracked" if self.events is None else f"{self.events.totals().events:,}"
        caption = f"accumulators, {' x '.join(map(str, values.shape))}; overflow events: {count}"
        while values.ndim > 2:  # of a convolution the first image's first channel
            values, events = values[0], None if events is None else events[0]
        marks = None if events is None else events.tolist()
        return self.cycles._repr_html_() + html_array(values.tolist(), marks, caption)
