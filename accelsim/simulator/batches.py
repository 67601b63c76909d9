"""Batches of a run, spread over threads: kernels hold no lock of the interpreter, and write disjoint outputs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.graph.feeds import Feeds
from accelsim.program.layers import MacLayer
from accelsim.program.program import IntegerProgram
from accelsim.program.storage import PlainTensor
from accelsim.simulator.engine.inputs import quantize_images
from accelsim.simulator.execute import Execution

Arrays = dict[str, npt.NDArray[Any]]
Done = Callable[[int], None]

_MOST_WORKERS = 256
"""Threads besides those that call; what is left over runs when one of them is free."""

_WORKERS: list[ThreadPoolExecutor] = []
"""Threads of earlier runs, which wait for more: a new one begins later, and often on the processor of the one that made
it, where the two take turns for milliseconds."""

_KEPT_BYTES = 31 << 20
"""A block that the C library's allocator still learns from."""


def workers() -> ThreadPoolExecutor:
    """Return the threads that all runs of this process share."""
    if not _WORKERS:
        _WORKERS.append(ThreadPoolExecutor(_MOST_WORKERS, thread_name_prefix="accelsim"))
    return _WORKERS[0]


def keep_freed_memory() -> None:
    """Make the C library keep what arrays give back, as each batch asks for as much again.

    Blocks from some size on, and a heap's free end, go back to the system, which clears every page before it hands it
    out anew: up to a sixth of a run's time. glibc raises that size to that of the largest such block that was freed, up
    to 32 MiB, and keeps twice as much at the end (mallopt(3), M_MMAP_THRESHOLD). So one is freed that nobody wrote to.
    """
    np.empty(_KEPT_BYTES, dtype=np.uint8)


if hasattr(os, "register_at_fork"):  # a forked process has no threads but the one that forked it
    os.register_at_fork(after_in_child=_WORKERS.clear)
keep_freed_memory()  # when this is imported: no run counts the block as its own


@dataclass
class BatchRun:
    """All batches of a run, and what they store.

    Parameters
    ----------
    program : IntegerProgram
        What runs.
    feeds : Feeds
        Its samples.
    size : int
        Samples of a batch.
    keep : sequence of str
        Tensors to return.
    done : callable
        Called with the number of samples that are done, after every batch.
    alike : bool
        Whether arrays may stay from batch to batch.
    """

    program: IntegerProgram
    feeds: Feeds
    size: int
    keep: Sequence[str]
    done: Done
    alike: bool = False
    arrays: Arrays = field(default_factory=dict)
    failures: list[tuple[int, Exception]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._batches = iter(range(0, self.feeds.num_samples, self.size))
        self._finished = 0
        self._convolved = {
            layer.inputs[0] for layer in self.program.layers
            if isinstance(layer, MacLayer) and layer.geometry is not None and not layer.channels_last
        }  # fmt: skip

    def run(self, executions: Sequence[Execution]) -> None:
        """Run all batches, one thread for each execution; each takes the next batch when it is done with one.

        The first execution has the thread that calls: what it needs is in that processor's caches.

        Raises
        ------
        AccelsimError
            What the first batch that failed, in the order of the samples, raised.
        """
        if len(executions) == 1:
            self._work(executions[0])
        else:
            others = [workers().submit(self._work, execution) for execution in executions[1:]]
            try:
                self._work(executions[0])
            finally:  # an interrupt ends the others, too
                self._batches = iter(())
                wait(others)
            for other in others:
                other.result()
        if self.failures:
            raise min(self.failures, key=lambda failure: failure[0])[1]

    def _work(self, execution: Execution) -> None:
        """Run batches until there are none left, or one failed."""
        while True:
            with self._lock:
                start = next(self._batches, None)
            if start is None or self.failures:
                return
            try:
                self._run_batch(execution, start, min(start + self.size, self.feeds.num_samples))
            except Exception as failure:
                self.failures.append((start, failure))

    def _run_batch(self, execution: Execution, start: int, stop: int) -> None:
        """Run samples ``start .. stop - 1``."""
        batch = self.feeds.slice(start, stop)
        codes = {name: self._stored(name, values) for name, values in batch.items()}
        del batch
        stored = execution.run_alike(codes, self.keep) if self.alike else execution.run(codes, self.keep)
        for name in self.keep:
            if name in stored:
                self._whole(name, stored[name])[start:stop] = stored[name]
        with self._lock:
            self._finished += stop - start
            self.done(self._finished)

    def _stored(self, name: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the values of an input as they lie in memory."""
        tensor = self.program.tensors[name]
        if isinstance(tensor, PlainTensor) or tensor.per_channel or values.dtype != np.float32 or values.ndim < 2:
            return self.program.store(name, values)
        return quantize_images(tensor, values, name in self._convolved and values.ndim == 4)

    def _whole(self, name: str, part: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the array of all samples that a part belongs to."""
        with self._lock:
            if name not in self.arrays:
                dtype = self.program.tensors[name].format.dtype
                self.arrays[name] = np.empty((self.feeds.num_samples, *part.shape[1:]), dtype=dtype)
            return self.arrays[name]
