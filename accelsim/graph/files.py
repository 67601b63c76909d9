"""Files that appear whole or not at all."""

from __future__ import annotations

import secrets
from os import PathLike
from pathlib import Path

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
    target = Path(path)
    # Short and of our own making: a long target name plus a suffix could pass the file system's limit.
    temporary = target.parent / f".accelsim-{secrets.token_hex(8)}.part"
    try:
        try:
            with temporary.open("xb") as file:
                file.write(data)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"file {str(target)!r} cannot be written: {reason}") from None
