"""``accelsim demo``: the main job on real input with nothing else at hand."""

from __future__ import annotations

from accelsim.cli import options
from accelsim.cli.terminal import echo, step_lines

NAME = "demo"
HELP = """Show the main job on the network and the images of handwritten digits that ship with accelsim.

The network is quantized to W8A8 and W4A8, per tensor and per channel, and run bit for bit on two machines, next to
floating point and simulated quantization in ONNX Runtime. Then plain min-max quantization is held against the
pipeline, down to 3-bit weights, and an accumulator is narrowed until the accuracy collapses,
under wrap and under saturate. The first run compiles the kernels.

\b
Examples:
  accelsim demo
  accelsim demo --json > demo.json
"""

LEGEND = """
FP32 and simulated quantization: ONNX Runtime; integers: this machine, bit for bit. apart: largest difference between a
code of the simulated quantization and of the integers in any layer; own: the same with each layer simulated on the
integers' own inputs, so that no layer inherits what the layers before it did differently."""


def command(as_json: options.Json = False) -> None:
    """Run the demonstration; see HELP."""
    with step_lines(quiet=as_json) as step:
        step("loading the network, the images and the simulator")
        from accelsim.demo import run_demo

        report = run_demo(step)
    if as_json:
        echo(report.to_json())
        return
    echo(
        f"\n{report.network}: {report.macs_per_image:,} multiply-accumulates an image, {report.num_images} held-back "
        f"images, calibrated on {report.num_calibration_images} others\n"
    )
    echo(report.runs_table())
    echo(LEGEND)
    echo("\nPlain quantization, and the pipeline's defaults: accuracy of the integers\n")
    echo(report.recipes_table())
    echo(f"\nThe accumulator of {report.narrowed_machine} narrowed, W8A8 per channel\n")
    echo(f"{report.narrowed_table()}\n\n{report.conclusion()}")
