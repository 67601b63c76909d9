"""Models that another tool quantized: integer programs, which run as they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.cli.inputs import CalibrationChoice, is_tflite, refuse_quantization

if TYPE_CHECKING:
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
    if not is_tflite(model):
        return None
    refuse_quantization(model, calibration, choices)
    from accelsim.program.tflite.loading import load_tflite

    return load_tflite(model)


def load_program_samples(
    program: IntegerProgram, images: str, labels: str | None, limit: int | None
) -> tuple[Any, Any]:
    """Read images and labels for a program, in the model's own order of axes.

    Parameters
    ----------
    program : IntegerProgram
        What will be fed.
    images, labels : str
        ``FILE[:ARRAY]``; the labels may be None.
    limit : int or None
        How many samples are taken.

    Returns
    -------
    tuple
        Images (one array, or one per input) and labels or None.
    """
    from accelsim.arrays import first_samples, num_samples, read_images, read_labels

    every = read_images(images, [tensor.name for tensor in program.inputs])
    classes = None if labels is None else read_labels(labels, num_samples(every))[:limit]
    return first_samples(every, limit), classes
