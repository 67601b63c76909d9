"""`accelsim run` of TFLite models."""

import json

import numpy as np
import pytest

import accelsim as ax
from tests.accelsim.program.tflite_models import T, indices, write
from tests.accelsim.report.test_vectors import read

from .conftest import assert_failed, assert_refused


def model_bytes(dtype="INT8", bias="INT32"):
    """A convolution, a mean and a classifier."""
    random = np.random.default_rng(3)
    scales = {"INT8": (0.02, 0.05, 0.1), "INT16": (0.0002, 0.0005, 0.001)}[dtype]
    zero = -5 if dtype == "INT8" else 0
    tensors = [
        T("image", (1, 6, 5, 3), dtype, scales[0], zero), T("filters", (4, 3, 3, 3), scale=[0.01] * 4, zero=[0] * 4,
        data=random.integers(-127, 128, (4, 3, 3, 3))), T("bias", (4,), bias, 1.0, data=random.integers(-99, 99, 4)),
        T("features", (1, 6, 5, 4), dtype, scales[1], zero), indices("axes", [1, 2]),
        T("mean", (1, 4), dtype, scales[1] / 2, zero),
        T("matrix", (7, 4), scale=0.02, data=random.integers(-127, 128, (7, 4))), T("scores", (1, 7), dtype, scales[2]),
    ]  # fmt: skip
    window = {"Padding": 0, "StrideH": 1, "StrideW": 1, "DilationHFactor": 1, "DilationWFactor": 1}
    operators = [
        ("CONV_2D", ["image", "filters", "bias"], ["features"], {**window, "FusedActivationFunction": 1}),
        ("MEAN", ["features", "axes"], ["mean"], {"KeepDims": False}),
        ("FULLY_CONNECTED", ["mean", "matrix"], ["scores"], {"FusedActivationFunction": 0}),
    ]
    return write(tensors, operators, ["image"], ["scores"])


@pytest.fixture(scope="module")
def tflite(tmp_path_factory):
    """Paths of a model and of its images, stored and real, with the right labels."""
    folder = tmp_path_factory.mktemp("tflite")
    (folder / "net.tflite").write_bytes(model_bytes())
    stored = np.random.default_rng(4).integers(-128, 128, (9, 6, 5, 3)).astype(np.int8)
    program = ax.load_tflite(folder / "net.tflite")
    labels = ax.simulate(program, stored).outputs["scores"].argmax(axis=1)
    real = program.tensors["image"].dequantize(stored)
    np.savez(folder / "data.npz", stored=stored, real=real, labels=labels)
    return folder


def test_widths_and_a_sweep_are_those_of_the_program(accelsim, tflite, tmp_path):
    program, data = ax.load_tflite(tflite / "net.tflite"), np.load(tflite / "data.npz")
    given = (
        tflite / "net.tflite",
        "--images",
        f"{tflite / 'data.npz'}:stored",
        "--labels",
        f"{tflite / 'data.npz'}:labels",
    )
    result = accelsim("widths", *given, "--json")
    assert result.exit_code == 0, result.output
    expected = ax.accumulator_widths(program, data["stored"], None, data["labels"])
    assert json.loads(result.stdout) == json.loads(expected.to_json())
    page = tmp_path / "widths.html"
    result = accelsim("report", "widths", *given, "--output", page)
    assert result.exit_code == 0, result.output
    assert page.stat().st_size > 1000
    result = accelsim(
        "sweep", *given, "--store", tmp_path / "s.sqlite", "--set", "accumulator_bits=12,32", "--workers", 1, "--json"
    )
    assert result.exit_code == 0, result.output
    swept = ax.sweep(program, data["stored"], data["labels"], {"accumulator_bits": [12, 32]}, workers=1)
    assert json.loads(result.stdout) == json.loads(swept.to_json())
    assert_refused(
        accelsim("widths", *given, "--weight-bits", 4), "quantized already, so --weight-bits would do nothing"
    )


def test_codes_outside_the_type_of_the_input_are_refused_before_any_point(accelsim, tflite, tmp_path):
    images, store = tmp_path / "bytes.npy", tmp_path / "s.sqlite"
    np.save(images, np.load(tflite / "data.npz")["stored"].astype(np.int16).astype(np.uint8))
    for fields in ("accumulator_bits=12,32", "rows=4"):
        result = accelsim("sweep", tflite / "net.tflite", "--images", images, "--store", store, "--set", fields)
        assert_refused(result, "input 'image' is stored as int8 (-128..127), got 0..2")
        assert not store.exists()


