"""The units of a sweep's work, as workers do them: plain values in, plain values out.

A worker may be another process or another computer. So a unit takes names, numbers, bytes and arrays, and returns bytes
and an error's words; models travel in the form in which they are saved.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from accelsim.errors import AccelsimError

if TYPE_CHECKING:
    from accelsim.explore.models import Form, StoredNetwork
    from accelsim.machine import Machine

Kind = Literal["quantize", "reference", "observe", "simulate"]
Bytes = npt.NDArray[np.uint8]
Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Task:
    """One unit of work.

    Parameters
    ----------
    key : str
        Of the unit.
    kind : {"quantize", "reference", "observe", "simulate"}
        ``quantize``: model to quantized graph. ``reference``: the first output that the others are held to, of the
        float network or of an imported model on its own machine. ``observe``: the exact run with the widths that every
        layer of every sample needs. ``simulate``: some samples on a machine.
    inputs : tuple of str
        Names of the arrays that come with it.
    form : str
        What the model's bytes are: ``float`` for an ONNX model to be quantized, else a `Form`.
    config : str or None
        PTQConfig as JSON.
    machine : str or None
        Machine as TOML.
    samples : tuple of int or None
        Which samples are simulated.
    partials : bool
        Whether partial sums or adder trees are observed, too.
    """

    key: str
    kind: Kind
    inputs: tuple[str, ...]
    form: Form | Literal["float"]
    config: str | None = None
    machine: str | None = None
    samples: tuple[int, ...] | None = None
    partials: bool = False


class Outcome(NamedTuple):
    """What became of a unit: a result, or why there is none."""

    key: str
    seconds: float
    result: bytes | None
    error: str | None


def run_task(task: Task, model: Bytes, *arrays: npt.NDArray[Any]) -> Outcome:
    """Do one unit of work.

    Parameters
    ----------
    task : Task
        What to do.
    model : uint8 array
        The model's file.
    *arrays : array
        One per name in ``task.inputs``, samples along axis 0.

    Returns
    -------
    Outcome
        Errors are caught and named: a point that fails must not stop the others.
    """
    begin = time.perf_counter()
    images = dict(zip(task.inputs, arrays, strict=True))
    work = {"quantize": _quantize, "reference": _reference, "observe": _observe, "simulate": _simulate}[task.kind]
    try:
        result, error = work(task, model.tobytes(), images), None
    except AccelsimError as failure:
        result, error = None, str(failure)
    except Exception as failure:  # whatever it is, it is one point's trouble
        result, error = None, f"{type(failure).__name__}: {failure}"
    return Outcome(task.key, time.perf_counter() - begin, result, error)


def pack(arrays: Arrays) -> bytes:
    """Return named arrays as the bytes of an .npz file."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def unpack(data: bytes) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays that `pack` packed."""
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _quantize(task: Task, model: bytes, images: Arrays) -> bytes:
    from accelsim.graph.archive import quantized_bytes
    from accelsim.graph.reader import load_onnx
    from accelsim.ptq import PTQConfig, quantize

    config = PTQConfig.model_validate_json(task.config or "{}")
    return quantized_bytes(quantize(load_onnx(model), images, config))


def _reference(task: Task, model: bytes, images: Arrays) -> bytes:
    """Return the first output that the points are held to."""
    return pack({"outputs": (_float_run if task.form == "float" else _own_run)(task, model, images)})


def _own_run(task: Task, model: bytes, images: Arrays) -> npt.NDArray[Any]:
    """Return the real numbers that an imported model gives on its own machine."""
    from accelsim.simulator.run import simulate

    machine = _machine(task)
    program = _network(task, model).lower(machine)
    return simulate(program, images, machine, track="none").real_outputs[program.outputs[0]]


def _float_run(task: Task, model: bytes, images: Arrays) -> npt.NDArray[Any]:
    """Return what ONNX Runtime makes of the float network."""
    from accelsim.graph.feeds import Feeds
    from accelsim.graph.reader import load_onnx
    from accelsim.reference import OnnxRunner
    from accelsim.reference.batches import samples_per_batch

    graph = load_onnx(model)
    runner = OnnxRunner.of_original(graph, [graph.outputs[0]])
    parts = [runner.run(batch)[graph.outputs[0]] for batch in Feeds(graph, images).batches(samples_per_batch(graph))]
    return np.concatenate(parts)


def _observe(task: Task, model: bytes, images: Arrays) -> bytes:
    """Return the exact outputs, and per layer and sample the widths that accumulators and partial registers need."""
    from accelsim.explore.observation import observe

    machine = _machine(task)
    program = _network(task, model).lower(machine)
    seen = observe(program, images, machine, partials=task.partials, multiplier=False)
    layers = list(seen.layers.values())
    accumulators = np.array([layer.accumulator.sample_bits for layer in layers], dtype=np.uint8)
    partials = [layer.partial.sample_bits for layer in layers if layer.partial is not None]
    inner = np.array(partials, dtype=np.uint8) if partials else np.zeros((0, 0), dtype=np.uint8)
    return pack({"outputs": seen.outputs, "accumulator_bits": accumulators, "inner_bits": inner})


def _simulate(task: Task, model: bytes, images: Arrays) -> bytes:
    """Return the outputs of some samples on a machine, and the overflow events."""
    from accelsim.graph.feeds import Feeds
    from accelsim.simulator.run import simulate

    machine = _machine(task)
    program = _network(task, model).lower(machine)
    some = Feeds(program, images, program.whole).take(np.array(task.samples, dtype=np.intp))
    if program.whole:  # a run of the model may be several rows
        some = {name: array.reshape(-1, *array.shape[2:]) for name, array in some.items()}
    result = simulate(program, some, machine, track="overflow")
    partial = sum(layer.partial_overflow_events or 0 for layer in result.layers)
    events = np.array([result.overflow_events or 0, partial], dtype=np.int64)
    return pack({"outputs": result.outputs[program.outputs[0]], "events": events})


def _machine(task: Task) -> Machine:
    """Return the machine of a task that has one."""
    from accelsim.machine import Machine

    return Machine.from_toml(task.machine or "")


def _network(task: Task, model: bytes) -> StoredNetwork:
    """Return the network of a task that runs integers."""
    from accelsim.explore.models import StoredNetwork

    if task.form == "float":
        raise AssertionError("a float network is quantized before it runs in integers")
    return StoredNetwork(task.form, model)
