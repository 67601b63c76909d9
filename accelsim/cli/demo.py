"""``accelsim demo``: the main job on real input with nothing else at hand."""

from __future__ import annotations

import os

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
    # Before numpy is loaded: the threads of small products wait for each other in a loop while others run, such as the
    # one that compiles; the demonstration then takes up to three times as long. One thread costs 3 %.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with step_lines(quiet=as_json) as step:
        step("loading the network, the images and the simulator")
        from accelsim.simulator.engine.compile_ahead import compiled_ahead

        with compiled_ahead(rehearse_narrowing):
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


def rehearse_narrowing() -> None:
    """Call the kernels that the demonstration needs last, on few images of a network that was quantized in no time."""
    import accelsim as ax
    from accelsim.data import digits_model_path, load_digits
    from accelsim.demo import MODES, NARROWED_MACHINE, PLAIN

    digits, config = load_digits(), ax.PTQConfig(per_channel=True).replace(**PLAIN)
    network = ax.quantize(ax.load_onnx(digits_model_path()), digits.x_calibration[:32], config)
    images, machine = digits.x_test[:20], ax.Machine.preset(NARROWED_MACHINE)
    for mode in MODES:
        ax.simulate(network, images, machine.replace(accumulator_bits=16, overflow=mode))
    ax.simulate(network, images, machine, track="range")
