"""The one decorator of all kernels, and the cache that cannot go stale.

numba's own cache looks at the file of the function that it compiles, not at the files of the helpers that it calls:
edit a helper, and the caller goes on running the old machine code. So the machine code is kept in a directory named
after a hash of every kernel source (and of whatever else changes the code: numba, numpy, Python, bounds checks). Where
no directory can be written, kernels are compiled in memory. Processes that compile at the same time share it.
"""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
from collections.abc import Callable
from functools import update_wrapper
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import uuid4

import numba
import numpy as np
from numba import types

from accelsim_kernels._linked import LinkedCompiler, OptimisingCompiler, from_cache
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
    return cast(Function, _compiled(function, no_cfunc_wrapper=True))


def callee(function: Function) -> Function:
    """Compile a function that kernels call as far as they are linked with it, and not for Python to call.

    Parameters
    ----------
    function : callable
        As for `kernel`.

    Returns
    -------
    callable
        What kernels call; with ``NUMBA_DISABLE_JIT=1`` the function itself.
    """
    return function if settings.DISABLE_JIT else cast(Function, _Callee(function, LinkedCompiler))


def optimised_callee(function: Function) -> Function:
    """Compile a function as `callee` does, and optimise it by itself before kernels are linked with it.

    Notes
    -----
    For the stepped grid: with its callees optimised in the kernels alone, its cycles took up to 25 % longer.
    """
    return function if settings.DISABLE_JIT else cast(Function, _Callee(function, OptimisingCompiler))


def _compiled(function: Callable[..., Any], **options: Any) -> Any:
    """Return numba's dispatcher of a function, with its cache in `FOLDER`."""
    before = settings.CACHE_DIR
    settings.CACHE_DIR = "" if FOLDER is None else str(FOLDER)
    try:
        dispatcher = numba.njit(cache=FOLDER is not None, nogil=True, error_model="python", **options)(function)
    finally:
        settings.CACHE_DIR = before
    if FOLDER is not None and not settings.DISABLE_JIT:
        _name_once(dispatcher._cache._cache_file)
    return dispatcher


def _name_once(file: Any) -> None:
    """Give the machine code of every variant of a function a file whose name no other process takes.

    Parameters
    ----------
    file : numba.core.caching.IndexDataCacheFile
        A function's index on disk, which says which file holds the code for which types.

    Notes
    -----
    numba reads the index, takes the next free number as the name, writes the index, then the code. Of two processes
    that compile for different types at the same time, both take the same number: the index is the one's, the code may
    be the other's, and is called with arrays of other types. Under names that occur once, an index without an entry,
    or an entry whose file is not there yet, costs a compilation and nothing else.
    """
    pattern = file._data_name_pattern
    file._data_name = lambda _: pattern.format(number=uuid4().int)


class _Callee:
    """A function that kernels are linked with, and nothing else: numba's own object would jump to address 0.

    Attributes
    ----------
    entrance : callable or None
        A kernel around it, made and compiled in memory once Python calls it, as tests do.
    """

    def __init__(self, function: Callable[..., Any], compiler: type[LinkedCompiler]) -> None:
        update_wrapper(self, function)
        self._compiled = _compiled(function, no_cfunc_wrapper=True, no_cpython_wrapper=True, pipeline_class=compiler)
        if FOLDER is not None:
            self._compiled._cache._impl.rebuild = from_cache
        self.entrance: Any = None

    @property
    def _numba_type_(self) -> types.Type:
        return types.Dispatcher(self._compiled)

    def __call__(self, *arguments: Any) -> Any:
        if self.entrance is None:
            compiled = self._compiled
            self.entrance = numba.njit(nogil=True, error_model="python")(lambda *passed: compiled(*passed))
        return self.entrance(*arguments)
