"""Keys: hashes of model, data, configuration and version."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from importlib import metadata, resources
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.machine import Dataflow, Machine

Arrays = Mapping[str, npt.NDArray[Any]]


def digest(*parts: Any) -> str:
    """Return the hash of values of JSON and bytes: 32 hexadecimal digits."""
    total = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode("utf-8")
        total.update(len(data).to_bytes(8, "little"))
        total.update(data)
    return total.hexdigest()[:32]


def array_digest(arrays: Arrays) -> str:
    """Return the hash of named arrays: names, types, shapes and values."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(json.dumps([name, array.dtype.str, array.shape]).encode("utf-8"))
        total.update(array.data if array.size else b"")
    return total.hexdigest()[:32]


@functools.cache
def version() -> str:
    """Return the version and a hash of the package's sources: an edit makes old results another version's."""
    total = hashlib.sha256()
    for package in ("accelsim", "accelsim_kernels"):
        for name, data in sorted(_sources(resources.files(package), package)):
            total.update(name.encode("utf-8"))
            total.update(data)
    try:
        number = metadata.version("accelsim")
    except metadata.PackageNotFoundError:  # a checkout that is not installed: its sources say enough
        number = "0"
    return f"{number}+{total.hexdigest()[:12]}"


def _sources(folder: Any, prefix: str) -> list[tuple[str, bytes]]:
    """Return names and contents of the Python files below a folder that decide numbers: all but words and pictures."""
    found = []
    for entry in folder.iterdir():
        name = f"{prefix}/{entry.name}"
        if entry.is_dir() and entry.name not in ("__pycache__", "cli", "report", "data"):
            found += _sources(entry, name)
        elif entry.name.endswith(".py"):
            found.append((name, entry.read_bytes()))
    return found


def order_machine(machine: Machine, with_partials: bool) -> Machine:
    """Return the plainest machine that adds in the same order, with registers that hold everything.

    Parameters
    ----------
    machine : Machine
        Any machine.
    with_partials : bool
        Whether partial sums or adder trees of limited width are looked at. Without them a tile of terms is a tile of
        terms, whether it is summed in a tree or down the rows.

    Returns
    -------
    Machine
        Equal for machines that compute the same numbers.
    """
    rows, columns = 1, 1
    dataflow: Dataflow = "output_stationary"
    if machine.dataflow == "broadcast":
        columns, dataflow = machine.columns, "broadcast"
    elif machine.dataflow != "output_stationary":
        rows, dataflow = machine.rows, "weight_stationary"
    if not with_partials:
        columns, rows = max(rows, columns), 1
        dataflow = "output_stationary" if columns == 1 else "broadcast"
        columns = 1 if dataflow == "output_stationary" else columns
    return Machine(
        rows=rows,
        columns=columns,
        dataflow=dataflow,
        accumulator_bits=64,
        weight_bits=machine.weight_bits,
        activation_bits=machine.activation_bits,
        product_shift_bits=machine.product_shift_bits,
        product_rounding=machine.product_rounding,
        zero_point=machine.zero_point,
        reduction_order=machine.reduction_order,
        requantizer=machine.requantizer,
    )


def inner_bits(machine: Machine) -> int | None:
    """Return the width of partial sums or adder trees; None where the machine has none or they hold everything."""
    match machine.dataflow:
        case "output_stationary":
            return None
        case "broadcast":
            return machine.adder_tree_bits
        case _:
            return machine.partial_sum_bits


def number_machine(machine: Machine) -> Machine:
    """Return the plainest machine that computes the same numbers and counts the same events."""
    inner = inner_bits(machine)
    plain = order_machine(machine, with_partials=inner is not None)
    field = {"broadcast": "adder_tree_bits", "weight_stationary": "partial_sum_bits"}.get(plain.dataflow)
    changes: dict[str, Any] = {"accumulator_bits": machine.accumulator_bits, "overflow": machine.overflow}
    if field is not None and inner is not None:
        changes[field] = inner
    return plain.replace(**changes)
