"""Saved quantized graphs: equal after reading, and nothing but a DataError from damaged or foreign files."""

import json
import tracemalloc
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from onnx_models import make_model, random_array, run, small_network

from accelsim.errors import DataError
from accelsim.formats import IntegerFormat, QuantizationParameters
from accelsim.graph.archive import load_quantized, save_quantized
from accelsim.graph.quantized import QuantizedGraph, QuantizedWeights
from accelsim.graph.reader import load_onnx
from accelsim.graph.writer import to_fake_quant_onnx, to_onnx


def example_quantized():
    original = load_onnx(small_network())
    # Another constant and fewer nodes than the original has, as after folding.
    graph = original.with_nodes(original.nodes, {"b1": random_array(4, 9)})
    uint6, int5 = IntegerFormat(6, False), IntegerFormat(5, True)
    activations = {
        name: QuantizationParameters.from_range(-1.7, 5.3 + place, uint6)
        for place, name in enumerate(("x", "a1", "c2", "a2", "y"))
    }
    limit = np.abs(graph.constants["w1"]).max(axis=(1, 2, 3))
    channels = QuantizationParameters.from_range(-limit, limit, int5, "symmetric", axis=0)
    whole = QuantizationParameters.from_range(-2.0, 1.0, int5)
    weights = {
        "w1": QuantizedWeights(channels.quantize(graph.constants["w1"]), channels),
        "w3": QuantizedWeights(whole.quantize(graph.constants["w3"]), whole),
    }
    return QuantizedGraph(graph, activations, weights, original, ("folded 1 batch norm", "naïve ranges ±"))


def assert_same_graph(actual, expected):
    for name in ("name", "opset", "inputs", "outputs", "nodes", "source", "batch_size"):
        assert getattr(actual, name) == getattr(expected, name), name
    assert dict(actual.shapes) == dict(expected.shapes)
    assert list(actual.constants) == list(expected.constants)
    for name, value in expected.constants.items():
        assert actual.constants[name].dtype == value.dtype
        assert actual.constants[name].shape == value.shape
        np.testing.assert_array_equal(actual.constants[name], value)


def assert_same(actual, expected):
    assert_same_graph(actual.graph, expected.graph)
    assert_same_graph(actual.original, expected.original)
    assert dict(actual.activations) == dict(expected.activations)
    assert list(actual.weights) == list(expected.weights)
    for name, value in expected.weights.items():
        assert actual.weights[name].parameters == value.parameters
        assert actual.weights[name].integers.dtype == value.integers.dtype
        np.testing.assert_array_equal(actual.weights[name].integers, value.integers)
    assert actual.log == expected.log


