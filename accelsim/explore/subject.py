"""What a sweep is about: a network and its data, with their hashes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from accelsim.errors import DataError, ModelError
from accelsim.explore.identity import Arrays, array_digest, digest
from accelsim.explore.models import Form, StoredNetwork
from accelsim.graph.feeds import Feeds, HasInputs, Images
from accelsim.graph.graph import Graph
from accelsim.graph.quantized import QuantizedGraph
from accelsim.program.program import IntegerProgram

Bytes = npt.NDArray[np.uint8]


_CHECKED_SAMPLES = 64
"""Images that are looked at together."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A network with its data.

    Parameters
    ----------
    name : str
        Of the network.
    model : uint8 array or None
        The float ONNX model that is quantized; None where the network is quantized already.
    given : StoredNetwork or None
        The quantized network, where it was given.
    reference : uint8 array
        The model whose first output the points are held to.
    reference_form : str
        ``float`` for an ONNX model that ONNX Runtime runs, else the form of an imported model.
    reference_machine : str or None
        The imported model's own machine, as TOML.
    whole : bool
        As of an `IntegerProgram`.
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
    given: StoredNetwork | None
    reference: Bytes
    reference_form: Form | Literal["float"]
    reference_machine: str | None
    whole: bool
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
        network: Graph | QuantizedGraph | IntegerProgram,
        images: Images,
        labels: npt.ArrayLike | None,
        calibration: Images | None,
    ) -> Subject:
        """Check a network and its data.

        Raises
        ------
        ModelError
            When the network did not come from a file that workers can read anew.
        DataError
            When the data does not fit, or calibration data is missing or useless.
        """
        graph = network.original if isinstance(network, QuantizedGraph) else network
        whole = isinstance(network, IntegerProgram) and network.whole
        feeds = Feeds(graph, images, whole)
        total = feeds.num_samples
        for batch in feeds.batches(_CHECKED_SAMPLES):  # refused now, and not by every point
            if isinstance(graph, IntegerProgram):
                for name, values in batch.items():
                    graph.store(name, values)
        named = _named(graph, images)
        if isinstance(network, Graph) == (calibration is None):
            raise DataError(
                "a float network needs calibration data to be quantized"
                if isinstance(network, Graph)
                else "the network is quantized already: calibration data would do nothing"
            )
        if calibration is not None:
            Feeds(graph, calibration)
        calibrated = {} if calibration is None else _named(graph, calibration)
        given = None if isinstance(network, Graph) else StoredNetwork.of(network)
        if isinstance(graph, IntegerProgram):
            assert given is not None
            source, machine = given.data, graph.machine.to_toml()
        else:
            source, machine = _float_source(graph), None
        form: Form | Literal["float"] = "float" if given is None or machine is None else given.form
        rows = next(iter(named.values())).shape[0] if whole else total  # a run of a model may be several samples
        classes = None if labels is None else _checked_labels(labels, rows)
        data = source if given is None else given.data
        return cls(
            name=graph.name,
            model=np.frombuffer(source, dtype=np.uint8) if given is None else None,
            given=given,
            reference=np.frombuffer(source, dtype=np.uint8),
            reference_form=form,
            reference_machine=machine,
            whole=whole,
            images=named,
            calibration=calibrated,
            labels=classes,
            num_samples=total,
            model_digest=digest(data, form if machine is None else [form, machine]),
            images_digest=array_digest(named),
            calibration_digest=array_digest(calibrated),
            labels_digest=array_digest({} if classes is None else {"labels": classes}),
        )


def _float_source(graph: Graph) -> bytes:
    """Return the ONNX model of a float network."""
    if graph.source is None:
        raise ModelError(f"network {graph.name!r} must come from an ONNX model: workers read it anew; use load_onnx")
    return graph.source


def _named(graph: HasInputs, images: Images) -> dict[str, npt.NDArray[Any]]:
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
