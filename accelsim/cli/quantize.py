"""``accelsim quantize``: a float network in, a quantized one out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from accelsim.cli import options
from accelsim.cli.inputs import CalibrationChoice, check_outputs, load_float, quantize_network
from accelsim.cli.terminal import echo, progress_bar

NAME = "quantize"
HELP = """Quantize a trained network without training it again, and save it for `run` and `compare`.

\b
Examples:
  accelsim quantize net.onnx --calibration images.npz:train --output net.npz
  accelsim quantize net.onnx --calibration nhwc.npy --layout channels-last --limit 512 \\
      --weight-bits 4 --per-channel --output net_w4a8.npz --onnx net_w4a8_fakequant.onnx
  accelsim quantize net.onnx --output net_data_free.npz
"""


def command(
    model: options.FloatModel,
    output: Annotated[Path, typer.Option(metavar="OUT.npz", help="The quantized network; replaced if it exists.")],
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="FILE[:ARRAY]",
            help="Images that ranges, rounding and biases are set on; 500 are plenty, no labels. "
            "Without them all is told from batch norms.",
        ),
    ] = None,
    onnx: Annotated[
        Path | None,
        typer.Option(metavar="FAKEQUANT.onnx", help="Write the quantization simulation as an ONNX model, too."),
    ] = None,
    weight_bits: options.WeightBits = None,
    activation_bits: options.ActivationBits = None,
    per_channel: options.PerChannel = None,
    weight_range: options.WeightRange = None,
    activation_range: options.ActivationRange = None,
    power_of_two: options.PowerOfTwo = False,
    rounding: options.Rounding = None,
    equalization: options.Equalization = None,
    bias_correction: options.BiasCorrectionChoice = None,
    input_range: options.InputRange = None,
    layers: options.LayerWidths = None,
    ptq: options.QuantizationFile = None,
    layout: options.FileLayout = options.Layout.CHANNELS_FIRST,
    limit: options.Limit = None,
    as_json: options.Json = False,
) -> None:
    """Quantize a network; see HELP."""
    check_outputs([output, onnx], model, [calibration])
    choices = options.quantization(
        weight_bits, activation_bits, per_channel, weight_range, activation_range, power_of_two, rounding, layers, ptq,
        equalization, bias_correction, input_range,
    )  # fmt: skip
    graph = load_float(model)
    with progress_bar() as progress:
        quantized = quantize_network(graph, CalibrationChoice(calibration, limit, layout), choices, progress)
    quantized.save(output)
    if onnx is not None:
        quantized.to_onnx(onnx)
    if as_json:
        written = {"output": str(output), "onnx": None if onnx is None else str(onnx)}
        echo(json.dumps({"model": str(model), **written, "options": choices, "log": list(quantized.log)}, indent=2))
        return
    for line in quantized.log:
        echo(line)
    echo(f"wrote {output}" + (f" and {onnx}" if onnx is not None else ""))
