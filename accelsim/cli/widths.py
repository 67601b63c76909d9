"""``accelsim widths``: how wide the registers must be."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from accelsim.cli import options
from accelsim.cli.inputs import (
    DEFAULT_MACHINE,
    CalibrationChoice,
    check_outputs,
    describe_machine,
    load_machine,
)
from accelsim.cli.programs import open_model, own_machine, quantized_or_program
from accelsim.cli.terminal import echo, progress_bar

NAME = "widths"
HELP = """Find how wide accumulators, partial sums, adder trees and requantization multipliers must be, layer by layer.

Three answers each: the width that is proven enough for any input, the width that these images needed, and the narrowest
width at which the accuracy holds when the register wraps and when it saturates. The machine's own register widths and
overflow mode play no part.

\b
Examples:
  accelsim widths net.npz --images images.npz:test --labels images.npz:labels
  accelsim widths net.onnx --calibration images.npz:train --images images.npz:test --labels images.npz:labels \\
      --machine paper_4x4 --max-loss 0.5 --json
  accelsim widths model_int8.tflite --images images.npz:test
"""

MaxLoss = Annotated[
    float,
    typer.Option(
        metavar="POINTS",
        min=0,
        max=100,
        help="Accuracy holds where it is at most this much under the exact integers'.",
    ),
]
SearchLimit = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Measure the accuracy on the first N images; the ranges on all of them."),
]


def command(
    model: options.RunnableModel,
    images: options.Images,
    labels: options.Labels = None,
    machine: options.OwnMachineName = None,
    settings: options.Settings = None,
    max_loss: MaxLoss = 1.0,
    search_limit: SearchLimit = 256,
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Searches at the same time; by default one per processor.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the figure of accuracy against accumulator width: .svg, .pdf or .png."
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
    """Analyse the widths; see HELP."""
    from accelsim.explore import accumulator_widths
    from accelsim.report.plots import accuracy_by_width, figure_format, save_figure

    if plot is not None:
        figure_format(plot)
    check_outputs([plot], model, [images, labels, calibration])
    choices = options.quantization(
        weight_bits, activation_bits, per_channel, weight_range, activation_range, power_of_two, rounding, layers, ptq
    )
    calibrated_on = CalibrationChoice(calibration, calibration_limit, layout)
    network, samples, classes = open_model(model, calibrated_on, choices, images, labels, limit)
    target = load_machine(machine, settings or [], own_machine(network))
    with progress_bar() as progress:
        quantized = quantized_or_program(network, calibrated_on, choices, progress)
        report = accumulator_widths(
            quantized,
            samples,
            target,
            classes,
            max_loss=max_loss / 100,
            search_samples=search_limit,
            threads=threads,
            progress=progress,
        )
    if plot is not None:
        save_figure(accuracy_by_width(report), plot)
    if as_json:
        echo(report.to_json())
        return
    echo(f"{report.network} on {describe_machine(machine or DEFAULT_MACHINE, settings or [], target)}\n")
    echo(str(report))
    if plot is not None:
        echo(f"wrote {plot}")
