"""``accelsim compare``: float, simulated quantization and actual integers side by side."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated

import typer

from accelsim.cli import options
from accelsim.cli.inputs import (
    CalibrationChoice,
    describe_machine,
    load_machine,
    load_samples,
    open_network,
    quantize_network,
)
from accelsim.cli.terminal import BoundMissedError, echo, progress_bar
from accelsim.errors import DataError

if TYPE_CHECKING:
    from accelsim.reference import ComparisonReport

NAME = "compare"
HELP = """Hold the machine's integers against the float network and its simulated quantization, layer by layer.

\b
Examples:
  accelsim compare net.onnx --calibration images.npz:train --images images.npz:test --labels images.npz:labels
  accelsim compare net.npz --images images.npz:test --labels images.npz:labels --machine my.toml --max-loss 1
"""


def command(
    model: options.AnyModel,
    images: options.Images,
    labels: options.Labels = None,
    machine: options.MachineName = "edge_16x16",
    settings: options.Settings = None,
    engine: options.EngineChoice = options.Engine.FAST,
    max_loss: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            min=0,
            max=100,
            help="Exit with status 1 where the integers' top-1 accuracy is more than this under the float network's.",
        ),
    ] = None,
    limit: options.Limit = None,
    calibration: options.Calibration = None,
    calibration_limit: options.CalibrationLimit = None,
    weight_bits: options.WeightBits = None,
    activation_bits: options.ActivationBits = None,
    per_channel: options.PerChannel = None,
    weight_range: options.WeightRange = None,
    activation_range: options.ActivationRange = None,
    power_of_two: options.PowerOfTwo = False,
    rounding: options.Rounding = None,
    layers: options.LayerWidths = None,
    ptq: options.QuantizationFile = None,
    layout: options.FileLayout = options.Layout.CHANNELS_FIRST,
    as_json: options.Json = False,
) -> None:
    """Compare the three sides; see HELP."""
    from accelsim.reference import compare

    if max_loss is not None and labels is None:
        raise DataError("--max-loss needs to know what is right: add --labels FILE")
    target = load_machine(machine, settings or [])
    choices = options.quantization(
        weight_bits, activation_bits, per_channel, weight_range, activation_range, power_of_two, rounding, layers, ptq
    )
    calibrated_on = CalibrationChoice(calibration, calibration_limit, layout)
    network = open_network(model, calibrated_on, choices)
    samples, classes = load_samples(network, images, labels, limit, layout)
    with progress_bar() as progress:
        quantized = quantize_network(network, calibrated_on, choices, progress)
        report = compare(
            quantized.original,
            quantized,
            samples,
            target,
            classes,
            engine=engine.value,
            progress=progress,
        )
    if as_json:
        record = {"model": str(model), "machine": target.model_dump(mode="json"), **json.loads(report.to_json())}
        echo(json.dumps(record, indent=2, allow_nan=False))
    else:
        echo(f"{quantized.graph.name} on {describe_machine(machine, settings or [], target)}\n\n{report.table()}")
    if max_loss is not None:
        _hold_to(report, max_loss)


def _hold_to(report: ComparisonReport, max_loss: float) -> None:
    """Raise BoundMissedError where the integers lose more than the bound, compared without rounding."""
    if report.metrics is None:
        raise AssertionError("labels were given")
    # Shares of a number of samples: the counts are whole again.
    right = {kind: round(report.metrics[kind]["top1"] * report.num_samples) for kind in ("float", "actual")}
    loss = Fraction(100 * (right["float"] - right["actual"]), report.num_samples)
    if loss > Fraction(str(max_loss)):
        raise BoundMissedError(
            f"top-1 accuracy of the integers is {float(loss):.2f} points under the float network's, more than "
            f"--max-loss {max_loss:g}"
        )
