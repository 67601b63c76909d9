"""``accelsim debug``: why a quantized network is worse than its float original."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from accelsim.cli import options
from accelsim.cli.inputs import CalibrationChoice, load_float, load_samples
from accelsim.cli.terminal import BoundMissedError, echo, progress_bar

NAME = "debug"
HELP = """Find out which layers make a quantized network worse, and what to try: the white paper's debugging flow.

The network is run with every quantizer bypassed, with activations and weights quantized apart, and with one tensor
quantized at a time. Without labels, agreement with the float network takes the place of accuracy.

\b
Examples:
  accelsim debug net.onnx --calibration images.npz:train --images images.npz:test --labels images.npz:labels
  accelsim debug net.onnx --calibration images.npz:train --images images.npz:test --weight-bits 4 --max-loss 2 \\
      --plots figures --proposal layers.toml
"""

_POINT = 0.01


def command(
    model: options.FloatModel,
    calibration: Annotated[
        str, typer.Option(metavar="FILE[:ARRAY]", help="Images that the network is quantized on; no labels.")
    ],
    images: options.Images,
    labels: options.Labels = None,
    max_loss: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            min=0,
            max=100,
            help="Loss that is taken, 1 if left out. Where it is given and the network loses more, exit with status 1.",
        ),
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Draw what each tensor costs and the worst ones' channels.")
    ] = None,
    proposal: Annotated[
        Path | None,
        typer.Option(metavar="OUT.toml", help="Write the layers that should have more bits, as --ptq reads them."),
    ] = None,
    limit: options.Limit = None,
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
    """Diagnose a network; see HELP."""
    from accelsim.cli.inputs import check_outputs
    from accelsim.ptq.config import PTQConfig
    from accelsim.ptq.diagnosis import diagnose

    check_outputs([proposal], model, [calibration, images, labels])
    choices = options.quantization(
        weight_bits, activation_bits, per_channel, weight_range, activation_range, power_of_two, rounding, layers, ptq
    )
    config = PTQConfig(**choices)
    graph = load_float(model)
    samples, classes = load_samples(graph, images, labels, limit, layout)
    calibrated_on = CalibrationChoice(calibration, calibration_limit, layout).images(graph)
    tolerance = (1.0 if max_loss is None else max_loss) * _POINT
    with progress_bar() as progress:
        found = diagnose(graph, calibrated_on, config, samples, classes, tolerance=tolerance, progress=progress)
    written = [] if plots is None else _draw(found, plots)
    if proposal is not None:
        _write_proposal(found, proposal)
        written.append(proposal)
    if as_json:
        record = {"model": str(model), **json.loads(found.to_json()), "files": [str(path) for path in written]}
        echo(json.dumps(record, indent=2, allow_nan=False))
    else:
        echo(found.table())
        for path in written:
            echo(f"wrote {path}")
    _hold_to(found, max_loss)


def _draw(found: Any, folder: Path) -> list[Path]:
    from accelsim.report.plots_diagnosis import save_diagnosis_figures

    return save_diagnosis_figures(found, folder)


def _write_proposal(found: Any, path: Path) -> None:
    """Write the proposed layers, and whatever else the configuration sets, as TOML."""
    from accelsim.files import write_whole

    write_whole(path, found.proposed_config().to_toml().encode())


def _hold_to(found: Any, max_loss: float | None) -> None:
    """Raise BoundMissedError where the network does not hold what was asked for."""
    if any(finding.step == "fp32" for finding in found.findings):
        raise BoundMissedError("with every quantizer bypassed the network is not the float network")
    if max_loss is not None and found.loss() > found.tolerance:
        raise BoundMissedError(
            f"{found.metric} of the quantized network is {100 * found.loss():.2f} points under the float network's, "
            f"more than --max-loss {max_loss:g}"
        )
