import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from accelsim.errors import DataError
from accelsim.graph.reader import load_onnx
from accelsim.machine import Machine
from accelsim.ptq import PTQConfig, quantize
from accelsim.reference import OnnxRunner, compare
from accelsim.reference.layerwise import cut_at_stored_tensors
from accelsim.simulator.run import simulate

IMAGES = np.random.default_rng(1).normal(size=(12, 3, 6, 6)).astype(np.float32)
LABELS = np.arange(12) % 7


def network(batch="N", seed=0):
    """Conv and Relu, pooling, a batch norm without a layer to itself, Gemm; one tensor is read twice."""
    rng = np.random.default_rng(seed)
    arrays = {
        "w1": rng.normal(size=(4, 3, 3, 3)),
        "b1": rng.normal(size=4),
        "w2": rng.normal(size=(7, 4)),
        "b2": rng.normal(size=7),
        **{f"n{i}": rng.uniform(0.5, 2, 4) for i in range(4)},
    }
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("Add", ["r", "r"], ["s"], name="add"),
        helper.make_node("GlobalAveragePool", ["s"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("BatchNormalization", ["f", "n0", "n1", "n2", "n3"], ["n"], name="norm", epsilon=1e-5),
        helper.make_node("Gemm", ["n", "w2", "b2"], ["y"], name="gemm", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 7])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in arrays.items()],
    )
    return load_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


GRAPH = network()
STORED = ("r", "s", "p", "f", "n.scaled", "n", "y")


@pytest.fixture(scope="module")
def quantized():
    """The network, quantized once: where that is part of loading this file, every worker compiles kernels for it."""
    return quantize(GRAPH, IMAGES, PTQConfig(activation_bits=6, weight_bits=5))


def decibel(real, other):
    real = real.astype(np.float64)
    return 10 * np.log10((real**2).sum() / ((real - other) ** 2).sum())


def test_every_figure_is_that_of_whole_runs(quantized):
    report = compare(GRAPH, quantized, IMAGES, labels=LABELS, batch_size=5)
    assert tuple(layer.name for layer in report.layers) == STORED
    simulated = OnnxRunner.of_simulated(quantized, STORED).run({"image": IMAGES})
    real = OnnxRunner.of_normalised(quantized.graph, STORED).run({"image": IMAGES})
    actual = simulate(quantized, IMAGES, keep_intermediates=True)
    for layer in report.layers:
        parameters = quantized.activations[layer.name]
        distance = np.abs(parameters.quantize(simulated[layer.name]).astype(int) - actual.tensors[layer.name])
        assert layer.num_elements == distance.size
        assert layer.largest_difference == distance.max()
        assert layer.differing_share == np.count_nonzero(distance) / distance.size
        # The float run here is that of the folded graph: float32 kernels, other last bits.
        assert layer.sqnr_simulated_db == pytest.approx(decibel(real[layer.name], simulated[layer.name]), abs=1e-3)
        integers = parameters.dequantize(actual.tensors[layer.name])
        assert layer.sqnr_actual_db == pytest.approx(decibel(real[layer.name], integers), abs=1e-3)
    assert report.cycles == actual.cycles.total
    assert report.overflow_events == actual.overflow_events == 0
    assert report.num_samples == 12
    answers = {
        "float": OnnxRunner.of_original(GRAPH).run({"image": IMAGES})["y"],
        "simulated": simulated["y"],
        "actual": actual.real_outputs["y"],
    }
    for kind, values in answers.items():
        first = values.argmax(axis=1)
        assert report.metrics[kind]["top1"] == (first == LABELS).mean()
        assert report.metrics[kind]["agreement"] == (first == answers["float"].argmax(axis=1)).mean()
        # The label is among five: fewer than five values are greater, or as great and before it.
        before = [
            sum(v > row[label] or (v == row[label] and i < label) for i, v in enumerate(row))
            for row, label in zip(values, LABELS, strict=True)
        ]
        assert report.metrics[kind]["top5"] == np.mean([count < 5 for count in before])


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_batches_do_not_show_in_the_report(quantized, batch_size):
    whole, split = (compare(GRAPH, quantized, IMAGES, labels=LABELS, batch_size=size) for size in (12, batch_size))
    assert split.metrics == whole.metrics
    assert split.cycles == whole.cycles
    for one, other in zip(split.layers, whole.layers, strict=True):
        assert one.name == other.name
        assert one.num_elements == other.num_elements
        assert one.sqnr_actual_db == pytest.approx(other.sqnr_actual_db, abs=1e-3)  # float32 sums, other last bits


