"""From the settings of points to units of work that they share, and from the units' results to metrics."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.arrays import count_right
from accelsim.errors import AccelsimError
from accelsim.explore.costs import costs
from accelsim.explore.identity import digest, inner_bits, number_machine, order_machine, version
from accelsim.explore.models import Form, StoredNetwork
from accelsim.explore.pool import Load, Pool
from accelsim.explore.space import Space
from accelsim.explore.store import PointRow, Store
from accelsim.explore.subject import Subject
from accelsim.explore.work import Task, unpack
from accelsim.machine import Machine
from accelsim.program.program import IntegerProgram
from accelsim.ptq.config import PTQConfig
from accelsim.simulator.run import BUILT_IN

Bytes = npt.NDArray[np.uint8]


@dataclass
class Pending:
    """A point on its way to numbers.

    Parameters
    ----------
    key : str
        Its key.
    settings : dict
        What was asked for.
    machine, config
        The whole machine and quantization.
    quantized, observed, simulated : str
        Keys of its units; empty where it needs none, or not yet.
    metrics : dict
        What is known without running.
    """

    key: str
    settings: dict[str, Any]
    machine: Machine
    config: PTQConfig
    quantized: str = ""
    observed: str = ""
    simulated: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)


class Evaluation:
    """Turns settings into points of the store.

    Parameters
    ----------
    subject : Subject
        Model and data.
    space : Space
        What the settings mean.
    store : Store
        Where units and points are kept.
    pool : Pool
        Where units are done.
    told : callable
        Called with the number of points that have just been recorded.
    """

    def __init__(self, subject: Subject, space: Space, store: Store, pool: Pool, told: Callable[[int], None]) -> None:
        self.subject, self.space, self.store, self.pool, self.told = subject, space, store, pool, told
        self._models: dict[str, Bytes] = {}
        self._network = functools.lru_cache(maxsize=4)(self._read_network)
        self._programs: dict[tuple[str, str], IntegerProgram] = {}
        self._exact: dict[str, dict[str, npt.NDArray[Any]]] = {}
        self._reference: npt.NDArray[Any] | None = None

    def key(self, settings: dict[str, Any]) -> str:
        """Return the key of a point: the hash of model, data, configuration and version."""
        try:
            machine, config = self.space.apply(settings)
        except AccelsimError:
            return self._hash("invalid", settings)
        return self._point_key(machine, config)

    def run(self, settings: Iterable[dict[str, Any]]) -> None:
        """Bring points to numbers or errors, those that are not in the store yet."""
        known = {row.key for row in self.store.points()}
        pending: dict[str, Pending] = {}
        for wanted in settings:
            try:
                machine, config = self.space.apply(wanted)
            except AccelsimError as failure:
                key = self._hash("invalid", wanted)
                if key not in known:
                    known.add(key)
                    self._record([PointRow(key, wanted, None, None, "failed", str(failure), {})])
                continue
            key = self._point_key(machine, config)
            if key not in known:
                pending.setdefault(key, Pending(key, wanted, machine, config))
        points = list(pending.values())
        for step in (self._quantize, self._lower, self._observe, self._share, self._simulate):
            if points:
                points = step(points)

    def _point_key(self, machine: Machine, config: PTQConfig) -> str:
        """Return the key of a valid point."""
        quantization = None if self.subject.model is None else config.model_dump(mode="json")
        labels = self.subject.labels_digest
        return self._hash("point", machine.model_dump(mode="json"), quantization, labels)

    def _hash(self, *parts: Any) -> str:
        return digest(version(), self.subject.model_digest, self.subject.images_digest, list(parts))

    # Steps: each takes points, and returns those that need the next one.

    def _quantize(self, points: list[Pending]) -> list[Pending]:
        """Quantize once for every different quantization."""
        if self.subject.model is None:
            for point in points:
                point.quantized = "given"
            return points
        tasks: dict[str, Task] = {}
        for point in points:
            record = point.config.model_dump(mode="json")
            point.quantized = self._hash("quantize", self.subject.calibration_digest, record)
            names = tuple(self.subject.calibration)
            task = Task(point.quantized, "quantize", names, "float", config=json.dumps(record))
            tasks.setdefault(point.quantized, task)
        calibration = tuple(self.subject.calibration.values())
        model = self.subject.model
        self.pool.run(list(tasks.values()), lambda task: (model, calibration))
        return self._without_failed(points, lambda point: point.quantized)

    def _lower(self, points: list[Pending]) -> list[Pending]:
        """Lower for every machine, and count what needs no values."""
        left = []
        for point in points:
            try:
                program = self.program(point)
                point.metrics = costs(program, point.machine, self.subject.num_samples)
            except AccelsimError as failure:
                self._fail(point, str(failure))
            else:
                left.append(point)
        return left

    def _observe(self, points: list[Pending]) -> list[Pending]:
        """Run the reference once, and the exact integers once for every different order of additions."""
        subject = self.subject
        reference = Task(
            self._hash("reference"), "reference", tuple(subject.images), subject.reference_form,
            machine=subject.reference_machine,
        )  # fmt: skip
        tasks: dict[str, Task] = {}
        for point in points:
            partials = inner_bits(point.machine) is not None
            machine = order_machine(point.machine, partials).to_toml()
            point.observed = self._hash("observe", point.quantized, machine, partials)
            names = tuple(self.subject.images)
            task = Task(point.observed, "observe", names, self._form, machine=machine, partials=partials)
            tasks.setdefault(point.observed, task)
        models = {point.observed: point.quantized for point in points}
        model, images = subject.reference, tuple(subject.images.values())

        def load(task: Task) -> Load:
            return model if task.kind == "reference" else self.model(models[task.key]), images

        self.pool.run([reference, *tasks.values()], load)
        found = self.store.unit(reference.key)
        if found is None or found.result is None:
            for point in points:
                self._fail(point, f"the reference: {found.error if found else 'not run'}")
            return []
        self._reference = unpack(found.result)["outputs"]
        return self._without_failed(points, lambda point: point.observed)

    def _share(self, points: list[Pending]) -> list[Pending]:
        """Finish the points whose registers nothing exceeds: their outputs are those of the exact run."""
        left, finished = [], []
        for point in points:
            exact = self._exact_run(point.observed)
            if self._exceeding(point).size:
                left.append(point)
            else:
                finished.append(self._row(point, exact["outputs"], (0, 0), 0))
        self._record(finished)
        return left

    def _simulate(self, points: list[Pending]) -> list[Pending]:
        """Simulate the samples that exceed a register, once for all points with the same numbers."""
        tasks: dict[str, Task] = {}
        users: dict[str, list[Pending]] = {}
        for point in points:
            machine = number_machine(point.machine).to_toml()
            point.simulated = self._hash("simulate", point.quantized, machine)
            users.setdefault(point.simulated, []).append(point)
            if point.simulated not in tasks:
                samples = tuple(self._exceeding(point).tolist())
                names = tuple(self.subject.images)
                task = Task(point.simulated, "simulate", names, self._form, machine=machine, samples=samples)
                tasks[point.simulated] = task
        images = tuple(self.subject.images.values())

        def load(task: Task) -> Load:
            return self.model(users[task.key][0].quantized), images

        def done(key: str) -> None:
            unit = self.store.unit(key)
            if unit is None or unit.result is None:
                for point in users[key]:
                    self._fail(point, unit.error or "failed" if unit is not None else "lost")
                return
            result, samples = unpack(unit.result), np.array(tasks[key].samples)
            rows = []
            for point in users[key]:
                outputs = self._exact_run(point.observed)["outputs"].copy()
                outputs[samples] = result["outputs"].reshape(len(samples), *outputs.shape[1:])
                events = int(result["events"][0]), int(result["events"][1])
                rows.append(self._row(point, outputs, events, len(samples)))
            self._record(rows)

        self.pool.run(list(tasks.values()), load, done)
        return []

    # What the steps need.

    def model(self, key: str) -> Bytes:
        """Return a quantized network as bytes, the same array each time."""
        if key not in self._models:
            if self.subject.given is not None:
                data: bytes | None = self.subject.given.data
            else:
                unit = self.store.unit(key)
                data = None if unit is None else unit.result
            if data is None:
                raise AssertionError("points whose quantization failed go no further")
            self._models[key] = np.frombuffer(data, dtype=np.uint8)
        return self._models[key]

    @property
    def _form(self) -> Form:
        """What the bytes of a quantized network are."""
        return "quantized" if self.subject.given is None else self.subject.given.form

    def _read_network(self, key: str) -> StoredNetwork:
        return StoredNetwork(self._form, self.model(key).tobytes())

    def program(self, point: Pending) -> IntegerProgram:
        """Return a point's program; machines whose arithmetic is the same share it."""
        built_in = digest({name: point.machine.model_dump(mode="json")[name] for name in BUILT_IN})
        key = point.quantized, built_in
        if key not in self._programs:
            if len(self._programs) >= 16:
                self._programs.pop(next(iter(self._programs)))
            self._programs[key] = self._network(point.quantized).lower(point.machine)
        return replace(self._programs[key], machine=point.machine)

    def _exact_run(self, key: str) -> dict[str, npt.NDArray[Any]]:
        """Return what an exact run found."""
        if key not in self._exact:
            unit = self.store.unit(key)
            if unit is None or unit.result is None:
                raise AssertionError("points whose exact run failed go no further")
            self._exact[key] = unpack(unit.result)
        return self._exact[key]

    def _exceeding(self, point: Pending) -> npt.NDArray[np.intp]:
        """Return the samples that exceed a register of the point's machine."""
        exact, inner = self._exact_run(point.observed), inner_bits(point.machine)
        exceeds = (exact["accumulator_bits"] > point.machine.accumulator_bits).any(axis=0)
        if inner is not None:
            exceeds = exceeds | (exact["inner_bits"] > inner).any(axis=0)
        return np.flatnonzero(exceeds)

    def _row(self, point: Pending, outputs: npt.NDArray[Any], events: tuple[int, int], num_run: int) -> PointRow:
        """Return a finished point."""
        program = self.program(point)
        real = program.tensors[program.outputs[0]].dequantize(outputs)
        if program.whole and real.ndim > 1:  # a run of the model may be several samples
            real = real.reshape(-1, *real.shape[2:])
        metrics = {**quality(real, self._reference, self.subject.labels), **point.metrics}
        metrics |= {"overflow_events": events[0], "partial_overflow_events": events[1]}
        metrics |= {"num_samples": self.subject.num_samples, "num_simulated": num_run}
        config = None if self.subject.model is None else point.config.model_dump(mode="json")
        machine = point.machine.model_dump(mode="json")
        return PointRow(point.key, point.settings, machine, config, "done", None, metrics)

    def _without_failed(self, points: list[Pending], key: Callable[[Pending], str]) -> list[Pending]:
        """Record the points whose unit failed; return the others."""
        statuses = self.store.statuses([key(point) for point in points])
        left = []
        for point in points:
            if statuses.get(key(point)) == "done":
                left.append(point)
            else:
                unit = self.store.unit(key(point))
                self._fail(point, unit.error or "failed" if unit is not None else "lost")
        return left

    def _fail(self, point: Pending, error: str) -> None:
        """Record a point without numbers."""
        config = None if self.subject.model is None else point.config.model_dump(mode="json")
        machine = point.machine.model_dump(mode="json")
        self._record([PointRow(point.key, point.settings, machine, config, "failed", error, {})])

    def _record(self, rows: list[PointRow]) -> None:
        """Keep points, and say so."""
        if rows:
            self.store.add_points(rows)
            self.told(len(rows))


def quality(
    real: npt.NDArray[np.float32], reference: npt.NDArray[Any] | None, labels: npt.NDArray[np.int64] | None
) -> dict[str, Any]:
    """Return what the outputs are worth: accuracy with labels, agreement with the reference and SQNR.

    Parameters
    ----------
    real : float32 array, shape (samples, ...)
        The integers' first output.
    reference : float32 array, same shape
        The float network's, or an imported model's on its own machine.
    labels : int64 array, shape (samples,), or None
        Class of each sample.
    """
    if reference is None:
        raise AssertionError("the reference was run")
    metrics: dict[str, Any] = {}
    if labels is not None:
        metrics["accuracy"] = count_right(real, labels) / len(real)
    answers = reference.reshape(len(reference), -1).argmax(axis=1).astype(np.int64)
    metrics["agreement"] = count_right(real, answers) / len(real)
    signal = reference.astype(np.float64).reshape(-1)
    noise = signal - real.astype(np.float64).reshape(-1)
    power, lost = float(np.einsum("i,i", signal, signal)), float(np.einsum("i,i", noise, noise))
    metrics["sqnr_db"] = 10 * math.log10(power / lost) if power > 0 and lost > 0 else None
    return metrics
