"""What a sweep is about: a network and its data, with their hashes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import DataError, ModelError
from accelsim.explore.identity import Arrays, array_digest, digest
from accelsim.graph.archive import quantized_bytes
from accelsim.graph.feeds import Feeds, Images
from accelsim.graph.graph import Graph
from accelsim.graph.quantized import QuantizedGraph

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Subject:
    """A network with its data.

    Parameters
    ----------
    name : str
        Of the network.
    model : uint8 array or None
        The float ONNX model that is quantized; None where the network is quantized already.
    quantized : bytes or None
        The quantized network as it is saved, where it was given.
    reference : uint8 array
        The float ONNX model, for the reference.
    images, calibration : mapping of input name to array
        Samples along axis 0; calibration is empty for a quantized network.
    labels : int64 array or None
        Class of each sample.
    num_samples : int
        Of images.
    model_digest, images_digest, calibration_digest, labels_digest : str
        Hashes.
    """

    name: str
    model: Bytes | None
    quantized: bytes | None
    reference: Bytes
    images: Arrays
    calibration: Arrays
    labels: npt.NDArray[np.int64] | None
    num_samples: int
    model_digest: str
    images_digest: str
    calibration_digest: str
    labels_digest: str

    @classmethod
    def of(
        cls,
        network: Graph | QuantizedGraph,
        images: Images,
        labels: npt.ArrayLike | None,
        calibration: Images | None,
    ) -> Subject:
        """Check a network and its data.

        Raises
        ------
        ModelError
            When the network did not come from an ONNX model.
        DataError
            When the data does not fit, or calibration data is missing or useless.
        """
        graph = network if isinstance(network, Graph) else network.original
        if graph.source is None:
            raise ModelError(
                f"network {graph.name!r} must come from an ONNX model: workers read it anew; use load_onnx"
            )
        total = Feeds(graph, images).num_samples
        given = _named(graph, images)
        if isinstance(network, Graph) == (calibration is None):
            raise DataError(
                "a float network needs calibration data to be quantized"
                if isinstance(network, Graph)
                else "the network is quantized already: calibration data would do nothing"
            )
        if calibration is not None:
            Feeds(graph, calibration)
        calibrated = {} if calibration is None else _named(graph, calibration)
        quantized = None if isinstance(network, Graph) else quantized_bytes(network)
        classes = None if labels is None else _checked_labels(labels, total)
        return cls(
            name=graph.name,
            model=np.frombuffer(graph.source, dtype=np.uint8) if quantized is None else None,
            quantized=quantized,
            reference=np.frombuffer(graph.source, dtype=np.uint8),
            images=given,
            calibration=calibrated,
            labels=classes,
            num_samples=total,
            model_digest=digest(graph.source if quantized is None else quantized),
            images_digest=array_digest(given),
            calibration_digest=array_digest(calibrated),
            labels_digest=array_digest({} if classes is None else {"labels": classes}),
        )


def _named(graph: Graph, images: Images) -> dict[str, npt.NDArray[Any]]:
    """Return images under the names of the inputs, in memory and in one piece."""
    if isinstance(images, np.ndarray):
        images = {graph.inputs[0].name: images}
    return {tensor.name: np.ascontiguousarray(images[tensor.name]) for tensor in graph.inputs}


def _checked_labels(labels: npt.ArrayLike, samples: int) -> npt.NDArray[np.int64]:
    """Return labels, one per sample."""
    array = np.asarray(labels)
    if array.shape != (samples,) or array.dtype.kind not in "iu":
        raise DataError(
            f"labels must be {samples} whole numbers, one per sample, got shape {array.shape} of {array.dtype}"
        )
    return array.astype(np.int64)
