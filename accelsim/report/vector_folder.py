"""A folder of test vectors: it appears whole or not at all, and replaces nothing but its own kind."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

from accelsim.errors import DataError

FORMAT = "accelsim test vectors"
MANIFEST = "manifest.json"


def check_folder(target: Path, overwrite: bool) -> None:
    """Raise DataError unless a folder of test vectors may be made or replaced.

    Parameters
    ----------
    target : Path
        The folder.
    overwrite : bool
        Whether one that holds test vectors and nothing else may be replaced.

    Raises
    ------
    DataError
        When something is in the way.
    """
    where = f"folder {str(target)!r}"
    try:
        if not target.exists():
            if not target.parent.is_dir():
                raise DataError(f"{where} cannot be made: {str(target.parent)!r} is not a folder; make it first")
            return
        if not target.is_dir():
            raise DataError(f"{where} cannot be made: a file has that name; choose another")
        found = {entry.name for entry in target.iterdir()}
        if not found:
            return
        if not found <= _own_names(target):
            raise DataError(f"{where} holds other files than test vectors; choose a new or empty folder")
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{where} cannot be read: {reason}") from None
    if not overwrite:
        raise DataError(f"{where} holds test vectors already; choose another, or replace it with overwrite=True")


def _own_names(folder: Path) -> set[str]:
    """Return the names of the files that the manifest in a folder lists; none where it is not a manifest of ours."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        return {MANIFEST, *manifest["files"]} if manifest["format"] == FORMAT else set()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()


def write_folder(target: Path, files: Iterable[tuple[str, str]]) -> None:
    """Write files into a new folder beside the target, then put it in the target's place.

    Parameters
    ----------
    target : Path
        The folder; checked by `check_folder`.
    files : iterable of (str, str)
        Name and text of each file.

    Raises
    ------
    DataError
        When it cannot be written; the target is as it was then.
    """
    token = secrets.token_hex(8)
    temporary, replaced = (target.parent / f".accelsim-{token}.{kind}" for kind in ("part", "old"))
    try:
        try:
            temporary.mkdir()
            for name, text in files:
                (temporary / name).write_text(text, encoding="ascii", newline="\n")
            if target.exists():
                target.rename(replaced)
            try:
                temporary.rename(target)
            except OSError:
                if replaced.exists():
                    replaced.rename(target)
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise DataError(f"folder {str(target)!r} cannot be written: {error.strerror}") from None
    shutil.rmtree(replaced, ignore_errors=True)  # only now: until here it could have been needed again
