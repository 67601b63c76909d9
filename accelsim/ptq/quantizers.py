"""Quantizers for every stored tensor and every constant operand: white paper sections 2.3 and 3.1."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from accelsim.errors import CalibrationError
from accelsim.formats import IntegerFormat, QuantizationParameters
from accelsim.graph.graph import Graph, Node
from accelsim.graph.operators import ELEMENTWISE, LINEAR
from accelsim.graph.quantized import QuantizedWeights
from accelsim.ptq.average_ranges import average_range, deserves_own
from accelsim.ptq.batch_norm_ranges import batch_norm_ranges
from accelsim.ptq.calibration import TensorStatistics, calibrate
from accelsim.ptq.channel_statistics import ChannelStatistics
from accelsim.ptq.config import WHOLE_RANGE_BITS, PTQConfig
from accelsim.ptq.cross_entropy import cross_entropy_range, measure_logits
from accelsim.ptq.folding import weight_axis
from accelsim.ptq.noise_scaling import importances
from accelsim.ptq.percentile import measure_percentiles
from accelsim.ptq.placement import Placement, separable_averages
from accelsim.ptq.ranges import Distribution, per_tensor, set_range, weight_range
from accelsim.ptq.work import Work

SPARE_BIAS_BITS = 2
"""A bias in accumulator units stays under ``2**(bias_bits - 2)``: the sign, and a bit for what is added to it."""


def choose_activations(work: Work) -> None:
    """Choose the quantizer of every stored activation, from calibration data or from batch norms."""
    placement, config = work.placement, work.config
    averages = () if config.average_quantizer == "shared" else separable_averages(work.graph)
    if work.feeds is None:
        found = _expected_ranges(work, placement.calibrated, required=True)
        found |= _expected_ranges(work, averages, required=False)
        how = f"from batch norms, within {config.batch_norm_alpha:g} deviations"
    else:
        found = _measured_ranges(work, (*placement.calibrated, *averages))
        how = f"on {work.feeds.num_samples} samples"
    for name in placement.calibrated:
        statistics = found[name].widened(placement.required.get(name, ()))
        format = work.activation_format(name, statistics.low)
        work.activations[name] = activation_range(statistics, format, config)
    placement = _separate(work, placement, {name: found[name] for name in averages if name in found})
    _choose_outputs(work, placement)
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
        f"set activation ranges: {config.activation_bits} bits, {config.activation_scheme}, "
        f"{'batch_norm' if work.feeds is None else config.activation_method(config.activation_bits)}",
    ]


def _separate(work: Work, placement: Placement, averages: Mapping[str, TensorStatistics]) -> Placement:
    """Give the averages of whole images quantizers of their own where that is worth it."""
    chosen = []
    for name, statistics in averages.items():
        source = placement.shared[name]
        if source not in work.activations or not _keeps_scale(work, name):
            continue
        shared = work.activations[source]
        own = activation_range(average_range(statistics, shared), shared.format, work.config)
        if deserves_own(work.config.average_quantizer, own, shared):
            work.activations[name] = own
            chosen.append(name)
            work.log.append(
                f"gave the average {name!r} a quantizer of its own: step {own.scale:.3g} instead of {shared.scale:.3g}"
            )
    work.separate = tuple(chosen)
    return work.placement


def _keeps_scale(work: Work, average: str) -> bool:
    """Whether the machine's multipliers can bring a sum to the mean: powers of two only if the count is one."""
    node = work.graph.producer(average)
    assert node is not None
    count = math.prod(length or 1 for length in work.graph.shapes[node.inputs[0]][2:])
    return not work.config.power_of_two or count & (count - 1) == 0


def _measured_ranges(work: Work, tensors: Sequence[str]) -> dict[str, TensorStatistics]:
    """Return what calibration data tells of stored tensors, each measured as its method needs."""
    assert work.feeds is not None
    config = work.config
    methods = {name: config.activation_method(work.activation_format(name, 0.0).bits) for name in tensors}
    found: dict[str, TensorStatistics] = {}
    if "batch_norm" in methods.values():
        found = _expected_ranges(work, tensors, required=False)
    tails = [name for name, method in methods.items() if method == "percentile"]
    if tails:
        scheme, percentile = config.activation_scheme, config.percentile
        ranges = measure_percentiles(work.graph, tails, work.feeds, percentile, scheme, work.progress)
        found |= {name: TensorStatistics(*ends) for name, ends in ranges.items()}
    rest = [name for name in tensors if name not in found]
    if rest:
        histograms = any(methods[name] not in ("min_max", "batch_norm") for name in rest)
        found |= calibrate(work.graph, rest, work.feeds, histograms, work.progress)
    return found


