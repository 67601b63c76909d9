"""Options that several commands share, each with its help."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from accelsim.errors import FormatError


class RangeMethod(StrEnum):
    """How the range of an activation quantizer is set."""

    AUTO = "auto"
    MSE = "mse"
    GOLDEN_SECTION = "golden_section"
    CLOSED_FORM = "closed_form"
    PERCENTILE = "percentile"
    MIN_MAX = "min_max"
    BATCH_NORM = "batch_norm"


class WeightRangeMethod(StrEnum):
    """How the range of a weight quantizer is set."""

    AUTO = "auto"
    MSE = "mse"
    GOLDEN_SECTION = "golden_section"
    CLOSED_FORM = "closed_form"
    PERCENTILE = "percentile"
    MIN_MAX = "min_max"


class EqualizationChoice(StrEnum):
    """How channels are rescaled from layer to layer."""

    NOISE = "noise"
    CROSS_LAYER = "cross_layer"
    NONE = "none"


class BiasCorrection(StrEnum):
    """How biases are corrected."""

    AUTO = "auto"
    EMPIRICAL = "empirical"
    ANALYTIC = "analytic"
    NONE = "none"


class RoundingChoice(StrEnum):
    """How weights are rounded."""

    AUTO = "auto"
    NEAREST = "nearest"
    QUBO = "qubo"
    ADAROUND = "adaround"


class Layout(StrEnum):
    """Where the files' arrays have their channels."""

    CHANNELS_FIRST = "channels-first"
    CHANNELS_LAST = "channels-last"


class Engine(StrEnum):
    """How the integers are computed."""

    FAST = "fast"
    STEPPED = "stepped"


class Track(StrEnum):
    """What is recorded of the accumulators."""

    NONE = "none"
    OVERFLOW = "overflow"
    RANGE = "range"


_QUANTIZATION = "of a float model; 8 if left out"

FloatModel = Annotated[Path, typer.Argument(metavar="MODEL", help="The float network, an .onnx file.")]
AnyModel = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        help="A float network (.onnx), which is quantized first, or one that `accelsim quantize` made (.npz).",
    ),
]
RunnableModel = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        help="A float network (.onnx), which is quantized first, one that `accelsim quantize` made (.npz), or one that "
        "another tool quantized (.tflite, .onnx with quantized operators).",
    ),
]
Images = Annotated[
    str, typer.Option(metavar="FILE[:ARRAY]", help="Images, samples along axis 0: .npy, or .npz with an array's name.")
]
Labels = Annotated[str | None, typer.Option(metavar="FILE[:ARRAY]", help="The class of every image, as whole numbers.")]
Calibration = Annotated[
    str | None,
    typer.Option(metavar="FILE[:ARRAY]", help="Images that the ranges of a float model are set on; 500 are plenty."),
]
CalibrationLimit = Annotated[int | None, typer.Option(metavar="N", min=1, help="Calibrate on the first N images only.")]
Limit = Annotated[int | None, typer.Option(metavar="N", min=1, help="Take the first N samples only.")]
FileLayout = Annotated[
    Layout, typer.Option(help="Whether files hold (samples, channels, ...) or (samples, ..., channels).")
]
WeightBits = Annotated[int | None, typer.Option(metavar="N", min=1, max=16, help=f"Width of weights {_QUANTIZATION}.")]
ActivationBits = Annotated[
    int | None, typer.Option(metavar="N", min=1, max=16, help=f"Width of activations {_QUANTIZATION}.")
]
PerChannel = Annotated[
    bool | None,
    typer.Option("--per-channel/--per-tensor", help="One weight scale per output channel, or (default) per tensor."),
]
WeightRange = Annotated[
    WeightRangeMethod | None,
    typer.Option(help="Range of weights; auto (default): min_max from 7 bits up, mse below."),
]
ActivationRange = Annotated[
    RangeMethod | None,
    typer.Option(help="Range of activations; auto (default): min_max from 8 bits up, mse below."),
]
Equalization = Annotated[
    EqualizationChoice | None,
    typer.Option(help="Rescaling of channels: for least predicted noise (default), for equal weight ranges, or none."),
]
BiasCorrectionChoice = Annotated[
    BiasCorrection | None,
    typer.Option("--bias-correction", help="auto (default): empirical with calibration images, analytic without."),
]
InputRange = Annotated[
    tuple[float, float] | None,
    typer.Option(
        metavar="LEAST GREATEST",
        help="Range of the inputs without calibration images; if left out, told from the first batch norm.",
    ),
]
Rounding = Annotated[
    RoundingChoice | None,
    typer.Option(help="Rounding of weights; auto (default): qubo up to 8 bits, nearest above."),
]
LayerWidths = Annotated[
    list[str] | None,
    typer.Option(
        "--layer",
        metavar="NAME=W8A16",
        help="Widths of one layer's weights (W) and stored output (A), or of a tensor (A). Repeatable.",
    ),
]
QuantizationFile = Annotated[
    Path | None,
    typer.Option(
        "--ptq", metavar="FILE.toml", help="Fields of PTQConfig in TOML; options on the command line go before them."
    ),
]
PowerOfTwo = Annotated[bool, typer.Option("--power-of-two", help="Restrict every scale to a power of two.")]
MachineName = Annotated[
    str, typer.Option("--machine", metavar="NAME|FILE.toml", help="A preset (see `accelsim machines`) or a TOML file.")
]
OwnMachineName = Annotated[
    str | None,
    typer.Option(
        "--machine",
        metavar="NAME|FILE.toml",
        help="A preset (see `accelsim machines`) or a TOML file; if left out, edge_16x16, for a model that another "
        "tool quantized with the accumulators and the arithmetic of its own stack.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Change a field of the machine, in TOML: accumulator_bits=20, memory.dram_bytes_per_cycle=8. Repeatable.",
    ),
]
EngineChoice = Annotated[
    Engine, typer.Option("--engine", help="stepped moves every register in every cycle; both give the same.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs, and nothing else, to stdout.")]


