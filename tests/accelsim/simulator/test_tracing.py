"""A layer of a network, traced on one sample: it is the layer that the whole run computes."""

import json

import numpy as np
import pytest

import accelsim as ax
from accelsim.data import digits_model_path, load_digits
from accelsim.report.vectors import write_traced_vectors
from accelsim.simulator.tracing import trace_layer, traceable_layers
from tests.accelsim.report.test_vectors import read


@pytest.fixture(scope="module")
def digits():
    """The shipped network, which has grouped layers, with some images."""
    data = load_digits()
    config = ax.PTQConfig(per_channel=True, weight_scheme="affine")
    return ax.quantize(ax.load_onnx(digits_model_path()), data.x_calibration[:64], config), data.x_test[:4]


def machine_of(dataflow="output_stationary", **fields):
    return ax.Machine(
        rows=8, columns=4, dataflow=dataflow, accumulator_bits=15, partial_sum_bits=15, adder_tree_bits=15,
        overflow="saturate", **fields,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("zero_point", ["folded", "at_input"])
@pytest.mark.parametrize("dataflow", ["output_stationary", "weight_stationary"])
def test_every_layer_is_that_of_the_whole_run(digits, dataflow, zero_point, tmp_path):
    quantized, images = digits
    machine = machine_of(dataflow, zero_point=zero_point)
    program = ax.lower(quantized, machine)
    run = ax.simulate(program, images[2:3], keep_intermediates=True)
    records = {record.name: record for record in run.layers}
    assert traceable_layers(program).keys() == {name for name, record in records.items() if record.macs}
    grouped = 0
    for number, name in enumerate(traceable_layers(program)):
        layer = next(layer for layer in program.layers if layer.name == name)
        groups = range(layer.groups) if layer.groups <= 4 else (0, 1, layer.groups - 1)
        grouped += layer.groups > 1
        events = cycles = 0
        for group in groups:
            traced = trace_layer(quantized, images, name, machine, sample=2, group=group)
            result, folder = traced.result, tmp_path / f"{number}_{group}"
            write_traced_vectors(folder, traced.operands, result, machine, layer=traced)
            stored = run.tensors[layer.output][0].reshape(layer.weights.shape[0], -1)[traced.channels]
            assert read(folder, "outputs.hex").tolist() == stored.tolist()
            assert read(folder, "trace_accumulators.hex").shape == result.trace.accumulators.shape
            manifest = json.loads((folder / "manifest.json").read_text())
            assert (manifest["layer"], manifest["group"]) == (name, group)
            events += int(result.overflow_events.sum())
            cycles += len(result.trace.fold)
        if len(groups) == layer.groups:
            assert events == records[name].overflow_events
            assert cycles == records[name].cycles.multiply
    assert grouped > 0


def test_a_window_of_a_layer(digits, tmp_path):
    quantized, images = digits
    machine = machine_of()
    name = next(iter(traceable_layers(ax.lower(quantized, machine))))
    whole = trace_layer(quantized, images, name, machine).result.trace
    part = trace_layer(
        quantized, images, name, machine, trace_cycles=(3, 9), trace_rows=(2, 5), trace_columns=(1, 2)
    )  # fmt: skip
    assert np.array_equal(part.result.trace.accumulators, whole.accumulators[3:9, 2:5, 1:2])
    write_traced_vectors(tmp_path / "v", part.operands, part.result, machine, layer=part)
    assert np.array_equal(read(tmp_path / "v", "trace_weights.hex"), whole.weights[3:9, 2:5, 1:2])
    manifest = json.loads((tmp_path / "v" / "manifest.json").read_text())
    assert manifest["trace"] == {"first_cycle": 3, "first_row": 2, "first_column": 1}


def test_vectors_of_a_traced_gemm_are_those_of_write_vectors(tmp_path):
    machine = ax.Machine(rows=2, columns=2)
    weights, activations = np.array([[3, -2], [1, 4]]), np.array([[5], [6]])
    from accelsim.simulator.operands import matmul_operands

    result = ax.matmul(weights, activations, machine, engine="stepped", trace=True)
    write_traced_vectors(tmp_path / "a", matmul_operands(weights, activations, machine, None, 0, 0), result, machine)
    ax.write_vectors(tmp_path / "b", weights=weights, activations=activations, machine=machine, trace=True)
    first, second = ({p.name: p.read_text() for p in (tmp_path / folder).iterdir()} for folder in "ab")
    assert first == second


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer": "nothing"}, r"layer must be a convolution or matrix product of the network, one of .*got 'nothing'"),
        ({"sample": 4}, r"sample must be one of the 4 in the images, 0 the first, got 4"),
        ({"sample": -1}, r"sample must be one of"),
        ({"group": 99}, r"group must be one of the \d+ of layer .*, 0 the first, got 99"),
        ({"trace_cycles": (5, 5)}, r"trace_cycles must lie in the \d+ multiply cycles of the run"),
        ({"trace_rows": (0, 9)}, r"trace_rows must lie in the 8 rows of the grid"),
        ({"trace_columns": "ab"}, r"trace_columns must be \(first, one after the last\)"),
        ({"trace_limit_bytes": 0}, r"trace_limit_bytes must be a whole number of at least 1"),
    ],
)
def test_what_is_not_there_is_refused(digits, change, message):
    quantized, images = digits
    machine = machine_of()
    arguments = {"layer": next(iter(traceable_layers(ax.lower(quantized, machine)))), **change}
    with pytest.raises(ax.OperandError, match=message):
        trace_layer(quantized, images, machine=machine, **arguments)


@pytest.mark.parametrize("dataflow", ["output_stationary", "weight_stationary", "input_stationary", "broadcast"])
def test_a_trace_beyond_the_memory_names_a_window_that_fits(dataflow):
    """The limit is checked before the run, and the window that the error names is one that goes through."""
    machine = ax.Machine(rows=4, columns=6, dataflow=dataflow)
    weights, activations = np.ones((20, 30), int), np.ones((30, 40), int)
    for limit in (100_000, 5_000, 600, 200, 60, 43):
        with pytest.raises(ax.OperandError, match=r"takes [\d,]+ bytes, more than the limit") as error:
            ax.matmul(weights, activations, machine, engine="stepped", trace=True, trace_limit_bytes=limit)
        named = str(error.value).partition("fit: ")[2].partition("; or")[0]
        window = eval(f"dict({named})")  # "trace_cycles=(0, 9), trace_rows=..."
        trace = ax.matmul(
            weights, activations, machine, engine="stepped", trace=True, trace_limit_bytes=limit, **window
        ).trace  # fmt: skip
        arrays = [value for value in vars(trace).values() if isinstance(value, np.ndarray)]
        assert sum(array.nbytes for array in arrays) <= limit
    with pytest.raises(ax.OperandError, match=r"more than the limit of 10; raise the limit$"):
        ax.matmul(weights, activations, machine, engine="stepped", trace=True, trace_limit_bytes=10)
