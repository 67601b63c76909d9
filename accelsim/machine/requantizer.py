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
OutputOverflow = Literal["saturate", "wrap", "saturate_to_zero", "saturate_symmetric"]
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
    mantissa : {"nearest", "shortened"}
        How an integer multiplier narrower than 32 bits is made: from the real number, or from the 32-bit mantissa, as
        the int16 convolutions of TFLite make theirs.
    rounding : tuple of one or two tie rules
        Two only with an integer multiplier: one for the high product, one for the shift.
    pre_shift_bits : int
        Left shift of the accumulator before the multiplication, 0..30; the last shift takes it back. Only with two
        roundings: it moves the place of the first one.
    zero_point : {"outside", "inside"}
        Whether the output zero point is added after the (last) rounding or before it.
    overflow : {"saturate", "wrap", "saturate_to_zero", "saturate_symmetric"}
        What is stored where the result leaves the output's format; the bounds of a fused function come after it.

    Raises
    ------
    MachineError
        When a field is not valid, or the fields do not fit together.

    Notes
    -----
    docs/numerics.md (19) to (24a), (40) and (41); the presets are named after the stacks and the hardware whose
    arithmetic they are.
    """

    thing = "requantizer"
    error = MachineError

    multiplier: MultiplierKind = "integer"
    """What the accumulator is multiplied with."""
    multiplier_bits: int = Field(default=32, ge=8, le=32)
    """Width of an integer multiplier."""
    mantissa: Literal["nearest", "shortened"] = "nearest"
    """How a narrow integer multiplier is made."""
    rounding: Annotated[tuple[TieRule, ...], BeforeValidator(_one_or_more), Field(min_length=1, max_length=2)] = (
        "half_up",
        "half_away",
    )
    """Tie rule of each rounding."""
    pre_shift_bits: int = Field(default=0, ge=0, le=30)
    """Left shift before the multiplication."""
    zero_point: Literal["outside", "inside"] = "outside"
    """Where the output zero point is added."""
    overflow: OutputOverflow = "saturate"
    """What is stored where the result leaves the output's format."""

    @model_validator(mode="after")
    def _fits_together(self) -> Requantizer:
        if len(self.rounding) == 2 and self.multiplier != "integer":
            raise ValueError(f"two roundings need multiplier = 'integer', got {self.multiplier!r}; name one rule")
        if self.multiplier_bits != 32 and self.multiplier != "integer":
            raise ValueError(f"multiplier_bits needs multiplier = 'integer', got {self.multiplier!r}; leave it out")
        if self.mantissa == "shortened" and self.multiplier != "integer":
            raise ValueError(f"mantissa needs multiplier = 'integer', got {self.multiplier!r}; leave it out")
        if self.pre_shift_bits and len(self.rounding) == 1:
            raise ValueError(
                f"pre_shift_bits needs two roundings, got {self.rounding[0]!r} alone: before a single rounding a left "
                f"shift changes nothing; leave it out"
            )
        if self.overflow == "wrap" and self.multiplier in ("float32", "float64"):
            raise ValueError(
                f"overflow = 'wrap' needs an integer or power_of_two multiplier, got {self.multiplier!r}: numbers of a "
                f"floating-point format have no low bits to keep; choose 'saturate'"
            )
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
    def saturates(self) -> bool:
        """Whether a result beyond the format becomes the end that it is beyond."""
        return self.overflow in ("saturate", "saturate_symmetric")

    @property
    def name(self) -> str:
        """The preset's name where the fields are those of one, else the parts spelled out."""
        for name in _PRESETS:
            if Requantizer.preset(name) == self:
                return name
        width = f"{self.multiplier_bits}" if self.multiplier == "integer" else ""
        short = " shortened" if self.mantissa == "shortened" else ""
        shift = f" after << {self.pre_shift_bits}" if self.pre_shift_bits else ""
        beyond = "" if self.overflow == "saturate" else f" {self.overflow}"
        return f"{self.multiplier}{width}{short} {'+'.join(self.rounding)}{shift} zero point {self.zero_point}{beyond}"


OUTPUT_OVERFLOWS: tuple[OutputOverflow, ...] = get_args(OutputOverflow)
TIE_RULES: tuple[TieRule, ...] = get_args(TieRule)


def _shift(rule: TieRule) -> dict[str, Any]:
    """Return the parts of a right shift with one rounding."""
    return {"multiplier": "power_of_two", "rounding": (rule,)}


_PRESETS: MappingProxyType[str, dict[str, Any]] = MappingProxyType(
    {
        # software
        "tflite": {"multiplier": "integer", "rounding": ("half_up", "half_away")},
        "tflite_single_rounding": {"multiplier": "integer", "rounding": ("half_up",)},
        "tflite_int16": {
            "multiplier": "integer", "multiplier_bits": 16, "mantissa": "shortened", "rounding": ("half_up",),
        },
        "ruy_x86": {"multiplier": "integer", "rounding": ("half_up", "half_up")},
        "onnxruntime": {"multiplier": "float32", "rounding": ("half_even",)},
        "xnnpack": {"multiplier": "float32", "rounding": ("half_even",)},
        "onnx_reference": {"multiplier": "float64", "rounding": ("half_even",), "zero_point": "inside"},
        "gemmlowp_legacy": {"multiplier": "integer", "rounding": ("half_away",)},
        "float64_half_away": {"multiplier": "float64", "rounding": ("half_away",)},
        "power_of_two": _shift("half_up"),
        # hardware
        "tosa_scale32": {"multiplier": "integer", "rounding": ("half_up",)},
        "tosa_scale32_double": {"multiplier": "integer", "rounding": ("half_up", "half_away")},
        "tosa_scale16": {"multiplier": "integer", "multiplier_bits": 16, "rounding": ("half_up",)},
        "nvdla_sdp": {"multiplier": "integer", "multiplier_bits": 16, "rounding": ("half_away",)},
        "gemmini": {"multiplier": "float32", "rounding": ("half_even",)},
        "gemmini_shift": _shift("half_even"),
        "synopsys_ev": {"multiplier": "integer", "multiplier_bits": 16, "rounding": ("half_even",)},
        "pulp": {"multiplier": "integer", "rounding": ("floor",), "zero_point": "inside"},
        "pulp_rounded": {"multiplier": "integer", "rounding": ("half_up",), "zero_point": "inside"},
        "vta": _shift("floor"),
        "riscv_rnu": _shift("half_up"),
        "riscv_rne": _shift("half_even"),
        "riscv_rdn": _shift("floor"),
        "riscv_rod": _shift("to_odd"),
        "ap_fixed": {**_shift("floor"), "overflow": "wrap"},
        "ap_trn": _shift("floor"),
        "ap_trn_zero": _shift("toward_zero"),
        "ap_rnd": _shift("half_up"),
        "ap_rnd_inf": _shift("half_away"),
        "ap_rnd_zero": _shift("half_toward_zero"),
        "ap_rnd_min_inf": _shift("half_down"),
        "ap_rnd_conv": _shift("half_even"),
    }
)  # fmt: skip
