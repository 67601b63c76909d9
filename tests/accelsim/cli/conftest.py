"""A small network with images, and a way to type commands."""

import functools
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import typer
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from accelsim.cli import app
from accelsim.graph.reader import load_onnx
from accelsim.reference import OnnxRunner

NUM_TRAINING, NUM_TEST = 24, 16


@functools.cache
def program():
    """Return what typer makes of the functions of all commands; that takes longer than most commands do."""
    return typer.main.get_command(app)


@pytest.fixture
def accelsim(monkeypatch):
    """Return a function that runs the command line inside this process."""
    # Else it is made anew for every command; a typer that has no such function makes it.
    monkeypatch.setattr("typer.testing._get_command", lambda _: program(), raising=False)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def assert_refused(result, *fragments):
    """Hold a result to the rule for wrong input: status 2, nothing on stdout, one line that says what is wrong."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("accelsim: error: ")
    assert result.stderr.count("\n") == 1
    assert result.stderr.endswith("\n")
    for fragment in fragments:
        assert fragment in result.stderr


def assert_failed(result, *fragments):
    """Hold a result to the rule for a run that says no: status 1, one line on stderr."""
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("accelsim: failed: ")
    assert result.stderr.count("\n") == 1
    for fragment in fragments:
        assert fragment in result.stderr


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """Return paths of a network and its files: labels are the answers of the float network in ONNX Runtime."""
    folder = tmp_path_factory.mktemp("small")
    random = np.random.default_rng(7)
    model = folder / "net.onnx"
    onnx.save(_network(random), model)
    images = random.normal(size=(NUM_TRAINING + NUM_TEST, 3, 5, 5)).astype(np.float32)
    train, test = images[:NUM_TRAINING], images[NUM_TRAINING:]
    labels = OnnxRunner.of_original(load_onnx(model)).run({"image": test})["scores"].argmax(axis=1)
    np.savez(folder / "data.npz", train=train, test=test, labels=labels, transposed=np.moveaxis(train, 1, -1))
    np.save(folder / "train.npy", train)
    return SimpleNamespace(
        folder=folder,
        model=model,
        data=folder / "data.npz",
        train=f"{folder / 'data.npz'}:train",
        test=f"{folder / 'data.npz'}:test",
        labels=f"{folder / 'data.npz'}:labels",
        arrays=SimpleNamespace(train=train, test=test, labels=labels),
    )


@pytest.fixture(scope="session")
def quantized(small):
    """Return the path of the small network as `accelsim quantize` writes it."""
    path = small.folder / "net.npz"
    result = CliRunner().invoke(
        app, ["quantize", str(small.model), "--calibration", small.train, "--output", str(path), "--per-channel"]
    )
    assert result.exit_code == 0, result.output
    return path


def _network(random):
    """Make a network of a convolution, a ReLU and a matrix product with 4 classes."""
    weights = {
        "filters": random.normal(size=(6, 3, 3, 3), scale=0.3),
        "bias": random.normal(size=6, scale=0.1),
        "matrix": random.normal(size=(6 * 25, 4), scale=0.3),
        "offsets": random.normal(size=4, scale=0.1),
    }
    nodes = [
        helper.make_node("Conv", ["image", "filters", "bias"], ["features"], pads=[1, 1, 1, 1], name="conv"),
        helper.make_node("Relu", ["features"], ["positive"], name="relu"),
        helper.make_node("Flatten", ["positive"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "matrix", "offsets"], ["scores"], name="classifier"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 5, 5])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
