"""Test vectors for hardware: a folder of ``$readmemh`` files and a manifest, docs/vectors.md."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import accelsim
from accelsim.errors import OperandError
from accelsim.formats import IntegerFormat, QuantizationParameters
from accelsim.machine import Machine
from accelsim.program.rescale import Rescale
from accelsim.report.vector_folder import FORMAT, MANIFEST, check_folder, write_folder
from accelsim.simulator.engine import codes as engine_codes
from accelsim.simulator.engine.gemm import in_accumulator_units
from accelsim.simulator.engine.gemm_operands import GemmOperands
from accelsim.simulator.engine.trace import Trace
from accelsim.simulator.gemm import checked_machine, matmul
from accelsim.simulator.gemm_result import GemmResult
from accelsim.simulator.operands import matmul_operands
from accelsim.simulator.requantization import requantize
from accelsim.simulator.tracing import TracedLayer

VERSION = 1

_EXACT_BITS = 64
"""Width of a value that no register of the machine bounds."""

_Formats = tuple[tuple[int, bool], tuple[int, bool]]
"""(bits, signed) of weights and activations."""


@dataclass(frozen=True)
class Requantization:
    """From the accumulators to codes; the arithmetic is the machine's requantizer.

    Parameters
    ----------
    input_scale : float
        s_x.
    weight_scale : float or array, shape (n,)
        s_w.
    output : QuantizationParameters
        s_y, zero point and format; per tensor.
    minimum, maximum : int, optional
        Clamp bounds inside the format.
    """

    input_scale: float
    weight_scale: npt.ArrayLike
    output: QuantizationParameters
    minimum: int | None = None
    maximum: int | None = None


@dataclass(frozen=True)
class _Vector:
    """One file: values, the width of a word, the axes in order (the last runs fastest), what it is."""

    name: str
    values: npt.NDArray[Any]
    bits: int
    signed: bool
    axes: tuple[str, ...]
    meaning: str

    def text(self) -> str:
        """Return one word per line, two's complement, docs/vectors.md (1)."""
        digits, mask = (self.bits + 3) // 4, (1 << self.bits) - 1
        words = [value & mask for value in self.values.reshape(-1).tolist()]
        return f"%0{digits}x\n" * len(words) % tuple(words)

    def record(self) -> dict[str, Any]:
        """Return the manifest's entry."""
        return {
            "meaning": self.meaning,
            "axes": list(self.axes),
            "shape": list(self.values.shape),
            "bits": self.bits,
            "signed": self.signed,
        }


def write_vectors(
    folder: str | PathLike[str],
    *,
    weights: npt.ArrayLike,
    activations: npt.ArrayLike,
    machine: Machine | None = None,
    bias: npt.ArrayLike | None = None,
    weight_zero_point: npt.ArrayLike = 0,
    activation_zero_point: int = 0,
    weight_format: IntegerFormat | None = None,
    activation_format: IntegerFormat | None = None,
    requantization: Requantization | None = None,
    trace: bool = False,
    overwrite: bool = False,
) -> Path:
    """Run a matrix product on the stepped grid and write what a testbench needs to check a design against it.

    Parameters
    ----------
    folder : path
        The folder to make; it appears whole or not at all.
    weights : integer array, shape (n, k)
        Stored weights.
    activations : integer array, shape (k, p)
        Stored activations.
    machine : Machine, optional
        Grid, dataflow, widths, requantizer; ``edge_16x16`` when left out.
    bias, weight_zero_point, activation_zero_point
        As in `accelsim.matmul`.
    weight_format, activation_format : IntegerFormat, optional
        Formats of the stored operands, which fix the width of a word; left out, the machine's widths, and where it has
        none, the narrowest that hold the values.
    requantization : Requantization, optional
        With it the codes of the outputs are written, too.
    trace : bool
        Write every register of every multiply cycle.
    overwrite : bool
        Replace a folder that this function wrote and nobody added to; any other folder that is not empty is refused.

    Returns
    -------
    Path
        The manifest.

    Raises
    ------
    OperandError, LoweringError
        When an argument does not fit.
    AccumulatorOverflowError
        When a register overflowed and the machine's mode is ``error``.
    DataError
        When the folder is in the way, or cannot be written.
    """
    target = Path(folder).resolve()  # a link stays, and what it points to is replaced
    check_folder(target, overwrite)
    machine = checked_machine(machine, "stepped", "overflow")
    operands = matmul_operands(weights, activations, machine, bias, weight_zero_point, activation_zero_point)
    formats = _formats(operands, (weight_format, activation_format), machine)
    result = matmul(
        weights, activations, machine, bias=bias, weight_zero_point=weight_zero_point,
        activation_zero_point=activation_zero_point, engine="stepped", trace=trace,
    )  # fmt: skip
    codes: list[_Vector] = []
    entry: dict[str, Any] | None = None
    if requantization is not None:
        codes, entry = _requantized(result, machine, requantization)
    return _write(target, operands, formats, result, machine, codes, {"requantization": entry})


