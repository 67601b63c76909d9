"""Prices, and counts times prices: docs/energy.md section 5."""

import math

import numpy as np
import pytest

import accelsim as ax
from accelsim.simulator.counts import Access, AccessCount, Operation, OperationCount
from accelsim.simulator.energy import weigh
from tests.accelsim.simulator.layer_cases import one_layer, quantized_weights

TABLE = ax.EnergyTable()
NO_SIZES = ax.Memory()


@pytest.mark.parametrize(
    ("operation", "pj"),
    [
        # The published figures themselves, and for 8 bits what the interpolation makes of them.
        (Operation("add", 32, 32), 0.1),
        (Operation("multiply", 32, 32), 3.1),
        (Operation("float_add", 32, 32), 0.9),
        (Operation("float_multiply", 32, 32), 3.7),
        (Operation("add", 8, 8), 0.025),
        (Operation("multiply", 8, 8), 3.1 / 16),
        (Operation("multiply", 2, 8), 3.1 / 64),
        (Operation("add", 32, 16), 0.1),
        (Operation("compare", 8, 16), 0.05),
        (Operation("shift", 64, 64), 0.2),
        (Operation("divide", 32, 16), 1.55),
        # 2^13 entries of 8 bits are the 8 KiB of the table; 2^15 entries of 16 bits lie between 32 KiB and 1 MiB.
        (Operation("look_up", 13, 8), 10 * 8 / 64),
        (Operation("look_up", 15, 16), 20 * 5 ** (1 / 5) * 16 / 64),
    ],
)
def test_prices_of_operations(operation, pj):
    assert TABLE.operation_pj(operation) == pytest.approx(pj, rel=1e-12)


def test_prices_of_accesses():
    sized = ax.Memory(weight_buffer_bytes=8192, activation_buffer_bytes=32768, output_buffer_bytes=16384)
    for access, memory, pj in (
        (Access("register", "weight", 8), NO_SIZES, 0.025),
        (Access("dram", "bytes", 8), NO_SIZES, 1300 / 8),
        (Access("sram", "weight_read", 64), NO_SIZES, 100),
        (Access("sram", "weight_read", 64), sized, 10),
        (Access("sram", "activation_read", 32), sized, 10),
        (Access("sram", "output_write", 64), sized, math.sqrt(10 * 20)),  # halfway in the logarithm
        (Access("sram", "partial_sum_read", 64), sized, math.sqrt(10 * 20)),
        (Access("sram", "partial_sum_write", 64), sized, math.sqrt(10 * 20)),
    ):
        assert TABLE.access_pj(access, memory) == pytest.approx(pj, rel=1e-12), access
    assert TABLE.sram_pj(2048, 64) == pytest.approx(5, rel=1e-12)  # four times smaller than 8 KiB, by (16)
    assert TABLE.sram_pj(1 << 25, 64) == pytest.approx(500, rel=1e-12)
    assert ax.EnergyTable(sram_pj_per_64_bits=((1000.0, 8.0),)).sram_pj(7, 8) == 1


def test_energy_is_counts_times_prices():
    operations = OperationCount(widths=((Operation("add", 32, 32), 3), (Operation("multiply", 32, 32), 2)))
    accesses = AccessCount(
        (
            (Access("register", "weight", 32), 10),
            (Access("sram", "weight_read", 64), 4),
            (Access("dram", "bytes", 8), 8),
        )
    )
    energy = weigh(operations, accesses, TABLE, NO_SIZES)
    assert energy.arithmetic_pj == pytest.approx(0.3 + 6.2)
    assert energy.registers_pj == pytest.approx(1)
    assert energy.sram_pj == pytest.approx(400)
    assert energy.dram_pj == pytest.approx(1300)
    assert energy.total_pj == pytest.approx(0.3 + 6.2 + 1 + 400 + 1300)


def test_a_table_of_ones_counts_bits():
    """A user's own table: energy is then what the counts say, layer by layer and in all."""
    table = ax.EnergyTable(
        name="ones", add_pj_per_bit=0, multiply_pj_per_bit_squared=0, float_add_pj_per_bit=0,
        float_multiply_pj_per_bit_squared=0, register_pj_per_bit=1, sram_pj_per_64_bits=((1.0, 64.0),),
        dram_pj_per_bit=1,
    )  # fmt: skip
    x = ax.QuantizationParameters(0.5, 0, ax.IntegerFormat(8, True))
    network = one_layer(
        [("Gemm", ("a", "w"), "y", {})], {"a": ((5,), x)}, ("y", (2,), x), None,
        {"w": quantized_weights(np.ones((2, 5)), x)},
    )  # fmt: skip
    result = ax.simulate(network, np.ones((3, 5), np.float32), ax.Machine(rows=2, columns=2), energy=table)
    (record,) = result.layers
    assert record.energy.arithmetic_pj == 0
    for place, pj in (("register", "registers_pj"), ("sram", "sram_pj"), ("dram", "dram_pj")):
        assert getattr(result.energy, pj) == result.accesses.bits(place) > 0
    assert result.energy_pj == record.energy_pj == sum(map(result.accesses.bits, ("register", "sram", "dram")))
    dearer = ax.simulate(network, np.ones((3, 5), np.float32), ax.Machine(rows=2, columns=2))
    assert dearer.energy_pj != result.energy_pj
    assert dearer.operations.to_dict() == result.operations.to_dict()


def test_toml_there_and_back(tmp_path):
    table = ax.EnergyTable(name='a "b"', add_pj_per_bit=0.25, sram_pj_per_64_bits=((1.0, 2.0), (3.0, 4.0)))
    table.save(tmp_path / "t.toml")
    assert ax.EnergyTable.load(tmp_path / "t.toml") == table
    assert ax.EnergyTable.from_toml("") == TABLE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("add_pj_per_bit = -1", "add_pj_per_bit"),
        ("add_pj_per_bit = inf", "add_pj_per_bit"),
        ("joule = 1", "joule"),
        ("sram_pj_per_64_bits = []", "one or more"),
        ("sram_pj_per_64_bits = [[2.0, 1.0], [1.0, 1.0]]", "ascending"),
        ("sram_pj_per_64_bits = [[1.0, 0.0], [2.0, 1.0]]", "above 0"),
        ("add_pj_per_bit = ", "is not TOML"),
    ],
)
def test_wrong_tables_are_refused_in_one_line(text, message, tmp_path):
    (tmp_path / "t.toml").write_text(text)
    with pytest.raises(ax.DataError, match=message) as error:
        ax.EnergyTable.load(tmp_path / "t.toml")
    assert "t.toml" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(ax.DataError, match="cannot be read"):
        ax.EnergyTable.load(tmp_path / "none.toml")
