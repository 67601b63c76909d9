"""A second process compiles the kernels of a program's end while the program is at its beginning.

numba looks on disk whenever it meets a kernel for the first time, and compiles only what is not there. So the first
process finds what the second one has compiled by then, and compiles the rest itself: the same code either way. The
second process may fail, or be late, or not run at all, and nothing but time depends on it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from joblib import cpu_count

from accelsim_kernels._jit import FOLDER
from accelsim_kernels.processor import settings


@contextmanager
def compiled_ahead(rehearsal: Callable[[], None]) -> Iterator[subprocess.Popen[bytes] | None]:
    """Call a function in a second process while the block runs; end that process with the block.

    Parameters
    ----------
    rehearsal : callable
        A module's function, which calls the kernels that the block needs, those that it needs last first: on the way
        back to the beginning it meets those that the block has compiled.

    Yields
    ------
    Popen or None
        The second process. None where it would be of no use: without a cache on disk, with the JIT off, with one
        processor, or where the block has run to its end before, so that all kernels are there.
    """
    if FOLDER is None or settings.DISABLE_JIT or cpu_count() < 2:
        yield None
        return
    module, name = rehearsal.__module__, rehearsal.__name__
    complete = FOLDER / f"{module}.{name}.complete"
    process = None if complete.exists() else _started(f"from {module} import {name}; {name}()")
    try:
        yield process
    finally:
        if process is not None:
            process.terminate()
            process.wait()
    with suppress(OSError):
        complete.touch()


def _started(program: str) -> subprocess.Popen[bytes] | None:
    """Start Python on a program that reads and says nothing; return None where that fails."""
    with suppress(OSError):
        # -P: modules come from where they are installed, not from the folder in which the user happens to be.
        return subprocess.Popen(
            [sys.executable, "-P", "-c", program],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    return None