def write_traced_vectors(
    folder: str | PathLike[str],
    operands: GemmOperands,
    result: GemmResult,
    machine: Machine,
    *,
    layer: TracedLayer | None = None,
    overwrite: bool = False,
) -> Path:
    """Write test vectors of a GEMM that was traced, or of a traced layer of a network with its output codes.

    Parameters
    ----------
    folder : path
        As in `write_vectors`.
    operands : GemmOperands
        What the PEs multiplied.
    result : GemmResult
        What came out, with its trace; of a window the trace files hold the window.
    machine : Machine
        Where.
    layer : TracedLayer, optional
        Gives formats, requantization and names.
    overwrite : bool
        As in `write_vectors`.

    Returns
    -------
    Path
        The manifest.

    Raises
    ------
    DataError
        When the folder is in the way, or cannot be written.
    """
    target = Path(folder).resolve()
    check_folder(target, overwrite)
    if layer is None:
        formats = _formats(operands, (None, None), machine)
        return _write(target, operands, formats, result, machine, [], {"requantization": None})
    program = layer.layer
    formats = _formats(operands, (program.weight_format, program.input_format), machine)
    codes, entry = _layer_codes(layer)
    named = {"layer": program.name, "group": layer.group, "requantization": entry}
    return _write(target, operands, formats, result, machine, codes, named)


def _write(
    target: Path,
    operands: GemmOperands,
    formats: _Formats,
    result: GemmResult,
    machine: Machine,
    codes: list[_Vector],
    more: dict[str, Any],
) -> Path:
    """Write the files and the manifest; ``more`` goes into it."""
    vectors = [*_operand_vectors(operands, formats, machine), *_result_vectors(result, machine)]
    trace = result.trace
    if trace is not None:
        vectors += _trace_vectors(trace, formats, machine)
        more["trace"] = {name: getattr(trace, name) for name in ("first_cycle", "first_row", "first_column")}
    vectors += codes
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "accelsim": accelsim.__version__,
        "machine": machine.model_dump(mode="json"),
        "dimensions": dict(zip("nkp", (*operands.weights.shape, operands.columns.shape[1]), strict=True)),
        "cycles": result.cycles.to_dict(),
        **more,
        "files": {vector.name: vector.record() for vector in vectors},
    }
    texts = ((vector.name, vector.text()) for vector in vectors)
    write_folder(target, [*texts, (MANIFEST, json.dumps(manifest, indent=1) + "\n")])
    return target / MANIFEST


def _operand_vectors(operands: GemmOperands, formats: _Formats, machine: Machine) -> Iterable[_Vector]:
    """Return what enters the grid."""
    weight_format, activation_format = formats
    yield _Vector("weights.hex", operands.weights, *weight_format, ("n", "k"), "weights as the PEs multiply them")
    yield _Vector(
        "activations.hex", operands.wide_columns, *activation_format, ("k", "p"), "activations as the PEs multiply them"
    )
    start = in_accumulator_units(operands.start, machine)
    bits = _fitting_bits(start, machine)
    yield _Vector("start.hex", start, bits, True, ("n",), "start value, brought into the accumulator by the load")
    if operands.weight_zero_points.any():
        last = -np.outer(operands.weight_zero_points, operands.columns.sum(axis=0, dtype=np.int64))
        last = in_accumulator_units(last, machine)
        bits = _fitting_bits(last, machine)
        yield _Vector(
            "last.hex", last, bits, True, ("n", "p"), "added after all products where the weight zero point is not 0"
        )


