"""The program: its commands, and what becomes of an error.

======  ================================================================================================================
status  meaning
======  ================================================================================================================
0       done
1       the run says no: accuracy under the asked bound, an overflow where the machine's mode is ``error``
2       wrong input, in one line: what, where, what would be right
130     interrupted from the keyboard
141     the reader of the output closed it (as in ``accelsim machines | head``)
======  ================================================================================================================
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from accelsim import __version__
from accelsim.cli import cache, compare, debug, demo, machines, quantize, report, run, sweep, trace, widths
from accelsim.cli.terminal import BoundMissedError, complain, echo
from accelsim.errors import AccelsimError, AccumulatorOverflowError

INTERRUPTED = 130
OUTPUT_CLOSED = 141


class Program(TyperGroup):
    """The group of commands, with every expected error turned into one line and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for.

        Raises
        ------
        typer.Exit
            With the status of the module's table, where the command did not end well.
        """
        try:
            return super().invoke(ctx)
        except (BoundMissedError, AccumulatorOverflowError) as no:
            complain(f"failed: {no}")
            raise typer.Exit(1) from None
        except AccelsimError as error:
            complain(f"error: {error}")
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            _discard_output()
            raise typer.Exit(OUTPUT_CLOSED) from None
        except MemoryError as error:
            complain(f"error: memory does not suffice ({error}); --limit takes fewer samples".replace(" ()", ""))
            raise typer.Exit(2) from None
        except OSError as error:
            name = f"file {str(error.filename)!r}: " if error.filename else ""
            complain(f"error: {name}{error.strerror or error}")
            raise typer.Exit(2) from None


app = typer.Typer(
    name="accelsim",
    cls=Program,
    help=(
        "Simulate fixed-point neural-network accelerators, bit for bit and cycle by cycle.\n\n"
        "A trained ONNX network is quantized, run on a machine of your description, and held against floating point: "
        "which numbers come out, where an accumulator overflows, how many cycles and operations it takes.\n\n"
        "\b\n"
        "Examples:\n"
        "  accelsim demo\n"
        "  accelsim quantize net.onnx --calibration images.npz:train --output net_w8a8.npz\n"
        "  accelsim run net_w8a8.npz --images images.npz:test --labels images.npz:labels --machine paper_4x4\n\n"
        "Exit status: 0 done, 1 the run says no, 2 wrong input."
    ),
    no_args_is_help=True,
    add_completion=False,
    # Plain help: it reads the same on a terminal, in a pipe and in a log, and costs no import.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for module in (demo, quantize, run, compare, debug, widths, sweep, trace, machines, cache):
    app.command(module.NAME, help=module.HELP)(module.command)
app.add_typer(report.app)


def _show_version(asked: bool) -> None:
    """Print the version and end."""
    if asked:
        echo(f"accelsim {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Take the options that stand before a command."""


def main() -> None:
    """Run the command line; the entry point of the ``accelsim`` script.

    Raises
    ------
    SystemExit
        Always, with the status of the module's table.
    """
    # A name that the terminal's encoding lacks is shown escaped instead of ending the program.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        try:
            app(prog_name="accelsim")
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        sys.exit(OUTPUT_CLOSED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _discard_output() -> None:
    """Send what is left of the output nowhere, so that the interpreter's last flush does not fail too."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
