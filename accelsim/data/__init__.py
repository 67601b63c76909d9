"""The shipped example: a small trained network and real images of handwritten digits.

``tools/train_digits.py`` made both files; ATTRIBUTION.md says whose images they are.
"""

from __future__ import annotations

import atexit
import functools
import zipfile
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import DataError

# Where the package is imported from an archive, a resource becomes a file only while a context is open: this one is
# open until the interpreter ends. In an ordinary installation nothing is copied.
_extracted = ExitStack()
atexit.register(_extracted.close)


@dataclass(frozen=True, eq=False)
class Digits:
    """Images of handwritten digits, with the digits that they show.

    Parameters
    ----------
    x_test : float32 array, shape (500, 1, 8, 8)
        Held-back images, pixel values 0..16: training never saw them.
    y_test : int64 array, shape (500,)
        Their digits, 0..9.
    x_calibration : float32 array, shape (500, 1, 8, 8)
        Images for calibration, a part of the training images.
    y_calibration : int64 array, shape (500,)
        Their digits.
    """

    x_test: npt.NDArray[np.float32]
    y_test: npt.NDArray[np.int64]
    x_calibration: npt.NDArray[np.float32]
    y_calibration: npt.NDArray[np.int64]


def digits_model_path() -> Path:
    """Return the path of the example network's ONNX file.

    Returns
    -------
    Path
        A file that exists until the interpreter ends. The model takes ``image``, float32 (N, 1, 8, 8) with pixel
        values 0..16, and gives ``logits``, float32 (N, 10).

    Raises
    ------
    DataError
        When the file is missing from the installation.
    """
    return _resource("digits.onnx")


def digits_data_path() -> Path:
    """Return the path of the example images, an ``.npz`` file with the arrays of `Digits` as uint8.

    Returns
    -------
    Path
        A file that exists until the interpreter ends.

    Raises
    ------
    DataError
        When the file is missing from the installation.
    """
    return _resource("digits.npz")


def load_digits() -> Digits:
    """Return the example images and their labels, ready for the example network.

    Returns
    -------
    Digits
        Fresh arrays; the file is read at each call.

    Raises
    ------
    DataError
        When the file is missing or damaged.
    """
    path = digits_data_path()
    try:
        # numpy leaves a file that it opened itself to the garbage collector when the archive is damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            images = {name: archive[name].astype(np.float32) for name in ("x_test", "x_calibration")}
            labels = {name: archive[name].astype(np.int64) for name in ("y_test", "y_calibration")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as problem:
        raise DataError(f"example images {path} cannot be read ({problem}); install accelsim again") from problem
    arrays: dict[str, npt.NDArray[Any]] = {**images, **labels}
    return Digits(**arrays)


@functools.cache
def _resource(name: str) -> Path:
    """Return a file of this package as a path that stays valid until the interpreter ends."""
    try:
        path = _extracted.enter_context(resources.as_file(resources.files(__name__) / name))
    except FileNotFoundError:
        path = Path(name)
    if not path.is_file():
        raise DataError(
            f"package data {name!r} must be part of the installation, but is missing; install accelsim again"
        )
    return path