def test_layers_are_fed_with_stored_tensors(quantized):
    cut = cut_at_stored_tensors(quantized)
    assert [tensor.name for tensor in cut.graph.inputs] == ["image", *STORED]
    assert cut.graph.outputs == tuple(f"{name}.own" for name in STORED)
    codes = simulate(quantized, IMAGES, keep_intermediates=True).tensors
    feeds = {name: quantized.activations[name].dequantize(codes[name]) for name in ("image", *STORED)}
    feeds["r"] = feeds["r"] * 0
    made = OnnxRunner.of_simulated(cut).run(feeds)
    assert not made["s.own"].any()  # of the tensor that was fed, not of the one that its maker makes
    assert made["r.own"].any()


def test_no_layer_is_more_than_one_code_apart_by_itself():
    for config in (PTQConfig(), PTQConfig(per_channel=True, weight_bits=4), PTQConfig(power_of_two=True)):
        report = compare(GRAPH, quantize(GRAPH, IMAGES, config), IMAGES)
        assert report.metrics is None
        assert max(layer.own_difference for layer in report.layers) <= 1
        assert report.worst_layers == tuple(layer for layer in report.layers if layer.largest_difference > 1)


def test_an_overflowing_accumulator_is_found_where_it_happens(quantized):
    """The integers of the convolution wrap; pooling behind it works on what is stored, and is not blamed."""
    machine = Machine.preset("edge_16x16").model_copy(update={"accumulator_bits": 10, "overflow": "wrap"})
    report = compare(GRAPH, quantized, IMAGES, machine)
    layers = {layer.name: layer for layer in report.layers}
    assert report.overflow_events > 0
    assert layers["r"].own_difference > 1
    assert layers["r"] in report.worst_layers
    assert layers["p"].largest_difference > 1
    assert layers["p"].own_difference <= 1
    assert "by itself, on the same inputs, in: r (" in str(report)


def test_engines_give_one_report(quantized):
    fast, stepped = (compare(GRAPH, quantized, IMAGES[:2], engine=engine) for engine in ("fast", "stepped"))
    assert fast == stepped


def test_a_model_of_fixed_batch_compares_as_well(quantized):
    fixed = network(batch=5)
    assert fixed.batch_size == 5
    own = quantize(fixed, IMAGES, PTQConfig(activation_bits=6, weight_bits=5))
    report = compare(fixed, own, IMAGES, batch_size=7)
    free = compare(GRAPH, quantized, IMAGES)
    for one, other in zip(report.layers, free.layers, strict=True):
        assert one.sqnr_actual_db == pytest.approx(other.sqnr_actual_db, abs=1e-3)  # float32 sums, other last bits


def test_progress_is_told(quantized):
    calls = []
    compare(GRAPH, quantized, IMAGES, batch_size=5, progress=lambda *call: calls.append(call))
    assert calls == [("comparison", done, 12) for done in (5, 10, 12)]


@pytest.mark.parametrize(
    ("labels", "fragment"),
    [
        (LABELS[:5], "labels must be 12 whole numbers, one per sample, got shape (5,)"),
        (LABELS / 2, "of float64"),
        (LABELS + 1, "labels must be classes 0..6 of the first output, got 1..7"),
        (LABELS - 1, "got -1..5"),
    ],
)
def test_labels_that_do_not_fit_are_refused(quantized, labels, fragment):
    with pytest.raises(DataError) as caught:
        compare(GRAPH, quantized, IMAGES, labels=labels)
    assert fragment in str(caught.value)


def test_images_that_do_not_fit_are_refused(quantized):
    with pytest.raises(DataError, match="input 'image' must have shape"):
        compare(GRAPH, quantized, IMAGES[:, :1])
