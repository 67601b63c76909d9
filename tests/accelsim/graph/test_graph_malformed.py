"""Damaged and hostile model files: a ModelError in one line, never another exception, a hang or a huge allocation."""

import os
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx_models import make_model, random_array, run, small_network

from accelsim.errors import ModelError
from accelsim.graph import reader
from accelsim.graph.reader import load_onnx
from accelsim.graph.writer import to_onnx

SMALL = small_network().SerializeToString()


def read(model):
    """Return the graph, or None where the model is refused in one line."""
    try:
        return load_onnx(model)
    except ModelError as error:
        if "\n" in str(error):
            raise AssertionError(f"more than one line: {error}") from error
        return None


def refused(model):
    with pytest.raises(ModelError) as caught:
        load_onnx(model)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not an ONNX model"),
        (b"PK\x03\x04 a zip file", "not an ONNX model"),
        (b"{\"graph\": {}}", "not an ONNX model"),
        (bytes(64), "not an ONNX model"),
        (b"\xff" * 64, "not an ONNX model"),
        (SMALL[:-1], "truncated"),
        (SMALL[: len(SMALL) // 2], "truncated"),
        (b"\x08\x08", "no graph"),
        (b"\x3a\x00", "IR version 0"),
        # Messages nested deeper than protobuf allows.
        (b"\x3a" + b"\x80\x80\x40" + b"\x0a\x80\x80\x40" * 1000, "not an ONNX model"),
    ],
)  # fmt: skip
def test_files_that_are_no_models(tmp_path, content, fragment):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    message = refused(path)
    assert fragment in message
    assert fragment in refused(content)
    if "IR version" not in fragment:
        assert "model.onnx" in message


def test_paths_that_are_no_files(tmp_path):
    assert "does not exist" in refused(tmp_path / "nothing.onnx")
    assert "not a regular file" in refused(tmp_path)
    assert "does not exist" in refused("bad\0name.onnx")
    assert "must be a path" in refused(17)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # opening it would wait for a writer for ever
    assert "not a regular file" in refused(pipe)


def test_too_large_a_file_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "sparse.onnx"
    with path.open("wb") as file:
        file.truncate(3 << 30)
    assert "at most" in refused(path)


def matmul_with(tensor):
    model = make_model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": ["N", 3]}, ["y"])
    model.graph.initializer.append(tensor)
    return model


def tensor_of(dims, data_type=TensorProto.FLOAT, raw=b"", **fields):
    return TensorProto(name="w", dims=dims, data_type=data_type, raw_data=raw, **fields)


@pytest.mark.parametrize(
    ("tensor", "fragment"),
    [
        (tensor_of([3, 2], raw=bytes(20)), "takes 24 bytes, but holds 20"),
        (tensor_of([3, 2], raw=bytes(28)), "takes 24 bytes, but holds 28"),
        (tensor_of([3, 1 << 40]), "elements"),
        (tensor_of([1 << 62, 1 << 62, 1 << 62]), "elements"),
        (tensor_of([0, 1 << 62]), "elements"),
        (tensor_of([-3, 2]), "negative"),
        (tensor_of([1] * 100), "axes"),
        (tensor_of([3, 0]), "empty"),
        (tensor_of([3, 2], TensorProto.STRING), "string"),
        (tensor_of([3, 2], TensorProto.BFLOAT16, raw=bytes(12)), "bfloat16"),
        (tensor_of([3, 2], 4711, raw=bytes(24)), "number 4711"),
        (tensor_of([3, 2], 0, raw=bytes(24)), "undefined"),
        (TensorProto(name="w", dims=[3, 2], data_type=TensorProto.FLOAT, float_data=[1.0] * 5), "holds 5"),
        (TensorProto(name="w", dims=[3, 2], data_type=TensorProto.FLOAT, int64_data=[1] * 6), "holds 0"),
        (tensor_of([3, 2], raw=bytes(24), segment=TensorProto.Segment(begin=0, end=6)), "segments"),
        (tensor_of([3, 2], raw=struct.pack("<6f", 1, 2, 3, 4, 5, float("nan"))), "inf or nan"),
    ],
)
def test_weights_that_contradict_themselves(tensor, fragment):
    message = refused(matmul_with(tensor))
    assert fragment in message
    assert "'w'" in message
    assert "MatMul, opset 17" in message


