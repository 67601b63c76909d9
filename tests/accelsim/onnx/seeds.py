"""Small quantized models of all kinds, as bytes: what the fuzzer changes."""

import functools

from tests.accelsim.onnx import test_differential as kinds
from tests.accelsim.onnx.models import Model
from tests.accelsim.onnx.test_patterns import qdq_convolution


def convolution(m):
    shape, kernel, attributes = kinds.convolution(m)
    operands = [m.input(m.codes("uint8", *shape)), *m.quantizer("uint8"), m.constant(m.codes("uint8", *kernel))]
    return [m.node("QLinearConv", [*operands, *m.quantizer("uint8"), *m.quantizer("uint8")], **attributes)]


def matrix_product(m):
    operands = [m.input(m.codes("int8", 2, 3, 20)), *m.quantizer("int8"), m.constant(m.codes("int8", 20, 4))]
    return [m.node("QLinearMatMul", [*operands, *m.quantizer("int8"), *m.quantizer("int8", 8)])]


def between_quantizers(m):
    return [m.quantized(qdq_convolution(m), "uint8")]


@functools.cache
def seed_models():
    """Return {name: serialized model}."""
    models = {}
    for kind in (convolution, matrix_product, between_quantizers, *kinds.KINDS):
        for seed in range(3):
            m = Model(seed)
            models[f"{kind.__name__} {seed}"] = m.model(*kind(m)).SerializeToString()
    return models
