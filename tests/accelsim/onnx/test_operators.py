"""ONNX Runtime's operators against the oracles in fractions, on whole grids of codes and at ties."""

import itertools

import numpy as np
import pytest

import accelsim as ax
from accelsim.simulator.engine.onnxruntime import fused_multiply_add
from tests.accelsim.onnx.models import RANGES, Model
from tests.naive import onnxruntime as naive
from tests.naive.binary import f32


def run(m, *outputs):
    result = ax.simulate(ax.load_integer_onnx(m.model(*outputs)), m.feeds)
    return [result.outputs[name] for name in outputs]


def values_of(m, names):
    """The constants of a quantizer as a Python float and an int."""
    held = {tensor.name: tensor for tensor in m.constants}
    from onnx import numpy_helper

    scale, zero_point = (numpy_helper.to_array(held[name]).reshape(-1)[0] for name in names)
    return float(scale), int(zero_point)


@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul", "Add", "Sub", "Mul"])
@pytest.mark.parametrize("seed", range(4))
def test_sums_and_products_of_all_pairs(op, seed):
    m = Model(seed)
    dtype = ["int8", "uint8"][seed % 2]
    codes = np.arange(*RANGES[dtype], 17).astype(dtype)
    x, y = m.input(np.repeat(codes, codes.size)), m.input(np.tile(codes, codes.size))
    a, b, target = (m.quantizer(dtype) for _ in range(3))
    if op.startswith("QLinear"):
        output = m.contrib(op, [x, *a, y, *b, *target])
    else:
        operands = [m.node("DequantizeLinear", [x, *a]), m.node("DequantizeLinear", [y, *b])]
        output = m.node("QuantizeLinear", [m.node(op, operands), *target])
    (made,) = run(m, output)
    quantizers = [values_of(m, names) for names in (a, b)]
    limits = (*values_of(m, target), *RANGES[dtype])
    pairs = itertools.product(codes.tolist(), repeat=2)
    match op:
        case "QLinearAdd":
            wanted = [naive.qlinear_add(p, q, *quantizers, *limits) for p, q in pairs]
        case "QLinearMul":
            wanted = [naive.qlinear_mul(p, q, *quantizers, *limits) for p, q in pairs]
        case _:
            wanted = [naive.float_binary(op, p, q, *quantizers, *limits) for p, q in pairs]
    assert made.tolist() == wanted


@pytest.mark.parametrize("include", [0, 1])
def test_average_pools(include):
    for seed in range(4):
        m = Model(seed)
        x = m.codes("int8", 1, 1, 9)
        source, target = m.quantizer("int8"), m.quantizer("int8")
        window = {"kernel_shape": [3], "strides": [2], "pads": [1, 1], "count_include_pad": include}
        (pooled,) = run(m, m.contrib("QLinearAveragePool", [m.input(x), *source, *target], **window))
        taps = [None, *x.reshape(-1).tolist(), None]
        quantizers = values_of(m, source), values_of(m, target)
        wanted = [
            naive.average_pool(taps[start : start + 3], 3, *quantizers, include, -128, 127) for start in range(0, 9, 2)
        ]
        assert pooled.reshape(-1).tolist() == wanted


@pytest.mark.parametrize("op", ["QLinearGlobalAveragePool", "QLinearAveragePool"])
def test_a_window_over_the_whole_image_is_the_global_pool(op):
    for seed in range(6):
        m = Model(seed)
        x = m.codes("uint8", 1, 3, 2, 2)
        source, target = m.quantizer("uint8"), m.quantizer("uint8")
        window = {"kernel_shape": [2, 2]} if op == "QLinearAveragePool" else {}
        (pooled,) = run(m, m.contrib(op, [m.input(x), *source, *target], **window))
        quantizers = values_of(m, source), values_of(m, target)
        wanted = [naive.global_average_pool(channel, *quantizers, 0, 255) for channel in x.reshape(3, 4).tolist()]
        assert pooled.reshape(-1).tolist() == wanted


def test_quantizers_at_ties():
    m = Model()
    values = np.array([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 300, -300, 1e30, -np.float32(1e30)], dtype=np.float32)
    operands = [m.constant(np.float32(1)), m.constant(np.int8(1))]
    codes = m.node("QuantizeLinear", [m.input(values), *operands])
    made, real = run(m, codes, m.node("DequantizeLinear", [codes, *operands]))
    wanted = [naive.quantize_linear(float(value), 1.0, 1, -128, 127) for value in values]
    assert made.tolist() == wanted
    assert made[:6].tolist() == [1, 3, 3, 1, -1, -1]
    assert real.tolist() == [float(naive.dequantize_linear(code, 1.0, 1)) for code in wanted]


@pytest.mark.parametrize("values", [[0.0, 0.0], [1.0, 2.5, 300.0], [-4.0, -0.1], [-1.0, 0.3, 0.7, 2.0]])
def test_dynamic_quantization(values):
    m = Model()
    outputs = m.node("DynamicQuantizeLinear", [m.input(np.array(values, dtype=np.float32))], outputs=3)
    codes, scale, zero_point = run(m, *outputs)
    wanted = naive.dynamic_quantize_linear([float(np.float32(value)) for value in values])
    assert (codes.tolist(), float(scale), int(zero_point)) == (wanted[0], float(wanted[1]), wanted[2])


def test_a_fused_multiply_add_rounds_once():
    rng = np.random.default_rng(0)
    a = rng.integers(-255, 256, 3000).astype(np.float32)
    b, c = (rng.normal(size=3000) * np.exp2(rng.integers(-30, 30, 3000)) for _ in range(2))
    b, c = b.astype(np.float32), c.astype(np.float32)
    c[:1000] = (-a.astype(np.float64) * b)[:1000]  # cancellation leaves the product's own rounding error
    # The sum in float64 lies half-way between two float32 numbers, and what it lost decides.
    a[0], b[0], c[0] = 1 + 2.0**-23, 2.0**-60, 1 + 2.0**-23
    ones = np.float32(1) + np.float32(2.0**-23)
    a[1:3], b[1:3], c[1:3] = [2.0**-24 * 3] * 2, [ones, -ones], [1, -1]
    made = fused_multiply_add(a, b, c)
    wanted = [
        float(f32(naive.Fraction(float(p)) * naive.Fraction(float(q)) + naive.Fraction(float(r))))
        for p, q, r in zip(a, b, c, strict=True)
    ]
    assert made.tolist() == wanted
    half = np.float32(2.0**-24)  # 1 + 2^-24 is a tie; a little more or less is not
    tiny = np.float32(2.0**-90)
    assert fused_multiply_add(half, np.float32(1), np.float32(1)) == 1
    for sign in (1, -1):
        nearly = fused_multiply_add(np.float32(1), sign * tiny, np.float32(1))
        assert nearly == 1
