import json

import numpy as np
import pytest

import accelsim as ax
from accelsim.reference import OnnxRunner

from .conftest import assert_refused


def _same(a, b):
    """Whether two quantized graphs have the same quantizers and integers."""
    return (
        dict(a.activations) == dict(b.activations)
        and a.weights.keys() == b.weights.keys()
        and all(
            np.array_equal(a.weights[name].integers, b.weights[name].integers)
            and a.weights[name].parameters == b.weights[name].parameters
            for name in a.weights
        )
    )


def _quantize(accelsim, small, tmp_path, *arguments):
    output = tmp_path / "out.npz"
    result = accelsim("quantize", small.model, "--calibration", small.train, "--output", output, *arguments)
    assert result.exit_code == 0, result.output
    return ax.QuantizedGraph.load(output), result


@pytest.mark.parametrize(
    ("arguments", "config"),
    [
        ([], {}),
        (["--weight-bits", 4, "--activation-bits", 6], {"weight_bits": 4, "activation_bits": 6}),
        (["--per-channel"], {"per_channel": True}),
        (["--per-tensor"], {"per_channel": False}),
        (["--weight-range", "mse"], {"weight_range": "mse"}),
        (["--weight-range", "min_max", "--weight-bits", 3], {"weight_range": "min_max", "weight_bits": 3}),
        (["--activation-range", "min_max"], {"activation_range": "min_max"}),
        (["--activation-range", "percentile"], {"activation_range": "percentile"}),
        (["--equalization", "none"], {"equalize": False}),
        (["--equalization", "cross_layer"], {"equalize": True, "equalization": "cross_layer"}),
        (["--bias-correction", "analytic"], {"bias_correction": "analytic"}),
        (["--power-of-two"], {"power_of_two": True}),
        (["--rounding", "nearest", "--weight-bits", 4], {"rounding": "nearest", "weight_bits": 4}),
        (
            ["--rounding", "adaround", "--weight-bits", 3, "--ptq", "{folder}/ptq.toml"],
            {"rounding": "adaround", "weight_bits": 3, "adaround_iterations": 50, "seed": 7},
        ),
        (["--layer", "classifier=w4A16"], {"layers": {"classifier": {"weight_bits": 4, "activation_bits": 16}}}),
        (
            ["--ptq", "{folder}/ptq.toml", "--layer", "conv=W5", "--layer", "image=a12", "--rounding", "nearest"],
            {
                "weight_bits": 6,
                "adaround_iterations": 50,
                "seed": 7,
                "rounding": "nearest",
                "layers": {"conv": {"weight_bits": 5}, "image": {"activation_bits": 12}},
            },
        ),
    ],
)
def test_the_file_holds_what_the_options_ask_for(accelsim, small, tmp_path, arguments, config):
    (small.folder / "ptq.toml").write_text(
        'weight_bits = 6\nadaround_iterations = 50\nseed = 7\n[layers."conv"]\nweight_bits = 3\n', encoding="utf-8"
    )
    if "--ptq" in arguments and "layers" not in config:
        config = {**config, "layers": {"conv": {"weight_bits": 3}}}
    arguments = [str(argument).format(folder=small.folder) for argument in arguments]
    written, result = _quantize(accelsim, small, tmp_path, *arguments)
    expected = ax.quantize(ax.load_onnx(small.model), small.arrays.train, ax.PTQConfig(**config))
    assert _same(written, expected)
    assert result.stdout.splitlines() == [*expected.log, f"wrote {tmp_path / 'out.npz'}"]
    assert result.stderr == ""
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]


def test_channels_last_and_limit_choose_the_same_samples(accelsim, small, tmp_path):
    output = tmp_path / "out.npz"
    result = accelsim(
        "quantize", small.model, "--calibration", f"{small.data}:transposed", "--layout", "channels-last",
        "--limit", 5, "--output", output,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    expected = ax.quantize(ax.load_onnx(small.model), small.arrays.train[:5])
    assert _same(ax.QuantizedGraph.load(output), expected)


def test_the_simulation_is_written_as_onnx(accelsim, small, tmp_path):
    onnx = tmp_path / "simulated.onnx"
    written, result = _quantize(accelsim, small, tmp_path, "--onnx", onnx)
    assert result.stdout.endswith(f"wrote {tmp_path / 'out.npz'} and {onnx}\n")
    feeds = {"image": small.arrays.test}
    simulated = OnnxRunner(onnx.read_bytes(), optimize=False).run(feeds)["scores"]
    np.testing.assert_array_equal(simulated, OnnxRunner.of_simulated(written).run(feeds)["scores"])


def test_json_stands_alone_on_stdout(accelsim, small, tmp_path):
    written, result = _quantize(accelsim, small, tmp_path, "--json", "--weight-bits", 5, "--power-of-two")
    record = json.loads(result.stdout)
    assert record["log"] == list(written.log)
    assert record["options"] == {"weight_bits": 5, "power_of_two": True}
    assert record["output"] == str(tmp_path / "out.npz")
    assert record["onnx"] is None


def test_an_existing_output_is_replaced_or_left_alone(accelsim, small, tmp_path):
    output = tmp_path / "out.npz"
    output.write_bytes(b"before")
    refusal = accelsim(
        "quantize", small.model, "--calibration", f"{small.data}:labels", "--output", output
    )  # labels are no images
    assert_refused(refusal, "calibration data", "'image'")
    assert output.read_bytes() == b"before"
    _quantize(accelsim, small, tmp_path)
    assert output.read_bytes() != b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]


