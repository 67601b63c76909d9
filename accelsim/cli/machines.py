"""``accelsim machines``: the machines that ship with the package, and a machine as TOML."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from accelsim.cli import options
from accelsim.cli.inputs import load_machine
from accelsim.cli.terminal import echo
from accelsim.errors import MachineError

if TYPE_CHECKING:
    from accelsim.machine import Machine

NAME = "machines"
HELP = """List the machines that ship with accelsim; with NAME, print one as TOML to start your own from.

\b
Examples:
  accelsim machines
  accelsim machines edge_16x16 --set rows=32 --set overflow=saturate > my.toml
"""


def command(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME|FILE.toml", help="A preset or a TOML file to print.")
    ] = None,
    settings: options.Settings = None,
    as_json: options.Json = False,
) -> None:
    """List machines or print one; see HELP."""
    from accelsim.machine import Machine
    from accelsim.tables import text_table

    if name is not None:
        machine = load_machine(name, settings or [])
        echo(json.dumps(machine.model_dump(mode="json"), indent=2) if as_json else machine.to_toml().rstrip("\n"))
        return
    if settings:
        raise MachineError("--set changes one machine: name it, as in `accelsim machines edge_16x16 --set rows=32`")
    presets = {preset: Machine.preset(preset) for preset in Machine.preset_names()}
    if as_json:
        echo(json.dumps({preset: machine.model_dump(mode="json") for preset, machine in presets.items()}, indent=2))
        return
    header = [
        "machine",
        "rows",
        "columns",
        "dataflow",
        "weights",
        "activations",
        "accumulator",
        "overflow",
        "requantizer",
    ]
    echo(text_table(header, [[preset, *_row(machine)] for preset, machine in presets.items()]))


def _row(machine: Machine) -> list[str]:
    """Return a machine's cells."""
    return [
        str(machine.rows),
        str(machine.columns),
        machine.dataflow,
        *("any" if bits is None else f"{bits} bits" for bits in (machine.weight_bits, machine.activation_bits)),
        f"{machine.accumulator_bits} bits",
        machine.overflow,
        machine.requantizer.name,
    ]
