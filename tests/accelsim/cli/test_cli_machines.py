import json

import pytest

from accelsim.machine import Machine

from .conftest import assert_refused


def test_the_table_has_every_preset_with_its_fields(accelsim):
    result = accelsim("machines")
    assert result.exit_code == 0
    lines = {line.split()[0]: line for line in result.stdout.splitlines()[2:]}
    assert sorted(lines) == list(Machine.preset_names())
    for name, line in lines.items():
        machine = Machine.preset(name)
        cells = line.split()
        for value in (machine.rows, machine.columns, machine.dataflow, machine.overflow, machine.requantizer.name):
            assert str(value) in cells
        assert f"{machine.accumulator_bits} bits" in line


@pytest.mark.parametrize("name", Machine.preset_names())
def test_a_machine_is_printed_as_toml_that_makes_it_again(accelsim, name):
    result = accelsim("machines", name)
    assert result.exit_code == 0
    assert Machine.from_toml(result.stdout) == Machine.preset(name)


def test_json_holds_all_fields(accelsim):
    everything = json.loads(accelsim("machines", "--json").stdout)
    assert {name: Machine(**_given(fields)) for name, fields in everything.items()} == {
        name: Machine.preset(name) for name in Machine.preset_names()
    }
    one = json.loads(accelsim("machines", "paper_4x4", "--json").stdout)
    assert one == everything["paper_4x4"]


def _given(fields):
    return {key: value for key, value in fields.items() if value is not None}


def test_a_file_and_settings_make_a_machine(accelsim, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('rows = 3\noverflow = "saturate"\n')
    result = accelsim("machines", path, "--set", "columns = 5", "--set", "memory.weight_buffer_bytes=4096")
    assert result.exit_code == 0
    expected = Machine(rows=3, columns=5, overflow="saturate", memory={"weight_buffer_bytes": 4096})
    assert Machine.from_toml(result.stdout) == expected


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        (["dataflow=broadcast"], {"dataflow": "broadcast"}),
        (['dataflow="broadcast"'], {"dataflow": "broadcast"}),
        (["double_buffered=true"], {"double_buffered": True}),
        (["accumulator_bits=0x10"], {"accumulator_bits": 16}),
        (["memory.dram_bytes_per_cycle=1.5"], {"memory": {"dram_bytes_per_cycle": 1.5}}),
        (["requantizer=onnxruntime"], {"requantizer": "onnxruntime"}),
        (
            ["requantizer=tflite_single_rounding", "requantizer.multiplier_bits=16"],
            {"requantizer": {"multiplier": "integer", "multiplier_bits": 16, "rounding": ["half_up"]}},
        ),
        # neither is valid alone: two roundings need an integer multiplier
        (
            ["requantizer.multiplier=float64", 'requantizer.rounding=["half_away"]'],
            {"requantizer": "float64_half_away"},
        ),
    ],
)
def test_settings_are_toml_and_taken_together(accelsim, settings, changes):
    result = accelsim("machines", "edge_16x16", *(part for setting in settings for part in ("--set", setting)))
    assert result.exit_code == 0, result.stderr
    assert Machine.from_toml(result.stdout) == Machine.preset("edge_16x16").replace(**changes)


@pytest.mark.parametrize(
    ("setting", "fragments"),
    [
        ("rows", ["FIELD=VALUE", "'rows'"]),
        ("rows=", ["FIELD=VALUE"]),
        ("=3", ["FIELD=VALUE"]),
        ("rows.=3", ["FIELD=VALUE"]),
        ("rows=4 4", ["must be one of TOML", "'4 4'"]),
        ("rows=4\ncolumns=4", ["must be one of TOML"]),
        ("rows=many", ["machine.rows", "'many'"]),
        ("rows=0", ["machine.rows must be at least 1, got 0"]),
        ("row=4", ["machine.row is not a known key"]),
        ("rows.size=4", ["machine.rows is no table", "'rows.size'"]),
        ("memory.size=4", ["machine.memory.size is not a known key"]),
        ("memory.size.deep=4", ["machine.memory.size is not a known key"]),
        ("requantizer=nearest", ["requantizer preset must be one of tflite", "'nearest'"]),
        ("requantizer.bits=4", ["requantizer.bits is not a known key"]),
        pytest.param(
            "rows=" + "[" * 100_000,
            ["--set rows: the value cannot be read: nested more than 64 levels deep, got '[[["],
            id="deep",
        ),
        pytest.param(
            "rows=" + "9" * 5000,
            ["--set rows: the value cannot be read: a number with too many digits, got '999"],
            id="long",
        ),
        pytest.param(
            "rows=" + "0x" + "9" * 5000,
            ["--set rows: the value cannot be read: a number with too many digits"],
            id="hexadecimal",
        ),
    ],
)
def test_a_wrong_setting_is_refused(accelsim, setting, fragments):
    assert_refused(accelsim("machines", "edge_16x16", "--set", setting), *fragments)


def test_a_wrong_machine_is_refused(accelsim, tmp_path):
    assert_refused(accelsim("machines", "edge"), "edge_16x16, paper_4x4, tpu_like_128x128", ".toml", "'edge'")
    assert_refused(accelsim("machines", tmp_path / "missing.toml"), "missing.toml", "cannot be read")
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("rows = [\n")
    assert_refused(accelsim("machines", wrong), "wrong.toml", "is not TOML")
    wrong.write_text("rows = 4\nrowss = 4\n")
    assert_refused(accelsim("machines", wrong), "wrong.toml", "machine.rowss is not a known key")
    assert_refused(accelsim("machines", "--set", "rows=4"), "name it")
