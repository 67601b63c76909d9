"""What was run, so that it can be run again: versions, files and their hashes, the machine, the quantization."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from accelsim import __version__
from accelsim.machine import Machine
from accelsim.report.html.elements import facts, paragraph
from accelsim.report.html.page import Section

Facts = Sequence[tuple[str, str]]

_LIBRARIES = ("numpy", "numba", "onnx", "onnxruntime")
_CHUNK_BYTES = 1 << 20


def file_facts(what: str, path: Path, named: str | None = None) -> list[tuple[str, str]]:
    """Name a file and its content.

    Parameters
    ----------
    what : str
        What it was used for.
    path : Path
        The file; its folder is not told.
    named : str, optional
        What was asked for of it: ``FILE:ARRAY`` without the folder.

    Returns
    -------
    list of pairs
        Name and SHA-256.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return [(what, path.name if named is None else named), (f"{what}, SHA-256", digest.hexdigest())]


def provenance_section(machine: Machine | None, log: Sequence[str], inputs: Facts) -> Section:
    """Return what was run.

    Parameters
    ----------
    machine : Machine or None
        The hardware, with every field.
    log : sequence of str
        How it was quantized, step by step.
    inputs : sequence of pairs
        Names and values: files, hashes, options.

    Returns
    -------
    Section
        The last one of a report.
    """
    versions = [("accelsim", __version__), ("Python", platform.python_version())]
    versions += [(name, metadata.version(name)) for name in _LIBRARIES]
    groups: list[tuple[str, Facts]] = [("Versions", versions)]
    if inputs:
        groups.insert(0, ("Inputs", inputs))
    if machine is not None:
        groups.append(("Machine", _flat(machine.model_dump(mode="json"))))
    body = facts(groups)
    if log:
        body += "<h3>Quantization</h3>" + "".join(paragraph(line, "log") for line in log)
    return Section("provenance", "What was run", body)


def _flat(fields: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return the fields as names and values, those of a table with a dot."""
    found = []
    for name, value in fields.items():
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            found.append((f"{prefix}{name}", ", ".join(map(str, value))))
        else:
            found.append((f"{prefix}{name}", "not given" if value is None else str(value).lower()))
    return found
