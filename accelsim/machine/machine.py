"""The machine: a frozen description of the hardware, with TOML in and out."""

from __future__ import annotations

import os
from importlib import resources
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from accelsim.errors import MachineError
from accelsim.files import write_whole
from accelsim.machine.drawing import grid_svg
from accelsim.machine.requantizer import Requantizer, TieRule
from accelsim.validation import Configuration

Dataflow = Literal["broadcast", "output_stationary", "weight_stationary", "input_stationary"]
Overflow = Literal["wrap", "saturate", "error"]

MIN_REGISTER_BITS, MAX_REGISTER_BITS = 4, 64
RegisterBits = Annotated[int, Field(ge=MIN_REGISTER_BITS, le=MAX_REGISTER_BITS)]
OperandBits = Annotated[int, Field(ge=1, le=16)]


def _preset_by_name(value: Any) -> Any:
    """Let ``requantizer = "tflite"`` stand for the preset."""
    return Requantizer.preset(value) if isinstance(value, str) else value


class Memory(Configuration):
    """Sizes and bandwidth of the memories around the grid: docs/timing.md section 5.

    Parameters
    ----------
    weight_buffer_bytes, activation_buffer_bytes, output_buffer_bytes : int or None
        Size of each on-chip buffer; None is as large as needed.
    dram_bytes_per_cycle : float or None
        Bandwidth to DRAM, 1e-6..1e9; None never stalls.
    """

    thing = "machine.memory"
    error = MachineError

    weight_buffer_bytes: Annotated[int, Field(ge=1)] | None = None
    """Size of the weight SRAM."""
    activation_buffer_bytes: Annotated[int, Field(ge=1)] | None = None
    """Size of the input activation SRAM."""
    output_buffer_bytes: Annotated[int, Field(ge=1)] | None = None
    """Size of the output SRAM."""
    dram_bytes_per_cycle: Annotated[float, Field(ge=1e-6, le=1e9)] | None = None
    """Bandwidth to DRAM."""


class Machine(Configuration):
    """A fixed-point accelerator: a grid of processing elements and what is around it.

    Every field has a default; a Machine that exists is valid. The contracts behind the fields are docs/numerics.md and
    docs/timing.md.

    Raises
    ------
    MachineError
        One line naming each wrong field, its rule and the value.

    Examples
    --------
    >>> Machine(rows=4, columns=4, dataflow="broadcast", accumulator_bits=20, overflow="saturate").rows
    4
    """

    thing = "machine"
    file_kind = "machine file"
    error = MachineError

    rows: int = Field(default=16, ge=1, le=4096)
    """Rows of PEs."""
    columns: int = Field(default=16, ge=1, le=4096)
    """Columns of PEs."""
    dataflow: Dataflow = "output_stationary"
    """What stays in a PE and what moves."""
    weight_bits: OperandBits | None = None
    """Widest weight that a PE multiplies; None takes the width that the program's weights have."""
    activation_bits: OperandBits | None = None
    """Widest activation that a PE multiplies; None takes the width that the program's activations have."""
    accumulator_bits: RegisterBits = 32
    """Width of an accumulator."""
    partial_sum_bits: RegisterBits | None = None
    """Width of the partial sums that move down a weight- or input-stationary grid; None is wide enough."""
    adder_tree_bits: RegisterBits | None = None
    """Width at the output of a broadcast grid's adder trees; None is wide enough."""
    overflow: Overflow = "wrap"
    """What a register does with a value that does not fit."""
    product_shift_bits: int = Field(default=0, ge=0, le=24)
    """Low bits of every product that a PE rounds away before it adds."""
    product_rounding: TieRule = "floor"
    """How it rounds them."""
    zero_point: Literal["folded", "at_input"] = "folded"
    """Whether zero points are folded into the bias or subtracted before the PEs multiply."""
    reduction_order: Literal["channel_first", "spatial_first"] = "channel_first"
    """Order of a convolution's reduction."""
    requantizer: Annotated[Requantizer, BeforeValidator(_preset_by_name)] = Requantizer()
    """From accumulator to code; a preset's name stands for the preset."""
    pe_latency_cycles: int = Field(default=1, ge=1, le=64)
    """Cycles from the operands of a PE to its adder: 1 has no register behind the multiplier."""
    double_buffered: bool = False
    """Whether loads and drains hide behind the neighbouring fold's multiplications."""
    ragged_folds: Literal["used", "full"] = "used"
    """Whether a ragged fold costs the rows and columns in use or the whole grid."""
    vector_lanes: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Element operations per cycle of the unit that runs layers without multiplications; None counts no cycles."""
    memory: Memory = Memory()
    """Buffers and bandwidth."""

    @classmethod
    def preset(cls, name: str) -> Machine:
        """Return a machine that ships with the package.

        Parameters
        ----------
        name : str
            One of `preset_names`.

        Raises
        ------
        MachineError
            When there is no such preset.
        """
        if name not in cls.preset_names():
            raise MachineError(f"machine preset must be one of {', '.join(cls.preset_names())}, got {name!r}")
        return cls.from_toml((_preset_folder() / f"{name}.toml").read_text(encoding="utf-8"), name)

    @staticmethod
    def preset_names() -> tuple[str, ...]:
        """Return the names that `preset` takes, sorted."""
        return tuple(sorted(entry.name[:-5] for entry in _preset_folder().iterdir() if entry.name.endswith(".toml")))

    def to_toml(self) -> str:
        """Return the machine as TOML with every field that has a value; `from_toml` makes it again."""
        fields = self.model_dump(mode="json", exclude_none=True)
        tables = {key: fields.pop(key) for key in ("requantizer", "memory")}
        lines = [f"{key} = {_toml_value(value)}" for key, value in fields.items()]
        for name, table in tables.items():
            if table:
                lines += ["", f"[{name}]", *(f"{key} = {_toml_value(value)}" for key, value in table.items())]
        return "\n".join(lines) + "\n"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the machine as a TOML file, whole or not at all; raise DataError where it cannot be written."""
        write_whole(path, self.to_toml().encode())

    def replace(self, **changes: Any) -> Machine:
        """Return the machine with some fields changed, validated anew."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**{**fields, **changes})

    def _repr_html_(self) -> str:
        return grid_svg(self) + super()._repr_html_()

    @property
    def num_pes(self) -> int:
        """Number of processing elements."""
        return self.rows * self.columns


def _preset_folder() -> Any:
    return resources.files("accelsim.machine") / "presets"


def _toml_value(value: Any) -> str:
    """Spell a field's value in TOML; fields are strings of known words, numbers, booleans and lists of words."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    return repr(value)
