"""Trained networks, quantized: how much of their accuracy is left, and how near the hardware comes to ONNX Runtime."""

import functools
import io
import itertools
from pathlib import Path

import numpy as np
import pytest

from accelsim.graph.reader import load_onnx
from accelsim.ptq import PTQConfig, quantize
from accelsim.reference import OnnxRunner, compare
from accelsim.simulator.run import simulate

SHARED = Path(__file__).resolve().parents[4] / "shared"
PLAIN = {"prune_constants": False, "equalize": False, "bias_correction": "none", "rounding": "nearest"}
"""Quantization without any of the steps that repair what it does."""


def top1(runner, images, labels):
    answers = runner.run({runner.inputs[0]: images})[runner.outputs[0]].reshape(len(images), -1).argmax(axis=1)
    return 100 * float((answers == labels).mean())


@pytest.fixture(scope="module")
def resnet8():
    model, data = SHARED / "models" / "resnet8_cifar10.onnx", SHARED / "data" / "cifar10_500.npz"
    if not (model.exists() and data.exists()):
        pytest.skip("the shared models and images are not beside this checkout")
    with np.load(data, allow_pickle=False) as arrays:
        images = arrays["x_test"].transpose(0, 3, 1, 2).astype(np.float32)
        calibration = arrays["x_calibration"][:256].transpose(0, 3, 1, 2)
        labels = arrays["y_test"].ravel()
    graph = load_onnx(model)
    return graph, calibration, images, labels, top1(OnnxRunner.of_original(graph), images, labels)


@pytest.fixture(scope="module")
def at_eight_bits(resnet8):
    """Return a function that quantizes ResNet8 to 8 bits, per channel or per tensor, once."""
    graph, calibration, *_ = resnet8
    return functools.cache(lambda per_channel: quantize(graph, calibration, PTQConfig(per_channel=per_channel)))


@pytest.mark.slow
@pytest.mark.parametrize(("per_channel", "tolerated"), [(False, 1.0), (True, 0.8)])
def test_resnet8_keeps_its_accuracy_at_eight_bits(resnet8, at_eight_bits, per_channel, tolerated):
    _, _, images, labels, in_float = resnet8
    quantized = at_eight_bits(per_channel)
    assert in_float > 87
    answers = simulate(quantized, images).real_outputs[quantized.graph.outputs[0]].argmax(axis=1)
    assert 100 * float((answers == labels).mean()) >= in_float - tolerated


@pytest.mark.slow
@pytest.mark.parametrize("per_channel", [False, True])
def test_resnet8_keeps_most_of_its_accuracy_without_data_at_four_bits(resnet8, per_channel):
    """With rounding to nearest 10 and 6 points go, with second moments from batch norms 2 or 3."""
    graph, _, images, labels, in_float = resnet8
    quantized = quantize(graph, config=PTQConfig(weight_bits=4, per_channel=per_channel))
    assert top1(OnnxRunner.of_simulated(quantized), images, labels) >= in_float - 4


@pytest.mark.slow
def test_resnet8_collapses_with_four_bit_weights_and_min_max(resnet8):
    """About 20 of 89 % are left; MSE ranges bring most of them back."""
    graph, calibration, images, labels, _ = resnet8
    scores = {}
    for method in ("min_max", "mse"):
        config = PTQConfig(weight_bits=4, weight_range=method, **PLAIN)
        scores[method] = top1(OnnxRunner.of_simulated(quantize(graph, calibration, config)), images, labels)
    assert scores["min_max"] < 30
    assert scores["mse"] > scores["min_max"] + 15


@pytest.mark.slow
def test_resnet8_by_itself_no_layer_is_more_than_one_code_apart(resnet8, at_eight_bits):
    graph, _, images, labels, _ = resnet8
    report = compare(graph, at_eight_bits(False), images[:60], labels=labels[:60].astype(np.int64))
    assert max(layer.own_difference for layer in report.layers) == 1
    shares = {layer.name: layer.own_differing_share for layer in report.layers}
    # A sum of 64 codes times 0.055, with two roundings: after the first, one of 16 values is a tie of the second, and
    # half of those came from below it. So 1/32 of the averages round up that should not.
    assert shares.pop("average_pooling2d") < 1.3 / 32
    assert max(shares.values()) < 0.02
    assert report.metrics["float"]["top1"] > 0.8
    assert abs(report.metrics["simulated"]["top1"] - report.metrics["actual"]["top1"]) <= 2 / 60


@pytest.mark.slow
def test_mobilenet_needs_a_scale_per_channel():
    """Per tensor its depthwise layers, whose channels differ by orders of magnitude, collapse: white paper 3.2."""
    image_module = pytest.importorskip("PIL.Image", reason="pillow decodes the shared JPEG images")
    model, data = SHARED / "models" / "mobilenetv1_025_imagenet.onnx", SHARED / "data" / "imagenet_264_jpeg.npz"
    if not (model.exists() and data.exists()):
        pytest.skip("the shared models and images are not beside this checkout")
    with np.load(data, allow_pickle=False) as arrays:
        pixels = {}
        for kind in ("test", "calibration"):
            files, offsets = arrays[f"{kind}_jpeg"].tobytes(), arrays[f"{kind}_offset"]
            decoded = [
                np.asarray(image_module.open(io.BytesIO(files[start:stop])).convert("RGB"))
                for start, stop in itertools.pairwise(offsets)
            ]
            pixels[kind] = np.stack(decoded).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(127.5) - 1
        labels = arrays["test_label"]
    graph = load_onnx(model)
    assert top1(OnnxRunner.of_original(graph), pixels["test"], labels) > 50
    scores = {}
    for per_channel in (False, True):
        config = PTQConfig(per_channel=per_channel, weight_range="min_max", activation_range="min_max", **PLAIN)
        quantized = quantize(graph, pixels["calibration"], config)
        scores[per_channel] = top1(OnnxRunner.of_simulated(quantized), pixels["test"], labels)
    assert scores[False] < 2
    assert scores[True] > 48
