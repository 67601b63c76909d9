"""The matrix product behind a linear layer: columns of its input and of its output, at some positions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.graph.graph import Graph, Node
from accelsim.program.geometry import Geometry

Float32 = npt.NDArray[np.float32]

Batches = Callable[[], Iterable[tuple[Float32, Float32]]]
"""Gives a fresh run over the calibration data: a layer's input with everything before it quantized, and the layer's
output, before any activation function, in the float network; both float32 with samples along axis 0."""

POSITIONS_PER_SAMPLE = 256
"""Output positions of a sample that are looked at; more of them tell the same again."""


def weight_rows(node: Node, weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the weights of a Conv, Gemm or MatMul as the matrix W of ``Y = W X + b``: shape (n, k)."""
    rows = weights.T if node.op == "MatMul" else weights
    return np.ascontiguousarray(rows.reshape(rows.shape[0], -1))


def weights_of_rows(node: Node, rows: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return the matrix of `weight_rows` in the shape that the node's constant has."""
    return np.ascontiguousarray(rows.T if node.op == "MatMul" else rows).reshape(shape)


def sampled_columns(
    graph: Graph, node: Node, batches: Batches, seed: int, positions: int = POSITIONS_PER_SAMPLE
) -> Iterator[tuple[Float32, Float32]]:
    """Run over the calibration data once, as columns.

    Parameters
    ----------
    graph : Graph
        Has the node and the shapes of its tensors.
    node : Node
        A Conv, Gemm or MatMul.
    batches : callable
        See `Batches`.
    seed : int
        Of the choice of positions, which is drawn anew for each batch; all samples of a batch share it.
    positions : int
        Most output positions of a sample; all are taken where there are no more.

    Yields
    ------
    X : float32 array, shape (groups, k, p)
        Inputs of each group; k runs over channel, kernel row, kernel column. Padded taps are 0.
    Y : float32 array, shape (n, p)
        Outputs.
    """
    rng = np.random.default_rng(seed)
    geometry = _geometry(graph, node)
    for inputs, outputs in batches():
        if geometry is None:
            X = inputs.reshape(-1, inputs.shape[-1]).T[np.newaxis]
            Y = outputs.reshape(-1, outputs.shape[-1]).T
            yield np.ascontiguousarray(X), np.ascontiguousarray(Y)
            continue
        chosen = np.arange(geometry.num_positions)
        if chosen.size > positions:
            chosen = np.sort(rng.choice(chosen.size, positions, replace=False))
        flat = outputs.reshape(*outputs.shape[:2], -1)[:, :, chosen]
        yield (
            _patches(inputs, geometry, chosen),
            np.ascontiguousarray(flat.transpose(1, 0, 2)).reshape(flat.shape[1], -1),
        )


def _patches(inputs: Float32, geometry: Geometry, chosen: npt.NDArray[np.intp]) -> Float32:
    """Return the taps of a convolution's window at the chosen positions: shape (groups, k, samples * positions)."""
    top, left, bottom, right = geometry.pads
    images = inputs.reshape(inputs.shape[0], *geometry.input_shape)
    padded = np.pad(images, ((0, 0), (0, 0), (top, bottom), (left, right)))
    row, column = np.divmod(chosen, geometry.output_shape[1])
    taps = np.empty((geometry.input_shape[0], *geometry.kernel_shape, images.shape[0], chosen.size), dtype=np.float32)
    for y in range(geometry.kernel_shape[0]):
        for x in range(geometry.kernel_shape[1]):
            rows = row * geometry.strides[0] + y * geometry.dilations[0]
            columns = column * geometry.strides[1] + x * geometry.dilations[1]
            taps[:, y, x] = padded[:, :, rows, columns].transpose(1, 0, 2)
    return taps.reshape(geometry.groups, geometry.reduction, -1)


def _geometry(graph: Graph, node: Node) -> Geometry | None:
    """Return the window of a convolution, None for a matrix product."""
    if node.op != "Conv":
        return None
    attributes: dict[str, Any] = dict(node.attributes)
    kernel = graph.constants[node.inputs[1]].shape[2:]
    inside, outside = graph.shapes[node.inputs[0]][1:], graph.shapes[node.output][2:]
    return Geometry.of(
        tuple(length or 1 for length in inside),
        kernel,
        attributes["strides"],
        attributes["pads"],
        attributes["dilations"],
        tuple(length or 1 for length in outside),
        attributes["group"],
    )
