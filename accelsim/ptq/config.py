"""What post-training quantization is asked to do."""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from accelsim.errors import AccelsimError, FormatError
from accelsim.formats import MAX_OPERAND_BITS, IntegerFormat, Scheme
from accelsim.validation import Configuration

RangeMethod = Literal["mse", "golden_section", "closed_form", "percentile", "min_max"]
"""How the range of a quantizer is set: white paper section 3.1. ``min_max`` covers all values; ``mse``,
``golden_section`` and ``closed_form`` look for the least squared error, by grid search, golden section or the
approximation of Banner et al. (2019); ``percentile`` cuts off a share of the values."""

ActivationRangeMethod = Literal["mse", "golden_section", "closed_form", "percentile", "min_max", "batch_norm"]
"""The same for activations; ``batch_norm`` takes ``β ± αγ``."""

WHOLE_RANGE_BITS = 8
"""From this width up ``auto`` covers the whole range of an activation."""

RoundingMethod = Literal["nearest", "qubo", "adaround"]
"""How weights are rounded: white paper section 3.4. ``nearest`` looks at the weights alone. ``qubo`` minimises the
error of the layer's output before its activation function, equation (31), by a search on second moments:
`accelsim.ptq.qubo`. ``adaround`` minimises it behind the activation function, equation (35), by gradient descent:
`accelsim.ptq.adaround`."""

FINE_BITS = 7
"""From this width up ``auto`` covers the whole range of a constant."""

SEARCHED_BITS = 8
"""Up to this width ``auto`` searches for the rounding of weights."""

OperandBits = Annotated[int, Field(ge=1, le=MAX_OPERAND_BITS)]


class LayerBits(Configuration):
    """Widths of one layer or tensor that differ from the network's.

    Raises
    ------
    FormatError
        When a field is unknown or outside its range.
    """

    thing: ClassVar[str] = "ptq.layers.<name>"
    error: ClassVar[type[AccelsimError]] = FormatError

    weight_bits: OperandBits | None = None
    """Width of the layer's weights in bits, 1..16; None for the network's."""

    activation_bits: OperandBits | None = None
    """Width of the stored tensor that the layer makes, or of the named tensor; None for the network's."""


