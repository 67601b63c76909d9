"""From what was typed to what runs: networks, images, machines, output files."""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.cli.options import Layout
from accelsim.errors import DataError, MachineError, ModelError
from accelsim.files import refuse_special
from accelsim.toml import TomlLimitError, read_toml, shortened

if TYPE_CHECKING:
    from accelsim.cli.terminal import Progress
    from accelsim.graph.graph import Graph
    from accelsim.graph.quantized import QuantizedGraph
    from accelsim.machine import Machine

DEFAULT_MACHINE = "edge_16x16"
"""Preset of a network that brings no machine of its own."""

_ZIP = b"PK"
_TFLITE = b"TFL3"
"""At byte 4 of a flatbuffer with TFLite's schema."""
_BARE_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class CalibrationChoice:
    """Where the images come from that a float model is calibrated on.

    Parameters
    ----------
    file : str or None
        ``FILE[:ARRAY]``.
    limit : int or None
        How many of them are used.
    layout : Layout
        Order of the axes in the file.
    """

    file: str | None
    limit: int | None
    layout: Layout

    def images(self, graph: Graph) -> Any:
        """Return the calibration images of a network."""
        from accelsim.arrays import first_samples, read_images

        if self.file is None:
            raise AssertionError("a missing file is refused before")
        images = read_images(self.file, _input_names(graph), self.layout is Layout.CHANNELS_LAST)
        return first_samples(images, self.limit)


def is_quantized(model: Path) -> bool:
    """Whether a model file is one that `accelsim quantize` made, by its first bytes: those of a zip file."""
    if not model.is_file():
        return False  # the reader of float models says what is wrong with it
    with model.open("rb") as file:
        return file.read(len(_ZIP)) == _ZIP


def is_tflite(model: Path) -> bool:
    """Whether a model is one of TFLite, by the name or the first bytes of its file."""
    if not model.is_file():
        return model.suffix == ".tflite"
    with model.open("rb") as file:
        return model.suffix == ".tflite" or file.read(8)[4:] == _TFLITE


def is_integer_onnx(model: Path) -> bool:
    """Whether a model file is an ONNX model with quantized operators; False for one that cannot be read."""
    from accelsim.graph.onnx_file import read_model
    from accelsim.program.onnx.reader import is_quantized_onnx

    try:
        return is_quantized_onnx(read_model(model)[0])
    except ModelError:
        return False  # the reader of float models says what is wrong with it


def open_network(model: Path, calibration: CalibrationChoice, choices: dict[str, Any]) -> Graph | QuantizedGraph:
    """Read a quantized network, or a float one that is still to be quantized.

    Parameters
    ----------
    model : Path
        Either file.
    calibration : CalibrationChoice
        For a float model.
    choices : dict
        The quantization options that were given.

    Returns
    -------
    Graph or QuantizedGraph
        As the file has it.

    Raises
    ------
    AccelsimError
        When the file is wrong, a float model comes without calibration images, or a quantized one with options that can
        no longer have an effect.
    """
    if not is_quantized(model):
        graph = load_float(model)
        if calibration.file is None:
            raise DataError(
                f"model {str(model)!r} is a float network: add --calibration FILE to quantize it first, or give the "
                ".npz file of `accelsim quantize`"
            )
        return graph
    from accelsim.graph.quantized import QuantizedGraph

    quantized = QuantizedGraph.load(model)
    refuse_quantization(model, calibration, choices)
    return quantized


def refuse_quantization(model: Path, calibration: CalibrationChoice, choices: dict[str, Any]) -> None:
    """Refuse options of quantization for a model that is quantized already."""
    useless = ["--layer" if name == "layers" else f"--{name.replace('_', '-')}" for name in choices]
    useless += [] if calibration.file is None else ["--calibration"]
    useless += [] if calibration.limit is None else ["--calibration-limit"]
    if useless:
        raise DataError(
            f"model {str(model)!r} is quantized already, so {', '.join(useless)} would do nothing: leave out, or give "
            "the float model"
        )


def load_samples(
    network: Graph | QuantizedGraph, images: str, labels: str | None, limit: int | None, layout: Layout
) -> tuple[Any, Any]:
    """Read images and labels for a network.

    Parameters
    ----------
    network : Graph or QuantizedGraph
        What will be fed.
    images, labels : str
        ``FILE[:ARRAY]``; the labels may be None.
    limit : int or None
        How many samples are taken.
    layout : Layout
        Order of the axes in the file of images.

    Returns
    -------
    tuple
        Images (one array, or one per input) and labels or None.
    """
    from accelsim.arrays import first_samples, num_samples, read_images, read_labels

    every = read_images(images, _input_names(network), layout is Layout.CHANNELS_LAST)
    classes = None if labels is None else read_labels(labels, num_samples(every))[:limit]
    return first_samples(every, limit), classes


def load_float(model: Path) -> Graph:
    """Read a float network; refuse one that is quantized already."""
    if is_quantized(model):
        raise ModelError(
            f"model file {str(model)!r} must be a float ONNX model, but is a zip file; if `accelsim quantize` made it, "
            "it is quantized already: give it to `accelsim run`"
        )
    if is_tflite(model):
        raise ModelError(
            f"model file {str(model)!r} must be a float ONNX model, but is a TFLite model, which has no float network "
            "beside its integers: give it to `accelsim run`"
        )
    if is_integer_onnx(model):
        raise ModelError(
            f"model file {str(model)!r} must be a float ONNX model, but has quantized operators; give it to "
            "`accelsim run`"
        )
    from accelsim.graph.reader import load_onnx

    return load_onnx(model)


