"""The requantizer's parts and presets; its arithmetic is tested with the simulator."""

import pytest
from hypothesis import given

import accelsim as ax
from tests.accelsim.machine.machine_cases import PRESETS, TIE_RULES, requantizer_fields


def test_defaults():
    requantizer = ax.Requantizer()
    assert (requantizer.multiplier, requantizer.multiplier_bits) == ("integer", 32)
    assert (requantizer.rounding, requantizer.zero_point) == (("half_up", "half_away"), "outside")
    assert (requantizer.mantissa, requantizer.pre_shift_bits, requantizer.overflow) == ("nearest", 0, "saturate")
    assert set(ax.Requantizer.model_fields) == {
        "multiplier", "multiplier_bits", "mantissa", "rounding", "pre_shift_bits", "zero_point", "overflow",
    }  # fmt: skip


def parts_of(requantizer):
    fields = ("multiplier", "multiplier_bits", "mantissa", "rounding", "zero_point")
    return tuple(getattr(requantizer, field) for field in fields)


def test_presets_are_the_table_of_the_contract():
    assert ax.Requantizer.preset_names() == tuple(PRESETS)
    for name, parts in PRESETS.items():
        preset = ax.Requantizer.preset(name)
        assert parts_of(preset) == parts
        assert preset.pre_shift_bits == 0
        assert preset.overflow == ("wrap" if name == "ap_fixed" else "saturate")
        same = [
            other
            for other, known in PRESETS.items()
            if known == parts and (other == "ap_fixed") == (name == "ap_fixed")
        ]
        assert preset.name == same[0]
        assert ax.Machine(requantizer=name).requantizer == preset


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(ax.MachineError, match=rf"one of {', '.join(PRESETS)}, got 'gemmlowp'$"):
        ax.Requantizer.preset("gemmlowp")


@given(requantizer_fields())
def test_a_composition_is_named_after_its_preset_or_its_parts(fields):
    requantizer = ax.Requantizer(**fields)
    beyond = {"saturate": lambda name: name != "ap_fixed", "wrap": lambda name: name == "ap_fixed"}
    fits = beyond.get(requantizer.overflow, lambda name: False)
    known = [name for name, parts in PRESETS.items() if parts == parts_of(requantizer) and fits(name)]
    if known and requantizer.pre_shift_bits == 0:
        assert requantizer.name == known[0]
        return
    assert requantizer.name not in PRESETS
    for part in (requantizer.multiplier, *requantizer.rounding, requantizer.zero_point):
        assert part in requantizer.name
    assert requantizer.overflow == "saturate" or requantizer.overflow in requantizer.name
    if requantizer.multiplier == "integer":
        assert str(requantizer.multiplier_bits) in requantizer.name


@pytest.mark.parametrize("rule", TIE_RULES)
def test_a_single_rule_may_stand_without_a_sequence(rule):
    assert ax.Requantizer(rounding=rule) == ax.Requantizer(rounding=(rule,)) == ax.Requantizer(rounding=[rule])
    assert ax.Requantizer(rounding=rule).rounding == (rule,)


@pytest.mark.parametrize("kind", ["float32", "float64", "power_of_two"])
def test_what_only_an_integer_multiplier_has_is_refused_with_the_others(kind):
    with pytest.raises(ax.MachineError, match=rf"two roundings need multiplier = 'integer', got '{kind}'"):
        ax.Requantizer(multiplier=kind, rounding=("half_up", "half_up"))
    with pytest.raises(ax.MachineError, match=rf"multiplier_bits needs multiplier = 'integer', got '{kind}'"):
        ax.Requantizer(multiplier=kind, rounding="half_up", multiplier_bits=16)
    with pytest.raises(ax.MachineError, match=rf"mantissa needs multiplier = 'integer', got '{kind}'"):
        ax.Requantizer(multiplier=kind, rounding="half_up", mantissa="shortened")
    with pytest.raises(ax.MachineError, match=r"pre_shift_bits needs two roundings, got 'half_up' alone"):
        ax.Requantizer(multiplier=kind, rounding="half_up", pre_shift_bits=1)
    if kind.startswith("float"):
        with pytest.raises(ax.MachineError, match=rf"'wrap' needs an integer or power_of_two multiplier, got '{kind}'"):
            ax.Requantizer(multiplier=kind, rounding="half_up", overflow="wrap")
    # The default rounding has two rules; a kind that takes one needs its rule said.
    with pytest.raises(ax.MachineError, match="name one rule"):
        ax.Requantizer(multiplier=kind)


@pytest.mark.parametrize(
    ("fields", "path", "value"),
    [
        ({"multiplier": "float16"}, "requantizer.multiplier", "'float16'"),
        ({"multiplier_bits": 7}, "requantizer.multiplier_bits", "7"),
        ({"multiplier_bits": 33}, "requantizer.multiplier_bits", "33"),
        ({"rounding": "nearest"}, "requantizer.rounding", "'nearest'"),
        ({"rounding": ("floor", "nearest")}, "requantizer.rounding.1", "'nearest'"),
        ({"rounding": ()}, "requantizer.rounding", "()"),
        ({"rounding": ("floor",) * 3}, "requantizer.rounding", "('floor', 'floor', 'floor')"),
        ({"zero_point": "folded"}, "requantizer.zero_point", "'folded'"),
        ({"overflow": "clamp"}, "requantizer.overflow", "'clamp'"),
    ],
)
def test_wrong_parts_are_refused_with_path_and_value(fields, path, value):
    with pytest.raises(ax.MachineError) as refusal:
        ax.Requantizer(**fields)
    assert str(refusal.value).startswith(path)
    assert str(refusal.value).endswith(f"got {value}")
    with pytest.raises(ax.MachineError, match=path):
        ax.Machine(requantizer=fields)