def _expected_ranges(work: Work, tensors: Sequence[str], required: bool) -> dict[str, TensorStatistics]:
    """Return the ranges that batch norms tell of; where all are required, refuse a tensor of which they do not."""
    moments = {name: found.moments for name, found in work.inputs.items()}
    ranges = batch_norm_ranges(work.graph, work.norms, moments, tensors, work.config.batch_norm_alpha)
    ranges |= {name: (found.low, found.high) for name, found in work.inputs.items()}
    unknown = [name for name in tensors if name not in ranges]
    if required and unknown:
        raise CalibrationError(
            f"tensor {unknown[0]!r}: no batch norm tells its range; quantize with calibration data instead"
        )
    return {name: TensorStatistics(*ends) for name, ends in ranges.items() if name in tensors}


def _choose_outputs(work: Work, placement: Placement) -> None:
    """Choose the quantizers of logits by cross-entropy."""
    config = work.config
    for name in work.graph.outputs:
        source = placement.shared.get(name, name)
        if source not in work.activations or work.feeds is None or config.output_range == "same":
            continue
        format = work.activations[source].format
        if config.output_range == "auto" and (
            format.bits >= WHOLE_RANGE_BITS or len(work.graph.shapes[name]) != 2 or config.activation_range != "auto"
        ):
            continue
        logits = measure_logits(work.graph, name, work.feeds)
        parameters = cross_entropy_range(logits, format, config.activation_scheme, config.power_of_two)
        work.activations[source] = per_tensor(parameters)
        work.log.append(f"set the range of {name!r} by cross-entropy")


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
    scheme, method = config.activation_scheme, config.activation_method(format.bits)
    if statistics.histogram is None or method == "batch_norm" or method in ("min_max", "percentile"):
        return QuantizationParameters.from_range(
            statistics.low, statistics.high, format, scheme, power_of_two=config.power_of_two
        )
    return per_tensor(set_range(statistics.histogram, format, scheme, method, config.power_of_two))


def choose_weights(work: Work) -> None:
    """Choose the quantizer of every constant operand, and round it to nearest."""
    config, graph = work.config, work.graph
    log: list[str] = []
    important = importances(graph, work.statistics)
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
                config.percentile,
                # Measured: per tensor it is worth 5 points at 4 bits, per channel nothing.
                None if config.per_channel else weight_importance(graph, node, work.statistics, important),
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


def weight_importance(
    graph: Graph,
    node: Node,
    statistics: Mapping[str, ChannelStatistics],
    important: Mapping[str, npt.NDArray[np.float64]],
) -> npt.NDArray[np.float64] | None:
    """Return how much a squared error of each weight of a layer counts, in the weights' shape.

    Parameters
    ----------
    graph : Graph
        The float network.
    node : Node
        A Conv, Gemm or MatMul of it.
    statistics : mapping of tensor name to ChannelStatistics
        Of what the layer reads.
    important : mapping of tensor name to float64 array
        As `importances` tells.

    Returns
    -------
    float64 array or None
        ``Var(x_i) · I_o``, docs/ptq.md (82); None where nothing is known, or nothing counts.
    """
    weights = graph.constants[node.inputs[1]]
    groups = node.attributes["group"] if node.op == "Conv" else 1
    by_output = weights.T if node.op == "MatMul" else weights
    outputs, inputs = by_output.shape[:2]
    source, target = statistics.get(node.inputs[0]), important[node.output]
    assert isinstance(groups, int)
    if source is None or source.variance.size != groups * inputs or target.size != outputs:
        return None
    counts = np.repeat(source.variance.reshape(groups, inputs), outputs // groups, axis=0) * target[:, np.newaxis]
    if not counts.any():
        return None
    spread = np.broadcast_to(counts.reshape(outputs, inputs, *(1,) * (by_output.ndim - 2)), by_output.shape)
    return spread.T if node.op == "MatMul" else spread


def quantize_operand(values: npt.NDArray[np.float32], format: IntegerFormat, config: PTQConfig) -> QuantizedWeights:
    """Quantize a constant operand of Add, Sub or Mul: to the hardware it is an activation that never changes."""
    format = IntegerFormat(format.bits, config.activation_signed)
    method = config.constant_method(format.bits)
    distribution = Distribution.of(values)
    parameters = per_tensor(set_range(distribution, format, "affine", method, config.power_of_two, config.percentile))
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
