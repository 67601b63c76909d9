"""Post-training quantization from a float graph to integers: the order of steps of the white paper's figure 8."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from accelsim.errors import CalibrationError, DataError, ModelError
from accelsim.graph.feeds import Feeds, Images
from accelsim.graph.graph import Graph, Node
from accelsim.graph.operators import LINEAR
from accelsim.graph.quantized import QuantizedGraph, QuantizedWeights
from accelsim.ptq.bias_correction import channel_axis, corrected_bias, expected_shift, mean_output
from accelsim.ptq.config import PTQConfig, RoundingMethod
from accelsim.ptq.covariances import expected_second_moments, propagate_covariances
from accelsim.ptq.moments import Moments, propagate_moments
from accelsim.ptq.quantizers import choose_activations, choose_weights, largest_bias
from accelsim.ptq.sequential import SequentialRun, StoredLayer
from accelsim.ptq.steps import absorb, assign_widths, equalize_ranges, fold_norms, observe_channels, prune
from accelsim.ptq.work import Work
from accelsim.reference.batches import Progress

Step = Callable[[Work], None]
"""Reads and changes the working state, and adds a line to its log for each thing that it did."""


def quantize(
    graph: Graph,
    calibration: Images | None = None,
    config: PTQConfig | None = None,
    progress: Progress | None = None,
) -> QuantizedGraph:
    """Quantize a trained network without training it again.

    Parameters
    ----------
    graph : Graph
        The float network.
    calibration : array or mapping of input name to array, optional
        Inputs as the network is fed with them, samples along axis 0; 500 to 1000 are plenty, no labels needed.
        Without them everything is told from batch norms.
    config : PTQConfig, optional
        Bit-widths, schemes, granularity and the choices of each step; 8-bit weights and activations per tensor, with
        the whole pipeline, if left out.
    progress : callable, optional
        Called as ``progress(step, done, total)`` while a long step runs.

    Returns
    -------
    QuantizedGraph
        The folded and rescaled network with a quantizer on every stored tensor and integer weights, and a log of what
        each step did to each layer.

    Raises
    ------
    CalibrationError
        When the calibration data does not fit the network, or an activation is not finite.
    ModelError
        When the network is none, or a folded weight is not finite.
    """
    if not isinstance(graph, Graph):
        raise ModelError(f"graph must be a Graph, got {type(graph).__name__}; load_onnx reads one")
    if not isinstance(config, PTQConfig | None):
        raise CalibrationError(f"config must be a PTQConfig, got {config!r}; PTQConfig(weight_bits=4) makes one")
    feeds = None
    if calibration is not None:
        try:
            feeds = Feeds(graph, calibration)
        except DataError as problem:
            raise CalibrationError(f"calibration data: {problem}") from None
    work = Work(graph, config or PTQConfig(), feeds, progress)
    for step in STEPS:
        step(work)
    return work.quantized()


def round_and_correct(work: Work) -> None:
    """Round weights and correct biases layer by layer, each with the layers before it already quantized."""
    linear = [node for node in work.graph.nodes if node.op in LINEAR]
    methods = {node.name: work.config.rounding_method(work.weight_format(node).bits) for node in linear}
    optimizes = work.feeds is not None and bool(set(methods.values()) - {"nearest"})
    if work.feeds is None:
        _round_by_expectation(work, linear, methods)
    if work.feeds is None or not (work.corrects_empirically or optimizes):
        if work.config.bias_correction in ("auto", "analytic"):
            _correct_analytically(work)
        return
    run = SequentialRun(work.graph, work.activations, work.feeds)
    for number, layer in enumerate(run.layers):
        if layer.linear:
            _round(work, run, layer, methods[layer.node.name])
        if layer.linear and work.corrects_empirically:
            _correct_bias(work, run, layer)
        run.advance(layer, work.weights, work.biases)
        if work.progress is not None:
            work.progress("rounding and bias correction", number + 1, len(run.layers))
    if work.config.bias_correction == "analytic":
        _correct_analytically(work)


def _round(work: Work, run: SequentialRun, layer: StoredLayer, method: RoundingMethod) -> None:
    """Choose the integers of a layer's weights on the grid that they have; rounding to nearest is done already."""
    if method == "nearest":
        return
    from accelsim.ptq.adaround import Annealing
    from accelsim.ptq.rounding import round_weights

    node, progress = layer.node, work.progress
    report = None if progress is None else partial(progress, f"adaround {node.name}")
    parameters = work.weights[node.inputs[1]].parameters
    integers, line = round_weights(
        work.graph,
        node,
        parameters,
        lambda: run.batches(layer),
        method,
        seed=work.config.seed,
        centred=work.corrects_empirically,
        annealing=Annealing(iterations=work.config.adaround_iterations),
        progress=report,
    )
    work.weights[node.inputs[1]] = QuantizedWeights(integers, parameters)
    work.log.append(line)


