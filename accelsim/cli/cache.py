"""``accelsim cache``: the machine code of the kernels on disk."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import typer

from accelsim.cli import options
from accelsim.cli.terminal import echo, progress_bar
from accelsim.errors import OperandError

NAME = "cache"
HELP = """Show, delete or fill the cache of compiled kernels.

\b
  info   where it is, how large, and what older versions left behind
  clear  delete it; the next run compiles again
  warm   compile what a run needs, so that the first one starts at once

\b
Examples:
  accelsim cache info
  ACCELSIM_CACHE_DIR=/scratch/kernels accelsim cache warm
"""


def command(
    action: Annotated[str, typer.Argument(metavar="ACTION", help="info, clear or warm.")] = "info",
    as_json: options.Json = False,
) -> None:
    """Look after the cache; see HELP."""
    actions = {"info": _info, "clear": _clear, "warm": _warm}
    if action not in actions:
        raise OperandError(f"cache: the action must be one of {', '.join(actions)}, got {action!r}")
    record, lines = actions[action]()
    echo(json.dumps(record, indent=2) if as_json else "\n".join(lines))


def _info() -> tuple[dict[str, Any], list[str]]:
    """Return what is on disk."""
    from accelsim.simulator.engine.kernel_cache import KernelCache

    found = KernelCache.look()
    record = {
        "folder": None if found.current is None else str(found.current),
        "num_kernels": found.num_kernels,
        "bytes": found.current_bytes,
        "stale_folders": [str(folder) for folder in found.stale],
        "stale_bytes": found.stale_bytes,
    }
    where = record["folder"] or f"none: {found.base} cannot be written, kernels are compiled in memory"
    return record, [
        f"folder   {where} (set {found.variable} to choose)",
        f"kernels  {found.num_kernels} compiled variants, {_megabytes(found.current_bytes)}",
        f"stale    {len(found.stale)} folders of other versions, {_megabytes(found.stale_bytes)}",
    ]


def _clear() -> tuple[dict[str, Any], list[str]]:
    """Delete all machine code."""
    from accelsim.simulator.engine.kernel_cache import clear

    freed = clear()
    return {"freed_bytes": freed}, [f"deleted {_megabytes(freed)}"]


def _warm() -> tuple[dict[str, Any], list[str]]:
    """Run the shipped network in every way that has kernels of its own."""
    from accelsim.simulator.engine.compile_ahead import compiled_ahead

    began = time.perf_counter()
    with compiled_ahead(warm_from_the_end), progress_bar() as progress:
        runs = _runs()
        for done, run in enumerate(runs, start=1):
            run()
            if progress is not None:
                progress("kernels", done, len(runs))
    seconds = time.perf_counter() - began
    record, lines = _info()
    return {**record, "seconds": seconds}, [*lines, f"warmed in {seconds:.1f} s"]


def warm_from_the_end() -> None:
    """Do the same in the opposite order, in the process that meets the first one half way."""
    for run in reversed(_runs()):
        run()


def _runs() -> list[Callable[[], object]]:
    """Return runs that between them call the kernels of every dataflow, with outputs at risk and without."""
    import accelsim as ax
    from accelsim.data import digits_model_path, load_digits

    digits = load_digits()
    network = ax.quantize(ax.load_onnx(digits_model_path()), calibration=digits.x_calibration[:32])
    run, runs = partial(ax.simulate, network, digits.x_test[:1]), list[Callable[[], object]]()
    for dataflow in ("output_stationary", "weight_stationary", "input_stationary", "broadcast"):
        machine = ax.Machine.model_validate({"dataflow": dataflow})
        runs.append(partial(run, machine))
        runs.append(partial(run, machine, engine="stepped"))
        runs.append(partial(run, machine.replace(accumulator_bits=12), track="range"))
    return runs


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
