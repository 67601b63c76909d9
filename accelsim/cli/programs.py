"""Models that another tool quantized: integer programs, which run as they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.cli.inputs import (
    CalibrationChoice,
    is_integer_onnx,
    is_quantized,
    is_tflite,
    load_samples,
    open_network,
    quantize_network,
    refuse_quantization,
)
from accelsim.cli.options import Layout

if TYPE_CHECKING:
    from accelsim.cli.terminal import Progress
    from accelsim.graph.graph import Graph
    from accelsim.graph.quantized import QuantizedGraph
    from accelsim.machine import Machine
    from accelsim.program.program import IntegerProgram


def open_program(model: Path, calibration: CalibrationChoice, choices: dict[str, Any]) -> IntegerProgram | None:
    """Read a model that is quantized already by another tool.

    Parameters
    ----------
    model : Path
        Any model file.
    calibration, choices
        What was given to quantize a float model with.

    Returns
    -------
    IntegerProgram or None
        None for a file of another kind.

    Raises
    ------
    AccelsimError
        When the file is wrong, or there are options that cannot have an effect.
    """
    if is_tflite(model):
        refuse_quantization(model, calibration, choices)
        from accelsim.program.tflite.loading import load_tflite

        return load_tflite(model)
    if is_quantized(model) or not is_integer_onnx(model):
        return None
    refuse_quantization(model, calibration, choices)
    from accelsim.program.onnx.reader import load_integer_onnx

    return load_integer_onnx(model)


def open_model(
    model: Path,
    calibration: CalibrationChoice,
    choices: dict[str, Any],
    images: str,
    labels: str | None,
    limit: int | None,
) -> tuple[Graph | QuantizedGraph | IntegerProgram, Any, Any]:
    """Read any model with the images that it is fed.

    Parameters
    ----------
    model : Path
        A float network, one that is quantized, or one that another tool quantized.
    calibration, choices
        What was given to quantize a float model with.
    images, labels, limit
        As in `load_program_samples`.

    Returns
    -------
    tuple
        The network or program, images and labels or None.
    """
    program = open_program(model, calibration, choices)
    if program is not None:
        return program, *load_program_samples(model, program, images, labels, limit, calibration.layout)
    network = open_network(model, calibration, choices)
    return network, *load_samples(network, images, labels, limit, calibration.layout)


def quantized_or_program(
    network: Graph | QuantizedGraph | IntegerProgram,
    calibration: CalibrationChoice,
    choices: dict[str, Any],
    progress: Progress | None,
) -> QuantizedGraph | IntegerProgram:
    """Quantize a float network as `quantize_network` does; leave alone what is in integers."""
    from accelsim.program.program import IntegerProgram

    if isinstance(network, IntegerProgram):
        return network
    return quantize_network(network, calibration, choices, progress)


def own_machine(network: Graph | QuantizedGraph | IntegerProgram) -> Machine | None:
    """Return the machine that a model from another tool brings along; None for all others."""
    from accelsim.program.program import IntegerProgram

    return network.machine if isinstance(network, IntegerProgram) else None


def load_program_samples(
    model: Path, program: IntegerProgram, images: str, labels: str | None, limit: int | None, layout: Layout
) -> tuple[Any, Any]:
    """Read images and labels for a program.

    Parameters
    ----------
    model : Path
        The model's file.
    program : IntegerProgram
        What will be fed.
    images, labels : str
        ``FILE[:ARRAY]``; the labels may be None.
    limit : int or None
        How many samples are taken.
    layout : Layout
        Order of the axes in the file of images. TFLite's have their channels last, in the file and in the model.

    Returns
    -------
    tuple
        Images (one array, or one per input) and labels or None.
    """
    from accelsim.arrays import first_samples, num_samples, read_images, read_labels

    channels_last = layout is Layout.CHANNELS_LAST and not is_tflite(model)
    every = read_images(images, [tensor.name for tensor in program.inputs], channels_last)
    classes = None if labels is None else read_labels(labels, num_samples(every))[:limit]
    return first_samples(every, limit), classes
