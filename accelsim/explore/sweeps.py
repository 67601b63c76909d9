"""Sweeps: accuracy, cycles, operations and energy over any fields of the machine and the quantization."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import numpy.typing as npt

from accelsim.errors import DataError, OperandError
from accelsim.explore.identity import version
from accelsim.explore.points import Evaluation
from accelsim.explore.pool import Pool, check_address
from accelsim.explore.samplers import run_sampler
from accelsim.explore.space import Axis, Space, make_axis
from accelsim.explore.store import Store
from accelsim.explore.subject import Subject
from accelsim.explore.sweep_result import MORE_IS_BETTER, SweepPoint, SweepResult
from accelsim.graph.feeds import Images
from accelsim.graph.graph import Graph
from accelsim.graph.quantized import QuantizedGraph
from accelsim.machine import Machine
from accelsim.program.program import IntegerProgram
from accelsim.ptq.config import PTQConfig

Progress = Callable[[str, int, int], None]
Sampler = Literal["grid", "random", "nsga2", "tpe"]
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)
OBJECTIVES = ("accuracy", "energy_pj", "cycles")


def sweep(
    network: Graph | QuantizedGraph | IntegerProgram,
    images: Images,
    labels: npt.ArrayLike | None = None,
    settings: Mapping[str, Sequence[Any]] | Sequence[Axis] = (),
    *,
    machine: Machine | None = None,
    config: PTQConfig | None = None,
    calibration: Images | None = None,
    store: str | os.PathLike[str] | None = None,
    sampler: Sampler = "grid",
    points: int | None = None,
    seed: int = 0,
    objectives: Sequence[str] = OBJECTIVES,
    workers: int | None = None,
    scheduler: str | None = None,
    retry_failed: bool = False,
    progress: Progress | None = None,
) -> SweepResult:
    """Run a network on many machines and under many quantizations.

    Parameters
    ----------
    network : Graph, QuantizedGraph or IntegerProgram
        What runs; a float network is quantized for every point that asks for another quantization. A program that was
        read from a model which another tool quantized has no float network: it is held to itself on its own machine.
    images : array or mapping of input name to array
        Samples along axis 0.
    labels : integer array, shape (samples,), optional
        Class of each sample, for the accuracy.
    settings : mapping of str to sequence, or sequence of Axis
        Fields and their values: ``{"accumulator_bits": range(14, 33), "dataflow": ["broadcast"]}``; see `make_axis`.
    machine, config : Machine and PTQConfig, optional
        All other fields; ``edge_16x16`` or an imported program's own machine where left out.
    calibration : array or mapping, optional
        For a float network.
    store : path, optional
        SQLite file that points are written to as they come, and looked up in: an interrupted sweep continues, and
        several processes may work on one file. Left out, nothing is kept.
    sampler : {"grid", "random", "nsga2", "tpe"}
        Every point; some at random; or those that Optuna's multi-objective samplers ask for.
    points : int, optional
        How many, for all samplers but ``grid``.
    seed : int
        Of the samplers.
    objectives : sequence of str
        What Optuna's samplers look for, names of `MORE_IS_BETTER`.
    workers : int, optional
        Local processes; as many as there are processors when left out.
    scheduler : str, optional
        Address of a Dask scheduler, whose workers are used instead; needs the extra ``cluster``.
    retry_failed : bool
        Try points again that have an error in the store.
    progress : callable, optional
        Called with ("points", done, all).

    Returns
    -------
    SweepResult
        The points in the order of the grid or of the sampler; a point that fails has its error.

    Raises
    ------
    DataError, ModelError, OperandError
        When a field is unknown, the data does not fit, or an option is outside its range.
    ClusterError
        When the scheduler does not answer.

    Notes
    -----
    Points share work: one quantization for all machines; one exact run for all widths of one order of additions, which
    says for each sample and width whether anything exceeds it; where nothing does, the exact run's outputs are the
    point's, and only the other samples are simulated, once for all machines that compute the same numbers. Cycles,
    operations and energy come from the closed forms.
    """
    _check_options(sampler, points, workers, objectives, labels is not None)
    if scheduler is not None:
        check_address(scheduler)
    axes = _axes(settings)
    own = network.machine if isinstance(network, IntegerProgram) else Machine.preset("edge_16x16")
    space = Space(axes, machine or own, config or PTQConfig())
    if not isinstance(network, Graph) and any(axis.target == "ptq" for axis in space.axes):
        varied = ", ".join(axis.name for axis in space.axes if axis.target == "ptq")
        raise DataError(f"the network is quantized already, so {varied} would do nothing; give the float network")
    subject = Subject.of(network, images, labels, calibration)
    number = len(space) if sampler == "grid" else min(points or len(space), len(space))
    with _store(store) as file, Pool(file, workers or len(os.sched_getaffinity(0)), scheduler) as pool:
        if retry_failed:
            file.forget_failures()
        file.note({"network": subject.name, "version": version(), "images": subject.images_digest})
        counter = _Counter(number, progress)
        evaluation = Evaluation(subject, space, file, pool, counter.add)
        wanted = _wanted(evaluation, space, sampler, number, seed, objectives, counter)
        return _result(subject.name, evaluation, file, wanted)


def _axes(settings: Mapping[str, Sequence[Any]] | Sequence[Axis]) -> tuple[Axis, ...]:
    """Return what varies."""
    if isinstance(settings, Mapping):
        axes = tuple(make_axis(name, values) for name, values in settings.items())
    elif isinstance(settings, Sequence) and all(isinstance(axis, Axis) for axis in settings):
        axes = tuple(settings)
    else:
        raise DataError(f"settings must be a mapping of fields to values, or a sequence of Axis, got {settings!r}")
    if not axes:
        raise DataError("nothing varies: give settings, as in {'accumulator_bits': range(14, 33)}")
    return axes


def _wanted(
    evaluation: Evaluation,
    space: Space,
    sampler: Sampler,
    number: int,
    seed: int,
    objectives: Sequence[str],
    counter: _Counter,
) -> list[dict[str, Any]]:
    """Bring all points to numbers; return their settings in order."""
    if sampler in ("nsga2", "tpe"):
        return run_sampler(evaluation, sampler, number, seed, objectives, counter.set)
    wanted = list(space.grid()) if sampler == "grid" else space.at_random(number, seed)
    known = {row.key for row in evaluation.store.points()}
    counter.set(sum(evaluation.key(settings) in known for settings in wanted))
    evaluation.run(wanted)
    return wanted


def _result(name: str, evaluation: Evaluation, file: Store, wanted: Iterable[dict[str, Any]]) -> SweepResult:
    """Return the stored points of some settings."""
    rows = {row.key: row for row in file.points()}
    found = ((rows.get(evaluation.key(settings)), settings) for settings in wanted)
    return SweepResult(name, tuple(SweepPoint.of(row, settings) for row, settings in found if row is not None))


class _Counter:
    """Counts points for a progress bar."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._progress, self._done = total, progress, 0

    def set(self, done: int) -> None:
        """Say how many points are there."""
        self._done = done
        self._tell()

    def add(self, count: int) -> None:
        """Say that points were recorded."""
        self._done += count
        self._tell()

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress("points", min(self._done, self._total), self._total)