def quantization(
    weight_bits: int | None,
    activation_bits: int | None,
    per_channel: bool | None,
    weight_range: WeightRangeMethod | None,
    activation_range: RangeMethod | None,
    power_of_two: bool,
    rounding: RoundingChoice | None = None,
    layers: list[str] | None = None,
    file: Path | None = None,
    equalization: EqualizationChoice | None = None,
    bias_correction: BiasCorrection | None = None,
    input_range: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Return the quantization options that were given, and those of a file, by the names of PTQConfig's fields."""
    given: dict[str, Any] = {
        "weight_bits": weight_bits,
        "activation_bits": activation_bits,
        "per_channel": per_channel,
        "weight_range": None if weight_range is None else weight_range.value,
        "activation_range": None if activation_range is None else activation_range.value,
        "power_of_two": power_of_two or None,
        "rounding": None if rounding is None else rounding.value,
        "bias_correction": None if bias_correction is None else bias_correction.value,
        "input_range": input_range,
    }
    if equalization is EqualizationChoice.NONE:
        given["equalize"] = False
    elif equalization is not None:
        given |= {"equalize": True, "equalization": equalization.value}
    choices = {} if file is None else _fields_of(file)
    choices |= {name: value for name, value in given.items() if value is not None}
    if layers:
        choices["layers"] = {**choices.get("layers", {}), **dict(_widths(layer) for layer in layers)}
    return choices


def _fields_of(file: Path) -> dict[str, Any]:
    """Return the fields that a TOML file sets, after a look whether they are right."""
    from accelsim.ptq.config import PTQConfig

    return PTQConfig.load(file).model_dump(mode="json", exclude_unset=True)


def _widths(layer: str) -> tuple[str, dict[str, int]]:
    """Split ``name=W8A16``; the name may hold any sign."""
    name, _, widths = layer.rpartition("=")
    found = re.fullmatch(r"(?:[wW](\d{1,2}))?(?:[aA](\d{1,2}))?", widths)
    if not (name and widths and found):
        raise FormatError(f"--layer must be NAME=W<bits>, NAME=A<bits> or NAME=W<bits>A<bits>, got {layer!r}")
    bits = zip(("weight_bits", "activation_bits"), found.groups(), strict=True)
    return name, {field: int(value) for field, value in bits if value is not None}
