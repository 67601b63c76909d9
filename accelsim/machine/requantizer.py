"""How an accumulator becomes a code: docs/numerics.md sections 4 and 5."""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from accelsim.errors import MachineError
from accelsim.validation import Configuration

TieRule = Literal[
    "floor", "toward_zero", "half_up", "half_down", "half_away", "half_toward_zero", "half_even", "to_odd"
]
MultiplierKind = Literal["integer", "float32", "float64", "power_of_two"]


def _one_or_more(value: Any) -> Any:
    """Let a single rule stand for a sequence of one."""
    return (value,) if isinstance(value, str) else value


class Requantizer(Configuration):
    """The arithmetic from an accumulator to a stored integer.

    Parameters
    ----------
    multiplier : {"integer", "float32", "float64", "power_of_two"}
        What the accumulator is multiplied with.
    multiplier_bits : int
        Width of an integer multiplier, 8..32.
    rounding : tuple of one or two tie rules
        Two only with an integer multiplier: one for the high product, one for the shift.
    zero_point : {"outside", "inside"}
        Whether the output zero point is added after the (last) rounding or before it.

    Raises
    ------
    MachineError
        When a field is not valid, or the fields do not fit together.

    Notes
    -----
    docs/numerics.md (19) to (24); the presets are named after the stacks whose arithmetic they are.
    """

    thing = "requantizer"
    error = MachineError

    multiplier: MultiplierKind = "integer"
    """What the accumulator is multiplied with."""
    multiplier_bits: int = Field(default=32, ge=8, le=32)
    """Width of an integer multiplier."""
    rounding: Annotated[tuple[TieRule, ...], BeforeValidator(_one_or_more), Field(min_length=1, max_length=2)] = (
        "half_up",
        "half_away",
    )
    """Tie rule of each rounding."""
    zero_point: Literal["outside", "inside"] = "outside"
    """Where the output zero point is added."""

    @model_validator(mode="after")
    def _fits_together(self) -> Requantizer:
        if len(self.rounding) == 2 and self.multiplier != "integer":
            raise ValueError(f"two roundings need multiplier = 'integer', got {self.multiplier!r}; name one rule")
        if self.multiplier_bits != 32 and self.multiplier != "integer":
            raise ValueError(f"multiplier_bits needs multiplier = 'integer', got {self.multiplier!r}; leave it out")
        return self

    @classmethod
    def preset(cls, name: str) -> Requantizer:
        """Return a named composition.

        Parameters
        ----------
        name : str
            One of `preset_names`.

        Raises
        ------
        MachineError
            When there is no such preset.
        """
        if name not in _PRESETS:
            raise MachineError(f"requantizer preset must be one of {', '.join(_PRESETS)}, got {name!r}")
        return cls(**_PRESETS[name])

    @staticmethod
    def preset_names() -> tuple[str, ...]:
        """Return the names that `preset` takes."""
        return tuple(_PRESETS)

    @property
    def name(self) -> str:
        """The preset's name where the fields are those of one, else the parts spelled out."""
        for name in _PRESETS:
            if Requantizer.preset(name) == self:
                return name
        width = f"{self.multiplier_bits}" if self.multiplier == "integer" else ""
        return f"{self.multiplier}{width} {'+'.join(self.rounding)} zero point {self.zero_point}"


TIE_RULES: tuple[TieRule, ...] = get_args(TieRule)

_PRESETS: MappingProxyType[str, dict[str, Any]] = MappingProxyType(
    {
        "tflite": {"multiplier": "integer", "rounding": ("half_up", "half_away")},
        "tflite_single_rounding": {"multiplier": "integer", "rounding": ("half_up",)},
        "ruy_x86": {"multiplier": "integer", "rounding": ("half_up", "half_up")},
        "onnxruntime": {"multiplier": "float32", "rounding": ("half_even",)},
        "float64_half_away": {"multiplier": "float64", "rounding": ("half_away",)},
        "power_of_two": {"multiplier": "power_of_two", "rounding": ("half_up",)},
    }
)
