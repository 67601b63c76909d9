"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import BinaryIO

from accelsim.errors import DataError


def write_whole(path: str | PathLike[str], data: bytes) -> None:
    """Write a file under a temporary name beside its place, then rename it; a symbolic link stays one.

    Parameters
    ----------
    path : path
        The file to make or replace; its folder must exist. Of a symbolic link, the file that it points to.
    data : bytes
        Its content.

    Raises
    ------
    DataError
        When the folder is missing, the file cannot be written, or there is something else than a regular file; nothing
        is left behind then.
    """
    with whole_file(path) as file:
        file.write(data)


@contextmanager
def whole_file(path: str | PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file that takes its place when it is finished.

    Parameters
    ----------
    path : path
        The file to make or replace; its folder must exist. Of a symbolic link, the file that it points to.

    Yields
    ------
    binary file
        To write to; it has a temporary name beside its place.

    Raises
    ------
    DataError
        When the folder is missing, the file cannot be written, or there is something else than a regular file; nothing
        is left behind then.
    """
    where = f"file {os.fspath(path)!r} cannot be written"
    refuse_special(path)
    target = Path(os.path.realpath(path)) if Path(path).is_symlink() else Path(path)
    # Short and of our own making: a long target name plus a suffix could pass the file system's limit.
    temporary = target.parent / f".accelsim-{secrets.token_hex(8)}.part"
    try:
        try:
            with temporary.open("xb") as file:
                yield file
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{where}: {error.strerror}") from None


def refuse_special(path: str | PathLike[str]) -> None:
    """Refuse the name of a device, pipe, socket or folder: a file that is renamed to it would replace it.

    Raises
    ------
    DataError
        When there is something under the name, or where its symbolic link points to, that is no regular file.
    """
    where = f"file {os.fspath(path)!r} cannot be written"
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(f"{where}: {error.strerror}") from None
    except ValueError as error:  # a zero byte in the name
        raise DataError(f"{where}: {error}") from None
    if not stat.S_ISREG(mode):
        raise DataError(f"{where}: it is not a regular file; name another file")
