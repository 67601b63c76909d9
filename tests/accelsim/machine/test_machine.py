"""The machine's fields: defaults, ranges, messages; a machine that exists is valid and stays as it is."""

import pytest
from hypothesis import given

import accelsim as ax
from tests.accelsim.machine.machine_cases import FIELDS, MEMORY_FIELDS, machine_fields, values_of


def test_every_field_has_the_default_of_the_documents():
    machine = ax.Machine()
    assert set(ax.Machine.model_fields) == {*FIELDS, "requantizer", "memory"}
    assert {name: getattr(machine, name) for name in FIELDS} == {name: row[0] for name, row in FIELDS.items()}
    assert machine.requantizer == ax.Requantizer.preset("tflite")
    assert set(ax.Memory.model_fields) == set(MEMORY_FIELDS)
    assert set(values_of(machine.memory).values()) == {None}
    assert machine == ax.Machine.preset("edge_16x16")


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, row in FIELDS.items() for value in row[1]])
def test_values_at_the_ends_of_the_range_are_taken(name, value):
    machine = ax.Machine(**{name: value})
    assert getattr(machine, name) == value
    changed = {path for path, kept in values_of(machine).items() if kept != values_of(ax.Machine())[path]}
    assert changed <= {name}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, row in FIELDS.items() for value in row[2]])
def test_values_outside_are_refused_with_field_and_value(name, value):
    with pytest.raises(ax.MachineError) as refusal:
        ax.Machine(**{name: value})
    message = str(refusal.value)
    assert message.startswith(f"machine.{name}")
    assert message.endswith(f"got {value!r}")
    assert "\n" not in message


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, row in MEMORY_FIELDS.items() for value in row[1]])
def test_memory_is_refused_with_its_path(name, value):
    with pytest.raises(ax.MachineError, match=rf"^machine\.memory\.{name} must be .*got {value!r}$"):
        ax.Machine(memory={name: value})
    with pytest.raises(ax.MachineError, match=rf"^machine\.memory\.{name} must be .*got {value!r}$"):
        ax.Memory(**{name: value})


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, row in MEMORY_FIELDS.items() for value in row[0]])
def test_memory_takes_every_positive_size(name, value):
    machine = ax.Machine(memory={name: value})
    assert machine.memory == ax.Memory(**{name: value})
    assert getattr(machine.memory, name) == value


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rows": 0}, "machine.rows must be at least 1, got 0"),
        ({"rows": True}, "machine.rows: a number is needed, got True"),
        ({"accumulator_bits": "20"}, "machine.accumulator_bits: a number is needed, got '20'"),
        ({"memory": {"dram_bytes_per_cycle": "8"}}, "machine.memory.dram_bytes_per_cycle: a number is needed, got '8'"),
        ({"columns": 5000}, "machine.columns must be at most 4096, got 5000"),
        ({"accumulator_bits": 3}, "machine.accumulator_bits must be at least 4, got 3"),
        (
            {"dataflow": "systolic"},
            "machine.dataflow must be one of 'broadcast', 'output_stationary', 'weight_stationary' or "
            "'input_stationary', got 'systolic'",
        ),
        ({"memory": {"dram_bytes_per_cycle": 0}}, "machine.memory.dram_bytes_per_cycle must be at least 1e-06, got 0"),
        ({"rows": 2.5}, "machine.rows: input should be a valid integer, got a number with a fractional part, got 2.5"),
        ({"rows": None}, "machine.rows: input should be a valid integer, got None"),
        ({"rowz": 4}, "machine.rowz is not a known key; remove it or correct its spelling"),
        (
            {"memory": {"weights": 4}},
            "machine.memory.weights is not a known key; remove it or correct its spelling",
        ),
        (
            {"requantizer": {"roundings": "floor"}},
            "requantizer.roundings is not a known key; remove it or correct its spelling",
        ),
        (
            {"requantizer": "gemmlowp"},
            f"requantizer preset must be one of {', '.join(ax.Requantizer.preset_names())}, got 'gemmlowp'",
        ),
        (
            {"rows": 0, "columns": 0},
            "machine.rows must be at least 1, got 0; machine.columns must be at least 1, got 0",
        ),
    ],
)
def test_messages_name_path_rule_and_value(fields, message):
    with pytest.raises(ax.MachineError) as refusal:
        ax.Machine(**fields)
    # An inner object's path may stand with or without the outer name; the rest is word for word.
    assert str(refusal.value).removeprefix("machine.") == message.removeprefix("machine.")


def test_a_machine_cannot_be_changed():
    machine = ax.Machine(requantizer="onnxruntime", memory={"weight_buffer_bytes": 4096})
    before = values_of(machine)
    for part, name in ((machine, "rows"), (machine.memory, "weight_buffer_bytes"), (machine.requantizer, "rounding")):
        with pytest.raises(ValueError, match="frozen"):
            setattr(part, name, 1)
        with pytest.raises(ValueError, match="frozen"):
            delattr(part, name)
    with pytest.raises(ValueError, match=r"frozen|no field"):
        machine.rowz = 1
    assert isinstance(machine.requantizer.rounding, tuple)
    assert values_of(machine) == before


@given(machine_fields())
def test_equal_machines_are_equal_and_hash_alike(fields):
    machine, twin = ax.Machine(**fields), ax.Machine(**fields)
    assert machine == twin
    assert hash(machine) == hash(twin)
    assert machine != machine.replace(rows=machine.rows % 4096 + 1)


@given(machine_fields(), machine_fields())
def test_replace_changes_what_it_is_told_and_nothing_else(fields, changes):
    machine = ax.Machine(**fields)
    before = values_of(machine)
    changed = machine.replace(**changes)
    assert changed == ax.Machine(**{**fields, **changes})
    assert values_of(machine) == before
    assert machine.replace() == machine


@pytest.mark.parametrize(
    "changes", [{"rows": 0}, {"rowz": 1}, {"overflow": "clip"}, {"requantizer": "nope"}, {"memory": {"weights": 1}}]
)
def test_replace_validates(changes):
    with pytest.raises(ax.MachineError, match=next(iter(changes))):
        ax.Machine().replace(**changes)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (4, 4), (3, 5), (4096, 4096)])
def test_the_number_of_pes(rows, columns):
    assert ax.Machine(rows=rows, columns=columns).num_pes == rows * columns
