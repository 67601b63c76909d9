"""Small batches whose arrays stay: run by run they return what a program that never ran before returns."""

import gc
import weakref
from functools import partial

import numpy as np
import pytest

import accelsim as ax
from accelsim.program.lowering import lower
from accelsim.simulator import fixed_batches
from accelsim.simulator.layers import elementwise
from accelsim_kernels.processor import has_dot_instructions
from tests.accelsim.run.networks import CONFIGS, NETWORKS, images_of, quantized_network
from tests.accelsim.simulator.test_safe_layers import path


@pytest.fixture(autouse=True)
def _arrays_stay_at_once(monkeypatch):
    monkeypatch.setattr(fixed_batches, "RUNS_BEFORE", 1)


@pytest.fixture
def again(monkeypatch):
    """The functions that are called without more ado in every batch that was run again."""
    met = []
    run = fixed_batches.FixedBatch.run

    def counting(batch, codes):
        met.append([step.func.__name__ for step in batch._steps if isinstance(step, partial)])
        run(batch, codes)

    monkeypatch.setattr(fixed_batches.FixedBatch, "run", counting)
    return met


def few(images, begin, count):
    return {name: values[begin : begin + count] for name, values in images.items()}


def assert_same(result, expected):
    assert result.to_dict() == expected.to_dict()
    for ours, theirs in ((result.tensors, expected.tensors), (result.outputs, expected.outputs)):
        assert set(ours) == set(theirs)
        for name, codes in theirs.items():
            assert ours[name].dtype == codes.dtype
            assert np.array_equal(ours[name], codes), name
    for name, values in expected.real_outputs.items():
        assert np.array_equal(result.real_outputs[name], values)


@pytest.mark.parametrize(
    ("config", "way"),
    [
        ("8 bits", "portable"),
        ("8 bits", "instructions"),
        *(pytest.param(config, "instructions", marks=pytest.mark.slow) for config in CONFIGS if config != "8 bits"),
    ],
)
@pytest.mark.parametrize("name", NETWORKS)
def test_batches_alike_return_what_a_new_program_returns(name, config, way, again):
    quantized, images = quantized_network(name, config), images_of(name, 12)
    machine = ax.Machine(rows=4, columns=4, accumulator_bits=20)
    program = lower(quantized, machine)
    with path(way):
        for begin in (0, 2, 4):
            some = few(images, begin, 2)
            result = ax.simulate(program, some, keep_intermediates=True)
            assert_same(result, ax.simulate(lower(quantized, machine), some, keep_intermediates=True))
    assert len(again) == 1


@pytest.mark.parametrize(("track", "bits"), [("overflow", 9), ("range", 32), ("none", 32)])
def test_whatever_is_tracked(track, bits, again):
    quantized, images = quantized_network("residuals"), images_of("residuals", 12)
    machine = ax.Machine(rows=4, columns=4, accumulator_bits=bits)
    program = lower(quantized, machine)
    for begin in (0, 3, 6, 9):
        some = few(images, begin, 3)
        result = ax.simulate(program, some, track=track)
        assert_same(result, ax.simulate(lower(quantized, machine), some, track=track))
    assert len(again) == 2
    assert (bits == 9) == bool(result.overflow_events)


PRODUCT = ["by_place", "dot_layer"]


@pytest.mark.skipif(not has_dot_instructions(), reason="without dot-product instructions products are several calls")
@pytest.mark.parametrize(
    ("name", "many", "calls"),
    [
        ("convolutions", 1, [*PRODUCT, *PRODUCT, "dot_layer", *PRODUCT]),
        ("residuals", 1, [*PRODUCT, *PRODUCT, "look_pairs_up", *PRODUCT]),
        ("residuals", 1000, [*PRODUCT, *PRODUCT, *PRODUCT]),
    ],
)
def test_layers_become_calls(name, many, calls, again, monkeypatch):
    """Products with no register at risk, unless channels are repeated, and additions of many codes."""
    monkeypatch.setattr(elementwise, "_MANY", many)
    quantized, images = quantized_network(name), images_of(name, 12)
    program = lower(quantized, ax.Machine())
    for begin in (0, 3, 6, 9):
        some = few(images, begin, 3)
        result = ax.simulate(program, some, keep_intermediates=True)
        assert_same(result, ax.simulate(lower(quantized, ax.Machine()), some, keep_intermediates=True))
    assert again == [calls, calls]


