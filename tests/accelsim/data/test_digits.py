"""The shipped network and images are what their documentation says."""

import json
import subprocess
import sys
import zipfile
from importlib import resources

import numpy as np
import onnx
import onnxruntime
import pytest

from accelsim import data
from accelsim.data import digits_data_path, digits_model_path, load_digits
from accelsim.errors import DataError

LARGEST_SIZE_BYTES = 400_000
LEAST_ACCURACY = 0.98


@pytest.fixture(scope="module")
def digits():
    return load_digits()


@pytest.fixture(scope="module")
def model():
    return onnx.load(digits_model_path())


@pytest.fixture
def fresh_paths():
    data._resource.cache_clear()
    yield
    data._resource.cache_clear()


def distinct(images):
    return {np.asarray(image, dtype=np.uint8).tobytes() for image in images}


def test_images_are_raw_pixels_in_nchw_with_a_label_each(digits):
    for images, labels in ((digits.x_test, digits.y_test), (digits.x_calibration, digits.y_calibration)):
        assert images.shape == (500, 1, 8, 8)
        assert images.dtype == np.float32
        assert images.min() == 0
        assert images.max() == 16
        assert np.array_equal(images, np.rint(images))
        assert labels.shape == (500,)
        assert labels.dtype == np.int64
        # Stratified: the data set has 174 to 183 images of each digit, so 500 images have 48 to 51.
        counts = np.bincount(labels, minlength=10)
        assert counts.size == 10
        assert counts.min() >= 48
        assert counts.max() <= 51


def test_held_back_and_calibration_images_are_disjoint(digits):
    held_back, calibration = distinct(digits.x_test), distinct(digits.x_calibration)
    assert len(held_back) == len(calibration) == 500
    assert not held_back & calibration


def test_images_are_the_real_ones_and_no_training_image_equals_a_held_back_one(digits):
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn holds the images to compare with")
    bunch = datasets.load_digits()
    label_of = {
        image.astype(np.uint8).tobytes(): int(label) for image, label in zip(bunch.images, bunch.target, strict=True)
    }
    # All 1797 images differ, so whatever is split off without repetition cannot equal an image of the rest.
    assert len(label_of) == len(bunch.images) == 1797
    for images, labels in ((digits.x_test, digits.y_test), (digits.x_calibration, digits.y_calibration)):
        for image, label in zip(images, labels, strict=True):
            assert label_of[image.astype(np.uint8).tobytes()] == label


def test_package_data_is_small_and_attributed():
    files = [entry for entry in resources.files(data).iterdir() if entry.name.startswith(("digits.", "ATTRIBUTION"))]
    assert {entry.name for entry in files} == {"digits.onnx", "digits.npz", "ATTRIBUTION.md"}
    assert sum(len(entry.read_bytes()) for entry in files) < LARGEST_SIZE_BYTES
    text = (resources.files(data) / "ATTRIBUTION.md").read_text(encoding="utf-8")
    for part in ("Alpaydin", "Kaynak", "CC BY 4.0", "scikit-learn"):
        assert part in text


def test_file_stores_unsigned_bytes():
    with np.load(digits_data_path(), allow_pickle=False) as archive:
        assert {name: archive[name].dtype for name in archive.files} == dict.fromkeys(
            ("x_test", "y_test", "x_calibration", "y_calibration"), np.dtype(np.uint8)
        )


def test_held_back_accuracy_is_what_the_training_script_reported(digits, model):
    session = onnxruntime.InferenceSession(str(digits_model_path()), providers=["CPUExecutionProvider"])
    logits = session.run(["logits"], {"image": digits.x_test})[0]
    assert logits.shape == (500, 10)
    num_correct = int((logits.argmax(axis=1) == digits.y_test).sum())
    reported = {entry.key: entry.value for entry in model.metadata_props}
    assert num_correct == int(reported["held_back_correct"])
    assert len(digits.y_test) == int(reported["held_back_images"])
    assert num_correct / len(digits.y_test) >= LEAST_ACCURACY