def test_stored_and_real_images_give_the_result_of_simulate(accelsim, tflite, tmp_path):
    program = ax.load_tflite(tflite / "net.tflite")
    data = np.load(tflite / "data.npz")
    expected = ax.simulate(program, data["stored"])
    for kind in ("stored", "real"):
        images, codes = f"{tflite / 'data.npz'}:{kind}", tmp_path / f"{kind}.npz"
        result = accelsim(
            "run", tflite / "net.tflite", "--images", images, "--labels", f"{tflite / 'data.npz'}:labels", "--output",
            codes, "--json",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        record = json.loads(result.stdout)
        assert record.items() >= json.loads(expected.to_json()).items()
        assert record["right"] == record["num_samples"] == 9
        assert record["machine"]["accumulator_bits"] == 32
        with np.load(codes) as archive:
            assert np.array_equal(archive["scores"], expected.outputs["scores"])
            assert archive["scores"].dtype == np.int8


def test_settings_change_the_machine_of_the_stack(accelsim, tflite, tmp_path):
    (tmp_path / "wide.tflite").write_bytes(model_bytes("INT16", "INT64"))
    images = f"{tflite / 'data.npz'}:real"
    result = accelsim("run", tmp_path / "wide.tflite", "--images", images, "--limit", 2, "--json")
    assert json.loads(result.stdout)["machine"]["accumulator_bits"] == 64
    settings = ["--set", "accumulator_bits=10", "--set", "overflow=saturate", "--track", "range"]
    result = accelsim("run", tmp_path / "wide.tflite", "--images", images, *settings, "--json")
    record = json.loads(result.stdout)
    assert record["machine"]["accumulator_bits"] == 10
    assert record["overflow_events"] > 0
    narrow = ["--machine", "paper_4x4", "--set", "accumulator_bits=8", "--set", "overflow=error"]
    assert_failed(accelsim("run", tflite / "net.tflite", "--images", images, *narrow), "layer 'features'", "8 bits")


def test_the_text_names_model_layers_and_machine(accelsim, tflite):
    images = f"{tflite / 'data.npz'}:stored"
    result = accelsim("run", tflite / "net.tflite", "--images", images, "--summary", "--limit", 1)
    assert result.exit_code == 0, result.output
    assert "net on edge_16x16: 16x16 output_stationary, 32-bit accumulators (wrap), requantizer tflite" in result.stdout
    for word in ("CONV_2D+Relu", "MEAN", "FULLY_CONNECTED", "per channel", "samples          1"):
        assert word in result.stdout


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--weight-bits", "4"], ["is quantized already, so --weight-bits would do nothing"]),
        (["--calibration", "{data}:real"], ["so --calibration would do nothing"]),
        (["--images", "{data}:labels"], ["input 'image' must have shape (a multiple of 1, 6, 5, 3), got (9,)"]),
        (["--machine", "edge_32x32"], ["machine must be one of"]),
        (["--set", "weight_bits=4"], ["operator 'features' (CONV_2D)", "weights are int8", "4-bit"]),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(accelsim, tflite, arguments, fragments):
    given = [argument.format(data=tflite / "data.npz") for argument in arguments]
    images = [] if "--images" in given else ["--images", f"{tflite / 'data.npz'}:stored"]
    assert_refused(accelsim("run", tflite / "net.tflite", *images, *given), *fragments)


def test_a_damaged_file_is_refused_by_its_name(accelsim, tflite, tmp_path):
    (tmp_path / "cut.tflite").write_bytes((tflite / "net.tflite").read_bytes()[:200])
    (tmp_path / "other.tflite").write_bytes(b"something else")
    images = ["--images", f"{tflite / 'data.npz'}:stored"]
    assert_refused(accelsim("run", tmp_path / "cut.tflite", *images), "model 'cut' is damaged")
    assert_refused(accelsim("run", tmp_path / "other.tflite", *images), "'TFL3' at byte 4")
    assert_refused(accelsim("run", tmp_path / "none.tflite", *images), "cannot be read: No such file")


@pytest.mark.parametrize("command", ["compare", "quantize"])
def test_commands_that_need_a_float_network_say_so(accelsim, tflite, tmp_path, command):
    data = f"{tflite / 'data.npz'}:real"
    last = ["--output", tmp_path / "net.npz"] if command == "quantize" else ["--images", data]
    result = accelsim(command, tflite / "net.tflite", "--calibration", data, *last)
    assert_refused(result, "is a TFLite model", "give it to `accelsim run`")


def test_layers_are_traced_to_the_codes_of_simulate(accelsim, tflite, tmp_path):
    """Channels last in the model, channels first on the grid."""
    program = ax.load_tflite(tflite / "net.tflite")
    run = ax.simulate(program, np.load(tflite / "data.npz")["stored"][5:6], keep_intermediates=True)
    arguments = ["trace", tflite / "net.tflite", "--images", f"{tflite / 'data.npz'}:stored", "--sample", 5]
    on_grid = [record for record in run.layers if record.macs]
    assert len(on_grid) == 2
    for record in on_grid:
        folder = tmp_path / record.output
        result = accelsim(*arguments, "--layer", record.name, "--vectors", folder)
        assert result.exit_code == 0, result.output
        stored = run.tensors[record.output]
        assert read(folder, "outputs.hex").T.tolist() == stored.reshape(-1, stored.shape[-1]).tolist()
    assert_refused(accelsim(*arguments, "--layer", on_grid[0].name, "--weight-bits", 4), "--weight-bits")
