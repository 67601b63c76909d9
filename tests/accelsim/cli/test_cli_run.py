import json

import numpy as np
import pytest

import accelsim as ax

from .conftest import NUM_TEST, assert_failed, assert_refused


def _codes(path):
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def test_a_float_model_and_its_quantized_file_give_the_same_codes(accelsim, small, quantized, tmp_path):
    files = tmp_path / "a.npz", tmp_path / "b.npz"
    first = accelsim("run", quantized, "--images", small.test, "--output", files[0])
    assert first.exit_code == 0, first.output
    second = accelsim(
        "run", small.model, "--calibration", small.train, "--per-channel", "--images", small.test, "--output", files[1]
    )
    assert second.exit_code == 0, second.output
    expected = ax.simulate(ax.QuantizedGraph.load(quantized), small.arrays.test).outputs["scores"]
    for path in files:
        assert list(_codes(path)) == ["scores"]
        np.testing.assert_array_equal(_codes(path)["scores"], expected)
        assert _codes(path)["scores"].dtype == expected.dtype
    assert first.stdout.replace("a.npz", "b.npz") == second.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]


def test_the_calibration_limit_is_that_of_quantize(accelsim, small, tmp_path):
    paths = [tmp_path / name for name in ("net.npz", "a.npz", "b.npz")]
    calibration = ["--calibration", small.train]
    assert accelsim("quantize", small.model, *calibration, "--limit", 3, "--output", paths[0]).exit_code == 0
    assert accelsim("run", paths[0], "--images", small.test, "--output", paths[1]).exit_code == 0
    limited = [*calibration, "--calibration-limit", 3]
    assert accelsim("run", small.model, *limited, "--images", small.test, "--output", paths[2]).exit_code == 0
    np.testing.assert_array_equal(_codes(paths[1])["scores"], _codes(paths[2])["scores"])


@pytest.mark.parametrize("track", ["none", "overflow", "range"])
def test_json_is_the_result_of_simulate(accelsim, small, quantized, track):
    arguments = ["--machine", "paper_4x4", "--set", "accumulator_bits=14", "--set", "overflow=saturate"]
    result = accelsim(
        "run", quantized, "--images", small.test, "--labels", small.labels, *arguments, "--track", track, "--json"
    )
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    machine = ax.Machine.preset("paper_4x4").replace(accumulator_bits=14, overflow="saturate")
    expected = ax.simulate(ax.QuantizedGraph.load(quantized), small.arrays.test, machine, track=track)
    assert record.items() >= json.loads(expected.to_json()).items()
    right = int((expected.outputs["scores"].argmax(axis=1) == small.arrays.labels).sum())
    assert (record["right"], record["accuracy"]) == (right, right / NUM_TEST)
    assert record["machine"]["accumulator_bits"] == 14
    assert "summary" not in record


def test_the_text_says_what_the_result_holds(accelsim, small, quantized):
    result = accelsim("run", quantized, "--images", small.test, "--labels", small.labels, "--track", "range")
    assert result.exit_code == 0
    network = ax.QuantizedGraph.load(quantized)
    expected = ax.simulate(network, small.arrays.test, track="range")
    assert str(expected) in result.stdout
    right = int((expected.outputs["scores"].argmax(axis=1) == small.arrays.labels).sum())
    assert f"{100 * right / NUM_TEST:.2f} % ({right} of {NUM_TEST})" in result.stdout
    assert f"{expected.cycles.total:,}" in result.stdout
    assert f"{expected.operations.total:,}" in result.stdout
    bits = max(layer.needed_bits for layer in expected.layers if layer.needed_bits is not None)
    assert f"{bits} bits hold every running sum" in result.stdout
    assert result.stderr == ""
    safe = accelsim("run", quantized, "--images", small.test, "--set", f"accumulator_bits={bits}", "--json")
    assert json.loads(safe.stdout)["overflow_events"] == 0
    short = accelsim("run", quantized, "--images", small.test, "--set", f"accumulator_bits={bits - 1}", "--json")
    assert json.loads(short.stdout)["overflow_events"] > 0


def test_untracked_overflows_are_not_called_zero(accelsim, small, quantized):
    result = accelsim("run", quantized, "--images", small.test, "--track", "none")
    assert "overflow events  not tracked" in result.stdout
    assert "accuracy" not in result.stdout


