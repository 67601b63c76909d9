"""Batches and threads: nothing that a run returns depends on them, and memory stays within its bound."""

import os
import platform
import subprocess
import sys
import threading

import numpy as np
import pytest

import accelsim as ax
from accelsim.program.lowering import lower
from accelsim.simulator import run
from accelsim.simulator.batches import BatchRun
from tests.accelsim.run.networks import residuals


@pytest.fixture(scope="module")
def network():
    graph = residuals()
    shapes = {tensor.name: tensor.shape[1:] for tensor in graph.inputs}
    rng = np.random.default_rng(0)
    images = {name: rng.normal(size=(13, *shape)).astype(np.float32) for name, shape in shapes.items()}
    return ax.quantize(graph, calibration=images), images


@pytest.fixture(autouse=True)
def _threads_always_pay(request, monkeypatch):
    if "by_default" not in request.node.name:
        monkeypatch.setattr(run, "WORTH_A_THREAD", 0)


@pytest.mark.parametrize("track", ["overflow", "range"])
@pytest.mark.parametrize("bits", [9, 32])
@pytest.mark.parametrize("options", [{"threads": 2}, {"threads": 5}, {"threads": 3, "memory_bytes": 1}])
def test_results_are_the_same_for_any_number_of_threads(network, track, bits, options):
    quantized, images = network
    machine = ax.Machine(rows=4, columns=4, accumulator_bits=bits)
    one = ax.simulate(quantized, images, machine, track=track, keep_intermediates=True)
    several = ax.simulate(quantized, images, machine, track=track, keep_intermediates=True, **options)
    assert (bits == 9) == bool(one.overflow_events)
    assert several.to_dict() == one.to_dict()
    assert set(several.tensors) == set(one.tensors)
    for name, codes in one.tensors.items():
        assert np.array_equal(several.tensors[name], codes)


@pytest.mark.parametrize("samples", [1, 2, 3, 5])
def test_small_batches_are_spread_over_threads(network, samples):
    quantized, images = network
    few = {name: values[:samples] for name, values in images.items()}
    one = ax.simulate(quantized, few, keep_intermediates=True)
    assert one.batch_samples == samples
    for threads in (2, 3, 8):
        several = ax.simulate(quantized, few, threads=threads, keep_intermediates=True)
        assert several.batch_samples == -(-samples // min(threads, samples))
        assert several.to_dict() == one.to_dict()
        for name, codes in one.tensors.items():
            assert np.array_equal(several.tensors[name], codes)
        for name, values in one.real_outputs.items():
            assert np.array_equal(several.real_outputs[name], values)


def test_what_is_remembered_of_a_program_belongs_to_how_it_ran(network):
    quantized, images = network
    machine, dearer = ax.Machine(rows=4, columns=4, accumulator_bits=9), ax.EnergyTable(register_pj_per_bit=7.0)
    program = lower(quantized, machine)
    for _ in range(2):
        for samples in (2, 3):
            few = {name: values[:samples] for name, values in images.items()}
            for options in ({}, {"track": "none"}, {"track": "range"}, {"activity": True}, {"energy": dearer}):
                new = ax.simulate(lower(quantized, machine), few, **options)
                assert ax.simulate(program, few, **options).to_dict() == new.to_dict()


def test_runs_share_their_threads(network):
    quantized, images = network
    runs = 10
    for _ in range(runs):
        ax.simulate(quantized, images, threads=3)
    made = [thread for thread in threading.enumerate() if thread.name.startswith("accelsim")]
    assert 1 <= len(made) < 2 * runs


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc learns what to keep")
def test_memory_of_one_batch_serves_the_next():
    code = """
import resource
import numpy as np
import accelsim.simulator.batches
def pages_taken():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [np.ones(3 << 20, np.uint8) for _ in range(15)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
taken = [pages_taken() for _ in range(3)]
assert taken[2] < taken[0] / 10, taken
"""
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_process_has_threads_of_its_own():
    code = """
import os, threading
from accelsim.simulator.batches import workers
workers().submit(threading.get_ident).result()
child = os.fork()
if child == 0:
    os._exit(workers().submit(os.getpid).result(timeout=30) != os.getpid())
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=60, check=False).returncode == 0


def test_by_default_no_thread_has_less_than_it_is_worth(network, monkeypatch):
    quantized, images = network
    program = lower(quantized, ax.Machine())
    least = sum(np.prod(layer.output_shape) for layer in program.layers) / len(program.layers)
    assert 13 * least < run.WORTH_A_THREAD
    for threads, worth, size in (
        (2, run.WORTH_A_THREAD, 13), (2, 7 * least, 7), (2, 7 * least + 1, 13), (5, 4 * least, 4), (5, 5.1 * least, 7),
        (13, 1.1 * least, 2), (99, least, 1),
    ):  # fmt: skip
        monkeypatch.setattr(run, "WORTH_A_THREAD", worth)
        assert ax.simulate(program, images, threads=threads).batch_samples == size


def test_an_interrupt_of_the_thread_that_calls_ends_all(network, monkeypatch):
    quantized, images = network
    caller, interrupted, began = threading.current_thread(), threading.Event(), []

    def run_batch(self, execution, start, stop):
        began.append(start)
        if threading.current_thread() is caller:
            interrupted.set()
            raise KeyboardInterrupt
        assert interrupted.wait(60)

    monkeypatch.setattr(BatchRun, "_run_batch", run_batch)
    with pytest.raises(KeyboardInterrupt):
        ax.simulate(quantized, images, threads=2, memory_bytes=1)
    assert 1 <= len(began) < 13


def test_memory_is_bounded_and_reported(network):
    quantized, images = network
    program = lower(quantized, ax.Machine())
    whole, part = (ax.simulate(program, images, memory_bytes=size) for size in (64 << 20, 30000))
    assert whole.batch_samples == 13
    assert part.batch_samples < 13
    assert 0 < part.peak_batch_bytes <= 30000
    assert part.peak_batch_bytes < whole.peak_batch_bytes
    assert part.to_dict() == whole.to_dict()


def test_progress_counts_every_sample_once(network):
    quantized, images = network
    seen = []
    ax.simulate(quantized, images, threads=3, memory_bytes=1, progress=lambda *report: seen.append(report))
    assert seen == [("samples", count, 13) for count in range(1, 14)]


def test_the_first_failure_in_the_order_of_samples_is_raised(network):
    quantized, images = network
    machine = ax.Machine(rows=4, columns=4, accumulator_bits=6, overflow="error")
    for threads in (1, 2):
        with pytest.raises(ax.AccumulatorOverflowError, match="overflow events"):
            ax.simulate(quantized, images, machine, threads=threads, memory_bytes=1)
    broken = {name: values.copy() for name, values in images.items()}
    next(iter(broken.values()))[3] = np.nan
    with pytest.raises(ax.DataError, match=r"samples 3\.\.3"):
        ax.simulate(quantized, broken, threads=4, memory_bytes=1)


@pytest.mark.parametrize("options", [{"threads": 0}, {"memory_bytes": 0}])
def test_wrong_numbers_are_refused(network, options):
    quantized, images = network
    with pytest.raises(ax.OperandError, match=f"{next(iter(options))} must be at least 1, got 0"):
        ax.simulate(quantized, images, **options)
