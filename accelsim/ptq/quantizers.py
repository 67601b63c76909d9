"""Quantizers for every stored tensor and every constant operand: white paper sections 2.3 and 3.1."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from accelsim.errors import CalibrationError
from accelsim.formats import IntegerFormat, QuantizationParameters
from accelsim.graph.graph import Graph, Node
from accelsim.graph.operators import ELEMENTWISE, LINEAR
from accelsim.graph.quantized import QuantizedWeights
from accelsim.ptq.calibration import TensorStatistics, calibrate
from accelsim.ptq.config import PTQConfig
from accelsim.ptq.folding import weight_axis
from accelsim.ptq.placement import Placement
from accelsim.ptq.ranges import Distribution, per_tensor, set_range, weight_range
from accelsim.ptq.work import Work

SPARE_BIAS_BITS = 2
"""A bias in accumulator units stays under ``2**(bias_bits - 2)``: the sign, and a bit for what is added to it."""


def choose_activations(work: Work) -> None:
    """Choose the quantizer of every stored activation, from calibration data or from batch norms."""
    placement, config = work.placement, work.config
    if work.feeds is None:
        found = _expected_ranges(work, placement)
        how = f"from batch norms, within {config.batch_norm_alpha:g} deviations"
    else:
        histograms = config.activation_range == "mse"
        found = calibrate(work.graph, placement.calibrated, work.feeds, histograms, work.progress)
        how = f"on {work.feeds.num_samples} samples"
    for name in placement.calibrated:
        statistics = found[name].widened(placement.required.get(name, ()))
        work.activations[name] = activation_range(statistics, work.activation_format(name, statistics.low), config)
    for name in placement.fixed:
        # A probability: 2**-bits makes 1.0 clip by one step, and is a shift on any hardware.
        format = IntegerFormat(work.activation_format(name, 0.0).bits, signed=False)
        scale = np.array(2.0**-format.bits, dtype=np.float32)
        work.activations[name] = QuantizationParameters(scale, np.zeros((), dtype=np.int64), format)
    for name, source in placement.shared.items():
        work.activations[name] = work.activations[source]
    work.log += [
        f"placed {len(work.activations)} activation quantizers, {len(placement.shared)} of them shared with their "
        "input",
        f"calibrated {len(placement.calibrated)} tensors {how}",
        f"set activation ranges: {config.activation_bits} bits, {config.activation_scheme}, {config.activation_range}",
    ]


def _expected_ranges(work: Work, placement: Placement) -> dict[str, TensorStatistics]:
    """Return the ranges of stored tensors that batch norms tell: white paper equations (18) and (19)."""
    ranges: dict[str, TensorStatistics] = {}
    for name in placement.calibrated:
        if name in work.inputs:
            ranges[name] = TensorStatistics(work.inputs[name].low, work.inputs[name].high)
        elif name in work.statistics:
            channels = work.statistics[name]
            ranges[name] = TensorStatistics(float(channels.minimum.min()), float(channels.maximum.max()))
        else:
            raise CalibrationError(
                f"tensor {name!r}: no batch norm tells its range; quantize with calibration data instead"
            )
    return ranges


def activation_range(statistics: TensorStatistics, format: IntegerFormat, config: PTQConfig) -> QuantizationParameters:
    """Choose the quantizer of one activation.

    Parameters
    ----------
    statistics : TensorStatistics
        Its range, and its histogram where the method needs one.
    format : IntegerFormat
        Of its codes.
    config : PTQConfig
        Scheme, method and whether the scale is a power of two.
    """
    scheme = config.activation_scheme
    if statistics.histogram is None:
        return QuantizationParameters.from_range(
            statistics.low, statistics.high, format, scheme, power_of_two=config.power_of_two
        )
    return per_tensor(set_range(statistics.histogram, format, scheme, config.activation_range, config.power_of_two))


def choose_weights(work: Work) -> None:
    """Choose the quantizer of every constant operand, and round it to nearest."""
    config, graph = work.config, work.graph
    log: list[str] = []
    for node in graph.nodes:
        if node.op in LINEAR:
            name, format = node.inputs[1], work.weight_format(node)
            parameters = weight_range(
                graph.constants[name],
                format,
                config.weight_scheme,
                config.constant_method(format.bits),
                config.power_of_two,
                weight_axis(node) if config.per_channel else None,
            )
            fitting = fit_bias(graph, node, parameters, work.activations[node.inputs[0]], config.bias_bits)
            raised = int(np.count_nonzero(fitting.scale != parameters.scale))
            if raised:
                log.append(f"raised {raised} weight scales of {node.op} {node.name!r} so that its bias fits")
            work.weights[name] = QuantizedWeights(fitting.quantize(graph.constants[name]), fitting)
        elif node.op in ELEMENTWISE:
            for name in node.inputs:
                if name in graph.constants:
                    format = work.activation_format(node.output, 0.0)
                    work.weights[name] = quantize_operand(graph.constants[name], format, config)
    granularity = "per channel" if config.per_channel else "per tensor"
    work.log += [
        f"quantized {len(work.weights)} constants: {config.weight_bits} bits, {config.weight_scheme}, {granularity}, "
        f"{config.constant_method(config.weight_bits)}",
        *log,
    ]


def quantize_operand(values: npt.NDArray[np.float32], format: IntegerFormat, config: PTQConfig) -> QuantizedWeights:
    """Quantize a constant operand of Add, Sub or Mul: to the hardware it is an activation that never changes."""
    format = IntegerFormat(format.bits, config.activation_signed)
    method = config.constant_method(format.bits)
    parameters = per_tensor(set_range(Distribution.of(values), format, "affine", method, config.power_of_two))
    return QuantizedWeights(parameters.quantize(values), parameters)


def fit_bias(
    graph: Graph,
    node: Node,
    parameters: QuantizationParameters,
    input_parameters: QuantizationParameters,
    bias_bits: int,
) -> QuantizationParameters:
    """Raise weight scales until ``|b| / (s_x * s_w) < 2**(bias_bits - 2)``.

    Notes
    -----
    A channel whose weights are nearly zero has a tiny scale, and its bias, at the scale ``s_x * s_w`` (white paper
    section 2.1), would not fit the accumulator. Its weights lose digits instead, which they do not miss: the bias is
    all that the channel consists of. A power of two is raised by powers of two.
    """
    if len(node.inputs) < 3:
        return parameters
    bias = np.abs(graph.constants[node.inputs[2]].astype(np.float64))
    if not parameters.per_channel:
        bias = bias.max()
    least = bias / (float(input_parameters.scale) * 2.0 ** (bias_bits - SPARE_BIAS_BITS))
    scale = parameters.scale
    short = scale.astype(np.float64) <= least
    if not short.any():
        return parameters
    if parameters.is_power_of_two:
        # frexp: least = m * 2**e with m < 1, so 2**e is the next power above it
        raised = np.exp2(np.frexp(least)[1]).astype(np.float32)
    else:
        raised = np.nextafter(least.astype(np.float32), np.float32(np.inf))
    return replace(parameters, scale=np.where(short, raised, scale))


def largest_bias(
    node: Node, weights: QuantizedWeights, input_parameters: QuantizationParameters, bias_bits: int
) -> npt.NDArray[np.float64]:
    """Return the greatest magnitude of a layer's bias that fits the accumulator with its scales: per channel."""
    scale = weights.parameters.scale.astype(np.float64) * float(input_parameters.scale)
    channels = weights.integers.shape[1 if node.op == "MatMul" else 0]
    return np.broadcast_to(scale * 2.0 ** (bias_bits - SPARE_BIAS_BITS), (channels,))
