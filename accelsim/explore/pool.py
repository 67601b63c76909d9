"""Where units of work are done: processes of this computer, or the workers of a Dask cluster; joblib hands them out."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import AccelsimError, DataError, OperandError
from accelsim.explore.store import Store
from accelsim.explore.work import Outcome, Task, run_task

CONNECT_SECONDS = 10.0
"""How long a scheduler may take to answer."""

POLL_SECONDS = 0.2
"""How often a process looks whether another one has finished what both need."""


_ADDRESS = re.compile(
    r"inproc://[^/\s]+/\d+/\d+|(?:(?:tcp|tls|ws|wss|ucx)://)?(?:[^/\s:\[\]@]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})"
)


class ClusterError(AccelsimError):
    """The scheduler of a cluster cannot be reached."""


Load = tuple[npt.NDArray[np.uint8], tuple[npt.NDArray[Any], ...]]
"""Model and arrays of a task."""


class Pool:
    """Hands units to workers, and records what comes back.

    Parameters
    ----------
    store : Store
        Where units are claimed and recorded.
    workers : int
        Processes; 1 works in this one. Without effect on a cluster, which has the workers that it has.
    scheduler : str or None
        Address of a Dask scheduler, ``tcp://host:8786``.
    """

    def __init__(self, store: Store, workers: int, scheduler: str | None) -> None:
        self._store, self._workers = store, workers
        self._stack = ExitStack()
        self._client = None if scheduler is None else self._stack.enter_context(_client(scheduler))

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *details: Any) -> None:
        self._stack.close()

    def run(
        self, tasks: Sequence[Task], load: Callable[[Task], Load], done: Callable[[str], None] | None = None
    ) -> None:
        """Do tasks until each is done or failed, by this process or by another one that shares the file.

        Parameters
        ----------
        tasks : sequence of Task
            What is to be done.
        load : callable
            Gives a task's model and arrays: the same objects for tasks that share them.
        done : callable, optional
            Called with the key of every unit as soon as it is finished.

        Raises
        ------
        ClusterError
            When the scheduler is lost.
        """
        waiting = {task.key: task for task in tasks}
        while waiting:
            progressed = self._once(waiting, load)
            statuses = self._store.statuses(list(waiting))
            for key in [key for key in waiting if statuses.get(key) in ("done", "failed")]:
                del waiting[key]
                progressed = True
                if done is not None:
                    done(key)
            if waiting and not progressed:
                time.sleep(POLL_SECONDS)

    def _once(self, waiting: dict[str, Task], load: Callable[[Task], Load]) -> bool:
        """Do what can be claimed now; return whether that was anything."""
        claimed: list[str] = []

        def calls() -> Iterator[Any]:
            from joblib import delayed

            for task in list(waiting.values()):
                if self._store.claim(task.key, task.kind):
                    claimed.append(task.key)
                    model, arrays = load(task)
                    yield delayed(run_task)(task, model, *arrays)

        loads = [load(task) for task in waiting.values()] if self._client is not None else []
        try:
            with self._parallel(_distinct(loads)) as parallel:
                for outcome in parallel(calls()):
                    self._record(outcome)
        except AccelsimError:
            raise
        except Exception as failure:  # a worker was killed; what it was at is claimed again, up to a limit
            if self._client is not None and self._client.status != "running":
                raise ClusterError(f"the scheduler is lost: {failure}; start it again and repeat the command") from None
        return bool(claimed)

    def _record(self, outcome: Outcome) -> None:
        """Keep what a worker returned."""
        self._store.finish(outcome.key, outcome.seconds, outcome.result, outcome.error)

    @contextmanager
    def _parallel(self, shared: list[npt.NDArray[Any]]) -> Iterator[Any]:
        """Give a joblib.Parallel; shared are the arrays that every worker of a cluster gets once."""
        import joblib

        options: dict[str, Any] = {"n_jobs": self._workers}
        if self._client is not None:
            options = {"backend": "dask", "client": self._client, "scatter": shared}
        elif self._workers > 1:
            options = {"backend": "loky", "n_jobs": self._workers, "inner_max_num_threads": 1}
        with joblib.parallel_config(**options), joblib.Parallel(batch_size=1, return_as="generator_unordered") as pool:
            yield pool


def _distinct(loads: Sequence[Load]) -> list[npt.NDArray[Any]]:
    """Return every array once."""
    return list({id(array): array for model, arrays in loads for array in (model, *arrays)}.values())


def check_address(scheduler: str) -> None:
    """Refuse what cannot be the address of a scheduler.

    Raises
    ------
    OperandError
        When it has no host or no port.
    """
    match = _ADDRESS.fullmatch(scheduler) if isinstance(scheduler, str) else None
    if match is None or not 0 < int(match[1] or 1) < 65536:
        raise OperandError(f"scheduler must be an address such as tcp://HOST:8786, got {scheduler!r}")


@contextmanager
def _client(scheduler: str) -> Iterator[Any]:
    """Give a client of a Dask scheduler.

    Raises
    ------
    DataError
        When Dask is not installed.
    ClusterError
        When the scheduler does not answer.
    """
    try:
        import distributed
    except ImportError:
        raise DataError("--scheduler needs Dask: pip install 'accelsim[cluster]'") from None
    connect: Any = distributed.Client
    try:
        client = connect(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as failure:
        raise ClusterError(f"scheduler {scheduler!r} does not answer: {failure}") from None
    try:
        yield client
    finally:
        client.close()
