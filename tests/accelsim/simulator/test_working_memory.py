"""The memory that a run reports is what it takes: the model of a batch's arrays against what numpy allocated."""

import tracemalloc

import numpy as np
import pytest

import accelsim as ax
from accelsim.data import digits_model_path
from accelsim.program.lowering import lower
from accelsim.simulator.run import batches_of
from accelsim.simulator.working_memory import WorkingMemory
from tests.accelsim.run.networks import NETWORKS, images_of, quantized_network
from tests.accelsim.simulator.test_safe_layers import path

PLAIN = ax.PTQConfig(prune_constants=False, equalize=False, bias_correction="none", rounding="nearest")
MIB = 1 << 20


def measured(program, images, machine, **options):
    """A second run, and the most memory that it held at once, without what it returns."""
    ax.simulate(program, images, machine, **options)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        result = ax.simulate(program, images, machine, **options)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    kept = (result.outputs, result.real_outputs, result.tensors)
    return result, peak - sum(array.nbytes for arrays in kept for array in arrays.values())


def prepared(model, count):
    graph = ax.load_onnx(model)
    shape = [length or 1 for length in graph.inputs[0].shape[1:]]
    images = np.random.default_rng(0).normal(size=(count, *shape)).astype(np.float32)
    return lower(ax.quantize(graph, calibration=images[:2], config=PLAIN), ax.Machine()), images


@pytest.fixture(scope="module")
def resnet8(shared):
    return prepared(shared / "models" / "resnet8_cifar10.onnx", 48)


@pytest.fixture(scope="module")
def mobilenet(shared):
    return prepared(shared / "models" / "mobilenetv1_025_imagenet.onnx", 6)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["resnet8", "mobilenet"])
@pytest.mark.parametrize(
    ("setting", "bits", "options"),
    [
        (64, 32, {}),
        (6, 32, {}),
        (12, 32, {"threads": 2}),
        (8, 32, {"keep_intermediates": True}),
        (16, 16, {}),
        (12, 32, {"track": "range"}),
    ],
)
def test_a_run_takes_what_it_reports_and_no_more_than_it_may(network, setting, bits, options, request):
    program, images = request.getfixturevalue(network)
    machine = ax.Machine(accumulator_bits=bits)
    result, peak = measured(program, images, machine, memory_bytes=setting * MIB, **options)
    assert bool(result.overflow_events) == (bits == 16)
    assert peak <= result.peak_batch_bytes <= setting * MIB
    assert options.get("threads", 1) * 2 * peak >= result.peak_batch_bytes
    if setting == 64:
        assert result.batch_samples == len(images)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["instructions", "portable"])
@pytest.mark.parametrize(
    ("requantizer", "track", "bits"),
    [("tflite", "overflow", 32), ("onnxruntime", "overflow", 32), ("tflite", "overflow", 13), ("tflite", "range", 32)],
)
def test_the_digits_take_what_is_reported(way, requantizer, track, bits):
    graph = ax.load_onnx(digits_model_path())
    images = np.random.default_rng(0).normal(size=(150, *graph.inputs[0].shape[1:])).astype(np.float32)
    machine = ax.Machine(accumulator_bits=bits, requantizer=requantizer)
    program = lower(ax.quantize(graph, calibration=images[:2], config=PLAIN), machine)
    with path(way):
        _, objects = measured(program, images[:1], machine, track=track)
        result, peak = measured(program, images, machine, track=track)
        assert peak - objects <= result.peak_batch_bytes <= 64 * MIB
        assert result.peak_batch_bytes <= 4 * peak
        assert bool(result.overflow_events) == (bits == 13)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "track", "bits"),
    [
        ("8 bits", "overflow", 32),
        ("8 bits", "range", 32),
        ("16 bits", "overflow", 32),
        ("16 bits", "overflow", 64),
        ("asymmetric weights per channel", "range", 32),
    ],
)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_layer_takes_no_more_than_is_reported(name, config, track, bits):
    machine = ax.Machine(rows=4, columns=4, accumulator_bits=bits)
    program = lower(quantized_network(name, config), machine)
    _, objects = measured(program, images_of(name, 1), machine, track=track)
    result, peak = measured(program, images_of(name, 150), machine, track=track)
    assert result.batch_samples == 150
    assert peak - objects <= result.peak_batch_bytes


def test_batches_have_one_size_and_every_thread_as_many(resnet8):
    program, _ = resnet8
    memory = WorkingMemory.of(program, program.machine, True, True, frozenset(program.outputs))
    assert batches_of(256, memory, 64 * MIB, 2) == (128, 2)
    assert batches_of(7, memory, 64 * MIB, 2) == (4, 2)
    assert batches_of(1, memory, 64 * MIB, 2) == (1, 1)
    assert batches_of(9, memory, 64 * MIB, 5) == (2, 5)
    assert batches_of(10, memory, 1, 3) == (1, 3)
    for threads in (1, 2, 3, 6):
        size, used = batches_of(10000, memory, 64 * MIB, threads)
        assert used * memory.bytes(size) <= 64 * MIB
        each = min(16 * MIB, 64 * MIB // threads)
        most = memory.samples(each, 10000)
        assert memory.bytes(most) <= each < memory.bytes(most + 1)
        rounds = -(-10000 // (most * threads))  # as few as fit
        assert size == -(-10000 // (rounds * threads))
