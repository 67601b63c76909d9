"""Test vectors for hardware: a folder of ``$readmemh`` files and a manifest, docs/vectors.md."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import accelsim
from accelsim.errors import DataError, OperandError
from accelsim.formats import IntegerFormat, QuantizationParameters
from accelsim.machine import Machine
from accelsim.program.rescale import Rescale
from accelsim.simulator.engine.gemm import GemmOperands, in_accumulator_units
from accelsim.simulator.engine.trace import Trace
from accelsim.simulator.gemm import GemmResult, checked_machine, matmul, requantize
from accelsim.simulator.operands import matmul_operands

FORMAT = "accelsim test vectors"
VERSION = 1
MANIFEST = "manifest.json"

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
        return "".join(f"{value & mask:0{digits}x}\n" for value in self.values.reshape(-1).tolist())

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
    _check_target(target, overwrite)
    machine = checked_machine(machine, "stepped", "overflow")
    operands = matmul_operands(weights, activations, machine, bias, weight_zero_point, activation_zero_point)
    at_input = machine.zero_point == "at_input"
    formats = (
        _operand_format("weights", operands.weights, weight_format, machine.weight_bits, at_input),
        _operand_format("activations", operands.columns, activation_format, machine.activation_bits, at_input),
    )
    result = matmul(
        weights, activations, machine, bias=bias, weight_zero_point=weight_zero_point,
        activation_zero_point=activation_zero_point, engine="stepped", trace=trace,
    )  # fmt: skip
    vectors = [*_operand_vectors(operands, formats, machine), *_result_vectors(result, machine)]
    if result.trace is not None:
        vectors += _trace_vectors(result.trace, formats, machine)
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "accelsim": accelsim.__version__,
        "machine": machine.model_dump(mode="json"),
        "dimensions": dict(zip("nkp", (*operands.weights.shape, operands.columns.shape[1]), strict=True)),
        "cycles": result.cycles.to_dict(),
        "requantization": None,
    }
    if requantization is not None:
        codes, multipliers, manifest["requantization"] = _requantized(result, machine, requantization)
        vectors += [codes, *multipliers]
    manifest["files"] = {vector.name: vector.record() for vector in vectors}
    _write_folder(target, [*((v.name, v.text()) for v in vectors), (MANIFEST, json.dumps(manifest, indent=1) + "\n")])
    return target / MANIFEST


def _operand_vectors(operands: GemmOperands, formats: _Formats, machine: Machine) -> Iterable[_Vector]:
    """Return what enters the grid."""
    weight_format, activation_format = formats
    yield _Vector("weights.hex", operands.weights, *weight_format, ("n", "k"), "weights as the PEs multiply them")
    yield _Vector(
        "activations.hex", operands.columns, *activation_format, ("k", "p"), "activations as the PEs multiply them"
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


def _requantized(
    result: GemmResult, machine: Machine, wanted: Requantization
) -> tuple[_Vector, list[_Vector], dict[str, Any]]:
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
    vector = _Vector("outputs.hex", codes, output.format.bits, output.format.signed, ("n", "p"), "requantized codes")
    if machine.requantizer.multiplier != "integer":
        return vector, [], entry
    shape, bits = result.accumulators.shape[:1], machine.requantizer.multiplier_bits
    mantissas, exponents = (np.broadcast_to(part, shape) for part in (rescale.mantissas, rescale.exponents))
    exponent = "t of numerics.md (20)" if len(machine.requantizer.rounding) == 1 else "e of numerics.md (21)"
    multipliers = [
        _Vector("multipliers.hex", mantissas, bits, True, ("n",), "m of numerics.md (19)"),
        _Vector("shifts.hex", exponents, 16, True, ("n",), exponent),
    ]
    return vector, multipliers, entry


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


def _check_target(target: Path, overwrite: bool) -> None:
    """Raise DataError unless the folder may be made or replaced."""
    where = f"folder {str(target)!r}"
    try:
        if not target.exists():
            if not target.parent.is_dir():
                raise DataError(f"{where} cannot be made: {str(target.parent)!r} is not a folder; make it first")
            return
        if not target.is_dir():
            raise DataError(f"{where} cannot be made: a file has that name; choose another")
        found = {entry.name for entry in target.iterdir()}
        if not found:
            return
        if not found <= _own_names(target):
            raise DataError(f"{where} holds other files than test vectors; choose a new or empty folder")
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{where} cannot be read: {reason}") from None
    if not overwrite:
        raise DataError(f"{where} holds test vectors already; choose another, or allow to overwrite it")


def _own_names(folder: Path) -> set[str]:
    """Return the names of the files that the manifest in a folder lists; none where it is not a manifest of ours."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        return {MANIFEST, *manifest["files"]} if manifest["format"] == FORMAT else set()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()


def _write_folder(target: Path, files: list[tuple[str, str]]) -> None:
    """Write files into a new folder beside the target, then put it in the target's place."""
    token = secrets.token_hex(8)
    temporary, replaced = (target.parent / f".accelsim-{token}.{kind}" for kind in ("part", "old"))
    try:
        try:
            temporary.mkdir()
            for name, text in files:
                (temporary / name).write_text(text, encoding="ascii", newline="\n")
            if target.exists():
                target.rename(replaced)
            try:
                temporary.rename(target)
            except OSError:
                if replaced.exists():
                    replaced.rename(target)
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise DataError(f"folder {str(target)!r} cannot be written: {error.strerror}") from None
    shutil.rmtree(replaced, ignore_errors=True)  # only now: until here it could have been needed again