def test_absurd_shapes_allocate_nothing():
    tracemalloc.start()
    try:
        refused(matmul_with(tensor_of([1 << 14, 1 << 14])))
        refused(make_model([helper.make_node("Relu", ["x"], ["y"])], {"x": ["N", 1 << 30]}, ["y"]))
        refused(
            make_model(
                [helper.make_node("Pad", ["x", "p"], ["y"])], {"x": ["N", 3]}, ["y"],
                {"p": np.array([0, 1 << 50, 0, 0])},
            )
        )  # fmt: skip
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_constants_that_multiply_are_bounded(monkeypatch):
    """A kilobyte of nodes, each of which makes a large constant out of two small ones, is stopped."""
    monkeypatch.setattr(reader, "MAX_ELEMENTS", 1 << 16)
    nodes = [helper.make_node("Add", ["a", "b"], [f"c{index}"]) for index in range(8)]
    uses = [helper.make_node("Add", ["x", "c0"], ["u0"])]
    uses += [helper.make_node("Add", [f"u{index - 1}", f"c{index}"], [f"u{index}"]) for index in range(1, 8)]
    constants = {"a": np.zeros((128, 1), np.float32), "b": np.zeros((1, 128), np.float32)}
    inputs = {"x": ["N", 128, 128]}
    assert len(load_onnx(make_model(nodes + uses, inputs, ["u3"], constants)).constants) == 4
    assert "constants computed so far" in refused(make_model(nodes + uses, inputs, ["u7"], constants))


def test_names_that_are_not_utf8():
    for name in (b"residual", b"relu6", b"conv", b"tiny", b"c1", b"Relu"):
        damaged = SMALL.replace(name, b"\xff" + name[1:])
        assert damaged != SMALL
        assert "UTF-8" in refused(damaged)


def test_control_characters_of_a_file_do_not_reach_the_terminal():
    model = make_model([helper.make_node("Evil\x1b[2J\n", ["x"], ["y"])], {"x": ["N", 3]}, ["y"])
    message = refused(model)
    assert "\x1b" not in message
    assert "Evil\\x1b[2J\\n" in message
    model = make_model([helper.make_node("E" * 100_000, ["x"], ["y"])], {"x": ["N", 3]}, ["y"])
    assert len(refused(model)) <= 600


@given(st.integers(0, len(SMALL)))
def test_truncated(length):
    """A model cut anywhere is refused, unless what remains is a whole model."""
    graph = read(SMALL[:length])
    assert (graph is not None) == (length == len(SMALL))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["set", "delete", "insert", "repeat"]),
            st.integers(0, len(SMALL) - 1),
            st.binary(min_size=1, max_size=8),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_mutated(mutations):
    """Any damage gives a ModelError or a graph that can be written."""
    damaged = bytearray(SMALL)
    for kind, place, patch in mutations:
        match kind:
            case "set":
                damaged[place : place + len(patch)] = patch
            case "delete":
                del damaged[place : place + len(patch)]
            case "insert":
                damaged[place:place] = patch
            case "repeat":
                damaged[place:place] = damaged[place : place + 8 * len(patch)]
    graph = read(bytes(damaged))
    assert graph is None or [value.name for value in to_onnx(graph).graph.output] == list(graph.outputs)


EXTREMES = st.sampled_from([-(2**63), -(2**31), -2, -1, 0, 1, 2, 3, 7, 2**16, 2**28, 2**31, 2**62, 2**63 - 1])


@given(st.data())
def test_extreme_numbers(data):
    """Sizes, axes, strides and pads of any value give a ModelError or a graph that can be written."""
    model = small_network()
    for _ in range(data.draw(st.integers(1, 3))):
        lists = [attribute.ints for node in model.graph.node for attribute in node.attribute if attribute.ints]
        lists += [tensor.dims for tensor in model.graph.initializer if tensor.dims]
        numbers = data.draw(st.sampled_from(lists))
        place = data.draw(st.integers(0, len(numbers) - 1))
        numbers[place] = data.draw(EXTREMES)
        if data.draw(st.booleans()):
            dims = model.graph.input[0].type.tensor_type.shape.dim
            dims[data.draw(st.integers(0, 3))].dim_value = data.draw(EXTREMES)
    graph = read(model)
    assert graph is None or [value.name for value in to_onnx(graph).graph.output] == list(graph.outputs)