def _result_vectors(result: GemmResult, machine: Machine) -> Iterable[_Vector]:
    """Return what the accumulators hold in the end, and their events."""
    axes = ("n", "p")
    yield _Vector(
        "accumulators.hex", result.accumulators, machine.accumulator_bits, True, axes, "after the last addition"
    )
    counted = (
        ("overflow_events.hex", result.overflow_events, "overflow events of the accumulator"),
        ("partial_overflow_events.hex", result.partial_overflow_events, "of the partial sum or adder tree"),
    )
    for name, events, meaning in counted:
        if events is not None:
            yield _Vector(name, events, 32, False, axes, meaning)


def _trace_vectors(trace: Trace, formats: _Formats, machine: Machine) -> Iterable[_Vector]:
    """Return every register after every multiply cycle."""
    (weight_bits, weight_signed), (activation_bits, activation_signed) = formats
    match machine.dataflow:
        case "output_stationary":
            bits, meaning = machine.accumulator_bits, "the PE's accumulator"
        case "broadcast":
            bits, meaning = weight_bits + activation_bits, "the PE's product"
        case _:
            bits, meaning = machine.partial_sum_bits or _EXACT_BITS, "the PE's partial sum"
    axes = ("cycle", "row", "column")
    yield _Vector("trace_accumulators.hex", trace.accumulators, bits, True, axes, meaning)
    yield _Vector("trace_weights.hex", trace.weights, weight_bits, weight_signed, axes, "weight in use, 0 in a bubble")
    yield _Vector(
        "trace_activations.hex", trace.activations, activation_bits, activation_signed, axes,
        "activation in use, 0 in a bubble",
    )  # fmt: skip
    yield _Vector("trace_fold.hex", trace.fold, 32, False, ("cycle",), "fold that the cycle belongs to")
    yield _Vector("trace_overflow.hex", trace.overflow, 1, False, axes, "whether that register overflowed")
    edges = (
        ("row_accumulators", trace.row_accumulators, machine.accumulator_bits, True, "accumulator of the row"),
        ("row_overflow", trace.row_overflow, 1, False, "whether the row's accumulator overflowed"),
        ("tree_overflow", trace.tree_overflow, 1, False, "whether the row's adder tree overflowed"),
        (
            "column_accumulators", trace.column_accumulators, machine.accumulator_bits, True,
            "accumulator below the column that a sum was added to, 0 where none was",
        ),
        ("column_overflow", trace.column_overflow, 1, False, "whether that accumulator overflowed"),
    )  # fmt: skip
    for name, values, bits, signed, meaning in edges:
        if values is not None:
            axis = "column" if name.startswith("column") else "row"
            yield _Vector(f"trace_{name}.hex", values, bits, signed, ("cycle", axis), meaning)


def _requantized(result: GemmResult, machine: Machine, wanted: Requantization) -> tuple[list[_Vector], dict[str, Any]]:
    """Return the codes, the multipliers where they are integers, and the manifest's entry."""
    # (13a): the accumulator counts in units of 2^h products.
    input_scale = wanted.input_scale * 2**machine.product_shift_bits
    output = wanted.output
    codes = requantize(
        result.accumulators, machine.requantizer, input_scale=input_scale, weight_scale=wanted.weight_scale,
        output=output, minimum=wanted.minimum, maximum=wanted.maximum,
    )  # fmt: skip
    scales = np.asarray(wanted.weight_scale, dtype=np.float32)
    rescale = Rescale.of(machine.requantizer, [np.float32(input_scale), scales], output.scale, "requantization")
    entry = {
        "input_scale": float(np.float32(input_scale)),
        "weight_scale": np.atleast_1d(scales).astype(np.float64).tolist(),
        "output_scale": float(output.scale),
        "output_zero_point": int(output.zero_point),
        "minimum": output.format.minimum if wanted.minimum is None else max(wanted.minimum, output.format.minimum),
        "maximum": output.format.maximum if wanted.maximum is None else min(wanted.maximum, output.format.maximum),
    }
    return _code_vectors(codes, output.format, rescale), entry


