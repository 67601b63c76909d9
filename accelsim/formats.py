"""Integer formats and uniform quantizers: white paper sections 2.2 and 2.3, docs/numerics.md section 1.

A stored integer ``q`` stands for the real number ``scale * (q - zero_point)``. The scale is a float32 number because
that is what model files carry and what ONNX Runtime's quantizer nodes compute with; so the same real number always
becomes the same code here and there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from accelsim.errors import FormatError

Scheme = Literal["affine", "symmetric"]

MAX_OPERAND_BITS = 16
_SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
_LARGEST_SCALE = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class IntegerFormat:
    """A two's complement or unsigned integer of a given width.

    Parameters
    ----------
    bits : int
        Width in bits, 1..16.
    signed : bool
        Two's complement, ``-2**(bits-1) .. 2**(bits-1)-1``, or unsigned, ``0 .. 2**bits-1``.

    Raises
    ------
    FormatError
        When ``bits`` is outside 1..16.
    """

    bits: int
    signed: bool

    def __post_init__(self) -> None:
        whole = isinstance(self.bits, int | np.integer) and not isinstance(self.bits, bool)
        if not whole or not 1 <= self.bits <= MAX_OPERAND_BITS:
            raise FormatError(f"bits must be a whole number from 1 to {MAX_OPERAND_BITS}, got {self.bits!r}")
        if not isinstance(self.signed, bool | np.bool_):
            raise FormatError(f"signed must be True or False, got {self.signed!r}")
        object.__setattr__(self, "bits", int(self.bits))
        object.__setattr__(self, "signed", bool(self.signed))

    @property
    def minimum(self) -> int:
        """Least stored integer."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def maximum(self) -> int:
        """Greatest stored integer."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Narrowest numpy integer type that holds every value of the format."""
        width = 8 if self.bits <= 8 else 16
        return np.dtype(f"{'' if self.signed else 'u'}int{width}")

    def __str__(self) -> str:
        return f"{'int' if self.signed else 'uint'}{self.bits}"


