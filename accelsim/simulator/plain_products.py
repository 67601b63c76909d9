"""Products of 8-bit operands that their types and shapes prove safe, without asking what was asked of the kind before.

Around the kernel of a small product there is more Python than arithmetic. What the types and shapes of operands and
the widths of a machine decide is worked out for the first product of a kind.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from accelsim.machine import Machine
from accelsim.simulator.engine.bounds import safe_by_type
from accelsim.simulator.engine.events import EventArrays
from accelsim.simulator.engine.exact import exact_product
from accelsim.simulator.engine.gemm_operands import MAX_REDUCTION, TYPE_ENDS, Int64
from accelsim.simulator.gemm_result import GemmAccount, GemmResult


class _Kind(NamedTuple):
    """What products of one kind have in common; no result has its arrays, or they are read-only."""

    start: Int64
    """Zeros, which kernels read."""
    events: EventArrays
    """Those of outputs without any."""


_KINDS: dict[tuple[object, ...], _Kind | None] = {}
"""What is known of kinds: by types and shapes of the operands and what of a machine `safe_by_type` and checks read."""

_MOST_KINDS, _MOST_CHANNELS = 256, 1 << 13
"""Kinds that are remembered, with up to so many channels: 16 MiB."""


def plain_product(weights: object, activations: object, machine: Machine, count: bool) -> GemmResult | None:
    """Multiply without bias and zero points on the fast engine; None where more than the operands' types is asked.

    Parameters
    ----------
    weights, activations : object
        As `accelsim.matmul` takes them; there is a result where they are contiguous arrays, the weights of int8, the
        activations of int8 or uint8.
    machine : Machine
        What it runs on.
    count : bool
        Whether events are tracked; there are none.
    """
    if type(weights) is not np.ndarray or type(activations) is not np.ndarray:
        return None
    key = (
        weights.dtype.char, activations.dtype.char, weights.shape, activations.shape, machine.dataflow,
        machine.accumulator_bits, machine.partial_sum_bits, machine.adder_tree_bits, machine.product_shift_bits,
        machine.weight_bits, machine.activation_bits,
    )  # fmt: skip
    if key not in _KINDS:
        if len(_KINDS) >= _MOST_KINDS:
            _KINDS.clear()
        _KINDS[key] = _kind(weights, activations, machine)
    kind = _KINDS.get(key)
    if kind is None or not (weights.flags.carray and activations.flags.carray):
        return None
    product = exact_product(weights, activations, kind.start)
    if product is None:
        return None
    accumulators, survey = product
    ends, zero_points = (survey.least, survey.greatest), np.zeros(len(weights), dtype=np.int64)
    account = GemmAccount(machine, weights.copy(), zero_points, activations.shape[1], ends, survey.nonzero[None])
    return GemmResult(accumulators, kind.events if count else None, None, None, account)


def _kind(weights: npt.NDArray[Any], activations: npt.NDArray[Any], machine: Machine) -> _Kind | None:
    """Return what products like this one have in common; None where other types are needed or they prove nothing."""
    if weights.dtype.char != "b" or activations.dtype.char not in "bB" or (weights.ndim, activations.ndim) != (2, 2):
        return None
    if machine.weight_bits is not None or machine.activation_bits is not None:  # whether they fit is to be looked at
        return None
    (num_outputs, reduction), (terms, num_positions) = weights.shape, activations.shape
    if reduction != terms or reduction > MAX_REDUCTION or 0 in (num_outputs, reduction, num_positions):
        return None
    if num_outputs > _MOST_CHANNELS:
        return None
    if not safe_by_type(weights, 0, machine, *TYPE_ENDS[activations.dtype.char]):
        return None
    return _Kind(np.zeros(num_outputs, dtype=np.int64), EventArrays.none((num_outputs, num_positions)))
