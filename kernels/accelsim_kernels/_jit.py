"""The one decorator of all kernels, and the cache that cannot go stale.

numba's own cache looks at the file of the function that it compiles, not at the files of the helpers that it calls:
edit a helper, and the caller goes on running the old machine code. So the machine code is kept in a directory named
after a hash of every kernel source (and of whatever else changes the code: numba, numpy, Python, bounds checks). Where
no directory can be written, kernels are compiled in memory.
"""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np

from accelsim_kernels.processor import instructions, settings

Int = int | np.int64
"""A scalar integer of a kernel; int64 when compiled."""

Float = float | np.float64
"""A scalar real number of a kernel; float64 when compiled."""

Function = TypeVar("Function", bound=Callable[..., Any])

CACHE_VARIABLE = "ACCELSIM_CACHE_DIR"


def fingerprint(folder: Path) -> str:
    """Hash every source below a folder together with what else decides about the machine code.

    Parameters
    ----------
    folder : Path
        Folder of the kernel sources.

    Returns
    -------
    str
        32 hexadecimal digits.
    """
    digest = hashlib.sha256()
    own = str(settings.BOUNDSCHECK), instructions().name
    for part in (numba.__version__, np.__version__, platform.python_version(), *own):
        digest.update(part.encode() + b"\0")
    for source in sorted(folder.rglob("*.py")):
        digest.update(source.relative_to(folder).as_posix().encode() + b"\0" + source.read_bytes() + b"\0")
    return digest.hexdigest()[:32]


def base_folder() -> Path:
    """Return where caches go: the environment's choice, else the user's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen)
    home = os.environ.get("XDG_CACHE_HOME") or str(Path("~").expanduser() / ".cache")
    return Path(home) / "accelsim"


def cache_folder(sources: Path) -> Path | None:
    """Return a writable folder for the machine code of these sources, None where there is none.

    Parameters
    ----------
    sources : Path
        Folder of the kernel sources.
    """
    try:
        folder = base_folder() / f"kernels-{fingerprint(sources)}"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError):  # RuntimeError: no home folder
        return None
    return folder


FOLDER = cache_folder(Path(__file__).parent)
"""Where the machine code of these sources is kept; None where nothing can be written."""


def kernel(function: Function) -> Function:
    """Compile a function on its first call, without the interpreter lock, and keep the machine code.

    Parameters
    ----------
    function : callable
        Takes arrays and scalars whose types the caller has fixed.

    Returns
    -------
    callable
        The compiled function; with ``NUMBA_DISABLE_JIT=1`` the function itself.
    """
    before = settings.CACHE_DIR
    settings.CACHE_DIR = "" if FOLDER is None else str(FOLDER)
    try:
        compiled: Any = numba.njit(cache=FOLDER is not None, nogil=True, error_model="python")(function)
    finally:
        settings.CACHE_DIR = before
    return cast(Function, compiled)


def inlined(function: Function) -> Function:
    """Let a kernel be compiled as a part of the one that calls it, and not by itself first.

    Parameters
    ----------
    function : callable
        Called by one kernel, once: what it calls is then compiled with one kernel less around it.

    Returns
    -------
    callable
        What kernels call; with ``NUMBA_DISABLE_JIT=1`` the function itself.
    """
    compiled: Any = numba.njit(inline="always", nogil=True, error_model="python")(function)
    return cast(Function, compiled)
