"""An energy proxy: counts times a table that can be replaced. docs/energy.md section 5."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass
from typing import Annotated

from pydantic import Field, model_validator

from accelsim.errors import DataError
from accelsim.machine import Memory
from accelsim.simulator.counts import Access, AccessCount, Operation, OperationCount
from accelsim.tables import html_table
from accelsim.validation import Configuration

Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_SRAM_WIDTH = 64


class EnergyTable(Configuration):
    """Prices in picojoule; the defaults are for a 45 nm process at 0.9 V, docs/energy.md (13) to (17).

    Raises
    ------
    DataError
        One line naming each wrong field, its rule and the value.

    Examples
    --------
    >>> EnergyTable(dram_pj_per_bit=5.0).operation_pj(Operation("add", 32, 16))
    0.1
    """

    thing = "energy table"
    file_kind = "energy table"
    error = DataError

    name: str = "horowitz_45nm"
    """What the table is called in reports."""
    add_pj_per_bit: Price = 0.1 / 32
    """An addition, comparison or shift, per bit of its width."""
    multiply_pj_per_bit_squared: Price = 3.1 / 32**2
    """A multiplication or division, per product of the two widths."""
    float_add_pj_per_bit: Price = 0.9 / 32
    """A floating-point addition or rounding, per bit."""
    float_multiply_pj_per_bit_squared: Price = 3.7 / 32**2
    """A floating-point multiplication, per product of the two widths."""
    register_pj_per_bit: Price = 0.1 / 32
    """A write of a register with the read that follows it, per bit."""
    sram_pj_per_64_bits: tuple[tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], Price], ...] = (
        (8192.0, 10.0),
        (32768.0, 20.0),
        (1048576.0, 100.0),
    )
    """Size in bytes and price of an access of 64 bits, by ascending size; in between by a power law."""
    unsized_buffer_bytes: Annotated[int, Field(ge=1)] = 1048576
    """Size that a buffer of a machine is priced at where the machine gives none."""
    dram_pj_per_bit: Price = 1300.0 / 64
    """DRAM, per bit read or written."""

    @model_validator(mode="after")
    def _sizes_ascend(self) -> EnergyTable:
        sizes = [size for size, _ in self.sram_pj_per_64_bits]
        if not sizes or sizes != sorted(set(sizes)):
            raise ValueError(
                f"sram_pj_per_64_bits must be one or more [bytes, pJ] by ascending size, got sizes {sizes}"
            )
        if len(sizes) > 1 and any(price <= 0 for _, price in self.sram_pj_per_64_bits):
            raise ValueError("sram_pj_per_64_bits needs prices above 0 where there are several; give one size instead")
        return self

    def to_toml(self) -> str:
        """Return the table as TOML with every field; `from_toml` makes it again."""
        # JSON's strings, numbers and lists of them are TOML's, with DEL as the one character that TOML wants escaped.
        fields = self.model_dump(mode="json")
        return "".join(f"{key} = {json.dumps(value)}\n".replace("\x7f", "\\u007f") for key, value in fields.items())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table as a TOML file, whole or not at all."""
        from accelsim.files import write_whole

        write_whole(path, self.to_toml().encode())

    def operation_pj(self, operation: Operation) -> float:
        """Return the price of one operation, docs/energy.md (13) and (14)."""
        a, b = operation.a_bits, operation.b_bits
        match operation.kind:
            case "add" | "compare" | "shift":
                return self.add_pj_per_bit * max(a, b)
            case "multiply" | "divide":
                return self.multiply_pj_per_bit_squared * a * b
            case "float_add":
                return self.float_add_pj_per_bit * max(a, b)
            case "float_multiply":
                return self.float_multiply_pj_per_bit_squared * a * b
            case "look_up":
                return self.sram_pj(2**a * b / 8, b)

    def sram_pj(self, size_bytes: float, bits: int) -> float:
        """Return the price of an access of some bits to an SRAM of some size, docs/energy.md (16)."""
        points = self.sram_pj_per_64_bits
        if len(points) == 1:
            return points[0][1] * bits / _SRAM_WIDTH
        index = 1
        while index + 1 < len(points) and points[index][0] < size_bytes:
            index += 1
        (low, low_pj), (high, high_pj) = points[index - 1], points[index]
        share = math.log(size_bytes / low) / math.log(high / low)
        per_64_bits: float = low_pj * (high_pj / low_pj) ** share
        return per_64_bits * bits / _SRAM_WIDTH

    def access_pj(self, access: Access, memory: Memory) -> float:
        """Return the price of one access, docs/energy.md (15) to (17)."""
        match access.place:
            case "register":
                return self.register_pj_per_bit * access.bits
            case "dram":
                return self.dram_pj_per_bit * access.bits
            case "sram":
                sizes = {
                    "weight_read": memory.weight_buffer_bytes,
                    "activation_read": memory.activation_buffer_bytes,
                }
                size = sizes.get(access.what, memory.output_buffer_bytes)
                return self.sram_pj(self.unsized_buffer_bytes if size is None else size, access.bits)


@dataclass(frozen=True)
class Energy:
    """Energy proxy by part, in picojoule.

    Parameters
    ----------
    arithmetic_pj : float
        Operations.
    registers_pj, sram_pj, dram_pj : float
        Accesses by place.
    """

    arithmetic_pj: float = 0.0
    registers_pj: float = 0.0
    sram_pj: float = 0.0
    dram_pj: float = 0.0

    @property
    def total_pj(self) -> float:
        """All parts."""
        return self.arithmetic_pj + self.registers_pj + self.sram_pj + self.dram_pj

    def __add__(self, other: Energy) -> Energy:
        return Energy(
            self.arithmetic_pj + other.arithmetic_pj,
            self.registers_pj + other.registers_pj,
            self.sram_pj + other.sram_pj,
            self.dram_pj + other.dram_pj,
        )

    def to_dict(self) -> dict[str, float]:
        """Return the parts and their total, for JSON."""
        return {**asdict(self), "total_pj": self.total_pj}

    def _repr_html_(self) -> str:
        parts = self.to_dict()
        header = [name.removesuffix("_pj") + " nJ" for name in parts]
        return html_table(header, [[f"{part / 1e3:,.3f}" for part in parts.values()]], "energy proxy")


def weigh(operations: OperationCount, accesses: AccessCount, table: EnergyTable, memory: Memory) -> Energy:
    """Multiply counts by prices, docs/energy.md (12).

    Parameters
    ----------
    operations : OperationCount
        With its operations by width.
    accesses : AccessCount
        Of registers, SRAM and DRAM.
    table : EnergyTable
        Prices.
    memory : Memory
        Sizes of the buffers.

    Returns
    -------
    Energy
        By part.
    """
    places = {"register": 0.0, "sram": 0.0, "dram": 0.0}
    for access, count in accesses.kinds:
        places[access.place] += count * table.access_pj(access, memory)
    arithmetic = sum(count * table.operation_pj(operation) for operation, count in operations.widths)
    return Energy(arithmetic, places["register"], places["sram"], places["dram"])
