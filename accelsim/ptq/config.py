"""What post-training quantization is asked to do."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from accelsim.errors import AccelsimError, FormatError
from accelsim.formats import MAX_OPERAND_BITS, IntegerFormat, Scheme
from accelsim.validation import Configuration

RangeMethod = Literal["mse", "min_max"]
"""How the range of a quantizer is set: white paper section 3.1."""

FINE_BITS = 7
"""From this width up ``auto`` covers the whole range of a constant."""

OperandBits = Annotated[int, Field(ge=1, le=MAX_OPERAND_BITS)]


class PTQConfig(Configuration):
    """Choices of post-training quantization.

    Raises
    ------
    FormatError
        When a field is unknown or outside its range; the message names the field as ``ptq.<field>``.
    """

    thing: ClassVar[str] = "ptq"
    error: ClassVar[type[AccelsimError]] = FormatError

    weight_bits: OperandBits = 8
    """Width of weights in bits, 1..16."""

    activation_bits: OperandBits = 8
    """Width of activations, and of constant operands of Add, Sub and Mul, in bits, 1..16."""

    per_channel: bool = False
    """One weight scale per output channel instead of one per tensor (white paper section 2.4.2)."""

    weight_scheme: Scheme = "symmetric"
    """``symmetric`` keeps the weights' zero point at 0 and so spares the data-dependent term of equation (13)."""

    activation_scheme: Scheme = "affine"
    """``affine`` fits a zero point to each activation, ``symmetric`` keeps it at 0."""

    activation_signed: bool = False
    """Store activations as signed integers. If False, a symmetric activation with negative values is signed anyway."""

    power_of_two: bool = False
    """Restrict every scale to a power of two (white paper section 2.2.2)."""

    bias_correction: Literal["auto", "empirical", "analytic", "none"] = "auto"
    """Bring mean outputs back to the float network's (section 3.3); ``auto``: ``empirical`` with calibration data,
    ``analytic`` without."""

    weight_range: Literal["auto", "mse", "min_max"] = "auto"
    """Range setting of weights: ``mse`` (least squared error), ``min_max`` (the whole range of values), or ``auto``:
    ``min_max`` from 7 bits up, ``mse`` below. See `constant_method`."""

    activation_range: RangeMethod = "mse"
    """Range setting of activations: least squared error on the calibration data, or their whole range."""

    bias_bits: Annotated[int, Field(ge=4, le=64)] = 32
    """Width that a bias in accumulator units must fit; weight scales are raised until it does, with a bit to spare."""

    def constant_method(self, bits: int) -> RangeMethod:
        """Return the range setting of weights, or other constants, of a width: ``auto`` is resolved by it.

        Notes
        -----
        White paper section 3.1: on par at high bit-widths, MSE clearly better at low ones. Measured with ResNet8
        and 8-bit activations, ranges from one half of the calibration images, share of the other 256 with the float
        network's answer, min-max / MSE. Per tensor: 8 bits 97.7 / 98.4 %, 7 bits 94.1 / 95.7 %, 6 bits 90.2 / 91.8
        %, 5 bits 64.8 / 74.2 %, 4 bits 22.3 / 63.3 %. Per channel: 98.0 / 98.4, 98.4 / 98.0, 94.1 / 93.0, 87.1 /
        81.6 and 60.9 / 73.8 %. So from 7 bits up nothing tells them apart, and ``auto`` takes the one that clips
        nothing; below, MSE is the safer choice but not always the better one, as 5 bits per channel show.
        """
        if self.weight_range == "auto":
            return "min_max" if bits >= FINE_BITS else "mse"
        return self.weight_range

    @property
    def weight_format(self) -> IntegerFormat:
        """Format of the weights; signed under both schemes."""
        return IntegerFormat(self.weight_bits, signed=True)

    def activation_format(self, minimum: float) -> IntegerFormat:
        """Return the format of an activation whose least value is ``minimum``.

        Notes
        -----
        White paper section 2.2.1: unsigned symmetric quantization suits one-tailed distributions. An affine quantizer
        reaches negative values by its zero point, whatever its format.
        """
        two_tailed = self.activation_scheme == "symmetric" and minimum < 0
        return IntegerFormat(self.activation_bits, signed=self.activation_signed or two_tailed)
