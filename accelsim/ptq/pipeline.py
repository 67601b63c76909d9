"""Post-training quantization from a float graph to integers: the order of steps of the white paper's figure 8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from accelsim.errors import CalibrationError, DataError
from accelsim.formats import IntegerFormat, QuantizationParameters
from accelsim.graph.feeds import Feeds, Images
from accelsim.graph.graph import Graph, Node
from accelsim.graph.operators import ELEMENTWISE, LINEAR
from accelsim.graph.quantized import QuantizedGraph, QuantizedWeights
from accelsim.ptq.calibration import TensorStatistics, calibrate
from accelsim.ptq.config import PTQConfig
from accelsim.ptq.folding import fold, weight_axis
from accelsim.ptq.placement import Placement, place_quantizers
from accelsim.ptq.ranges import Distribution, per_tensor, set_range, weight_range
from accelsim.reference.batches import Progress

Activations = dict[str, QuantizationParameters]


def quantize(
    graph: Graph,
    calibration: Images,
    config: PTQConfig | None = None,
    progress: Progress | None = None,
) -> QuantizedGraph:
    """Quantize a trained network without training it again.

    Parameters
    ----------
    graph : Graph
        The float network.
    calibration : array or mapping of input name to array
        Inputs as the network is fed with them, samples along axis 0; 500 to 1000 are plenty, no labels needed.
    config : PTQConfig, optional
        Bit-widths, schemes, granularity and range setting; 8-bit weights and activations per tensor if left out.
    progress : callable, optional
        Called as ``progress(step, done, total)`` while the calibration data runs.

    Returns
    -------
    QuantizedGraph
        The folded network with a quantizer on every stored tensor and integer weights, and a log of the steps.

    Raises
    ------
    CalibrationError
        When the calibration data does not fit the network, or an activation is not finite.
    ModelError
        When a folded weight is not finite.
    """
    config = config or PTQConfig()
    try:
        feeds = Feeds(graph, calibration)
    except DataError as problem:
        raise CalibrationError(f"calibration data: {problem}") from None
    folded, log = fold(graph)
    placement = place_quantizers(folded)
    statistics = calibrate(folded, placement.calibrated, feeds, config.activation_range == "mse", progress)
    activations = _activation_parameters(placement, statistics, config)
    weights, raised = _quantize_weights(folded, activations, config)
    granularity = "per channel" if config.per_channel else "per tensor"
    lines = (
        *log,
        f"placed {len(activations)} activation quantizers, {len(placement.shared)} of them shared with their input",
        f"calibrated {len(placement.calibrated)} tensors on {feeds.num_samples} samples",
        f"set activation ranges: {config.activation_bits} bits, {config.activation_scheme}, {config.activation_range}",
        f"quantized {len(weights)} constants: {config.weight_bits} bits, {config.weight_scheme}, {granularity}, "
        f"{config.constant_method(config.weight_bits)}",
        *raised,
    )
    return QuantizedGraph(folded, activations, weights, graph, lines)


def _activation_parameters(
    placement: Placement, statistics: Mapping[str, TensorStatistics], config: PTQConfig
) -> Activations:
    """Choose the quantizer of every stored activation."""
    parameters: Activations = {}
    for name in placement.calibrated:
        parameters[name] = _activation_range(statistics[name].widened(placement.required.get(name, ())), config)
    for name in placement.fixed:
        # A probability: 2**-bits makes 1.0 clip by one step, and is a shift on any hardware.
        scale = np.array(2.0**-config.activation_bits, dtype=np.float32)
        format = IntegerFormat(config.activation_bits, signed=False)
        parameters[name] = QuantizationParameters(scale, np.zeros((), dtype=np.int64), format)
    for name, source in placement.shared.items():
        parameters[name] = parameters[source]
    return parameters


def _activation_range(statistics: TensorStatistics, config: PTQConfig) -> QuantizationParameters:
    """Choose the quantizer of one activation."""
    format, scheme = config.activation_format(statistics.low), config.activation_scheme
    if statistics.histogram is None:
        return QuantizationParameters.from_range(
            statistics.low, statistics.high, format, scheme, power_of_two=config.power_of_two
        )
    return per_tensor(set_range(statistics.histogram, format, scheme, config.activation_range, config.power_of_two))


def _quantize_weights(
    graph: Graph, activations: Activations, config: PTQConfig
) -> tuple[dict[str, QuantizedWeights], list[str]]:
    """Quantize every constant operand; return them with a log line per layer whose scales had to be raised."""
    weights: dict[str, QuantizedWeights] = {}
    log: list[str] = []
    for node in graph.nodes:
        if node.op in LINEAR:
            name = node.inputs[1]
            axis = weight_axis(node) if config.per_channel else None
            parameters = weight_range(
                graph.constants[name],
                config.weight_format,
                config.weight_scheme,
                config.constant_method(config.weight_bits),
                config.power_of_two,
                axis,
            )
            fitting = _fit_bias(graph, node, parameters, activations[node.inputs[0]], config.bias_bits)
            raised = int(np.count_nonzero(fitting.scale != parameters.scale))
            if raised:
                log.append(f"raised {raised} weight scales of {node.op} {node.name!r} so that its bias fits")
            weights[name] = QuantizedWeights(fitting.quantize(graph.constants[name]), fitting)
        elif node.op in ELEMENTWISE:
            for name in node.inputs:
                if name in graph.constants:
                    weights[name] = _quantize_operand(graph.constants[name], config)
    return weights, log


def _quantize_operand(values: npt.NDArray[np.float32], config: PTQConfig) -> QuantizedWeights:
    """Quantize a constant operand of Add, Sub or Mul: to the hardware it is an activation that never changes."""
    format = IntegerFormat(config.activation_bits, config.activation_signed)
    method = config.constant_method(config.activation_bits)
    parameters = per_tensor(set_range(Distribution.of(values), format, "affine", method, config.power_of_two))
    return QuantizedWeights(parameters.quantize(values), parameters)


def _fit_bias(
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
    least = bias / (float(input_parameters.scale) * 2.0 ** (bias_bits - 2))
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
