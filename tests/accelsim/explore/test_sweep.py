"""A sweep's points: each held to a run that shares nothing with another one."""

import math

import numpy as np
import pytest

import accelsim as ax
from accelsim.arrays import count_right
from accelsim.reference import OnnxRunner
from tests.accelsim.explore.tiny import tiny_network

pytestmark = pytest.mark.slow

DATAFLOWS = ["output_stationary", "broadcast", "weight_stationary", "input_stationary"]


def check(point, quantized, digits):
    """Hold a point to `simulate` and ONNX Runtime."""
    machine = ax.Machine(**point.machine)
    run = ax.simulate(quantized, digits.images, machine)
    real = next(iter(run.real_outputs.values()))
    reference = OnnxRunner.of_original(digits.graph).run({digits.graph.inputs[0].name: digits.images})
    reference = reference[digits.graph.outputs[0]].astype(np.float64)
    noise = reference - real
    wanted = {
        "accuracy": count_right(real, digits.labels) / len(real),
        "agreement": float(np.mean(real.argmax(axis=1) == reference.argmax(axis=1))),
        "overflow_events": run.overflow_events,
        "partial_overflow_events": sum(layer.partial_overflow_events for layer in run.layers),
        "cycles": run.cycles.total,
        "drain_cycles": run.cycles.drain,
        "operations": run.operations.total,
        "energy_pj": pytest.approx(run.energy_pj, rel=1e-12),
        "dram_bytes": run.memory.dram_bytes,
        "num_samples": len(digits.images),
    }
    assert {name: point.metrics[name] for name in wanted} == wanted
    assert point.metrics["sqnr_db"] == pytest.approx(10 * math.log10((reference**2).sum() / (noise**2).sum()))


@pytest.fixture(scope="module")
def swept(digits):
    settings = {
        "accumulator_bits": [15, 17, 24],
        "dataflow": DATAFLOWS,
        "overflow": ["wrap", "saturate"],
        "partial_sum_bits": [16, 32],
    }
    machine = ax.Machine(rows=4, columns=4)
    return ax.sweep(digits.quantized, digits.images, digits.labels, settings, machine=machine, workers=1)


def test_every_point_is_that_of_a_run_alone(swept, digits):
    assert len(swept.points) == 48
    assert not swept.failed
    for point in swept.points:
        check(point, digits.quantized, digits)
        # simulated again only where something overflows
        events = point.metrics["overflow_events"] + point.metrics["partial_overflow_events"]
        assert (point.metrics["num_simulated"] > 0) == (events > 0)


def test_points_of_the_same_numbers_share_one_simulation(digits, tmp_path):
    import sqlite3

    path = tmp_path / "s.sqlite"
    settings = {"accumulator_bits": [16, 24, 32, 40], "dataflow": DATAFLOWS, "double_buffered": [False, True]}
    machine = ax.Machine(rows=4, columns=4)
    result = ax.sweep(digits.quantized, digits.images, digits.labels, settings, machine=machine, store=path, workers=1)
    assert len(result.done) == 32
    connection = sqlite3.connect(path)
    units = dict(connection.execute("SELECT kind, COUNT(*) FROM units GROUP BY kind"))
    connection.close()
    # 16 bits overflow in two orders: one product at a time, and tiles of four in a tree or down a column
    assert units == {"reference": 1, "observe": 2, "simulate": 2}
    again = ax.sweep(digits.quantized, digits.images, digits.labels, settings, machine=machine, store=path, workers=1)
    assert again == result
    assert {point.key: point for point in ax.SweepResult.load(path).points} == {p.key: p for p in result.points}


def test_quantizations_are_swept_like_machines_and_errors_stay_with_their_points():
    tiny = tiny_network()
    settings = {
        "weight_bits": [4, 8],
        "rounding": ["nearest"],
        "per_channel": [True],
        "overflow": ["wrap", "sometimes"],
        "machine.weight_bits": [6, 8],
    }
    result = ax.sweep(tiny.graph, tiny.images, tiny.labels, settings, calibration=tiny.images, workers=1)
    assert [tuple(point.settings.values()) for point in result.done] == [
        (4, "nearest", True, "wrap", 6), (4, "nearest", True, "wrap", 8), (8, "nearest", True, "wrap", 8)
    ]  # fmt: skip
    for point in result.done:
        check(point, ax.quantize(tiny.graph, tiny.images, ax.PTQConfig(**point.ptq)), tiny)
    errors = {tuple(point.settings.values()): point.error for point in result.failed}
    assert len(errors) == 5
    assert "must be one of 'wrap', 'saturate' or 'error', got 'sometimes'" in errors[4, "nearest", True, "sometimes", 6]
    assert "6-bit weights" in errors[8, "nearest", True, "wrap", 6]


def test_an_overflow_that_the_machine_forbids_is_the_points_error(digits):
    settings = {"accumulator_bits": [14, 32], "overflow": ["error"]}
    result = ax.sweep(digits.quantized, digits.images, None, settings, workers=1)
    assert [point.status for point in result.points] == ["failed", "done"]
    assert "overflow" in result.points[0].error
    assert "accuracy" not in result.points[1].metrics


def test_failures_are_tried_again_on_request(digits, tmp_path):
    path, settings = tmp_path / "s.sqlite", {"accumulator_bits": [14], "overflow": ["error"]}
    first = ax.sweep(digits.quantized, digits.images[:4], None, settings, store=path, workers=1)
    again = ax.sweep(digits.quantized, digits.images[:4], None, settings, store=path, workers=1, retry_failed=True)
    assert first == again
    assert len(again.failed) == 1


def test_two_local_processes_give_what_one_gives(digits):
    settings = {"accumulator_bits": [15, 16, 17], "overflow": ["wrap", "saturate"]}
    arguments = (digits.quantized, digits.images[:8], digits.labels[:8], settings)
    assert ax.sweep(*arguments, workers=2) == ax.sweep(*arguments, workers=1)


def test_data_labels_and_configuration_are_part_of_a_points_key(digits):
    settings = {"rows": [4]}
    keys = {
        ax.sweep(digits.quantized, images, labels, settings, machine=machine, workers=1).points[0].key
        for images, labels, machine in [
            (digits.images[:2], None, None),
            (digits.images[:3], None, None),
            (digits.images[:2], digits.labels[:2], None),
            (digits.images[:2], None, ax.Machine(columns=3)),
        ]
    }
    assert len(keys) == 4
