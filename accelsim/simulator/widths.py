"""Widths of what is in and around a PE: docs/energy.md section 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.machine import Machine

Integers = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class GridWidths:
    """Widths in bits.

    Parameters
    ----------
    weight, activation : int
        A PE's operands.
    product : int
        A product after `Machine.product_shift_bits`.
    inner : int
        Partial sums, or an adder tree's output.
    accumulator : int
        Accumulators.
    stored_weight, stored_activation : int
        What the buffers hold.
    """

    weight: int
    activation: int
    product: int
    inner: int
    accumulator: int
    stored_weight: int
    stored_activation: int

    @classmethod
    def of_ends(cls, machine: Machine, weights: tuple[int, int], activations: tuple[int, int]) -> GridWidths:
        """Return the widths for operands between two ends as PEs multiply them; the narrowest where none are named."""
        wider = 1 if machine.zero_point == "at_input" else 0
        needed = narrowest_between(*weights), narrowest_between(*activations)
        return cls.of(machine, max(1, needed[0] - wider), max(1, needed[1] - wider))

    @classmethod
    def of(cls, machine: Machine, weight_bits: int, activation_bits: int) -> GridWidths:
        """Return the widths of a machine that runs a layer.

        Parameters
        ----------
        machine : Machine
            Its own operand widths win over the layer's.
        weight_bits, activation_bits : int
            Widths of the stored operands.
        """
        wider = 1 if machine.zero_point == "at_input" else 0
        weight = (machine.weight_bits or weight_bits) + wider
        activation = (machine.activation_bits or activation_bits) + wider
        product = max(1, weight + activation - machine.product_shift_bits)
        tree = machine.dataflow == "broadcast"
        chosen = machine.adder_tree_bits if tree else machine.partial_sum_bits
        enough = product + ceil_log2(machine.columns if tree else machine.rows)
        return cls(
            weight,
            activation,
            product,
            min(64, enough) if chosen is None else chosen,
            machine.accumulator_bits,
            weight_bits,
            activation_bits,
        )


def narrowest(values: Integers) -> int:
    """Return the width of the narrowest format, unsigned where nothing is negative, that holds integers."""
    return narrowest_between(int(values.min()), int(values.max()))


def narrowest_between(low: int, high: int) -> int:
    """Return the width of the narrowest format, unsigned where nothing is negative, that holds two integers."""
    if low >= 0:
        return max(1, high.bit_length())
    return 1 + max(max(high, 0).bit_length(), (-low - 1).bit_length())


def ceil_log2(count: int) -> int:
    """Return how many bits a sum of some terms is wider than a term."""
    return (count - 1).bit_length()