def test_round_trip(tmp_path):
    network = example_quantized()
    path = tmp_path / "network.npz"
    network.save(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["network.npz"]
    again = QuantizedGraph.load(path)
    assert_same(again, network)
    feeds = {"x": random_array((2, 2, 6, 6))}
    np.testing.assert_array_equal(
        run(to_fake_quant_onnx(again), feeds)["y"], run(to_fake_quant_onnx(network), feeds)["y"]
    )
    # Equal graphs make equal files.
    save_quantized(again, tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()


def test_numpy_reads_the_arrays(tmp_path):
    network = example_quantized()
    save_quantized(network, tmp_path / "network.npz")
    with np.load(tmp_path / "network.npz", allow_pickle=False) as archive:
        arrays = [archive[name] for name in archive.files if name.startswith("array_")]
    assert any(np.array_equal(array, network.weights["w1"].integers) for array in arrays)
    # What graph and original share is stored once.
    assert sum(np.array_equal(array, network.graph.constants["w2"]) for array in arrays) == 1


def test_graph_made_in_memory_and_infinite_attributes(tmp_path):
    """No source, a fixed batch, a scalar constant, and a Clip without an upper bound."""
    nodes = [helper.make_node("Clip", ["x", "low"], ["a"]), helper.make_node("PRelu", ["a", "slope"], ["y"])]
    constants = {"low": np.float32(-0.1), "slope": np.float32(0.25)}
    graph = replace(load_onnx(make_model(nodes, {"x": [4, 3]}, ["y"], constants)), source=None)
    chosen = QuantizationParameters.from_range(-1, 1, IntegerFormat(16, True))
    network = QuantizedGraph(graph, {"x": chosen, "y": chosen}, {}, graph)
    save_quantized(network, tmp_path / "n.npz")
    again = load_quantized(tmp_path / "n.npz")
    assert_same(again, network)
    assert again.graph.nodes[0].attributes["max"] == np.inf
    assert again.graph.batch_size == 4
    x = random_array((4, 3))
    np.testing.assert_array_equal(run(to_onnx(again.graph), {"x": x})["y"], run(to_onnx(graph), {"x": x})["y"])


def members_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_members(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def refused(path):
    with pytest.raises(DataError) as caught:
        load_quantized(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def archive_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "network.npz"
    save_quantized(example_quantized(), path)
    return path


def test_files_that_are_no_archives(tmp_path, archive_path):
    assert "No such file" in refused(tmp_path / "nothing.npz")
    assert "cannot be read" in refused(tmp_path)
    for content in (b"", b"no zip at all", archive_path.read_bytes()[:-30], archive_path.read_bytes()[100:]):
        (tmp_path / "bad.npz").write_bytes(content)
        assert "bad.npz" in refused(tmp_path / "bad.npz")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    assert "not a quantized graph" in refused(tmp_path / "other.npz")
    np.savez_compressed(tmp_path / "other.npz", x=np.zeros(3))
    assert "not a quantized graph" in refused(tmp_path / "other.npz")


def test_compressed_members_are_refused(tmp_path, archive_path):
    """A bomb of zeros would unfold a thousandfold."""
    members = members_of(archive_path) | {"array_99.npy": bytes(50_000_000)}
    write_members(tmp_path / "bomb.npz", members, zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    try:
        assert "damaged" in refused(tmp_path / "bomb.npz")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5_000_000


def change(record, path, value):
    for key in path[:-1]:
        record = record[key]
    if value is KeyError:
        del record[path[-1]]
    else:
        record[path[-1]] = value


@pytest.mark.parametrize(
    ("path", "value", "fragment"),
    [
        (["format"], "something else", "not a quantized graph"),
        (["version"], 3, "format version 3"),
        (["graph"], KeyError, "damaged: KeyError"),
        (["graph"], 5, "damaged"),
        (["graph", "nodes", 0, "op"], "Selu", "unknown operator 'Selu'"),
        (["graph", "nodes", 0, "op"], ["Conv"], "damaged"),
        (["graph", "nodes", 0, "attributes"], {}, "unknown operator 'Conv'"),
        (["graph", "nodes", 0, "inputs", 0], "nowhere", "'nowhere'"),
        (["graph", "nodes", 0, "output"], "x", "made twice"),
        (["graph", "shapes", "c1"], KeyError, "no shape"),
        (["graph", "outputs"], ["z"], "'z'"),
        (["graph", "constants", "w1"], "array_999.npy", "damaged: KeyError"),
        (["graph", "constants", "w1"], "metadata.json", "damaged"),
        (["graph", "opset"], "many", "damaged"),
        (["activations", "x"], KeyError, "'x' has no quantizer"),
        (["activations", "x", "bits"], 99, "bits"),
        (["activations", "x", "scale"], ["nan"], "scale"),
        (["activations", "x", "scale"], ["0x1p+5000"], "damaged: OverflowError"),
        (["activations", "x", "scale"], ["0x1p-3", "0x1p-3"], "damaged"),
        (["activations", "x", "zero_point"], [2**70], "damaged"),
        (["activations", "x", "zero_point"], [200], "zero_point"),
        (["weights", "w1", "integers"], "array_0.npy", "integer weights must be integers, got float32"),
        (["log"], [{}], "damaged"),
    ],
)
def test_damaged_metadata(tmp_path, archive_path, path, value, fragment):
    members = members_of(archive_path)
    metadata = json.loads(members["metadata.json"])
    change(metadata, path, value)
    write_members(tmp_path / "bad.npz", members | {"metadata.json": json.dumps(metadata)})
    message = refused(tmp_path / "bad.npz")
    assert fragment in message


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "\xff", "[" * 100_000, '{"format": 1e999}'])
def test_metadata_that_is_no_description(tmp_path, archive_path, text):
    members = members_of(archive_path) | {"metadata.json": text.encode("latin-1")}
    write_members(tmp_path / "bad.npz", members)
    refused(tmp_path / "bad.npz")


def npy(header, data=b""):
    text = header.encode().ljust(118 - 1) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY\x01\x00",
        b"\x93NUMPY\x09\x00" + bytes(200),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4)}"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", bytes(16)),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (5,)}", bytes(16)),
        npy("{'descr': '>f4', 'fortran_order': False, 'shape': (4,)}", bytes(16)),
        npy("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2)}", bytes(16)),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (4,)}", bytes(16)),
        npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (4,)}", bytes(16)),
        npy("__import__('os')", bytes(16)),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4,)}", bytes(16)),
    ],
)
def test_damaged_arrays(tmp_path, archive_path, content):
    """No pickle, no foreign byte order, no array larger than its data; at last a whole array of a wrong shape."""
    members = members_of(archive_path)
    metadata = json.loads(members["metadata.json"])
    members[metadata["weights"]["w1"]["integers"]] = content
    write_members(tmp_path / "bad.npz", members)
    refused(tmp_path / "bad.npz")


@given(data=st.data())
def test_mutated(data, archive_path, tmp_path_factory):
    """The zip's checksums find any damage to a member; damage elsewhere is refused or does no harm."""
    damaged = bytearray(archive_path.read_bytes())
    place = data.draw(st.integers(0, len(damaged) - 1))
    patch = data.draw(st.binary(min_size=1, max_size=6))
    damaged[place : place + len(patch)] = patch
    path = tmp_path_factory.getbasetemp() / "mutated.npz"
    path.write_bytes(damaged)
    try:
        network = load_quantized(path)
    except DataError as error:
        if "\n" in str(error):
            raise AssertionError(f"more than one line: {error}") from error
    else:
        assert_same(network, example_quantized())
