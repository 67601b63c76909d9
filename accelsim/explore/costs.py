"""What a network costs on a machine, without running it."""

from __future__ import annotations

from typing import Any

from accelsim.machine import Machine
from accelsim.program.program import IntegerProgram
from accelsim.simulator.execute import Execution


def costs(program: IntegerProgram, machine: Machine, num_samples: int) -> dict[str, Any]:
    """Return cycles, operations, traffic and energy proxy of some samples, in closed form.

    Parameters
    ----------
    program : IntegerProgram
        What would run.
    machine : Machine
        Where.
    num_samples : int
        How many samples.

    Returns
    -------
    dict of str to number
        As `SimulationResult` would have them.
    """
    layers = Execution(program, machine, "fast", "none", num_samples).records()
    macs = sum(layer.macs for layer in layers)
    cycles = sum(layer.cycles.total for layer in layers)
    grid_cycles = sum(layer.cycles.total for layer in layers if layer.macs)
    return {
        "cycles": cycles,
        **{
            f"{part}_cycles": sum(getattr(layer.cycles, part) for layer in layers)
            for part in ("multiply", "load", "drain", "stall", "vector")
        },
        "macs": macs,
        "utilisation": macs / (machine.num_pes * grid_cycles) if grid_cycles else 0.0,
        "operations": sum(layer.operations.total for layer in layers),
        "energy_pj": float(sum(layer.energy_pj for layer in layers)),
        "dram_bytes": sum(layer.memory.dram_bytes for layer in layers),
    }