def test_both_engines_print_the_same(accelsim, small, quantized):
    fast, stepped = (
        accelsim("run", quantized, "--images", small.test, "--limit", 2, "--engine", engine)
        for engine in ("fast", "stepped")
    )
    assert fast.exit_code == stepped.exit_code == 0
    assert stepped.stdout == fast.stdout.replace("; fast engine", "; stepped engine")


def test_the_summary_comes_first(accelsim, small, quantized):
    summary = ax.lower(ax.QuantizedGraph.load(quantized), ax.Machine.preset("edge_16x16")).summary()
    result = accelsim("run", quantized, "--images", small.test, "--summary")
    assert result.stdout.startswith(summary)
    as_json = accelsim("run", quantized, "--images", small.test, "--summary", "--json")
    assert json.loads(as_json.stdout)["summary"] == summary


def test_limit_takes_the_first_samples_and_their_labels(accelsim, small, quantized):
    arguments = ["--images", small.test, "--labels", small.labels, "--json"]
    limited = json.loads(accelsim("run", quantized, *arguments, "--limit", 5).stdout)
    assert limited["num_samples"] == 5
    expected = ax.simulate(ax.QuantizedGraph.load(quantized), small.arrays.test[:5]).outputs["scores"]
    assert limited["right"] == (expected.argmax(axis=1) == small.arrays.labels[:5]).sum()
    everything = json.loads(accelsim("run", quantized, *arguments, "--limit", 10_000).stdout)
    assert everything["num_samples"] == NUM_TEST


def test_channels_last_images_give_the_same(accelsim, small, quantized, tmp_path):
    np.save(tmp_path / "last.npy", np.moveaxis(small.arrays.test, 1, -1))
    first = accelsim("run", quantized, "--images", small.test)
    last = accelsim("run", quantized, "--images", tmp_path / "last.npy", "--layout", "channels-last")
    assert first.exit_code == 0
    assert last.stdout == first.stdout


def test_min_accuracy_is_a_bound_that_may_be_reached(accelsim, small, quantized, tmp_path):
    answers = ax.simulate(ax.QuantizedGraph.load(quantized), small.arrays.test[:10]).outputs["scores"].argmax(axis=1)
    answers[:3] = (answers[:3] + 1) % 4
    np.save(tmp_path / "labels.npy", answers)
    np.save(tmp_path / "images.npy", small.arrays.test[:10])
    arguments = ["--images", tmp_path / "images.npy", "--labels", tmp_path / "labels.npy", "--min-accuracy"]
    assert accelsim("run", quantized, *arguments, 70).exit_code == 0
    missed = accelsim("run", quantized, *arguments, 70.01, "--json", "--output", tmp_path / "codes.npz")
    assert_failed(missed, "70.00 % (7 of 10)", "--min-accuracy 70.01")
    assert json.loads(missed.stdout)["accuracy"] == 0.7
    assert (tmp_path / "codes.npz").exists()


def test_an_overflow_where_the_machine_forbids_it_is_a_no(accelsim, small, quantized, tmp_path):
    result = accelsim(
        "run", quantized, "--images", small.test, "--set", "overflow=error", "--set", "accumulator_bits=8",
        "--output", tmp_path / "codes.npz",
    )  # fmt: skip
    assert_failed(result, "conv")
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_float_model_needs_calibration(accelsim, small):
    assert_refused(
        accelsim("run", small.model, "--images", small.test), "is a float network", "--calibration", "accelsim quantize"
    )


