"""Machines in TOML files: the round trip, presets, refusals that name the file, files written whole or not at all."""

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import example, given

import accelsim as ax
from tests.accelsim.machine.machine_cases import PRESETS, machine_fields, values_of


@given(machine_fields())
@example({})
@example({"memory": {"dram_bytes_per_cycle": 1e-6, "weight_buffer_bytes": 2**62}})
@example({"memory": {"dram_bytes_per_cycle": 1e9}})
def test_a_machine_comes_back_from_its_toml(fields):
    machine = ax.Machine(**fields)
    text = machine.to_toml()
    assert ax.Machine.from_toml(text) == machine
    # Read by Python's own reader: the file holds every value, and nothing else.
    read = tomllib.loads(text)
    flat = {}
    for key, value in read.items():
        flat |= {f"{key}.{name}": inner for name, inner in value.items()} if isinstance(value, dict) else {key: value}
    wanted = {path: value for path, value in values_of(machine).items() if value is not None}
    assert flat == {path: list(value) if isinstance(value, tuple) else value for path, value in wanted.items()}


@given(machine_fields())
def test_a_machine_comes_back_from_its_file(tmp_path_factory, fields):
    path = tmp_path_factory.mktemp("machines") / "mine.toml"
    machine = ax.Machine(**fields)
    machine.save(path)
    assert ax.Machine.load(path) == ax.Machine.load(str(path)) == machine
    assert [entry.name for entry in path.parent.iterdir()] == ["mine.toml"]


def test_presets_are_what_their_comments_say():
    assert {"paper_4x4", "edge_16x16", "tpu_like_128x128"} <= set(ax.Machine.preset_names())
    paper = ax.Machine.preset("paper_4x4")
    assert (paper.rows, paper.columns, paper.num_pes, paper.dataflow) == (4, 4, 16, "broadcast")
    assert (paper.weight_bits, paper.activation_bits, paper.accumulator_bits) == (8, 8, 32)
    edge = ax.Machine.preset("edge_16x16")
    assert (edge.rows, edge.columns, edge.dataflow, edge.accumulator_bits) == (16, 16, "output_stationary", 32)
    tpu = ax.Machine.preset("tpu_like_128x128")
    assert (tpu.rows, tpu.columns, tpu.dataflow, tpu.double_buffered) == (128, 128, "weight_stationary", True)
    assert (tpu.weight_bits, tpu.activation_bits, tpu.accumulator_bits, tpu.partial_sum_bits) == (8, 8, 32, 32)


@pytest.mark.parametrize("name", ax.Machine.preset_names())
def test_a_preset_is_one_machine_however_it_is_written(name):
    machine = ax.Machine.preset(name)
    assert ax.Machine.from_toml(machine.to_toml()) == machine
    assert machine.requantizer.name in PRESETS


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(ax.MachineError, match=r"preset must be one of .*edge_16x16.*, got 'edge'$"):
        ax.Machine.preset("edge")
    with pytest.raises(ax.MachineError, match=r"got '\.\./paper_4x4'$"):
        ax.Machine.preset("../paper_4x4")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rowz = 3", "machine.rowz is not a known key"),
        ("[memory]\nweights = 3", "memory.weights is not a known key"),
        ("[requantizer]\nround = 'floor'", "requantizer.round is not a known key"),
        ("[grid]\nrows = 3", "machine.grid is not a known key"),
        ("rows = 0", "machine.rows must be at least 1, got 0"),
        ("requantizer = 'nope'", "requantizer preset must be one of"),
        ("requantizer = 3", "requantizer"),
        ("memory = 3", "memory"),
        ("rows = ", "is not TOML"),
        ("rows = 3\nrows = 4", "is not TOML"),
    ],
)
def test_a_wrong_file_is_refused_by_name_on_one_line(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ax.MachineError, match=re.escape(message)) as refusal:
        ax.Machine.load(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9\nrows = 4\n")
    for path in (tmp_path / "absent.toml", tmp_path, tmp_path / "latin.toml"):
        with pytest.raises(ax.MachineError, match="cannot be read") as refusal:
            ax.Machine.load(path)
        assert str(path) in str(refusal.value)


def test_parts_in_a_file_keep_the_defaults_of_the_rest():
    machine = ax.Machine.from_toml("rows = 2\nrequantizer = 'onnxruntime'\n[memory]\nweight_buffer_bytes = 64\n")
    assert machine == ax.Machine(
        rows=2, requantizer=ax.Requantizer.preset("onnxruntime"), memory=ax.Memory(weight_buffer_bytes=64)
    )
    table = "[requantizer]\nmultiplier_bits = 16\nrounding = 'floor'\n"
    assert ax.Machine.from_toml(table).requantizer == ax.Requantizer(multiplier_bits=16, rounding=("floor",))


@pytest.mark.parametrize("step", ["open", "replace"])
def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "mine.toml"
    ax.Machine(rows=3).save(path)
    before = path.read_bytes()
    whole = getattr(Path, step)

    def failing(self, *arguments, **options):
        if step == "open":  # a disk that is full: the file is there, and writing to it fails
            whole(self, *arguments, **options).close()
            return whole(Path("/dev/full"), "wb", buffering=0)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, step, failing)
    with pytest.raises(ax.DataError, match=r"mine.toml' cannot be written: No space left on device"):
        ax.Machine(rows=4).save(path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.toml"]


def test_a_save_into_a_folder_that_is_not_there_makes_nothing(tmp_path):
    with pytest.raises(ax.DataError, match=r"mine.toml' cannot be written: No such file or directory"):
        ax.Machine().save(tmp_path / "absent" / "mine.toml")
    assert not list(tmp_path.iterdir())


DOTTED = ".".join(["x"] * 2000)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = " + "[" * 100_000, "nested more than 64 levels deep"),
        ("x = " + "{a = " * 100_000, "nested more than 64 levels deep"),
        (f"{DOTTED} = 4", "nested more than 64 levels deep"),
        (f"[{DOTTED}]", "nested more than 64 levels deep"),
        ("rows = " + "9" * 5000, "a number with too many digits"),
        ("rows = 0x" + "f" * 5000, "a number with too many digits"),
        ("rows = [[0b" + "1" * 5000 + "]]", "a number with too many digits"),
    ],
    ids=["lists", "tables", "key", "header", "decimal", "hexadecimal", "in lists"],
)
def test_files_beyond_all_limits_are_refused_in_a_line(tmp_path, text, reason):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    for kind, error in (
        (ax.Machine, ax.MachineError),
        (ax.PTQConfig, ax.AccelsimError),
        (ax.EnergyTable, ax.DataError),
    ):
        with pytest.raises(error) as refusal:
            kind.load(path)
        assert str(refusal.value) == f"{path} cannot be read: {reason}"


def test_a_key_with_the_name_of_a_parameter_is_unknown():
    with pytest.raises(ax.MachineError, match=r"machine\.self is not a known key"):
        ax.Machine.from_toml("self = 4")


def test_lists_within_the_limit_are_read_and_judged():
    with pytest.raises(ax.MachineError, match=r"machine\.x is not a known key"):
        ax.Machine.from_toml("x = " + "[" * 60 + "]" * 60)