@contextmanager
def _store(path: str | os.PathLike[str] | None) -> Iterator[Store]:
    """Open the file of a sweep; one that vanishes where none was named."""
    if path is not None:
        with Store(path) as store:
            yield store
        return
    with tempfile.TemporaryDirectory(prefix="accelsim-") as folder, Store(Path(folder) / "sweep.sqlite") as store:
        yield store


def _check_options(
    sampler: str, points: int | None, workers: int | None, objectives: Sequence[str], labelled: bool
) -> None:
    """Refuse options outside their range."""
    if sampler not in SAMPLERS:
        raise OperandError(f"sampler must be one of {', '.join(SAMPLERS)}, got {sampler!r}")
    if (points is None) != (sampler == "grid"):
        rule = "takes every point; leave points out" if sampler == "grid" else "needs points, how many to take"
        raise OperandError(f"sampler {sampler!r} {rule}")
    for name, value in (("points", points), ("workers", workers)):
        if value is not None and value < 1:
            raise OperandError(f"{name} must be at least 1, got {value!r}")
    for name in objectives:
        if name not in MORE_IS_BETTER:
            raise OperandError(f"objective {name!r} must be one of {', '.join(MORE_IS_BETTER)}")
    if sampler in ("nsga2", "tpe") and "accuracy" in objectives and not labelled:
        raise DataError("the objective accuracy needs labels; give them, or take agreement")