def test_batch_is_symbolic_and_takes_any_number_of_images(digits, model):
    assert [axis.dim_param or axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim] == [
        "N",
        1,
        8,
        8,
    ]
    session = onnxruntime.InferenceSession(str(digits_model_path()), providers=["CPUExecutionProvider"])
    for count in (1, 7):
        assert session.run(["logits"], {"image": digits.x_test[:count]})[0].shape == (count, 10)


def test_model_is_valid_onnx_with_named_nodes(model):
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    names = [node.name for node in model.graph.node]
    assert all(names)
    assert len(set(names)) == len(names)


def test_model_has_the_layers_that_make_it_worth_simulating(model):
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes = list(model.graph.node)
    operators = [node.op_type for node in nodes]
    convolutions = [node for node in nodes if node.op_type == "Conv"]

    def attribute(node, name):
        return next(onnx.helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name)

    depthwise = [node for node in convolutions if attribute(node, "group") == weights[node.input[1]].shape[0] > 1]
    assert len(depthwise) == 3
    assert sum(attribute(node, "strides") == [2, 2] for node in convolutions) == 1
    assert operators.count("BatchNormalization") == len(convolutions) == 8
    assert all(len(node.input) == 2 for node in convolutions)  # the bias is the batch norm's
    assert operators.count("Add") == 1
    assert operators[-3:] == ["GlobalAveragePool", "Flatten", "Gemm"]
    bounds = [[float(weights[name]) for name in node.input[1:]] for node in nodes if node.op_type == "Clip"]
    assert bounds == [[0.0, 6.0]] * 7
    assert all(np.isfinite(weight).all() for weight in weights.values())


def test_residual_goes_around_the_bottleneck(model):
    add = next(node for node in model.graph.node if node.op_type == "Add")
    linear, residual = add.input
    producers = {output: node for node in model.graph.node for output in node.output}
    assert producers[linear].op_type == "BatchNormalization"
    assert producers[residual].op_type == "Clip"
    assert [node.name for node in model.graph.node if residual in list(node.input)] == [
        "bottleneck_expand_conv",
        "bottleneck_project_add",
    ]


def test_import_is_light():
    code = (
        "import json, sys; import accelsim.data; "
        "print(json.dumps([name for name in ('numba', 'onnx', 'onnxruntime', 'torch') if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


@pytest.mark.usefixtures("fresh_paths")
@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_missing_file_is_a_clear_error(tmp_path, monkeypatch, kind):
    place = tmp_path
    if kind == "archive":
        with zipfile.ZipFile(tmp_path / "package.zip", "w") as file:
            file.writestr("other", "")
        place = zipfile.Path(tmp_path / "package.zip")
    monkeypatch.setattr(data.resources, "files", lambda package: place)
    with pytest.raises(DataError, match=r"package data 'digits\.onnx' must be part of the installation"):
        digits_model_path()


@pytest.mark.usefixtures("fresh_paths")
@pytest.mark.parametrize("damage", ["truncated", "empty", "missing array"])
def test_damaged_file_is_a_clear_error(tmp_path, monkeypatch, damage):
    path = tmp_path / "digits.npz"
    if damage == "missing array":
        np.savez(path, x_test=np.zeros(1, dtype=np.uint8))
    else:
        whole = digits_data_path().read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if damage == "truncated" else b"")
        data._resource.cache_clear()
    monkeypatch.setattr(data.resources, "files", lambda package: tmp_path)
    with pytest.raises(DataError, match=r"example images .*digits\.npz cannot be read .*install accelsim again"):
        load_digits()


@pytest.mark.usefixtures("fresh_paths")
def test_files_are_found_when_the_package_is_imported_from_an_archive(tmp_path):
    archive = tmp_path / "package.zip"
    root = digits_model_path().parent.parent
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("accelsim/__init__.py", "")
        file.write(root / "errors.py", "accelsim/errors.py")
        for path in (root / "data").glob("*.*"):
            file.write(path, f"accelsim/data/{path.name}")
    code = (
        "import sys, hashlib; sys.path.insert(0, sys.argv[1]); import accelsim.data as data; "
        "assert sys.argv[1] in data.__file__, data.__file__; "
        "print(data.load_digits().x_test.shape[0], len(data.digits_model_path().read_bytes()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(archive)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.split() == ["500", str(len(digits_model_path().read_bytes()))]
