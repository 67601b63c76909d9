"""TOML texts with limits, and what error messages show of them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from typing import Any

MAX_DEPTH = 64
"""Tables and lists within each other, in a TOML text."""
MAX_INTEGER_BITS = 4096
_SHOWN_CHARACTERS = 80


class TomlLimitError(ValueError):
    """A TOML text goes beyond what is read."""


def read_toml(text: str) -> dict[str, Any]:
    """Return what a TOML text holds.

    Raises
    ------
    tomllib.TOMLDecodeError
        When it is not TOML.
    TomlLimitError
        When its tables and lists lie more than `MAX_DEPTH` levels deep, or a whole number has more than
        `MAX_INTEGER_BITS` bits.
    """
    too_deep, too_long = f"nested more than {MAX_DEPTH} levels deep", "a number with too many digits"
    try:
        record = tomllib.loads(text)
    except RecursionError:
        raise TomlLimitError(too_deep) from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:  # Python reads no decimal number of more than some thousand digits
        raise TomlLimitError(too_long) from None
    level: list[Any] = [record]
    for _ in range(MAX_DEPTH):
        if any(isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS for value in level):
            raise TomlLimitError(too_long)
        inner = [value.values() if isinstance(value, dict) else value for value in level]
        level = [
            value
            for values in inner
            if not isinstance(values, str) and isinstance(values, Iterable)
            for value in values
        ]
    if level:
        raise TomlLimitError(too_deep)
    return record


def shortened(text: str) -> str:
    """Return the beginning of a text that is too long for an error message, quoted."""
    return repr(text) if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]!r}..."