def test_batches_of_one_run_and_of_several_threads(again):
    quantized, images = quantized_network("residuals"), images_of("residuals", 40)
    expected = ax.simulate(quantized, images, keep_intermediates=True)
    program = lower(quantized, ax.Machine())
    size = expected.batch_samples
    assert size == 40
    for options in ({}, {"threads": 2}):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("accelsim.simulator.run.BATCH_BYTES", expected.peak_batch_bytes // 10)
            patch.setattr("accelsim.simulator.run.WORTH_A_THREAD", 0)
            for _ in range(2):
                result = ax.simulate(program, images, keep_intermediates=True, **options)
                assert result.batch_samples < 10
                assert_same(result, expected)
    assert len(again) > 4


def test_what_was_returned_stays_and_inputs_are_not_written_to(again):
    quantized, images = quantized_network("residuals"), images_of("residuals", 12)
    program = lower(quantized, ax.Machine())
    given = {name: values.copy() for name, values in images.items()}
    results = [ax.simulate(program, few(images, begin, 3), keep_intermediates=True) for begin in (0, 3, 6, 9)]
    assert len(again) == 2
    for result, begin in zip(results, (0, 3, 6, 9), strict=True):
        expected = ax.simulate(lower(quantized, ax.Machine()), few(images, begin, 3), keep_intermediates=True)
        assert_same(result, expected)
    for name, values in images.items():
        assert np.array_equal(values, given[name])


def test_other_batches_in_between(again):
    quantized, images = quantized_network("residuals"), images_of("residuals", 12)
    program = lower(quantized, ax.Machine())
    for count in (3, 3, 3, 2, 2, 2, 3, 2, 4, 3, 3, 3):  # two kinds are remembered
        assert_same(ax.simulate(program, few(images, 1, count)), ax.simulate(quantized, few(images, 1, count)))
    assert len(again) == 5


def test_a_run_that_failed_leaves_nothing(again):
    quantized, images = quantized_network("residuals"), images_of("residuals", 12)
    narrow = ax.Machine(rows=4, columns=4, accumulator_bits=16, overflow="error")
    program, quiet = lower(quantized, narrow), {name: 0 * values for name, values in images.items()}
    expected = ax.simulate(lower(quantized, narrow), few(quiet, 0, 3))
    for _ in range(3):
        for _ in range(4):
            assert_same(ax.simulate(program, few(quiet, 0, 3)), expected)
        with pytest.raises(ax.AccumulatorOverflowError):
            ax.simulate(program, few({name: 100 * values for name, values in images.items()}, 0, 3))
    assert len(again) >= 6


def test_large_batches_and_tight_memory_keep_nothing(again, monkeypatch):
    quantized, images = quantized_network("residuals"), images_of("residuals", 12)
    program = lower(quantized, ax.Machine())
    for _ in range(4):
        ax.simulate(program, images, memory_bytes=fixed_batches.MOST_KINDS * fixed_batches.FIXED_BYTES - 1)
    assert again == []
    with monkeypatch.context() as patch:
        patch.setattr(fixed_batches, "FIXED_BYTES", 1 << 10)
        for _ in range(4):
            ax.simulate(program, images)
    assert again == []
    large = [ax.simulate(program, images) for _ in range(3)][-1]
    assert len(again) == 2
    tight = large.peak_batch_bytes // 2
    assert ax.simulate(program, images, memory_bytes=tight).peak_batch_bytes <= tight
    assert len(again) == 2


def test_arrays_that_stay_are_reported():
    quantized, images = quantized_network("residuals"), images_of("residuals", 12)
    program = lower(quantized, ax.Machine())
    results = [ax.simulate(program, few(images, 0, 1), keep_intermediates=True) for _ in range(3)]
    assert results[2].peak_batch_bytes >= sum(array.nbytes for array in results[2].tensors.values())


def test_what_is_kept_goes_with_its_program():
    quantized, images = quantized_network("residuals"), images_of("residuals", 12)
    program = lower(quantized, ax.Machine())
    for _ in range(3):
        ax.simulate(program, few(images, 0, 1))
    gone = weakref.ref(program)
    del program
    gc.collect()
    assert gone() is None