# External data


WEIGHTS = random_array((3, 2))


def external_model(**entries):
    tensor = numpy_helper.from_array(WEIGHTS, "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return matmul_with(tensor)


def save(model, folder):
    folder.mkdir(exist_ok=True)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_is_embedded(tmp_path):
    folder = tmp_path / "model"
    path = save(external_model(location="sub/weights.bin", offset=8, length=24), folder)
    (folder / "sub").mkdir()
    (folder / "sub" / "weights.bin").write_bytes(bytes(8) + WEIGHTS.tobytes() + bytes(3))
    graph = load_onnx(path)
    np.testing.assert_array_equal(graph.constants["w"], WEIGHTS)
    # The source stands alone: it runs without the folder.
    feeds = {"x": random_array((2, 3), 4)}
    np.testing.assert_array_equal(run(graph.source, feeds)["y"], run(to_onnx(graph), feeds)["y"])


def test_external_data_needs_no_offset_or_length(tmp_path):
    path = save(external_model(location="w.bin"), tmp_path)
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes())
    np.testing.assert_array_equal(load_onnx(path).constants["w"], WEIGHTS)


@pytest.mark.parametrize(
    ("entries", "fragment"),
    [
        ({"location": "../secret.bin"}, "outside the model's folder"),
        ({"location": "sub/../../secret.bin"}, "outside the model's folder"),
        ({"location": "..\\secret.bin"}, "outside the model's folder"),
        ({"location": "/etc/passwd"}, "outside the model's folder"),
        ({"location": "C:\\secret.bin"}, "outside the model's folder"),
        ({"location": "link.bin"}, "outside the model's folder"),
        ({"location": "folder_link/secret.bin"}, "outside the model's folder"),
        ({"location": "missing.bin"}, "missing"),
        ({"location": "loop.bin"}, "missing"),
        ({"location": ""}, "no valid file"),
        ({}, "no valid file"),
        ({"location": "a\0b"}, "no valid file"),
        ({"location": "."}, "not a regular file"),
        ({"location": "pipe"}, "not a regular file"),
        ({"location": "short.bin"}, "which has 20"),
        ({"location": "good.bin", "offset": 8}, "which has 24"),
        ({"location": "good.bin", "offset": 2**62}, "which has 24"),
        ({"location": "good.bin", "offset": -4}, "whole number"),
        ({"location": "good.bin", "offset": "9" * 5000}, "whole number"),
        ({"location": "good.bin", "length": 20}, "declares 20"),
        ({"location": "good.bin", "length": "many"}, "whole number"),
    ],
)
def test_external_data_that_is_refused(tmp_path, entries, fragment):
    (tmp_path / "secret.bin").write_bytes(WEIGHTS.tobytes())
    folder = tmp_path / "model"
    path = save(external_model(**entries), folder)
    (folder / "good.bin").write_bytes(WEIGHTS.tobytes())
    (folder / "short.bin").write_bytes(WEIGHTS.tobytes()[:20])
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "folder_link").symlink_to(tmp_path)
    (folder / "loop.bin").symlink_to(folder / "loop.bin")
    os.mkfifo(folder / "pipe")
    message = refused(path)
    assert fragment in message
    assert "'w'" in message


def test_external_data_beyond_the_limit_of_a_model(tmp_path):
    """Many tensors that point to the same bytes cannot make the model grow without end."""
    model = external_model(location="w.bin")
    model.graph.initializer[0].dims[:] = [1 << 14, 1 << 14]
    for index in range(3):
        model.graph.initializer.add().CopyFrom(model.graph.initializer[0])
        model.graph.initializer[-1].name = f"w{index}"
    path = save(model, tmp_path)
    with (tmp_path / "w.bin").open("wb") as file:
        file.truncate(1 << 30)
    tracemalloc.start()
    try:
        assert "at most" in refused(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_external_data_in_a_place_that_is_not_utf8(tmp_path):
    path = save(external_model(location="weights.bin"), tmp_path)
    path.write_bytes(path.read_bytes().replace(b"weights.bin", b"\xff\xfeights.bin"))
    assert "missing" in refused(path)


def test_external_data_without_a_folder():
    model = external_model(location="w.bin")
    assert "pass the path" in refused(model)
    assert "pass the path" in refused(model.SerializeToString())
