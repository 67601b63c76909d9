"""pytest-benchmark cases: ``pytest benchmarks``."""

from __future__ import annotations

import numpy as np
import pytest

import accelsim as ax
from accelsim.data import digits_model_path, load_digits
from accelsim.program.lowering import lower

N, K, P = 64, 576, 1024


@pytest.fixture(scope="module")
def operands():
    rng = np.random.default_rng(0)
    return rng.integers(-127, 128, (N, K), dtype=np.int8), rng.integers(0, 256, (K, P), dtype=np.uint8)


def test_numpy_float32_matmul(benchmark, operands):
    weights, activations = (operand.astype(np.float32) for operand in operands)
    assert benchmark(lambda: weights @ activations).shape == (N, P)


@pytest.mark.parametrize("bits", [32, 18])
@pytest.mark.parametrize("dataflow", ["output_stationary", "broadcast", "weight_stationary", "input_stationary"])
def test_fast_engine(benchmark, operands, dataflow, bits):
    machine = ax.Machine(dataflow=dataflow, accumulator_bits=bits)
    result = benchmark(lambda: ax.matmul(*operands, machine))
    assert bool(result.overflow_events.any()) == (bits == 18)


@pytest.mark.parametrize("dataflow", ["output_stationary", "broadcast", "weight_stationary", "input_stationary"])
def test_stepped_engine(benchmark, operands, dataflow):
    weights, activations = operands
    machine = ax.Machine(dataflow=dataflow)
    result = benchmark.pedantic(
        lambda: ax.matmul(weights, activations[:, :64], machine, engine="stepped"), rounds=3, warmup_rounds=1
    )
    assert result.accumulators.shape == (N, 64)


def test_shipped_network(benchmark):
    digits = load_digits()
    quantized = ax.quantize(ax.load_onnx(digits_model_path()), calibration=digits.x_calibration)
    result = benchmark.pedantic(lambda: ax.simulate(quantized, digits.x_test), rounds=3, warmup_rounds=1)
    assert result.num_samples == len(digits.y_test)


@pytest.mark.parametrize("overflow", ["wrap", "saturate"])
def test_stepped_additions(benchmark, operands, overflow):
    machine = ax.Machine(accumulator_bits=18, overflow=overflow)
    assert benchmark(lambda: ax.matmul(*operands, machine)).overflow_events.any()


def test_running_range(benchmark, operands):
    assert benchmark(lambda: ax.matmul(*operands, track="range")).range_max.any()


@pytest.mark.parametrize("threads", [1, 2])
def test_shipped_network_in_threads(benchmark, threads):
    digits = load_digits()
    program = lower(ax.quantize(ax.load_onnx(digits_model_path()), calibration=digits.x_calibration[:64]), ax.Machine())
    images = np.concatenate([digits.x_test] * 4)
    result = benchmark.pedantic(lambda: ax.simulate(program, images, threads=threads), rounds=5, warmup_rounds=1)
    assert result.num_samples == len(images)
