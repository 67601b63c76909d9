"""What a diagnosis concludes, and what to try: the repairs of the white paper's figure 9 and section 3.7."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from accelsim.ptq.channel_ranges import ChannelRanges
from accelsim.ptq.config import SEARCHED_BITS, PTQConfig

UNEVEN = 8.0
"""A widest channel this many times the median one is called uneven: the median channel then loses 3 bits to it."""

CLIPPED = 0.001
"""From this share of clipped values on a range is called too narrow."""

Kind = Literal["weights", "activation"]


@dataclass(frozen=True)
class Finding:
    """One conclusion.

    Parameters
    ----------
    step : {"fp32", "activations", "weights", "layer", "all"}
        The step of figure 9 that it comes from.
    subject : str
        The layer, tensor or network that it is about.
    loss : float
        How much of the metric is lost there.
    text : str
        What was found.
    recommendation : str
        What to try.
    """

    step: Literal["fp32", "activations", "weights", "layer", "all"]
    subject: str
    loss: float
    text: str
    recommendation: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.text}; {self.recommendation}"


@dataclass(frozen=True)
class Sensitivity:
    """What quantizing one tensor alone does to the network.

    Parameters
    ----------
    kind : {"weights", "activation"}
        Weights of a layer, or a stored tensor.
    layer : str
        Name of the node with these weights, or that begins the layer that makes the tensor; an input's own name.
    tensor : str
        Name of the constant or tensor.
    bits : int
        Its width.
    score : float
        The metric with everything else float.
    loss : float
        The float network's score less this one.
    sqnr_db : float
        Of the network's outputs.
    ranges : ChannelRanges
        Range of each channel.
    """

    kind: Kind
    layer: str
    tensor: str
    bits: int
    score: float
    loss: float
    sqnr_db: float
    ranges: ChannelRanges


def layer_finding(sensitivity: Sensitivity, config: PTQConfig) -> Finding:
    """Say why one tensor costs so much, and what to try."""
    ranges = sensitivity.ranges
    if sensitivity.kind == "weights":
        cause, repair = _weights(sensitivity, config)
    else:
        cause, repair = _activation(sensitivity, config)
    what = "weight" if sensitivity.kind == "weights" else "activation"
    facts = f"widest channel {ranges.spread:.3g} times the median one, {ranges.clipped:.2%} clipped"
    text = f"{what} {cause} ({facts}; {sensitivity.bits} bits)"
    return Finding("layer", f"layer {sensitivity.layer!r}", sensitivity.loss, text, f"try {repair}")


def _weights(sensitivity: Sensitivity, config: PTQConfig) -> tuple[str, str]:
    """Return cause and repair for weights."""
    ranges, name = sensitivity.ranges, sensitivity.layer
    if not config.per_channel and ranges.spread > UNEVEN:
        repair = "per_channel=True" if config.equalize else "equalize=True or per_channel=True"
        return f"ranges uneven{' after equalization' if config.equalize else ''}", repair
    if config.rounding == "nearest" and sensitivity.bits <= SEARCHED_BITS:
        return "rounding is to nearest", 'rounding="qubo"'
    if config.bias_correction == "none":
        return "rounding shifts means", 'bias_correction="auto"'
    if ranges.clipped > CLIPPED and config.constant_method(sensitivity.bits) != "min_max":
        return "range cuts values off", f'weight_range="min_max", or {_bits(name, "weight_bits", sensitivity.bits)}'
    return "steps too coarse", _bits(name, "weight_bits", sensitivity.bits)


def _activation(sensitivity: Sensitivity, config: PTQConfig) -> tuple[str, str]:
    """Return cause and repair for an activation."""
    ranges = sensitivity.ranges
    more = _bits(sensitivity.layer, "activation_bits", sensitivity.bits)
    if ranges.clipped > CLIPPED and config.activation_range != "min_max":
        return "range cuts values off", f'activation_range="min_max", or {more}'
    if ranges.spread > UNEVEN:
        if not config.equalize:
            return "ranges uneven", f"equalize=True, or {more}"
        if config.equalization == "cross_layer":
            return "ranges uneven after equalization", f'equalization="noise", fewer equalization_sweeps, or {more}'
        return "ranges uneven after equalization", more
    if ranges.clipped <= CLIPPED and config.activation_range == "min_max":
        return "range wide for its values", f'activation_range="mse", or {more}'
    return "steps too coarse", more


def _bits(name: str, field: str, bits: int) -> str:
    """Return the way to write more bits for one layer; where there are none, what figure 9 has left."""
    if wider(bits) <= bits:
        return f"quantization-aware training ({bits} bits do not suffice)"
    return f"layers={{{name!r}: {{{field!r}: {wider(bits)}}}}}"


def wider(bits: int) -> int:
    """Return the next of the widths that hardware has: 8, then 16."""
    return 8 if bits < 8 else 16


def whole_findings(losses: dict[str, float], tolerance: float, config: PTQConfig, fp32_equal: bool) -> list[Finding]:
    """Say what the steps before the single layers show.

    Parameters
    ----------
    losses : dict
        Of ``fp32`` (all quantizers bypassed), ``activations`` and ``weights`` (only these, all of them) and ``all``.
    tolerance : float
        Loss that is taken.
    config : PTQConfig
        What was asked for.
    fp32_equal : bool
        Whether the outputs with all quantizers bypassed are those of the float network.
    """
    found = []
    if not fp32_equal:
        found.append(
            Finding(
                "fp32",
                "network",
                losses["fp32"],
                "it differs from the float network with every quantizer bypassed",
                "repair this first: try equalize=False, prune_constants=False; if it stays, model or tool is wrong",
            )
        )
    if losses["activations"] > tolerance:
        other = "min_max" if config.activation_range != "min_max" else "mse"
        found.append(
            Finding(
                "activations",
                "activations",
                losses["activations"],
                f"quantizing them alone costs {losses['activations']:.4g}",
                f'try activation_range="{other}"{"" if config.equalize else ", equalize=True"}, or the layers below',
            )
        )
    if losses["weights"] > tolerance:
        tries = [] if config.per_channel else ["per_channel=True"]
        if config.rounding_method(config.weight_bits) == "nearest":
            tries.append('rounding="qubo"')
        if config.bias_correction == "none":
            tries.append('bias_correction="auto"')
        found.append(
            Finding(
                "weights",
                "weights",
                losses["weights"],
                f"quantizing them alone costs {losses['weights']:.4g}",
                f"try {', '.join([*tries, 'the layers below'])}",
            )
        )
    return found
