"""Test vectors: the files say what the run held, and the folder appears whole or not at all."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import accelsim as ax
from tests.naive.gemm import gemm

WEIGHTS = np.array([[3, -2, 7], [1, 4, -128]], dtype=np.int8)
ACTIVATIONS = np.array([[5, 0], [6, 255], [9, 1]], dtype=np.uint8)


def read(folder, name):
    """Read a file as a testbench does, by the manifest alone: Python integers in the file's shape."""
    entry = json.loads((folder / "manifest.json").read_text())["files"][name]
    lines = (folder / name).read_text().splitlines()
    assert all(len(line) == -(-entry["bits"] // 4) for line in lines)
    words = [int(line, 16) for line in lines]
    assert all(word < 1 << entry["bits"] for word in words)
    if entry["signed"]:
        words = [word - (1 << entry["bits"]) if word >> (entry["bits"] - 1) else word for word in words]
    assert len(entry["axes"]) == len(entry["shape"])
    return np.array(words, dtype=object).reshape(entry["shape"])


def write(folder, machine=None, **arguments):
    return ax.write_vectors(folder, **{"weights": WEIGHTS, "activations": ACTIVATIONS, "machine": machine, **arguments})


def test_words_by_hand(tmp_path):
    machine = ax.Machine(rows=2, columns=2, weight_bits=8, activation_bits=8, accumulator_bits=18)
    manifest = write(tmp_path / "v", machine, bias=[-1, 70000])
    assert manifest == tmp_path.resolve() / "v" / "manifest.json"
    assert (tmp_path / "v" / "weights.hex").read_text() == "03\nfe\n07\n01\n04\n80\n"
    assert (tmp_path / "v" / "activations.hex").read_text() == "05\n00\n06\nff\n09\n01\n"
    assert (tmp_path / "v" / "start.hex").read_text() == "3ffff\n11170\n"
    # 3*5 - 2*6 + 7*9 - 1 = 65, -510 + 7 - 1 = -504, 5 + 24 - 1152 + 70000 = 68877, 1020 - 128 + 70000 = 70892
    assert (tmp_path / "v" / "accumulators.hex").read_text() == "00041\n3fe08\n10d0d\n114ec\n"
    description = json.loads(manifest.read_text())
    assert description["accelsim"] == ax.__version__
    assert description["dimensions"] == {"n": 2, "k": 3, "p": 2}
    assert ax.Machine(**description["machine"]) == machine
    assert description["cycles"]["multiply"] == 3 + 2 + 2 - 2
    assert not description["files"]["activations.hex"]["signed"]
    assert description["files"]["weights.hex"]["axes"] == ["n", "k"]
    assert sorted(path.name for path in (tmp_path / "v").iterdir()) == sorted([*description["files"], "manifest.json"])


@given(st.data())
def test_files_hold_what_the_run_held(tmp_path_factory, data):
    draw = data.draw
    machine = ax.Machine(
        rows=draw(st.integers(1, 3)), columns=draw(st.integers(1, 3)),
        dataflow=draw(st.sampled_from(["output_stationary", "weight_stationary", "input_stationary", "broadcast"])),
        accumulator_bits=draw(st.integers(4, 40)), partial_sum_bits=draw(st.none() | st.integers(4, 40)),
        adder_tree_bits=draw(st.none() | st.integers(4, 40)), overflow=draw(st.sampled_from(["wrap", "saturate"])),
        zero_point=draw(st.sampled_from(["folded", "at_input"])), pe_latency_cycles=draw(st.integers(1, 3)),
    )  # fmt: skip
    N, K, P = (draw(st.integers(1, 4)) for _ in range(3))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    weights, activations = rng.integers(-128, 128, size=(N, K)), rng.integers(0, 256, size=(K, P))
    bias, z_w = rng.integers(-(1 << 20), 1 << 20, size=N), rng.integers(-1, 2, size=N)
    z_x = draw(st.sampled_from([0, 128]))
    folder = tmp_path_factory.mktemp("vectors") / "v"
    ax.write_vectors(
        folder, weights=weights, activations=activations, machine=machine, bias=bias, weight_zero_point=z_w,
        activation_zero_point=z_x, trace=True,
    )  # fmt: skip
    expected = gemm(weights.tolist(), activations.tolist(), machine, bias.tolist(), z_w.tolist(), z_x)
    for name, attribute in (
        ("accumulators.hex", "accumulator"), ("overflow_events.hex", "events"),
        ("partial_overflow_events.hex", "partial_events"),
    ):  # fmt: skip
        assert read(folder, name).tolist() == [[getattr(output, attribute) for output in row] for row in expected]
    files = json.loads((folder / "manifest.json").read_text())["files"]
    # What the grid sums: start + W X + last, in whatever form the zero points take.
    total = read(folder, "start.hex")[:, None] + read(folder, "weights.hex") @ read(folder, "activations.hex")
    if "last.hex" in files:
        total = total + read(folder, "last.hex")
    assert total.tolist() == ((weights - z_w[:, None]) @ (activations - z_x) + bias[:, None]).tolist()
    result = ax.matmul(
        weights, activations, machine, bias=bias, weight_zero_point=z_w, activation_zero_point=z_x,
        engine="stepped", trace=True,
    )  # fmt: skip
    traced = {name for name in files if name.startswith("trace_")}
    assert {"trace_accumulators.hex", "trace_weights.hex", "trace_activations.hex", "trace_fold.hex"} < traced
    for name in traced:
        plane = getattr(result.trace, name.removeprefix("trace_").removesuffix(".hex"))
        assert read(folder, name).tolist() == plane.tolist(), name


@pytest.mark.parametrize("preset", ["tflite", "tflite_single_rounding", "onnxruntime"])
@pytest.mark.parametrize("shift", [0, 3])
def test_requantized_outputs(preset, shift, tmp_path):
    machine = ax.Machine(rows=2, columns=2, requantizer=preset, product_shift_bits=shift)
    output = ax.QuantizationParameters(0.5, -3, ax.IntegerFormat(8, True))
    asked = ax.Requantization(0.01, [0.25, 0.125], output, minimum=-3)
    write(tmp_path / "v", machine, requantization=asked)
    accumulators = read(tmp_path / "v", "accumulators.hex").astype(np.int64)
    expected = ax.requantize(
        accumulators, preset, input_scale=0.01 * 2**shift, weight_scale=[0.25, 0.125], output=output, minimum=-3
    )
    assert read(tmp_path / "v", "outputs.hex").tolist() == expected.tolist()
    description = json.loads((tmp_path / "v" / "manifest.json").read_text())
    assert description["requantization"]["minimum"] == -3
    assert description["requantization"]["maximum"] == 127
    if preset == "onnxruntime":
        assert "multipliers.hex" not in description["files"]
        return
    # The multipliers in the files make the outputs: docs/numerics.md (20), (21).
    multipliers, shifts = read(tmp_path / "v", "multipliers.hex"), read(tmp_path / "v", "shifts.hex")
    for n in range(2):
        right = shifts[n] if preset != "tflite" else 31 - shifts[n]
        assert multipliers[n] / 2**right == pytest.approx(0.01 * 2**shift * [0.25, 0.125][n] / 0.5, rel=1e-7)


def test_a_start_that_does_not_fit_keeps_its_value(tmp_path):
    write(tmp_path / "v", ax.Machine(accumulator_bits=8), bias=[1000, -1])
    assert read(tmp_path / "v", "start.hex").tolist() == [1000, -1]
    assert read(tmp_path / "v", "overflow_events.hex").min(axis=1)[0] >= 1


def test_formats_fix_the_width(tmp_path):
    int8, uint8 = ax.IntegerFormat(8, True), ax.IntegerFormat(8, False)
    write(tmp_path / "v", weights=[[1, 1, 1]], weight_format=int8, activation_format=uint8)
    files = json.loads((tmp_path / "v" / "manifest.json").read_text())["files"]
    assert [(files[name]["bits"], files[name]["signed"]) for name in ("weights.hex", "activations.hex")] == [
        (8, True),
        (8, False),
    ]
    machine = ax.Machine(zero_point="at_input")
    write(tmp_path / "w", machine, activation_format=uint8, activation_zero_point=128)
    assert read(tmp_path / "w", "activations.hex").tolist() == (ACTIVATIONS.astype(int) - 128).tolist()
    assert json.loads((tmp_path / "w" / "manifest.json").read_text())["files"]["activations.hex"]["bits"] == 9
    with pytest.raises(ax.OperandError, match=r"activations must fit their format int8, got 0\.\.255"):
        write(tmp_path / "x", activation_format=int8)
    assert not (tmp_path / "x").exists()


def test_a_folder_of_vectors_is_replaced_only_when_asked(tmp_path):
    write(tmp_path / "v", trace=True)
    before = {path.name: path.read_bytes() for path in (tmp_path / "v").iterdir()}
    with pytest.raises(ax.DataError, match=r"holds test vectors already; .* with overwrite=True$"):
        write(tmp_path / "v")
    assert {path.name: path.read_bytes() for path in (tmp_path / "v").iterdir()} == before
    write(tmp_path / "v", overwrite=True)
    assert not (tmp_path / "v" / "trace_fold.hex").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["v"]
    (tmp_path / "link").symlink_to(tmp_path / "v", target_is_directory=True)
    write(tmp_path / "link", ax.Machine(accumulator_bits=20), overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert json.loads((tmp_path / "v" / "manifest.json").read_text())["machine"]["accumulator_bits"] == 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "v"]


def test_other_folders_are_never_touched(tmp_path):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty")
    (tmp_path / "empty" / "notes.txt").write_text("mine")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "manifest.json").write_text("[]")
    (tmp_path / "file").write_text("mine")
    for name, message in (
        ("empty", "other files than test vectors"), ("foreign", "other files than test vectors"),
        ("file", "a file has that name"), ("missing/v", "is not a folder; make it first"),
    ):  # fmt: skip
        with pytest.raises(ax.DataError, match=message):
            write(tmp_path / name, overwrite=True)
    assert (tmp_path / "empty" / "notes.txt").read_text() == "mine"
    assert (tmp_path / "foreign" / "manifest.json").read_text() == "[]"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "foreign"]


