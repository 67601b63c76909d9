"""The machine code of the kernels on disk: where it is, what it takes, and how to be rid of it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from accelsim_kernels._jit import CACHE_VARIABLE, FOLDER, base_folder

_PATTERN = "kernels-" + "[0-9a-f]" * 32


@dataclass(frozen=True)
class KernelCache:
    """What is on disk.

    Parameters
    ----------
    base : Path
        Folder of all caches; the environment variable ACCELSIM_CACHE_DIR chooses it.
    current : Path or None
        Folder of the installed kernels; None where nothing can be written, then they are compiled in memory.
    num_kernels : int
        Compiled variants of kernels in it.
    current_bytes : int
        What it takes.
    stale : tuple of Path
        Folders of other versions of the kernels, of numba, numpy or Python.
    stale_bytes : int
        What they take.
    """

    base: Path
    current: Path | None
    num_kernels: int
    current_bytes: int
    stale: tuple[Path, ...]
    stale_bytes: int

    variable = CACHE_VARIABLE

    @staticmethod
    def look() -> KernelCache:
        """Return what is on disk now."""
        base = base_folder()
        folders = sorted(folder for folder in base.glob(_PATTERN) if folder.is_dir()) if base.is_dir() else []
        stale = tuple(folder for folder in folders if folder != FOLDER)
        compiled = 0 if FOLDER is None else sum(1 for _ in FOLDER.rglob("*.nbc"))
        return KernelCache(
            base, FOLDER, compiled, 0 if FOLDER is None else _bytes(FOLDER), stale, sum(map(_bytes, stale))
        )


def clear() -> int:
    """Delete all machine code; return the bytes that it took.

    Notes
    -----
    Only folders with the name of a cache are deleted. A program that runs meanwhile keeps what it has loaded.
    """
    found = KernelCache.look()
    for folder in (*found.stale, *([found.current] if found.current is not None else [])):
        shutil.rmtree(folder, ignore_errors=True)
    return found.current_bytes + found.stale_bytes


def _bytes(folder: Path) -> int:
    """Return what the files below a folder take; a file that vanishes meanwhile takes nothing."""
    total = 0
    for entry in folder.rglob("*"):
        try:
            total += entry.stat().st_size if entry.is_file() else 0
        except OSError:
            continue
    return total
