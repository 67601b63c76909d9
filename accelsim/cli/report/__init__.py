"""``accelsim report``: a run, a comparison, a width analysis or a sweep as one HTML file that needs no network."""

from __future__ import annotations

import typer

from accelsim.cli.report import compare, run, sweep, widths

NAME = "report"
HELP = """Make one HTML file of a run, a comparison, a width analysis or a sweep: tables, figures, a viewer of cycles.

The file needs no network and no other file. It names what was run: versions, hashes of the files, every field of the
machine.

\b
Examples:
  accelsim report run net.npz --images images.npz:test --labels images.npz:labels --output run.html
  accelsim report run net.npz --images images.npz:test --set accumulator_bits=16 --trace conv1 --trace conv2 \\
      --cycles 0:400 --output cycles.html
  accelsim report compare net.onnx --calibration images.npz:train --images images.npz:test --output compare.html
  accelsim report sweep sweep.sqlite --output sweep.html
  accelsim report widths net.npz --images images.npz:test --labels images.npz:labels --output widths.html
"""

app = typer.Typer(name=NAME, help=HELP, no_args_is_help=True, rich_markup_mode=None)
for module in (run, compare, widths, sweep):
    app.command(module.NAME, help=module.HELP)(module.command)
