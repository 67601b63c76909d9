"""The shipped network as ONNX Runtime's own tools quantize it, run by both: no element differs."""

import warnings

import numpy as np
import onnx
import pytest

import accelsim as ax
from accelsim.data import digits_model_path, load_digits
from tests.accelsim.onnx.models import by_onnxruntime

IMAGES = 60


class Calibration:
    """Feeds calibration images to ONNX Runtime's quantizer."""

    def __init__(self, name, images):
        self._batches = iter([{name: images[start : start + 8]} for start in range(0, len(images), 8)])

    def get_next(self):
        return next(self._batches, None)


@pytest.fixture(scope="module")
def digits():
    return load_digits()


def quantized_by_onnxruntime(kind, digits, path):
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static

    source = onnx.load(digits_model_path())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "dynamic":
            quantize_dynamic(source, path, weight_type=QuantType.QUInt8)
        else:
            layout, activations, per_channel = kind
            reader = Calibration(source.graph.input[0].name, digits.x_calibration[:32].astype(np.float32))
            quantize_static(
                source, path, reader, quant_format=getattr(QuantFormat, layout), per_channel=per_channel,
                activation_type=getattr(QuantType, activations), weight_type=QuantType.QInt8, reduce_range=True,
            )  # fmt: skip
    return onnx.load(path)


KINDS = ["dynamic", ("QDQ", "QUInt8", True), ("QDQ", "QInt8", False), ("QOperator", "QUInt8", False)]


@pytest.mark.slow  # calibration by ONNX Runtime
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_digits_network(kind, digits, tmp_path):
    model = quantized_by_onnxruntime(kind, digits, str(tmp_path / "model.onnx"))
    program = ax.load_integer_onnx(model)
    feeds = {program.inputs[0].name: digits.x_test[:IMAGES].astype(np.float32)}
    result = ax.simulate(program, feeds)
    (made,), (wanted,) = result.outputs.values(), by_onnxruntime(model, feeds)
    np.testing.assert_array_equal(made, wanted)
    assert result.num_samples == IMAGES
    assert program.coupled == (kind == "dynamic")
    assert result.overflow_events == 0
    assert (made.argmax(axis=1) == digits.y_test[:IMAGES]).mean() > 0.9
    narrow = program.machine.replace(accumulator_bits=14, overflow="saturate")
    assert ax.simulate(program, feeds, narrow).overflow_events > 0