def _layer_codes(traced: TracedLayer) -> tuple[list[_Vector], dict[str, Any] | None]:
    """Return the codes that a traced layer stores, its multipliers, and the manifest's entry."""
    layer, output = traced.layer, traced.output
    if layer.rescale is None or not isinstance(output, QuantizationParameters):  # it stores accumulators
        return [], None
    rescale = layer.rescale if layer.rescale.reals.size == 1 else layer.rescale.channels(traced.channels)
    bounds = layer.bounds(traced.channels)
    codes = engine_codes.requantize(traced.result.accumulators, rescale, layer.zero_point, bounds, layer.stored_format)
    low, high = (np.asarray(bound).tolist() for bound in bounds)
    entry = {
        "multiplier": rescale.reals.tolist(),
        "output_scale": float(output.scale),
        "output_zero_point": layer.zero_point,
        "minimum": low,
        "maximum": high,
    }
    return _code_vectors(codes, output.format, rescale), entry


def _code_vectors(codes: npt.NDArray[Any], stored: IntegerFormat, rescale: Rescale) -> list[_Vector]:
    """Return the codes (n, p), and the multipliers where they are integers."""
    vectors = [_Vector("outputs.hex", codes, stored.bits, stored.signed, ("n", "p"), "requantized codes")]
    requantizer = rescale.requantizer
    if requantizer.multiplier == "integer":
        mantissas, exponents = (
            np.broadcast_to(part, codes.shape[:1]) for part in (rescale.mantissas, rescale.exponents)
        )
        exponent = "t of numerics.md (20)" if len(requantizer.rounding) == 1 else "e of numerics.md (21)"
        bits = requantizer.multiplier_bits
        vectors += [
            _Vector("multipliers.hex", mantissas, bits, True, ("n",), "m of numerics.md (19)"),
            _Vector("shifts.hex", exponents, 16, True, ("n",), exponent),
        ]
    return vectors


def _formats(operands: GemmOperands, stored: Sequence[IntegerFormat | None], machine: Machine) -> _Formats:
    """Return (bits, signed) of the words of weights and activations."""
    weight_format, activation_format = stored
    at_input = machine.zero_point == "at_input"
    return (
        _operand_format("weights", operands.weights, weight_format, machine.weight_bits, at_input),
        _operand_format("activations", operands.wide_columns, activation_format, machine.activation_bits, at_input),
    )


def _operand_format(
    name: str, values: npt.NDArray[Any], stored: IntegerFormat | None, machine_bits: int | None, at_input: bool
) -> tuple[int, bool]:
    """Return (bits, signed) of an operand's words."""
    low, high = int(values.min()), int(values.max())
    if stored is not None:
        choices = [(stored.bits, stored.signed)]
    else:
        choices = [] if machine_bits is None else [(machine_bits, True), (machine_bits, False)]
    if at_input:  # (w - z_w) of b-bit codes takes b + 1 bits
        choices = [(bits + 1, True) for bits, _ in choices]
    for bits, signed in choices:
        least, greatest = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
        if least <= low and high <= greatest:
            return bits, signed
    if stored is not None:
        raise OperandError(f"{name} must fit their format {stored}, got {low}..{high}; leave the format out")
    return (
        (max(high.bit_length(), (-low - 1).bit_length()) + 1, True) if low < 0 else (max(1, high.bit_length()), False)
    )


def _fitting_bits(values: npt.NDArray[np.int64], machine: Machine) -> int:
    """Return the accumulator's width where all values fit, else 64."""
    half = 1 << (machine.accumulator_bits - 1)
    return machine.accumulator_bits if -half <= int(values.min()) and int(values.max()) < half else _EXACT_BITS