@pytest.mark.parametrize(
    "options",
    [
        ["--calibration", "x.npy"],
        ["--calibration-limit", 5],
        ["--weight-bits", 8],
        ["--activation-bits", 8],
        ["--per-tensor"],
        ["--weight-range", "mse"],
        ["--activation-range", "mse"],
        ["--power-of-two"],
        ["--rounding", "qubo"],
        ["--layer", "conv=W4"],
    ],
)
def test_options_without_effect_are_refused(accelsim, small, quantized, options):
    name = "--per-channel" if options[0] == "--per-tensor" else options[0]
    assert_refused(accelsim("run", quantized, "--images", small.test, *options), "is quantized already", name)


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--images", "missing.npy"], ["missing.npy", "No such file"]),
        (["--images", "{data}"], ["4 arrays", "test (16, 3, 5, 5)"]),
        (["--images", "{data}:labels"], ["input 'image' must have shape (samples, 3, 5, 5)"]),
        (["--images", "{data}:transposed"], ["--layout channels-last"]),
        (["--images", "{data}:test", "--labels", "{data}:nothing"], ["no array 'nothing'", "labels (16,)"]),
        (["--images", "{data}:train", "--labels", "{data}:labels"], ["one per sample, 24, got 16"]),
        (["--images", "{data}:test", "--labels", "{data}:test"], ["whole numbers", "float32"]),
        (["--images", "{data}:test", "--machine", "edge"], ["machine must be one of edge_16x16"]),
        (["--images", "{data}:test", "--set", "row=1"], ["machine.row is not a known key"]),
        (["--images", "{data}:test", "--min-accuracy", "50"], ["--min-accuracy", "--labels"]),
        (["--images", "{data}:test", "--output", "missing/codes.npz"], ["no folder 'missing'"]),
        (["--images", "{data}:test", "--output", "{data}"], ["is an input"]),
        (["--images", "{data}:test", "--set", "weight_bits=4"], ["weight_bits"]),
    ],
)
def test_wrong_input_is_refused(accelsim, small, quantized, arguments, fragments):
    given = [argument.format(data=small.data) for argument in arguments]
    before = small.data.read_bytes()
    assert_refused(accelsim("run", quantized, *given), *fragments)
    assert small.data.read_bytes() == before


@pytest.mark.parametrize(
    "wrong",
    [["--engine", "quick"], ["--track", "all"], ["--limit", "0"], ["--min-accuracy", "101"], ["--layout", "x"]],
)
def test_a_wrong_choice_is_a_usage_error(accelsim, small, quantized, wrong):
    result = accelsim("run", quantized, "--images", small.test, *wrong)
    assert result.exit_code == 2
    assert wrong[0] in result.stderr
    assert result.stdout == ""


def test_labels_outside_the_classes_are_refused(accelsim, small, quantized, tmp_path):
    np.save(tmp_path / "labels.npy", small.arrays.labels + 4)
    result = accelsim("run", quantized, "--images", small.test, "--labels", tmp_path / "labels.npy")
    assert_refused(result, "classes 0..3")


def test_damaged_quantized_files_are_refused(accelsim, small, quantized, tmp_path):
    broken = tmp_path / "broken.npz"
    broken.write_bytes(quantized.read_bytes()[:-100])
    assert_refused(accelsim("run", broken, "--images", small.test), "broken.npz", "damaged")
    assert_refused(accelsim("run", small.data, "--images", small.test), "data.npz", "not a quantized graph")
    assert_refused(accelsim("run", tmp_path / "none.npz", "--images", small.test), "none.npz", "does not exist")


def test_prices_and_bit_toggles_are_those_of_simulate(accelsim, small, quantized, tmp_path):
    table = ax.EnergyTable(name="mine", dram_pj_per_bit=1.0)
    table.save(tmp_path / "prices.toml")
    arguments = ["run", quantized, "--images", small.test, "--energy", tmp_path / "prices.toml", "--activity"]
    network = ax.QuantizedGraph.load(quantized)
    expected = ax.simulate(network, small.arrays.test, energy=table, activity=True)
    record = json.loads(accelsim(*arguments, "--json").stdout)
    assert record["energy_table"] == "mine"
    assert record["energy"] == expected.energy.to_dict()
    assert record["toggles"] == json.loads(expected.to_json())["toggles"]
    text = accelsim(*arguments).stdout
    assert f"bit toggles      {expected.toggles.total:,}: weights {expected.toggles.weight:,}," in text
    assert "estimated" not in text
    some = ax.simulate(network, small.arrays.test, activity=True, activity_folds=1).toggles
    assert f"estimated from 2 of {some.folds:,} folds" in accelsim(*arguments, "--activity-folds", 1).stdout
    # Operations come before the energy.
    assert text.index("operations  ") < text.index("energy  ")


def test_wrong_prices_and_half_an_option_are_refused(accelsim, small, quantized, tmp_path):
    (tmp_path / "prices.toml").write_text("joule = 1")
    arguments = ["run", quantized, "--images", small.test]
    assert_refused(accelsim(*arguments, "--energy", tmp_path / "prices.toml"), "prices.toml", "joule")
    assert_refused(accelsim(*arguments, "--energy", tmp_path / "none.toml"), "none.toml", "cannot be read")
    assert_refused(accelsim(*arguments, "--activity-folds", 1), "--activity-folds needs --activity")
