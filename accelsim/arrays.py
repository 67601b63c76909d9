"""Arrays that come from files: images, calibration data, labels; and how many answers fit the labels.

A file is named as ``FILE`` or ``FILE:ARRAY``: an ``.npy`` file, or an ``.npz`` file with the name of one of its arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import DataError, OperandError

_NPY = b"\x93NUMPY"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_MOST_NAMES = 20
"""An error message lists no more arrays than this."""


def array_file(name: str) -> Path:
    """Return the file of ``FILE`` or ``FILE:ARRAY``, whether it exists or not."""
    return _locate(name)[0]


def read_array(name: str) -> npt.NDArray[Any]:
    """Read one array.

    Parameters
    ----------
    name : str
        ``FILE``, or ``FILE:ARRAY`` where an ``.npz`` file holds several arrays.

    Returns
    -------
    array
        An ``.npy`` file is mapped, not read: samples that are not used cost nothing.

    Raises
    ------
    DataError
        When the file cannot be read, is of another kind, or does not hold the array; it says which arrays there are.
    """
    path, array = _locate(name)
    where = f"file {str(path)!r}"
    try:
        with path.open("rb") as file:
            start = file.read(len(_NPY))
            if start == _NPY:
                if array is not None:
                    raise DataError(f"{where} holds a single array without a name; leave out {':' + array!r}")
                return _only_array(np.load(path, mmap_mode="r", allow_pickle=False), where)
            if start[:4] not in _ZIP:
                raise DataError(f"{where} must be an .npy or .npz file of numpy, but does not begin like one")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                return _only_array(archive[_member(archive, array, where)], where)
    except DataError:
        raise
    except OSError as problem:
        raise DataError(f"{where} cannot be read: {problem.strerror or problem}") from None
    except Exception as problem:  # numpy, zipfile and zlib raise almost anything where a file is damaged
        reason = f"{type(problem).__name__} {' '.join(str(problem).split())}".strip()
        raise DataError(f"{where} is damaged, or holds Python objects: {reason[:200]}") from None


def read_images(name: str, inputs: Sequence[str], channels_last: bool = False) -> npt.NDArray[Any] | dict[str, Any]:
    """Read the images that a network is fed with.

    Parameters
    ----------
    name : str
        ``FILE`` or ``FILE:ARRAY``. For a network with several inputs an ``.npz`` file with an array for each of them.
    inputs : sequence of str
        The network's inputs.
    channels_last : bool
        Whether the file's arrays are (samples, ..., channels), to be brought to (samples, channels, ...).

    Returns
    -------
    array or dict of input name to array
        Samples along axis 0.

    Raises
    ------
    DataError
        When the file cannot be read or an array has no samples.
    """
    if len(inputs) == 1:
        return _samples(read_array(name), name, channels_last)
    if _locate(name)[1] is not None:
        raise DataError(f"the network has the inputs {', '.join(inputs)}: give an .npz file that holds them all")
    return {key: _samples(read_array(f"{name}:{key}"), f"{name}:{key}", channels_last) for key in inputs}


def first_samples(images: npt.NDArray[Any] | dict[str, Any], limit: int | None) -> npt.NDArray[Any] | dict[str, Any]:
    """Return the first ``limit`` samples, all of them where it is None."""
    if isinstance(images, dict):
        return {name: array[:limit] for name, array in images.items()}
    return images[:limit]


def num_samples(images: npt.NDArray[Any] | dict[str, Any]) -> int:
    """Return the number of samples, of the first input where there are several."""
    array = next(iter(images.values())) if isinstance(images, dict) else images
    return len(array)


def read_labels(name: str, samples: int) -> npt.NDArray[np.int64]:
    """Read the class of every sample.

    Parameters
    ----------
    name : str
        ``FILE`` or ``FILE:ARRAY``: whole numbers in any shape with one per sample.
    samples : int
        Number of samples that the file of images has.

    Returns
    -------
    int64 array, shape (samples,)
        The labels.

    Raises
    ------
    DataError
        When the file cannot be read, holds no whole numbers, or another number of them.
    """
    labels = read_array(name)
    if labels.dtype.kind not in "iu":
        raise DataError(f"labels {name!r} must be whole numbers, the class of each sample, got dtype {labels.dtype}")
    if labels.size != samples:
        raise DataError(f"labels {name!r} must be one per sample, {samples}, got {labels.size} in shape {labels.shape}")
    return labels.reshape(-1).astype(np.int64)


def whole_number(name: str, value: object, least: int, most: int | None = None) -> int:
    """Return a whole number of Python or numpy as an int.

    Parameters
    ----------
    name : str
        Named in the error.
    value : object
        What was given; booleans, text and numbers with a fraction are none.
    least, most : int
        Its range; None has no end.

    Raises
    ------
    OperandError
        When it is none, or outside the range.
    """
    if not isinstance(value, int | np.integer) or isinstance(value, bool | np.bool_):
        raise OperandError(f"{name} must be a whole number, got {value!r}")
    number = int(value)
    if number < least or (most is not None and number > most):
        raise OperandError(
            f"{name} must be {f'at least {least}' if most is None else f'{least}..{most}'}, got {number}"
        )
    return number


def count_right(answers: npt.NDArray[Any], labels: npt.NDArray[np.int64]) -> int:
    """Count the samples whose greatest output is the one of their label.

    Parameters
    ----------
    answers : array, shape (samples, ...)
        A network's output; of equal greatest values the first one counts.
    labels : int64 array, shape (samples,)
        Class of each sample.

    Raises
    ------
    DataError
        When a label is no class of the output.
    """
    flat = answers.reshape(len(answers), -1)
    if labels.min() < 0 or labels.max() >= flat.shape[1]:
        raise DataError(
            f"labels must be classes 0..{flat.shape[1] - 1} of the first output, got {labels.min()}..{labels.max()}"
        )
    return int(np.count_nonzero(flat.argmax(axis=1) == labels))


def _locate(name: str) -> tuple[Path, str | None]:
    """Split ``FILE[:ARRAY]``: the file is the shortest part before a colon that exists."""
    if not Path(name).exists():
        parts = name.split(":")
        heads = [":".join(parts[:count]) for count in range(1, len(parts))]
        for head in [*(head for head in heads if Path(head).is_file()), *reversed(heads)]:
            if head and len(head) + 1 < len(name):
                return Path(head), name[len(head) + 1 :]
    return Path(name), None


def _member(archive: Any, array: str | None, where: str) -> str:
    """Return the name of the array that is meant."""
    names = list(archive.files)
    if array is None and len(names) == 1:
        return str(names[0])
    if array is not None and array in names:
        return array
    listed = [f"{name} {_shape(archive, name)}".rstrip() for name in names[:_MOST_NAMES]]
    listing = ", ".join([*listed, *(["..."] if len(names) > _MOST_NAMES else [])]) or "none"
    if array is None:
        raise DataError(f"{where} holds {len(names)} arrays, name one of them as FILE:ARRAY: {listing}")
    raise DataError(f"{where} holds no array {array!r}; it has: {listing}")


def _shape(archive: Any, name: str) -> str:
    """Return the shape of an array by its header alone, nothing where that has another version."""
    with archive.zip.open(f"{name}.npy" if f"{name}.npy" in archive.zip.namelist() else name) as member:
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        header = read.get(np.lib.format.read_magic(member))
        return "" if header is None else str(header(member)[0])


def _only_array(value: Any, where: str) -> npt.NDArray[Any]:
    """Return the value if it is an array: a member of another kind comes as bytes."""
    if not isinstance(value, np.ndarray):
        raise DataError(f"{where} holds something under this name that is no array of numpy")
    return value


def _samples(array: npt.NDArray[Any], name: str, channels_last: bool) -> npt.NDArray[Any]:
    """Return an array of samples with its channels at axis 1."""
    if array.ndim == 0:
        raise DataError(f"images {name!r} must have the samples along axis 0, got a single number")
    if not channels_last:
        return array
    if array.ndim < 3:
        raise DataError(
            f"images {name!r} must have the axes (samples, ..., channels) with --layout channels-last, "
            f"got shape {array.shape}; leave the option out"
        )
    return np.moveaxis(array, -1, 1)
