"""What a sweep varies, from words and from files."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import accelsim as ax
from accelsim.explore import make_axis, parse_axis, read_axes
from accelsim.explore.space import Space


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("accumulator_bits=14..17", "accumulator_bits", (14, 15, 16, 17)),
        ("rows=4..16..4", "rows", (4, 8, 12, 16)),
        ("rows=4,8..10, 32", "rows", (4, 8, 9, 10, 32)),
        ("overflow=wrap,saturate", "overflow", ("wrap", "saturate")),
        ('overflow="wrap"', "overflow", ("wrap",)),
        ("double_buffered=true,false", "double_buffered", (True, False)),
        ("memory.dram_bytes_per_cycle=0.5,4", "memory.dram_bytes_per_cycle", (0.5, 4)),
        ("requantizer.rounding=[\"floor\"],['half_up','half_away']", "requantizer.rounding",
         (["floor"], ["half_up", "half_away"])),
        ("weight_bits=4,8", "weight_bits", (4, 8)),
        ("machine.weight_bits=8", "machine.weight_bits", (8,)),
        ("ptq.per_channel=true", "per_channel", (True,)),
    ],
)  # fmt: skip
def test_axes_are_read_from_words(text, name, values):
    axis = parse_axis(text)
    assert (axis.name, axis.values) == (name, values)


@pytest.mark.parametrize(
    "text",
    ["rows", "rows=", "=4", "rows=5..4", "rows=4..8..0", "rows=4;8", "rows=[1", "no_such_field=3", "machine.x=1"],
)
def test_what_is_no_axis_is_refused_in_a_line(text):
    with pytest.raises(ax.DataError) as refused:
        parse_axis(text)
    assert "\n" not in str(refused.value)


def test_a_file_holds_lists_words_and_tables(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text(
        '[set]\naccumulator_bits = "14..16"\noverflow = ["wrap", "saturate"]\nrows = 4\n'
        '"requantizer.multiplier_bits" = [8, 32]\n[set.memory]\ndram_bytes_per_cycle = [1.5]\n'
    )
    axes, others = read_axes(path)
    assert {axis.name: axis.values for axis in axes} == {
        "accumulator_bits": (14, 15, 16),
        "overflow": ("wrap", "saturate"),
        "rows": (4,),
        "requantizer.multiplier_bits": (8, 32),
        "memory.dram_bytes_per_cycle": (1.5,),
    }
    assert others == {}
    path.write_text("rows = 4\n")
    with pytest.raises(ax.DataError, match=r"\[set\]"):
        read_axes(path)
    path.write_text("rows == 4\n")
    with pytest.raises(ax.DataError, match="not TOML"):
        read_axes(path)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (np.arange(4, 6), (4, 5)),
        ([np.int64(4), np.uint8(5)], (4, 5)),
        (range(4, 6), (4, 5)),
        (np.array([0.5, 1.5], dtype=np.float32), (0.5, 1.5)),
        ([np.bool_(True), None, "wrap"], (True, None, "wrap")),
        ([("half_up", "half_away"), np.array(["floor"])], (["half_up", "half_away"], ["floor"])),
        ([], ()),
    ],
)
def test_values_become_those_of_toml(values, wanted):
    axis = make_axis("rows", values)
    assert axis.values == wanted
    assert json.dumps(axis.values) == json.dumps(wanted)


@pytest.mark.parametrize(
    "values", ["16", "wrap", "", b"16", 4, np.int64(4), np.array(4), 4.5, True, None, {"a": 4}, {4}]
)
def test_what_is_no_sequence_of_values_is_refused(values):
    with pytest.raises(ax.DataError, match=r"^sweep field 'rows'[^\n]*, got "):
        make_axis("rows", values)


def test_a_text_is_refused_with_the_list_that_is_meant():
    with pytest.raises(ax.DataError, match=r"as in \['wrap'\], got 'wrap'"):
        make_axis("overflow", "wrap")


@pytest.mark.parametrize("value", [b"16", object(), [4 + 1j], ax.Machine()])
def test_values_that_toml_does_not_have_are_refused(value):
    with pytest.raises(ax.DataError, match="sweep field 'rows': values must be numbers, texts"):
        make_axis("rows", [value])


@pytest.mark.parametrize(
    ("value", "words"),
    [(10**5000, "too many digits"), (float("nan"), "finite, got nan"), (np.float32("inf"), "finite, got inf")],
    ids=["long", "nan", "infinite"],
)
def test_numbers_that_no_file_of_json_holds_are_refused(value, words):
    with pytest.raises(ax.DataError, match=words):
        make_axis("rows", [4, value])


HOSTILE = {"deep": "[" * 100_000, "closed": "[" * 90 + "]" * 90, "long": "9" * 5000, "hexadecimal": "0x" + "f" * 5000}


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_values_beyond_all_limits_are_refused_in_a_short_line(tmp_path, value):
    with pytest.raises(ax.DataError, match=r"^--set [^\n]{1,250}$"):
        parse_axis(f"rows={value}")
    path = tmp_path / "sweep.toml"
    for text in (f"rows = {value}", f"rows = [{value}]"):
        path.write_text(f"[set]\n{text}\n")
        with pytest.raises(ax.DataError, match=r"^sweep file [^\n]{1,250}: (nested more than|a number with too many)"):
            read_axes(path)


@pytest.mark.parametrize("text", ["rows=1..{}", "rows={}..1", "rows=1..9..{}", "{}", "rows={}x;"])
def test_ranges_beyond_all_limits_are_refused_in_a_short_line(text):
    with pytest.raises(ax.DataError, match=r"^--set [^\n]{1,250}$"):
        parse_axis(text.format("9" * 5000))


def space(*texts, machine=None):
    return Space(tuple(map(parse_axis, texts)), machine or ax.Machine(), ax.PTQConfig())


def test_the_grid_has_every_combination_once_and_in_order():
    points = list(space("rows=4,8", "overflow=wrap,saturate").grid())
    assert [tuple(point.values()) for point in points] == [(4, "wrap"), (4, "saturate"), (8, "wrap"), (8, "saturate")]


@given(st.integers(0, 1000), st.integers(1, 40))
def test_points_at_random_are_different_points_of_the_grid(seed, count):
    chosen = space("rows=1..5", "columns=1..4")
    drawn = chosen.at_random(count, seed)
    assert drawn == chosen.at_random(count, seed)
    assert len(drawn) == min(count, 20) == len({tuple(point.values()) for point in drawn})
    assert all(point in list(chosen.grid()) for point in drawn)


def test_settings_change_machine_and_quantization():
    chosen = space(
        "requantizer.multiplier_bits=16", "requantizer=tflite_single_rounding", "weight_bits=4", "machine.weight_bits=6"
    )
    (settings,) = chosen.grid()
    machine, config = chosen.apply(settings)
    assert machine == ax.Machine(weight_bits=6, requantizer=ax.Requantizer(multiplier_bits=16, rounding=("half_up",)))
    assert config == ax.PTQConfig(weight_bits=4)


def test_wrong_values_are_a_points_matter_and_wrong_fields_the_sweeps():
    chosen = space("accumulator_bits=3,8")
    with pytest.raises(ax.MachineError, match="at least 4, got 3"):
        chosen.apply({"accumulator_bits": 3})
    with pytest.raises(ax.DataError, match="given once"):
        space("rows=4", "machine.rows=8")
    with pytest.raises(ax.DataError, match="at least one value"):
        Space((make_axis("rows", ()),), ax.Machine(), ax.PTQConfig())
    with pytest.raises(ax.DataError, match="at most 1,000,000 points"):
        space("rows=1..4096", "columns=1..4096")
    with pytest.raises(ax.MachineError, match=r"machine\.rows is no table"):
        space("rows.x=4").apply({"rows.x": 4})