def _round_by_expectation(work: Work, linear: Sequence[Node], methods: Mapping[str, RoundingMethod]) -> None:
    """Round weights without data, on the second moments that batch norms tell of."""
    if set(methods.values()) <= {"nearest"}:
        return
    from accelsim.ptq.rounding import round_by_moments

    graph, known = work.graph, _expected_moments(work)
    covariances = propagate_covariances(graph, known)
    for node in linear:
        source = node.inputs[0]
        if methods[node.name] == "nearest" or source not in covariances:
            continue
        centred = work.config.bias_correction != "none"
        moments = expected_second_moments(graph, node, known[source], covariances[source], centred)
        if moments is None:
            continue
        parameters = work.weights[node.inputs[1]].parameters
        integers, line = round_by_moments(graph, node, parameters, moments, " without data")
        work.weights[node.inputs[1]] = QuantizedWeights(integers, parameters)
        work.log.append(line)


def _expected_moments(work: Work) -> dict[str, Moments]:
    """Return what batch norms tell of every tensor."""
    inputs = {name: statistics.moments for name, statistics in work.inputs.items()}
    return propagate_moments(work.graph, work.norms, inputs)


def _correct_bias(work: Work, run: SequentialRun, layer: StoredLayer) -> None:
    """Bring the mean output of a layer back to the float network's."""
    node = layer.node
    axis = channel_axis(work.graph, node)
    wanted = mean_output((y for _, y in run.batches(layer)), axis)
    shift = mean_output(run.simulate(layer, work.weights), axis) - wanted
    _set_bias(work, node, shift)


def _correct_analytically(work: Work) -> None:
    """Correct biases by the expected input of each layer."""
    moments = _expected_moments(work)
    for node in work.graph.nodes:
        if node.op not in LINEAR:
            continue
        if node.inputs[0] not in moments:
            work.log.append(f"left the bias of {node.op} {node.name!r} alone: no batch norm tells of its input")
            continue
        weights = work.weights[node.inputs[1]]
        _set_bias(work, node, expected_shift(work.graph, node, weights, moments[node.inputs[0]]))


def _set_bias(work: Work, node: Node, shift: npt.NDArray[np.float64]) -> None:
    """Correct a bias as far as the accumulator's width lets it."""
    weights = work.weights[node.inputs[1]]
    limit = largest_bias(node, weights, work.activations[node.inputs[0]], work.config.bias_bits)
    work.biases[node.name] = corrected_bias(work.graph, node, shift, limit)
    work.log.append(f"corrected the bias of {node.op} {node.name!r} by up to {np.abs(shift).max():.3g}")


STEPS: tuple[Step, ...] = (
    fold_norms,
    assign_widths,
    observe_channels,
    prune,
    equalize_ranges,
    absorb,
    choose_activations,
    choose_weights,
    round_and_correct,
)
"""The pipeline: white paper section 3.5. Activation ranges come before the weights' because a weight scale must leave
room for the bias in units of both scales, and because rounding and bias correction see quantized activations."""
