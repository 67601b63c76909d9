"""Operands of the public GEMM functions, checked and brought into the grid's form: docs/numerics.md section 2."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import OperandError
from accelsim.machine import Machine
from accelsim.simulator.engine.bounds import for_kernels, signed_sums, widest
from accelsim.simulator.engine.gemm import Int64
from accelsim.simulator.engine.gemm_operands import MAX_REDUCTION, TYPE_ENDS, WIDEST_START, GemmOperands

_SIGNED_16, _UNSIGNED_16 = (-(1 << 15), (1 << 15) - 1), (0, (1 << 16) - 1)


def integer_array(name: str, values: npt.ArrayLike, ndim: int) -> npt.NDArray[Any]:
    """Return values as an integer array of some dimensions with no empty axis; raise OperandError otherwise."""
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise OperandError(f"{name} must be an integer array, got dtype {array.dtype}")
    if array.ndim != ndim or array.size == 0:
        raise OperandError(f"{name} must have {ndim} non-empty axes, got shape {array.shape}")
    return array


def operand(name: str, array: npt.NDArray[Any], bits: int | None, kept: str = "") -> npt.NDArray[Any]:
    """Return an operand for the kernels after checking that a PE holds it; raise OperandError otherwise.

    Parameters
    ----------
    name : str
        Named in the error.
    array : integer array
        Stored integers.
    bits : int or None
        The machine's operand width, signed or unsigned; None is 16.
    kept : str
        Characters of types of 8 or 16 bits, the narrowest first.

    Returns
    -------
    integer array
        Of a type of ``kept``: the array's own, or where its values are looked at the first that holds them; else int32.
    """
    if bits is None and array.itemsize <= 2:  # whatever the type holds fits
        return for_kernels(array.astype(array.dtype.char if array.dtype.char in kept else "i", copy=False))
    width = 16 if bits is None else bits
    low, high = int(array.min()), int(array.max())
    signed, unsigned = (-(1 << (width - 1)), (1 << (width - 1)) - 1), (0, (1 << width) - 1)
    if not any(bounds[0] <= low and high <= bounds[1] for bounds in (signed, unsigned)):
        remedy = "operands have at most 16 bits" if bits is None else f"the machine's PEs take {bits}-bit {name}"
        raise OperandError(
            f"{name} must fit {signed[0]}..{signed[1]} or {unsigned[0]}..{unsigned[1]}, got {low}..{high}; {remedy}"
        )
    stored = next((kind for kind in kept if TYPE_ENDS[kind][0] <= low and high <= TYPE_ENDS[kind][1]), "i")
    return for_kernels(array.astype(stored, copy=False))


def zero_points(name: str, values: npt.ArrayLike | int, length: int) -> Int64:
    """Return zero points as int64 of shape (length,); raise OperandError unless they are codes of at most 16 bits."""
    array = np.asarray(values)
    if array.dtype.kind not in "iu" or array.shape not in ((), (length,)):
        raise OperandError(f"{name} must be an integer or {length} of them, got {array.dtype} of shape {array.shape}")
    low, high = (int(array), int(array)) if array.ndim == 0 else (int(array.min()), int(array.max()))
    if low < _SIGNED_16[0] or high > _UNSIGNED_16[1]:
        raise OperandError(f"{name} must be a code of at most 16 bits, got {low}..{high}")
    return np.full(length, array, dtype=np.int64) if low or high else np.zeros(length, dtype=np.int64)


def start_values(bias: npt.ArrayLike | None, length: int) -> Int64:
    """Return the bias as int64 of shape (length,), zeros for None; raise OperandError where it does not fit."""
    if bias is None:
        return np.zeros(length, dtype=np.int64)
    array = integer_array("bias", bias, 1)
    if array.shape != (length,):
        raise OperandError(f"bias must have one value per output channel ({length}), got shape {array.shape}")
    start, most = array.astype(np.int64), WIDEST_START // 2
    if widest(start) > most or (array.dtype == np.uint64 and int(array.max()) > most):
        raise OperandError(f"bias must be within +-2^60, got {int(array.min())}..{int(array.max())}")
    return start


def gemm_operands(
    weights: npt.NDArray[Any],
    columns: npt.NDArray[Any],
    bias: Int64,
    weight_zero_points: Int64,
    activation_zero_point: int,
    machine: Machine,
) -> GemmOperands:  # fmt: skip
    """Apply the machine's zero-point mode: docs/numerics.md (7) and (8), or operands one bit wider.

    Parameters
    ----------
    weights : signed integer array, shape (n, k)
        Stored weights, of 8 to 32 bits.
    columns : integer array, shape (k, p)
        Stored activations; may be empty for a convolution, whose columns come later.
    bias : int64 array, shape (n,)
        In accumulator units.
    weight_zero_points : int64 array, shape (n,)
        z_w.
    activation_zero_point : int
        z_x.
    machine : Machine
        Says ``folded`` or ``at_input``.

    Raises
    ------
    OperandError
        When the reduction is too long or a start value too wide.
    """
    reduction = weights.shape[1]
    if reduction > MAX_REDUCTION:
        raise OperandError(f"the reduction must be at most {MAX_REDUCTION} terms long, got {reduction}")
    if machine.zero_point == "at_input":
        wider = weights - weight_zero_points.astype(np.int32)[:, None]
        shifted = columns - np.int32(activation_zero_point)
        return GemmOperands(wider, shifted, bias, np.zeros_like(weight_zero_points))
    if activation_zero_point == 0:
        return GemmOperands(weights, columns, bias, weight_zero_points)
    positive, negative = signed_sums(weights)
    sums = positive + negative
    start = bias - activation_zero_point * sums + reduction * activation_zero_point * weight_zero_points
    if widest(start) > WIDEST_START:
        raise OperandError("bias and zero-point terms must stay within +-2^61; use a smaller bias")
    return GemmOperands(weights, columns, start, weight_zero_points)


def matmul_operands(
    weights: npt.ArrayLike,
    activations: npt.ArrayLike,
    machine: Machine,
    bias: npt.ArrayLike | None,
    weight_zero_point: npt.ArrayLike,
    activation_zero_point: npt.ArrayLike,
) -> GemmOperands:
    """Check the arguments of a matrix product and bring them into the grid's form.

    Parameters
    ----------
    weights : integer array, shape (n, k)
        Stored weights.
    activations : integer array, shape (k, p)
        Stored activations.
    machine : Machine
        Operand widths, zero-point mode.
    bias : integer array, shape (n,), or None
        In accumulator units.
    weight_zero_point : int or integer array, shape (n,)
        z_w.
    activation_zero_point : int
        z_x.

    Raises
    ------
    OperandError
        When an array has the wrong type, shape or values.
    """
    stored_weights, stored = integer_array("weights", weights, 2), integer_array("activations", activations, 2)
    num_outputs, reduction = stored_weights.shape
    if stored.shape[0] != reduction:
        raise OperandError(
            f"weights (n, k) and activations (k, p) must share k, got {stored_weights.shape} and {stored.shape}"
        )
    left = operand("weights", stored_weights, machine.weight_bits, kept="bh")
    right = operand("activations", stored, machine.activation_bits, kept="BbhH")
    if bias is None and is_zero(weight_zero_point) and is_zero(activation_zero_point) and reduction <= MAX_REDUCTION:
        nothing = np.zeros(num_outputs, dtype=np.int64)
        return GemmOperands(left, right, nothing, nothing, plain=True)
    return gemm_operands(
        left,
        right,
        start_values(bias, num_outputs),
        zero_points("weight_zero_point", weight_zero_point, num_outputs),
        int(zero_points("activation_zero_point", activation_zero_point, 1)[0]),
        machine,
    )


def is_zero(value: object) -> bool:
    """Whether an argument is Python's 0."""
    return type(value) is int and value == 0