@pytest.mark.parametrize("option", ["--output", "--onnx"])
def test_an_output_that_cannot_be_written_is_refused_before_the_work(accelsim, small, tmp_path, option):
    def quantize(path):
        others = [] if option == "--output" else ["--output", tmp_path / "out.npz"]
        return accelsim("quantize", small.model, "--calibration", "not looked at", *others, option, path)

    assert_refused(quantize(tmp_path / "missing" / "out"), "no folder", "missing", "make it")
    assert_refused(quantize(tmp_path), "is a folder", "name a file in it")
    assert_refused(quantize(small.model), "is an input", "net.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--layer", "conv"], ["--layer must be NAME=W<bits>", "'conv'"]),
        (["--layer", "conv="], ["'conv='"]),
        (["--layer", "=W8"], ["'=W8'"]),
        (["--layer", "conv=W8B4"], ["'conv=W8B4'"]),
        (["--layer", "conv=W17"], ["weight_bits must be at most 16, got 17"]),
        (["--layer", "convv=W8"], ["ptq.layers", "no node or tensor 'convv'", "did you mean 'conv'?"]),
        (["--layer", "relu=W8"], ["'relu' is a node (Relu) without weights", "'conv', 'classifier'"]),
        (["--ptq", "missing.toml"], ["missing.toml", "cannot be read"]),
        (["--ptq", "{model}"], ["net.onnx"]),
        (["--ptq", "{folder}/wrong.toml"], ["wrong.toml", "ptq.weight_bits must be at least 1, got 0"]),
    ],
)
def test_wrong_widths_and_files_are_refused(accelsim, small, tmp_path, arguments, fragments):
    (small.folder / "wrong.toml").write_text("weight_bits = 0\n", encoding="utf-8")
    arguments = [argument.format(folder=small.folder, model=small.model) for argument in arguments]
    result = accelsim(
        "quantize", small.model, "--calibration", small.train, "--output", tmp_path / "out.npz", *arguments
    )
    assert_refused(result, *fragments)


def test_two_outputs_and_inputs_are_different_files(accelsim, small, tmp_path):
    out = tmp_path / "out"
    assert_refused(
        accelsim("quantize", small.model, "--calibration", small.train, "--output", out, "--onnx", out),
        "another output",
    )
    assert_refused(
        accelsim("quantize", small.model, "--calibration", small.train, "--output", small.data), "is an input"
    )


def test_wrong_models_are_refused(accelsim, small, quantized, tmp_path):
    def quantize(model):
        return accelsim("quantize", model, "--calibration", small.train, "--output", tmp_path / "out.npz")

    assert_refused(quantize(tmp_path / "missing.onnx"), "missing.onnx", "does not exist")
    assert_refused(quantize(quantized), "is quantized already", "accelsim run")
    assert_refused(quantize(tmp_path), str(tmp_path), "not a regular file")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(small.model.read_bytes()[:-50])
    assert_refused(quantize(broken), "broken.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["broken.onnx"]


def test_wrong_calibration_is_refused(accelsim, small, tmp_path):
    def quantize(*arguments):
        return accelsim("quantize", small.model, "--output", tmp_path / "out.npz", "--calibration", *arguments)

    assert_refused(quantize(tmp_path / "missing.npz"), "missing.npz", "No such file")
    assert_refused(quantize(small.data), "4 arrays", "train (24, 3, 5, 5)")
    assert_refused(quantize(f"{small.data}:transposed"), "channels last", "--layout channels-last")
    assert_refused(quantize(small.train, "--layout", "channels-last"), "calibration data", "'image'")


@pytest.mark.parametrize(
    "wrong",
    [
        ["--weight-bits", "0"],
        ["--weight-bits", "17"],
        ["--weight-bits", "four"],
        ["--activation-bits", "0"],
        ["--weight-range", "best"],
        ["--activation-range", "best"],
        ["--layout", "nhwc"],
        ["--limit", "0"],
        ["--color"],
    ],
)
def test_a_wrong_option_is_a_usage_error(accelsim, small, tmp_path, wrong):
    result = accelsim("quantize", small.model, "--calibration", small.train, "--output", tmp_path / "out.npz", *wrong)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert wrong[0] in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_no_images_are_needed(accelsim, small, tmp_path):
    output = tmp_path / "out.npz"
    result = accelsim("quantize", small.model, "--input-range", "-3", "3", "--output", output)
    assert result.exit_code == 0, result.output
    expected = ax.quantize(ax.load_onnx(small.model), None, ax.PTQConfig(input_range=(-3.0, 3.0)))
    assert _same(ax.QuantizedGraph.load(output), expected)
    assert_refused(accelsim("quantize", small.model, "--output", output), "input 'image'", "input_range")
