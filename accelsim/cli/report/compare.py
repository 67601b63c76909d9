"""``accelsim report compare``: float, simulated quantization and actual integers side by side."""

from __future__ import annotations

import json

from accelsim.cli import options
from accelsim.cli.inputs import check_outputs
from accelsim.cli.report.choice import Choice, Output, Title, save
from accelsim.cli.terminal import progress_bar

NAME = "compare"
HELP = """Report float, simulated quantization and actual integers side by side, layer by layer.

\b
Examples:
  accelsim report compare net.npz --images images.npz:test --labels images.npz:labels --output compare.html
"""


def command(
    model: options.AnyModel,
    images: options.Images,
    output: Output,
    labels: options.Labels = None,
    machine: options.MachineName = "edge_16x16",
    settings: options.Settings = None,
    limit: options.Limit = None,
    title: Title = None,
    calibration: options.Calibration = None,
    calibration_limit: options.CalibrationLimit = None,
    weight_bits: options.WeightBits = None,
    activation_bits: options.ActivationBits = None,
    per_channel: options.PerChannel = None,
    ptq: options.QuantizationFile = None,
    layout: options.FileLayout = options.Layout.CHANNELS_FIRST,
    as_json: options.Json = False,
) -> None:
    """Report a comparison; see HELP."""
    from accelsim.reference import compare
    from accelsim.report.html import html_report

    check_outputs([output], model, [images, labels, calibration])
    choice = Choice(
        model, images, labels, limit, layout, machine, settings, calibration, calibration_limit, weight_bits,
        activation_bits, per_channel, ptq,
    )  # fmt: skip
    target = choice.machine()
    network = choice.network()
    samples, classes = choice.samples(network)
    with progress_bar() as progress:
        quantized = choice.quantized(network, progress)
        report = compare(quantized.original, quantized, samples, target, classes, progress=progress)
    page = html_report(report, target, network=quantized, title=title, inputs=choice.facts(target))
    save(page, output, as_json, {"metrics": json.loads(report.to_json())["metrics"]})
