"""How wide must the registers be: the analysis of a quantized network on a machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import prod

import numpy as np
import numpy.typing as npt

from accelsim.errors import DataError, OperandError
from accelsim.explore.bounds import Bounds, accumulator_bounds, partial_bounds
from accelsim.explore.multiplier import NARROWEST, proven_multiplier_bits
from accelsim.explore.observation import LayerSeen, Progress, RegisterSeen, observe
from accelsim.explore.replay import Replay
from accelsim.explore.search import MODES, Found, Judge, Run, multiplier_run, narrow, network_run, register_run
from accelsim.explore.width_report import LayerWidths, RegisterWidths, WidthReport
from accelsim.graph.feeds import Feeds, Images
from accelsim.graph.quantized import QuantizedGraph
from accelsim.machine import Machine
from accelsim.machine.machine import MIN_REGISTER_BITS
from accelsim.program.layers import MacLayer
from accelsim.program.program import IntegerProgram
from accelsim.simulator.run import placed

MAX_STORED_BYTES = 1 << 30
"""Codes of the searched samples that are kept in memory; fewer samples are searched where more would be needed."""


def accumulator_widths(
    quantized: QuantizedGraph | IntegerProgram,
    images: Images,
    machine: Machine | None = None,
    labels: npt.ArrayLike | None = None,
    *,
    max_loss: float = 0.01,
    search_samples: int | None = 256,
    threads: int | None = None,
    progress: Progress | None = None,
) -> WidthReport:
    """Find how wide accumulators, partial sums, adder trees and requantization multipliers must be, layer by layer.

    Parameters
    ----------
    quantized : QuantizedGraph or IntegerProgram
        The network.
    images : array or mapping of input name to array
        Samples along axis 0: their ranges are tracked, once.
    machine : Machine, optional
        Grid, dataflow and requantizer; its own register widths and overflow mode play no part.
    labels : integer array, shape (samples,), optional
        Class of each sample. Left out, the exact integers' own answers are what is right.
    max_loss : float
        Accuracy holds where it is at most this much under that of the exact integers, 0..1.
    search_samples : int, optional
        The accuracy is measured on so many samples, the first ones; None takes all.
    threads : int, optional
        Searches that run at the same time; as many as there are processors when left out. The result does not depend
        on it.
    progress : callable, optional
        Called with ("ranges", samples done, all), then ("searches", done, all).

    Returns
    -------
    WidthReport
        Per layer and kind of register the width that is proven for any input, needed on the data, and at which the
        accuracy holds under wrap and under saturate.

    Raises
    ------
    DataError
        When images or labels do not fit the network.
    LoweringError
        When the network has no integer form on the machine.
    OperandError
        When an option is outside its range.

    Notes
    -----
    docs/widths.md. One pass tracks the ranges of all widths: a sample that exceeds a width nowhere is not simulated
    again at that width, and what comes before the first layer that it exceeds is taken from the exact run.

    Examples
    --------
    >>> report = accumulator_widths(quantized, images, machine, labels)  # doctest: +SKIP
    >>> report.layers[0].register("accumulator").proven_bits  # doctest: +SKIP
    """
    if not 0 <= max_loss <= 1:
        raise OperandError(f"max_loss must be a share from 0 to 1, got {max_loss!r}")
    for name, value in (("search_samples", search_samples), ("threads", threads)):
        if value is not None and value < 1:
            raise OperandError(f"{name} must be at least 1, got {value!r}")
    program, machine = placed(quantized, machine, "fast", "range")
    total = Feeds(program, images, program.whole).num_samples
    classes = None if labels is None else _checked_labels(labels, total)
    searched = min(total, search_samples or total, _samples_that_fit(program))
    observation = observe(program, images, machine, keep_samples=searched, progress=progress)
    replay = Replay(program, machine, observation)
    judge = Judge(None if classes is None else classes[:searched], replay.exact, max_loss)
    on_grid = [layer for layer in program.layers if layer.name in observation.layers and isinstance(layer, MacLayer)]
    jobs = _jobs(replay, on_grid, machine, judge)
    found = _search(jobs, threads or len(os.sched_getaffinity(0)), progress)
    layers = tuple(_layer_widths(layer, machine, observation.layers[layer.name], found) for layer in on_grid)
    return WidthReport(
        network=program.name,
        machine=machine,
        num_samples=total,
        num_searched=searched,
        metric="agreement" if classes is None else "top1",
        exact_accuracy=judge.right(replay.exact) / searched,
        max_loss=max_loss,
        layers=layers,
        network_registers=_network_registers(layers, found),
    )


Job = Callable[[], Found]
Key = tuple[str | None, str, str]
"""Layer (None: all), register, overflow mode."""


def _jobs(replay: Replay, on_grid: list[MacLayer], machine: Machine, judge: Judge) -> dict[Key, Job]:
    """Return every search that is to be made, the longest ones first."""
    jobs: dict[Key, Job] = {}
    observation = replay.observation

    def job(key: Key, run: Run, enough: int, narrowest: int, to_collapse: bool = False) -> None:
        jobs[key] = lambda: narrow(run, enough, narrowest, key[2], judge, to_collapse)

    for register in _kinds(machine):
        held = [_held(seen, register).bits for seen in observation.layers.values()]
        for mode in MODES:
            run = network_run(replay, machine, register, mode)
            job((None, register, mode), run, max(held), MIN_REGISTER_BITS, to_collapse=register == "accumulator")
    for layer in on_grid:
        seen = observation.layers[layer.name]
        for register in _kinds(machine):
            for mode in MODES:
                run = register_run(replay, layer, machine, register, mode, seen)
                job((layer.name, register, mode), run, _held(seen, register).bits, MIN_REGISTER_BITS)
        if seen.multiplier_bits is not None:
            jobs[layer.name, "multiplier", "none"] = _multiplier_job(replay, layer, seen.multiplier_bits, judge)
    return jobs


def _multiplier_job(replay: Replay, layer: MacLayer, enough: int, judge: Judge) -> Job:
    """Return the search of one layer's multiplier, which drops what it kept when it ends."""

    def search() -> Found:
        try:
            return narrow(multiplier_run(replay, layer), enough, NARROWEST, "none", judge)
        finally:
            replay.forget(layer)

    return search