@dataclass(frozen=True, eq=False)
class QuantizationParameters:
    """Scale, zero point and format of a uniform quantizer, per tensor or per channel.

    Parameters
    ----------
    scale : float32 array, shape () or (channels,)
        Step between two codes, finite and positive.
    zero_point : int64 array, same shape as ``scale``
        The code of real zero, inside the format's range: real zero is always exactly representable.
    format : IntegerFormat
        Width and signedness of the stored integers.
    axis : int or None
        The channel axis of the quantized tensor where the parameters are per channel, else None.

    Raises
    ------
    FormatError
        When a scale is not finite and positive, a zero point is outside the format, or the shapes do not fit.

    Notes
    -----
    White paper equations (4) to (8); ``symmetric`` is the case ``zero_point == 0``, ``power of two`` the one in which
    every scale is ``2**k``.
    """

    scale: npt.NDArray[np.float32]
    zero_point: npt.NDArray[np.int64]
    format: IntegerFormat
    axis: int | None = None

    def __post_init__(self) -> None:
        scale = np.array(self.scale, dtype=np.float32)
        given = np.asarray(self.zero_point)
        if given.dtype.kind not in "iuf" or (given.dtype.kind == "f" and not (given == np.trunc(given)).all()):
            raise FormatError(f"zero_point must be whole numbers, got {self.zero_point!r}")
        zero_point = np.array(given, dtype=np.int64)
        if zero_point.ndim == 0 and scale.ndim == 1:
            zero_point = np.full(scale.shape, zero_point)
        if scale.ndim > 1 or zero_point.shape != scale.shape or scale.size == 0:
            raise FormatError(
                f"scale and zero_point must be scalars or one value per channel, got shapes {scale.shape} "
                f"and {zero_point.shape}"
            )
        if (scale.ndim == 1) != (self.axis is not None):
            raise FormatError(f"axis must name the channel axis of per-channel scales only, got {self.axis!r}")
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            raise FormatError(f"scale must be finite and above 0 in float32, got {scale.min()} .. {scale.max()}")
        low, high = self.format.minimum, self.format.maximum
        if (zero_point < low).any() or (zero_point > high).any():
            raise FormatError(
                f"zero_point must be a code of {self.format} ({low}..{high}), "
                f"got {zero_point.min()}..{zero_point.max()}"
            )
        scale.setflags(write=False)
        zero_point.setflags(write=False)
        object.__setattr__(self, "scale", scale)
        object.__setattr__(self, "zero_point", zero_point)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, QuantizationParameters):
            return NotImplemented
        return (
            self.format == other.format
            and self.axis == other.axis
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )

    def __hash__(self) -> int:
        return hash((self.format, self.axis, self.scale.tobytes(), self.zero_point.tobytes()))

    @classmethod
    def from_range(
        cls,
        minimum: npt.ArrayLike,
        maximum: npt.ArrayLike,
        format: IntegerFormat,
        scheme: Scheme = "affine",
        power_of_two: bool = False,
        axis: int | None = None,
    ) -> QuantizationParameters:
        """Make a quantizer whose grid covers ``minimum .. maximum``: docs/numerics.md (3) to (5).

        Parameters
        ----------
        minimum, maximum : float or float array of shape (channels,)
            The real range; it is widened to include zero.
        format : IntegerFormat
            Width and signedness of the codes.
        scheme : {"affine", "symmetric"}
            ``affine`` fits a zero point, ``symmetric`` keeps it at 0.
        power_of_two : bool
            Round the scale up to the next power of two.
        axis : int or None
            Channel axis, needed where the range is given per channel.

        Returns
        -------
        QuantizationParameters
            Quantizer of the range. A range of zero width gets scale 1.

        Raises
        ------
        FormatError
            When a bound is not finite, or ``minimum`` is above ``maximum``.

        Notes
        -----
        A format that has no code on one side of zero (unsigned symmetric; 1-bit signed) clips that side; the scale is
        then set by the side that it can hold.
        """
        low = np.asarray(minimum, dtype=np.float64)
        high = np.asarray(maximum, dtype=np.float64)
        if not (np.isfinite(low).all() and np.isfinite(high).all()) or (low > high).any():
            raise FormatError(f"range must be finite with minimum <= maximum, got {low} .. {high}")
        low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
        if scheme == "symmetric":  # docs/numerics.md (4)
            reach = np.maximum(-low, high) if format.signed else high
            scale = reach / format.maximum if format.maximum > 0 else -low
        else:
            scale = (high - low) / (format.maximum - format.minimum)
        scale = np.where(scale > 0, np.clip(scale, _SMALLEST_SCALE, _LARGEST_SCALE), 1.0)
        if power_of_two:
            mantissa, exponent = np.frexp(scale)  # scale = mantissa * 2**exponent, 0.5 <= mantissa < 1, exactly
            scale = np.ldexp(1.0, np.clip(exponent - (mantissa == 0.5), -126, 127))
        scale32 = scale.astype(np.float32)
        if scheme == "symmetric":
            zero_point = np.zeros(scale.shape, dtype=np.int64)
        else:
            zero_point = np.clip(
                np.rint(format.minimum - low / scale32.astype(np.float64)), format.minimum, format.maximum
            ).astype(np.int64)
        return cls(scale32, zero_point, format, axis)

    @property
    def per_channel(self) -> bool:
        """Whether each channel has a quantizer of its own."""
        return self.axis is not None

    @property
    def is_power_of_two(self) -> bool:
        """Whether every scale is a power of two."""
        return bool((np.frexp(self.scale)[0] == 0.5).all())

    @property
    def grid_limits(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Least and greatest real number on the grid, ``(q_min, q_max)`` of the white paper's section 2.2."""
        scale = self.scale.astype(np.float64)
        return scale * (self.format.minimum - self.zero_point), scale * (self.format.maximum - self.zero_point)

    def quantize(self, values: npt.ArrayLike) -> npt.NDArray[Any]:
        """Map real values to codes: ``clamp(round_half_even(x / scale) + zero_point)``.

        Parameters
        ----------
        values : float array
            Real values; rounded to float32 first. Infinities clamp.

        Returns
        -------
        integer array, same shape
            Codes in the narrowest numpy type of the format.

        Raises
        ------
        FormatError
            When a value is NaN, or the channel axis has another length than the scale.

        Notes
        -----
        White paper equation (4), docs/numerics.md (1). The division is in float32, as ONNX's QuantizeLinear has it.
        """
        real = np.asarray(values, dtype=np.float32)
        if real.size and np.isnan(real.min()):  # the least value is NaN where any is
            raise FormatError("values to quantize must not be NaN; look for a division by zero upstream")
        scale, zero_point = self._broadcast(real.ndim, real.shape)
        with np.errstate(over="ignore"):  # a quotient beyond float32 is an infinity, and clamps
            steps = np.asarray(real / scale)
        np.rint(steps, out=steps)
        # Clamped before the zero point is added, as integers of at most 17 bits, which float32 holds exactly.
        low, high = self.format.minimum - zero_point, self.format.maximum - zero_point
        np.clip(steps, low.astype(np.float32), high.astype(np.float32), out=steps)
        steps += zero_point.astype(np.float32)
        stored: npt.NDArray[Any] = steps.astype(self.format.dtype)
        return stored

    def dequantize(self, codes: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Map codes to the real numbers they stand for: ``scale * (q - zero_point)`` in float32.

        Parameters
        ----------
        codes : integer array
            Stored integers.

        Returns
        -------
        float32 array, same shape
            Real values, white paper equation (6).
        """
        stored = np.asarray(codes).astype(np.int64)
        scale, zero_point = self._broadcast(stored.ndim, stored.shape)
        with np.errstate(over="ignore"):  # beyond float32 is an infinity
            real: npt.NDArray[np.float32] = scale * (stored - zero_point).astype(np.float32)
        return real

    def _broadcast(self, ndim: int, shape: tuple[int, ...]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Scale and zero point shaped to broadcast along the channel axis."""
        if self.axis is None:
            return self.scale, self.zero_point
        if not -ndim <= self.axis < ndim or shape[self.axis] != self.scale.size:
            raise FormatError(
                f"per-channel parameters have {self.scale.size} channels on axis {self.axis}, "
                f"the tensor has shape {shape}"
            )
        sides = [1] * ndim
        sides[self.axis] = self.scale.size
        return self.scale.reshape(sides), self.zero_point.reshape(sides)
