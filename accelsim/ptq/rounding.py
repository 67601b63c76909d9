"""How the weights of a layer are rounded to its grid: to nearest, by the QUBO of equation (31), or by AdaRound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accelsim.formats import QuantizationParameters
from accelsim.graph.graph import Graph, Node
from accelsim.ptq.adaround import Annealing, Layer, adaround, keep_columns
from accelsim.ptq.columns import Batches, sampled_columns, weight_rows, weights_of_rows
from accelsim.ptq.config import RoundingMethod
from accelsim.ptq.qubo import SecondMoments, candidates, search
from accelsim.ptq.rewriting import bias_of
from accelsim.ptq.slopes import following_activation, function_and_slope

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Grid:
    """A layer's weights as the matrix W, and the grid that they are rounded to, per channel."""

    rows: Float64
    scale: Float64
    zero: Int64
    least: Int64
    most: Int64

    @classmethod
    def of(cls, node: Node, weights: npt.NDArray[np.float32], parameters: QuantizationParameters) -> _Grid:
        rows = weight_rows(node, weights).astype(np.float64)
        column = (rows.shape[0], 1)
        scale = np.broadcast_to(parameters.scale.astype(np.float64).reshape(-1, 1), column)
        zero = np.broadcast_to(parameters.zero_point.astype(np.int64).reshape(-1, 1), column)
        return cls(rows, scale, zero, parameters.format.minimum - zero, parameters.format.maximum - zero)


def round_weights(
    graph: Graph,
    node: Node,
    parameters: QuantizationParameters,
    batches: Batches,
    method: RoundingMethod,
    seed: int = 0,
    centred: bool = False,
    annealing: Annealing | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Int64, str]:
    """Round the weights of one layer.

    Parameters
    ----------
    graph : Graph
        The float network; has the layer's weights and bias and the activation function behind it.
    node : Node
        A Conv, Gemm or MatMul: dense, grouped or depthwise.
    parameters : QuantizationParameters
        The grid of the weights.
    batches : callable
        The layer's calibration data, see `accelsim.ptq.columns.Batches`. Not called by ``nearest``.
    method : {"nearest", "qubo", "adaround"}
        See `accelsim.ptq.config.RoundingMethod`.
    seed : int
        Of the choice of output positions and of AdaRound's batches. The same seed gives the same integers.
    centred : bool
        A bias correction follows, so the error of the mean does not count. AdaRound, whose error is taken behind the
        activation function, takes no notice.
    annealing : Annealing, optional
        The course of AdaRound.
    progress : callable, optional
        Told AdaRound's ``(steps done, steps in all)``.

    Returns
    -------
    integers : int64 array, shape of the weights
        Stored integers.
    line : str
        What was gained, for the log; empty for ``nearest``.
    """
    weights = graph.constants[node.inputs[1]]
    if method == "nearest":
        return parameters.quantize(weights).astype(np.int64), ""
    grid = _Grid.of(node, weights, parameters)
    bias = bias_of(graph, node)
    nearest = weight_rows(node, parameters.quantize(weights).astype(np.int64)) - grid.zero
    columns = sampled_columns(graph, node, batches, seed)
    if method == "qubo":
        return round_by_moments(graph, node, parameters, SecondMoments.collect(columns, bias, centred))
    function, slope = function_and_slope(graph, following_activation(graph, node))
    layer = Layer(grid.rows / grid.scale, grid.scale, grid.least, grid.most, bias, function, slope)
    X, Y = keep_columns(columns)
    codes = adaround(layer, X, Y, seed, annealing, progress)
    wanted = function(Y)
    power = float(np.square(wanted).mean())
    errors = [float(np.square(function(layer.outputs(steps, X)) - wanted).mean()) for steps in (nearest, codes)]
    integers = weights_of_rows(node, codes + grid.zero, weights.shape)
    return integers, _line(node, "adaround", codes, nearest, errors, power)


def round_by_moments(
    graph: Graph, node: Node, parameters: QuantizationParameters, moments: SecondMoments, source: str = ""
) -> tuple[Int64, str]:
    """Round the weights of one layer by ``qubo`` on second moments that are known.

    Parameters
    ----------
    graph, node, parameters
        As in `round_weights`.
    moments : SecondMoments
        Measured, or told from batch norms by `accelsim.ptq.covariances`.
    source : str
        Where the moments are from, for the log.

    Returns
    -------
    integers, line
        As of `round_weights`.
    """
    weights = graph.constants[node.inputs[1]]
    grid = _Grid.of(node, weights, parameters)
    nearest = weight_rows(node, parameters.quantize(weights).astype(np.int64)) - grid.zero
    low, high = candidates(grid.rows, grid.scale, grid.least, grid.most)
    codes = search(moments, grid.rows, grid.scale, low, high, nearest)
    errors = [float(moments.error(grid.scale * steps).sum()) for steps in (nearest, codes)]
    line = _line(node, f"qubo{source}", codes, nearest, errors, float(moments.power.sum()))
    return weights_of_rows(node, codes + grid.zero, weights.shape), line


def _line(node: Node, method: str, codes: Int64, nearest: Int64, errors: list[float], power: float) -> str:
    """Say what was gained; ``errors`` with rounding to nearest and now."""
    changed = np.count_nonzero(codes != nearest) / codes.size
    shares = [100 * error / power if power > 0 else 0.0 for error in errors]
    return (
        f"rounded {node.op} {node.name!r} by {method}: output error {shares[0]:.3g} % with nearest, {shares[1]:.3g} % "
        f"now, {changed:.0%} of the weights the other way"
    )
