"""What a sweep varies: fields of the machine and of the quantization, and their values."""

from __future__ import annotations

import itertools
import os
import random
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, prod
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from accelsim.errors import DataError, MachineError
from accelsim.machine import Machine, Requantizer
from accelsim.ptq.config import PTQConfig
from accelsim.toml import MAX_INTEGER_BITS, TomlLimitError, read_toml, shortened

MAX_POINTS = 1_000_000
"""Points of a grid."""

_MAX_DIGITS = 19
"""Of a range's bounds."""

_BARE_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*")
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(\d+))?")
_ITEM = re.compile(r"""(?:"[^"]*+"|'[^']*+'|\[[^\]]*+\]|[^,\["'])++""")
_ITEMS = re.compile(rf"{_ITEM.pattern}(?:,{_ITEM.pattern})*+")
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[^=,\s]+)*")

Target = Literal["machine", "ptq"]


class Axis(NamedTuple):
    """One field and the values that it takes.

    Parameters
    ----------
    target : {"machine", "ptq"}
        Whose field it is.
    path : tuple of str
        The field, with the tables that it lies in.
    values : tuple
        As TOML has them.
    """

    target: Target
    path: tuple[str, ...]
    values: tuple[Any, ...]

    @property
    def name(self) -> str:
        """The field as it is shown; ``machine.`` in front where PTQConfig has a field of that name too."""
        field = ".".join(self.path)
        both = self.path[0] in Machine.model_fields and self.path[0] in PTQConfig.model_fields
        return f"machine.{field}" if both and self.target == "machine" else field


@dataclass(frozen=True)
class Space:
    """Every combination of the axes' values, on top of a machine and a quantization.

    Parameters
    ----------
    axes : tuple of Axis
        What varies.
    machine : Machine
        All other fields of the machine.
    config : PTQConfig
        All other choices of the quantization.

    Raises
    ------
    DataError
        When an axis has no values, or two axes are the same field.
    """

    axes: tuple[Axis, ...]
    machine: Machine
    config: PTQConfig

    def __post_init__(self) -> None:
        names = [axis.name for axis in self.axes]
        for axis in self.axes:
            if names.count(axis.name) > 1:
                raise DataError(f"sweep field {axis.name} must be given once, got it {names.count(axis.name)} times")
            if not axis.values:
                raise DataError(f"sweep field {axis.name} must have at least one value, got none")
        if len(self) > MAX_POINTS:
            raise DataError(f"a grid must have at most {MAX_POINTS:,} points, got {len(self):,}; sample it at random")

    def __len__(self) -> int:
        return prod(len(axis.values) for axis in self.axes)

    def grid(self) -> Iterator[dict[str, Any]]:
        """Yield the settings of every point, the last axis fastest."""
        for values in itertools.product(*(axis.values for axis in self.axes)):
            yield dict(zip((axis.name for axis in self.axes), values, strict=True))

    def at_random(self, count: int, seed: int) -> list[dict[str, Any]]:
        """Return the settings of some different points of the grid, drawn at random."""
        chosen = random.Random(seed).sample(range(len(self)), min(count, len(self)))
        return [self._numbered(number) for number in chosen]

    def _numbered(self, number: int) -> dict[str, Any]:
        settings = {}
        for axis in reversed(self.axes):
            number, index = divmod(number, len(axis.values))
            settings[axis.name] = axis.values[index]
        return {axis.name: settings[axis.name] for axis in self.axes}

    def apply(self, settings: Mapping[str, Any]) -> tuple[Machine, PTQConfig]:
        """Return the machine and the quantization of a point.

        Raises
        ------
        AccelsimError
            When they are not valid.
        """
        fields: dict[Target, dict[str, Any]] = {
            "machine": self.machine.model_dump(mode="json", exclude_none=True),
            "ptq": self.config.model_dump(mode="json", exclude_none=True),
        }
        changed = {axis.target for axis in self.axes}
        for axis in sorted(self.axes, key=lambda axis: len(axis.path)):  # a table before the fields in it
            _set(fields[axis.target], axis.target, axis.path, settings[axis.name])
        machine = Machine(**fields["machine"]) if "machine" in changed else self.machine
        return machine, PTQConfig(**fields["ptq"]) if "ptq" in changed else self.config


def make_axis(name: str, values: Sequence[Any]) -> Axis:
    """Return the axis of a field.

    Parameters
    ----------
    name : str
        A field of the machine or of PTQConfig, with a dot inside a table: ``memory.dram_bytes_per_cycle``. What both
        have (``weight_bits``, ``activation_bits``) is PTQConfig's; ``machine.`` or ``ptq.`` in front decides otherwise.
    values : sequence or array
        Values, of the types of TOML or None; those of numpy are turned into Python's.

    Raises
    ------
    DataError
        When there is no such field, or the values are none: a text is no sequence of values.
    """
    if not isinstance(name, str):
        raise DataError(f"sweep field must be a text, got {name!r}")
    path = tuple(name.split("."))
    target: Target | None = None
    if path[0] in ("machine", "ptq") and len(path) > 1:
        target, path = ("machine" if path[0] == "machine" else "ptq"), path[1:]
    known: dict[Target, Any] = {"ptq": PTQConfig.model_fields, "machine": Machine.model_fields}
    for owner in (target,) if target is not None else ("ptq", "machine"):
        if path[0] in known[owner]:
            return Axis(owner, path, _checked_values(name, values))
    where = "the machine or the quantization" if target is None else {"machine": "the machine"}.get(target, "PTQConfig")
    names = sorted(field for owner in known if target in (None, owner) for field in known[owner])
    raise DataError(f"sweep field {name!r} must be one of {where}: {', '.join(dict.fromkeys(names))}")