def test_nothing_is_left_of_a_run_that_fails(tmp_path, monkeypatch):
    with pytest.raises(ax.AccumulatorOverflowError):
        write(tmp_path / "v", ax.Machine(accumulator_bits=8, overflow="error"))
    write(tmp_path / "w")
    before = (tmp_path / "w" / "manifest.json").read_bytes()

    def full_disk(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full_disk)
    for name in ("v", "w"):
        with pytest.raises(ax.DataError, match="No space left on device"):
            write(tmp_path / name, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["w"]
    assert (tmp_path / "w" / "manifest.json").read_bytes() == before


def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(tmp_path, monkeypatch):
    write(tmp_path / "v")
    before = {path.name: path.read_bytes() for path in (tmp_path / "v").iterdir()}
    rename = Path.rename

    def refuse(path, target):
        if path.name.endswith(".part"):
            raise OSError(13, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr("pathlib.Path.rename", refuse)
    with pytest.raises(ax.DataError, match=r"cannot be written: Permission denied"):
        write(tmp_path / "v", ax.Machine(accumulator_bits=20), overwrite=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "v").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["v"]


def test_a_folder_that_cannot_be_looked_into_is_refused(tmp_path, monkeypatch):
    (tmp_path / "v").mkdir()

    def refuse(path):
        raise OSError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.iterdir", refuse)
    with pytest.raises(ax.DataError, match=r"cannot be read: Permission denied"):
        write(tmp_path / "v")
