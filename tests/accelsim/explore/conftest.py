"""The shipped network, quantized, and a few of its images."""

from types import SimpleNamespace

import pytest

import accelsim as ax
from accelsim.data import digits_model_path, load_digits


@pytest.fixture(scope="session")
def digits():
    """The network with 8-bit weights per channel, 12 images and their labels."""
    data, graph = load_digits(), ax.load_onnx(digits_model_path())
    quantized = ax.quantize(graph, data.x_calibration[:100], ax.PTQConfig(per_channel=True))
    return SimpleNamespace(
        graph=graph,
        quantized=quantized,
        calibration=data.x_calibration[:100],
        images=data.x_test[:12],
        labels=data.y_test[:12],
    )