def _checked_values(name: str, values: Any) -> tuple[Any, ...]:
    """Return a sequence of values as Python's own."""
    plain = _plain(name, values)
    if isinstance(plain, list):
        return tuple(plain)
    raise DataError(f"sweep field {name!r} must have a sequence of values, as in [{plain!r}], got {plain!r}")


def _plain(name: str, value: Any) -> Any:
    """Return a value as TOML could have it; sequences as lists."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
        raise DataError(f"sweep field {name!r}: a value is a number with too many digits")
    if isinstance(value, float) and not isfinite(value):
        raise DataError(f"sweep field {name!r}: values must be finite, got {value!r}")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(name, inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [_plain(name, inner) for inner in value]
    raise DataError(f"sweep field {name!r}: values must be numbers, texts, truth values or lists, got {value!r}")


def parse_axis(setting: str) -> Axis:
    """Return the axis of ``FIELD=VALUES``.

    Parameters
    ----------
    setting : str
        Values with commas between them, each a value of TOML, a bare word, or a range of whole numbers ``14..32`` (both
        ends included; ``8..32..4`` in steps).

    Raises
    ------
    DataError
        When it is not of this form.
    """
    name, equals, text = (part.strip() for part in setting.partition("="))
    if not (equals and text and _FIELD.fullmatch(name)):
        raise DataError(f"--set must be FIELD=VALUES, as in accumulator_bits=14..32, got {shortened(setting)}")
    if not _ITEMS.fullmatch(text):
        raise DataError(
            f"--set {name}: values must stand between single commas, brackets and quotes closed, got {shortened(text)}"
        )
    return make_axis(name, [value for item in _ITEM.findall(text) for value in _values(name, item.strip())])


def read_axes(path: str | os.PathLike[str]) -> tuple[list[Axis], dict[str, Any]]:
    """Read a sweep from a TOML file.

    Parameters
    ----------
    path : path
        A table ``[set]`` of fields, each with a list of values, one value, or a text as in `parse_axis`; a field
        inside a table is written with a quoted key, ``"memory.dram_bytes_per_cycle" = [4, 8]``. Other keys are options.

    Returns
    -------
    tuple
        The axes, and the file's other keys.

    Raises
    ------
    DataError
        When the file cannot be read, is not TOML, or has no such table.
    """
    where = f"sweep file {os.fspath(path)!r}"
    try:
        record = read_toml(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, TomlLimitError) as failure:
        raise DataError(f"{where} cannot be read: {failure}") from None
    except tomllib.TOMLDecodeError as failure:
        raise DataError(f"{where} is not TOML: {failure}") from None
    table = record.pop("set", None)
    if not isinstance(table, dict):
        raise DataError(f"{where} must have a table [set] of fields and their values")
    axes = []
    for name, given in _flat(table):
        if isinstance(given, str):
            axes.append(parse_axis(f"{name}={given}"))
        else:
            axes.append(make_axis(name, given if isinstance(given, list) else [given]))
    return axes, record


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the fields of nested tables with dots in their names."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _values(name: str, item: str) -> list[Any]:
    """Return the value or values of one item."""
    if match := _RANGE.fullmatch(item):
        bounds = [match[1], match[2], match[3] or "1"]
        first, last, step = map(int, bounds) if len(max(bounds, key=len)) <= _MAX_DIGITS else (0, 0, 0)
        if last < first or step < 1 or last - first >= MAX_POINTS * step:
            raise DataError(
                f"--set {name}: a range must be LEAST..GREATEST or LEAST..GREATEST..STEP, got {shortened(item)}"
            )
        return list(range(first, last + 1, step))
    try:
        parsed = read_toml(f"value = {item}")
    except tomllib.TOMLDecodeError:
        parsed = {"value": item} if _BARE_WORD.fullmatch(item) else {}
    except TomlLimitError as failure:
        raise DataError(f"--set {name}: a value cannot be read: {failure}, got {shortened(item)}") from None
    if set(parsed) != {"value"}:
        raise DataError(
            f"--set {name}: values must be of TOML, words or ranges (20, true, wrap, 8..16), got {shortened(item)}"
        )
    return [parsed["value"]]


def _set(fields: dict[str, Any], target: Target, path: tuple[str, ...], value: Any) -> None:
    """Set a field of nested tables."""
    place = fields
    for depth, table in enumerate(path[:-1]):
        inner = place.setdefault(table, {})
        if table == "requantizer" and depth == 0 and isinstance(inner, str):
            inner = place[table] = Requantizer.preset(inner).model_dump(mode="json")
        if not isinstance(inner, dict):
            raise MachineError(f"{target}.{'.'.join(path[: depth + 1])} is no table, so {path[-1]!r} is no key of it")
        place = inner
    place[path[-1]] = value