def quantize_network(
    network: Graph | QuantizedGraph, calibration: CalibrationChoice, choices: dict[str, Any], progress: Progress | None
) -> QuantizedGraph:
    """Quantize a float network, on calibration images where there are some; leave one alone that is quantized."""
    from accelsim.graph.graph import Graph
    from accelsim.ptq import PTQConfig, quantize

    if not isinstance(network, Graph):
        return network
    images = None if calibration.file is None else calibration.images(network)
    return quantize(network, images, PTQConfig(**choices), progress=progress)


def _input_names(network: Graph | QuantizedGraph) -> list[str]:
    """Return the names of a network's inputs."""
    from accelsim.graph.graph import Graph

    return [tensor.name for tensor in (network if isinstance(network, Graph) else network.graph).inputs]


def load_machine(name: str | None, settings: list[str], default: Machine | None = None) -> Machine:
    """Return a machine by the name of a preset or of a TOML file, with some fields changed.

    Parameters
    ----------
    name : str or None
        ``edge_16x16``, which it is where it is left out, or ``my.toml``.
    settings : list of str
        ``field=value`` each: the value in TOML (a bare word stands for itself), the field with a dot inside a table.
    default : Machine, optional
        Taken where the name is left out.

    Returns
    -------
    Machine
        Validated with all changes at once.

    Raises
    ------
    MachineError
        When there is no such machine, a setting is not of this form, or the changed machine is not valid.
    """
    from accelsim.machine import Machine, Requantizer

    presets = Machine.preset_names()
    name = DEFAULT_MACHINE if name is None and default is None else name
    if name is None and default is not None:
        machine = default
    elif name in presets:
        machine = Machine.preset(name)
    elif name is not None and (name.endswith(".toml") or Path(name).is_file()):
        machine = Machine.load(name)
    else:
        raise MachineError(f"machine must be one of {', '.join(presets)} or a .toml file, got {name!r}")
    if not settings:
        return machine
    fields = machine.model_dump(mode="json", exclude_none=True)
    for setting in settings:
        key, value = _setting(setting)
        *tables, last = key.split(".")
        place = fields
        for depth, table in enumerate(tables):
            inner = place.setdefault(table, {})
            if table == "requantizer" and depth == 0 and isinstance(inner, str):
                inner = place[table] = Requantizer.preset(inner).model_dump(mode="json")
            if not isinstance(inner, dict):
                raise MachineError(
                    f"machine.{'.'.join(tables[: depth + 1])} is no table, so {key!r} is not a known key"
                )
            place = inner
        place[last] = value
    return Machine(**fields)


def _setting(setting: str) -> tuple[str, Any]:
    """Split ``field=value``."""
    key, equals, text = (part.strip() for part in setting.partition("="))
    if not (equals and text and all(_BARE_WORD.fullmatch(part) for part in key.split("."))):
        raise MachineError(f"--set must be FIELD=VALUE, as in accumulator_bits=20, got {shortened(setting)}")
    try:
        values = read_toml(f"value = {text}")
    except tomllib.TOMLDecodeError:
        values = {"value": text} if _BARE_WORD.fullmatch(text) else {}
    except TomlLimitError as failure:
        raise MachineError(f"--set {key}: the value cannot be read: {failure}, got {shortened(text)}") from None
    if set(values) != {"value"}:
        raise MachineError(
            f'--set {key}: the value must be one of TOML (20, true, "wrap", ["floor"]), got {shortened(text)}'
        )
    return key, values["value"]


def describe_machine(name: str, settings: list[str], machine: Machine) -> str:
    """Return one line on a machine."""
    changed = f" with {', '.join(settings)}" if settings else ""
    return (
        f"{name}{changed}: {machine.rows}x{machine.columns} {machine.dataflow}, {machine.accumulator_bits}-bit "
        f"accumulators ({machine.overflow}), requantizer {machine.requantizer.name}"
    )


def check_outputs(outputs: list[Path | None], model: Path | None, arrays: list[str | None]) -> None:
    """Refuse output files that cannot be written or would replace an input, before any long work.

    Parameters
    ----------
    outputs : list of Path or None
        The files to be made.
    model : Path or None
        An input.
    arrays : list of str or None
        Inputs as ``FILE[:ARRAY]``.

    Raises
    ------
    DataError
        When a folder is missing or not writable, or the file is a folder, a device, a pipe, an input, or named twice.
    """
    from accelsim.arrays import array_file

    inputs = [*([] if model is None else [model]), *(array_file(name) for name in arrays if name is not None)]
    taken = [path.resolve() for path in inputs]
    for path in outputs:
        if path is None:
            continue
        where = f"file {str(path)!r} cannot be written"
        if not path.parent.is_dir():
            raise DataError(f"{where}: there is no folder {str(path.parent)!r}; make it, or name another place")
        if path.is_dir():
            raise DataError(f"{where}: it is a folder; name a file in it")
        refuse_special(path)
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise DataError(f"{where}: no permission in folder {str(path.parent)!r}; name another place")
        if path.resolve() in taken:
            raise DataError(f"{where}: it is an input or another output of this command; name another file")
        taken.append(path.resolve())
