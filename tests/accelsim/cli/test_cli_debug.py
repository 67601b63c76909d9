import json

import pytest

import accelsim as ax

from .conftest import assert_failed, assert_refused


def _debug(accelsim, small, *arguments):
    return accelsim("debug", small.model, "--calibration", small.train, "--images", small.test, *arguments)


def test_it_prints_what_diagnose_finds(accelsim, small):
    arrays = small.arrays
    result = _debug(accelsim, small, "--labels", small.labels, "--weight-bits", 3, "--activation-bits", 4)
    assert result.exit_code == 0, result.output
    config = ax.PTQConfig(weight_bits=3, activation_bits=4)
    expected = ax.diagnose(ax.load_onnx(small.model), arrays.train, config, arrays.test, arrays.labels)
    assert result.stdout == expected.table() + "\n"
    assert result.stderr == ""


def test_json_stands_alone_and_files_are_written(accelsim, small, tmp_path):
    figures, layers = tmp_path / "figures", tmp_path / "layers.toml"
    options = ["--weight-bits", 2, "--rounding", "nearest", "--plots", figures, "--proposal", layers, "--json"]
    result = _debug(accelsim, small, *options)
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["metric"] == "agreement with float"
    made = sorted(path.name for path in figures.iterdir())
    assert made[-1] == "sensitivity.png"
    assert len(made) == 5
    assert record["files"] == [*(str(figures / name) for name in ["sensitivity.png", *made[:-1]]), str(layers)]
    for path in figures.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")
    config = ax.PTQConfig.load(layers)
    assert (config.weight_bits, config.rounding) == (2, "nearest")
    assert {name: bits.model_dump(exclude_none=True) for name, bits in config.layers.items()} == record["proposal"]
    assert record["proposal"]
    again = accelsim(
        "quantize", small.model, "--calibration", small.train, "--output", tmp_path / "q.npz", "--ptq", layers
    )
    assert again.exit_code == 0, again.output


def test_a_bound_that_is_missed_is_a_no(accelsim, small):
    wide = _debug(accelsim, small, "--max-loss", 100, "--weight-bits", 2, "--rounding", "nearest")
    assert wide.exit_code == 0, wide.output
    result = _debug(accelsim, small, "--max-loss", 0, "--weight-bits", 1, "--activation-bits", 1)
    assert_failed(result, "agreement with float", "more than --max-loss 0")
    assert "findings" not in result.stdout
    assert "quantized alone" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--labels", "{data}:test"], ["whole numbers"]),
        (["--images", "missing.npy"], ["missing.npy"]),
        (["--proposal", "missing/x.toml"], ["no folder 'missing'"]),
        (["--layer", "nothing=W8"], ["no node or tensor 'nothing'"]),
        (["--plots", "{data}"], ["cannot be made"]),
    ],
)
def test_wrong_input_is_refused(accelsim, small, arguments, fragments):
    result = _debug(accelsim, small, *(argument.format(data=small.data) for argument in arguments))
    assert_refused(result, *fragments)


def test_a_quantized_network_cannot_be_debugged(accelsim, small, quantized):
    result = accelsim("debug", quantized, "--calibration", small.train, "--images", small.test)
    assert_refused(result, "is quantized already")