class PTQConfig(Configuration):
    """Choices of post-training quantization.

    Raises
    ------
    FormatError
        When a field is unknown or outside its range; the message names the field as ``ptq.<field>``.
    """

    thing: ClassVar[str] = "ptq"
    file_kind: ClassVar[str] = "ptq file"
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

    layers: dict[str, LayerBits] = Field(default_factory=dict)
    """Layers with widths of their own (heterogeneous bit-widths, white paper section 2.4), by the name of a node or of
    a tensor: ``{"conv_3": {"weight_bits": 8, "activation_bits": 16}}``. `quantize` refuses names that the network does
    not have."""

    rounding: Literal["auto"] | RoundingMethod = "auto"
    """How weights are rounded, see `RoundingMethod`; ``auto``: ``qubo`` up to 8 bits, ``nearest`` above. Without
    calibration data ``qubo`` takes the second moments that batch norms tell of, and stands in for ``adaround``."""

    adaround_iterations: Annotated[int, Field(ge=1, le=1_000_000)] = 2000
    """Steps of gradient descent for each layer under ``rounding="adaround"``."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Of every random choice. The same seed and data give the same integers."""

    prune_constants: bool = True
    """Fold channels that are constant, above all dead ones, into the next bias before anything else."""

    equalize: bool = True
    """Rescale channels from layer to layer so that they quantize better (white paper section 3.2)."""

    equalization: Literal["noise", "cross_layer"] = "noise"
    """How: ``noise`` minimises the predicted quantization noise, ``cross_layer`` evens out weight ranges."""

    equalization_sweeps: Annotated[int, Field(ge=1, le=1000)] = 3
    """How often ``cross_layer`` goes over all pairs of layers. Few are better: see benchmarks/README.md."""

    absorb_biases: Literal["auto", "always", "never"] = "auto"
    """Move the part of a bias that no activation goes below into the next layer; ``auto``: where channels are
    equalized and biases not corrected, which is the only case in which it was measured to help."""

    bias_correction: Literal["auto", "empirical", "analytic", "none"] = "auto"
    """Bring mean outputs back to the float network's (section 3.3); ``auto``: ``empirical`` with calibration data,
    ``analytic`` without."""

    weight_range: Literal["auto", "mse", "golden_section", "closed_form", "percentile", "min_max"] = "auto"
    """Range setting of weights, see `RangeMethod`; ``auto``: ``min_max`` from 7 bits up, ``mse`` below. See
    `constant_method`."""

    activation_range: Literal["auto", "mse", "golden_section", "closed_form", "percentile", "min_max", "batch_norm"] = (
        "auto"
    )
    """Range setting of activations on the calibration data, see `RangeMethod`; ``auto``: ``min_max`` from 8 bits up,
    ``mse`` below. Without calibration data it is always ``batch_norm``."""

    output_range: Literal["auto", "cross_entropy", "same"] = "auto"
    """Range setting of what the network returns: ``cross_entropy`` for logits, ``same`` as other activations;
    ``auto``: ``cross_entropy`` under 8 bits where an output has two axes, as logits have."""

    average_quantizer: Literal["auto", "own", "shared"] = "auto"
    """Quantizer of the average of a whole image: ``shared`` with its input, as the white paper has all pooling, or its
    ``own``; ``auto``: its own where that has less than half the step. See docs/ptq.md (99)."""

    percentile: Annotated[float, Field(ge=50, le=100)] = 99.99
    """Share of values, in per cent, that ``percentile`` keeps on either side of a range."""

    input_range: tuple[float, float] | None = None
    """Least and greatest value of every input, for a run without calibration data; where it is not given, it is told
    from the batch norm behind the first layer."""

    batch_norm_alpha: Annotated[float, Field(gt=0)] = 6.0
    """Without calibration data values are taken to lie within so many deviations of the mean, (18) and (19)."""

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

    def activation_method(self, bits: int) -> ActivationRangeMethod:
        """Return the range setting of activations of a width: ``auto`` is resolved by it.

        Notes
        -----
        Measured on MobileNetV1 and ResNet8 with rescaled channels and corrected biases: at 8 bits the logits gain 0.1
        to 0.5 dB with ``mse``, and agreement with the float network does not change beyond chance.
        """
        if self.activation_range == "auto":
            return "min_max" if bits >= WHOLE_RANGE_BITS else "mse"
        return self.activation_range

    def rounding_method(self, bits: int) -> RoundingMethod:
        """Return how weights of a width are rounded: ``auto`` is resolved by it.

        Notes
        -----
        With ResNet8 and 4-bit weights per tensor ``qubo`` is worth some 6 points over ``nearest`` (both with bias
        correction) and costs less than ``adaround`` by a factor of ten or more. At 8 bits, with the other defaults,
        mean of five calibration sets on the simulator, agreement with the float network and SQNR of the logits,
        ``nearest`` / ``qubo``: MobileNetV1-0.25 per tensor 88.4 / 91.5 %, 21.0 / 22.0 dB, per channel 91.5 / 91.6 %,
        23.8 / 24.7 dB; ResNet8 per tensor 98.2 / 98.4 %, 30.3 / 31.0 dB, per channel 98.5 / 97.9 %, 31.1 / 31.4 dB; for
        1.5 CPU seconds at most.
        """
        if self.rounding == "auto":
            return "qubo" if bits <= SEARCHED_BITS else "nearest"
        return self.rounding

    def to_toml(self) -> str:
        """Return what differs from the defaults as TOML; `from_toml` makes the configuration again."""
        fields = self.model_dump(mode="json", exclude_defaults=True)
        layers = fields.pop("layers", {})
        lines = [f"{name} = {_toml(value)}" for name, value in fields.items()]
        for name, bits in layers.items():
            lines += ["", f"[layers.{_toml(name)}]"]
            lines += [f"{field} = {value}" for field, value in bits.items() if value is not None]
        return "\n".join(lines) + "\n"

    def replace(self, **changes: Any) -> PTQConfig:
        """Return the configuration with some fields changed, validated anew."""
        return type(self)(**{**{name: getattr(self, name) for name in type(self).model_fields}, **changes})

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


def _toml(value: Any) -> str:
    """Spell a value in TOML, which has JSON's strings (but for one character), numbers, booleans and lists."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
