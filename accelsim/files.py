"""Files that appear whole or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import BinaryIO

from accelsim.errors import DataError


def write_whole(path: str | PathLike[str], data: bytes) -> None:
    """Write a file under a temporary name beside its place, then rename it.

    Parameters
    ----------
    path : path
        The file to make or replace; its folder must exist.
    data : bytes
        Its content.

    Raises
    ------
    DataError
        When the folder is missing or the file cannot be written; nothing is left behind then.
    """
    with whole_file(path) as file:
        file.write(data)


@contextmanager
def whole_file(path: str | PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file that takes its place when it is finished.

    Parameters
    ----------
    path : path
        The file to make or replace; its folder must exist.

    Yields
    ------
    binary file
        To write to; it has a temporary name beside its place.

    Raises
    ------
    DataError
        When the folder is missing or the file cannot be written; nothing is left behind then.
    """
    target = Path(path)
    # Short and of our own making: a long target name plus a suffix could pass the file system's limit.
    temporary = target.parent / f".accelsim-{secrets.token_hex(8)}.part"
    where = f"file {str(target)!r} cannot be written"
    try:
        try:
            opened = temporary.open("xb")
        except ValueError as error:  # a zero byte in the name
            raise DataError(f"{where}: {error}") from None
        try:
            with opened as file:
                yield file
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{where}: {error.strerror}") from None