def _search(jobs: dict[Key, Job], threads: int, progress: Progress | None) -> dict[Key, Found]:
    """Run the searches; kernels run without the interpreter's lock."""
    with ThreadPoolExecutor(max_workers=threads) as pool:
        pending = {key: pool.submit(job) for key, job in jobs.items()}
        found: dict[Key, Found] = {}
        try:
            for key, future in pending.items():
                found[key] = future.result()
                if progress is not None:
                    progress("searches", len(found), len(jobs))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return found


def _kinds(machine: Machine) -> tuple[str, ...]:
    """Return the kinds of register of a grid that overflow."""
    inner = {"output_stationary": (), "broadcast": ("adder_tree",)}
    return ("accumulator", *inner.get(machine.dataflow, ("partial_sum",)))


def _held(seen: LayerSeen, register: str) -> RegisterSeen:
    """Return what a kind of register held."""
    held = seen.accumulator if register == "accumulator" else seen.partial
    if held is None:
        raise AssertionError("the grid has this register")
    return held


def _layer_widths(layer: MacLayer, machine: Machine, seen: LayerSeen, found: dict[Key, Found]) -> LayerWidths:
    """Put the three answers of one layer side by side."""
    bounds = accumulator_bounds(layer, machine)
    registers = [_register("accumulator", layer.name, bounds, seen.accumulator, found)]
    inner = partial_bounds(layer, machine)
    if inner is not None and seen.partial is not None:
        registers.append(_register(_kinds(machine)[1], layer.name, inner, seen.partial, found))
    if seen.multiplier_bits is not None:
        ended = found[layer.name, "multiplier", "none"]
        proven = proven_multiplier_bits(layer, bounds)
        registers.append(
            RegisterWidths(
                "multiplier",
                proven,
                None,
                None,
                False,
                seen.multiplier_bits,
                None,
                None,
                (),
                ended.bits,
                ended.bits,
                ended.steps,
            )
        )
    return LayerWidths(layer.name, layer.op, layer.weights.shape[0], layer.reduction, tuple(registers))


def _register(register: str, layer: str, bounds: Bounds, seen: RegisterSeen, found: dict[Key, Found]) -> RegisterWidths:
    """Return a register that overflows."""
    ended = [found[layer, register, mode] for mode in MODES]
    return RegisterWidths(
        register=register,
        proven_bits=bounds.bits,
        proven_low=int(bounds.low.min()),
        proven_high=int(bounds.high.max()),
        tight=bounds.tight,
        needed_bits=seen.bits,
        needed_low=seen.low,
        needed_high=seen.high,
        distribution=seen.distribution,
        holds_wrap_bits=ended[0].bits,
        holds_saturate_bits=ended[1].bits,
        steps=ended[0].steps + ended[1].steps,
    )


def _network_registers(layers: tuple[LayerWidths, ...], found: dict[Key, Found]) -> tuple[RegisterWidths, ...]:
    """Put all layers together, for the kinds of register that overflow."""
    rows = []
    for register in [key[1] for key in found if key[0] is None and key[2] == MODES[0]]:
        parts = [layer.register(register) for layer in layers]
        counts: dict[int, int] = {}
        for bits, count in (pair for part in parts for pair in part.distribution):
            counts[bits] = counts.get(bits, 0) + count
        ended = [found[None, register, mode] for mode in MODES]
        rows.append(
            RegisterWidths(
                register=register,
                proven_bits=max(part.proven_bits or 0 for part in parts),
                proven_low=min(part.proven_low or 0 for part in parts),
                proven_high=max(part.proven_high or 0 for part in parts),
                tight=all(part.tight for part in parts),
                needed_bits=max(part.needed_bits for part in parts),
                needed_low=min(part.needed_low or 0 for part in parts),
                needed_high=max(part.needed_high or 0 for part in parts),
                distribution=tuple(sorted(counts.items())),
                holds_wrap_bits=ended[0].bits,
                holds_saturate_bits=ended[1].bits,
                steps=ended[0].steps + ended[1].steps,
            )
        )
    return tuple(rows)


def _samples_that_fit(program: IntegerProgram) -> int:
    """Return how many samples' stored tensors fit `MAX_STORED_BYTES`, at least one."""
    size = sum(prod(length or 1 for length in tensor.shape) for tensor in program.inputs)
    size += sum(
        prod(layer.output_shape) * program.tensors[layer.output].format.dtype.itemsize for layer in program.layers
    )
    return max(1, MAX_STORED_BYTES // size)


def _checked_labels(labels: npt.ArrayLike, samples: int) -> npt.NDArray[np.int64]:
    """Return labels, one per sample."""
    array = np.asarray(labels)
    if array.shape != (samples,) or array.dtype.kind not in "iu":
        raise DataError(
            f"labels must be {samples} whole numbers, one per sample, got shape {array.shape} of {array.dtype}"
        )
    return array.astype(np.int64)
