"""What a quantized model may look like: fusion, float parts, operands of a run, batches, other machines, refusals."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import accelsim as ax
from tests.accelsim.onnx.models import Model, by_onnxruntime, differing


def qdq_convolution(m, weights=None, bias=True):
    """Conv between quantizers; with other weights where they are given."""
    x = m.dequantized(m.input(m.codes("uint8", 2, 3, 6, 6)), "uint8")
    if weights is None:
        scale = np.exp2(m.rng.uniform(-12, -8, 4)).astype(np.float32)
        stored = m.constant(m.codes("int8", 4, 3, 3, 3, most=127))
        weights = m.node("DequantizeLinear", [stored, m.constant(scale)], axis=0)
    operands = [x, weights]
    if bias:
        operands.append(m.constant(m.rng.normal(size=4).astype(np.float32)))
    return m.node("Conv", operands)


def test_the_default_machine_is_that_of_onnx_runtime():
    m = Model()
    program = ax.load_integer_onnx(m.model(m.quantized(qdq_convolution(m), "uint8")))
    machine = ax.Machine.preset("edge_16x16")
    wanted = machine.replace(accumulator_bits=32, overflow="wrap", requantizer="onnxruntime")
    assert program.machine == wanted
    assert program.macs == 2 * 4 * 4 * 4 * 27
    assert "onnxruntime" in program.summary()


@pytest.mark.parametrize(
    "kind", ["float weights", "float input", "float both", "blocked", "per input channel", "varies"]
)
def test_a_product_without_integer_meaning_shows_its_nodes(kind):
    m = Model()
    match kind:
        case "float weights":
            output = m.quantized(qdq_convolution(m, m.constant(np.ones((4, 3, 3, 3), np.float32))), "uint8")
            shown = ("'Conv_y1'", "DequantizeLinear 'y0'", "constant 'c0'", "QuantizeLinear 'QuantizeLinear_y2'")
        case "float input":
            weights = m.node("DequantizeLinear", [m.constant(m.codes("int8", 5, 4)), m.constant(np.float32(1))])
            output = m.node("MatMul", [m.input(np.ones((2, 5), np.float32)), weights])
            shown = ("MatMul", "'x0' is not the output of a DequantizeLinear")
        case "float both":
            x = m.node("Relu", [m.dequantized(m.input(m.codes("uint8", 2, 5)), "uint8")])
            output = m.node("Gemm", [x, m.constant(np.ones((5, 4), np.float32))])
            shown = ("Gemm", "Relu 'y1'")
        case "blocked":
            scale = m.constant(np.ones((2, 3), np.float32))
            weights = m.node("DequantizeLinear", [m.constant(m.codes("int8", 4, 3)), scale], axis=0, block_size=2)
            output = m.node("MatMul", [m.dequantized(m.input(m.codes("uint8", 2, 4)), "uint8"), weights])
            shown = ("MatMul", "not one per output channel")
        case "per input channel":
            scale = m.constant(np.ones(4, np.float32))
            weights = m.node("DequantizeLinear", [m.constant(m.codes("int8", 4, 3)), scale], axis=0)
            output = m.node("MatMul", [m.dequantized(m.input(m.codes("uint8", 2, 4)), "uint8"), weights])
            shown = ("MatMul", "not one per output channel")
        case _:
            weights = m.node("DequantizeLinear", [m.constant(m.codes("int8", 4, 3)), m.input(np.float32(1))])
            output = m.node("MatMul", [m.dequantized(m.input(m.codes("uint8", 2, 4)), "uint8"), weights])
            shown = ("MatMul", "is not constant")
    with pytest.raises(ax.ModelError, match="has no integer meaning") as caught:
        ax.load_integer_onnx(m.model(output))
    message = str(caught.value)
    assert "\n" not in message
    for part in shown:
        assert part in message


def test_float_models_are_sent_to_the_other_reader():
    m = Model()
    with pytest.raises(ax.ModelError, match="no quantized operator; read it with load_onnx"):
        ax.load_integer_onnx(m.model(m.node("Relu", [m.input(np.ones((1, 2), np.float32))])))


def test_a_product_without_a_quantizer_behind_it_stands_for_its_accumulators():
    m = Model(5)
    real = qdq_convolution(m, bias=False)
    gate = m.node("Mul", [real, m.node("Sigmoid", [real])])
    model = m.model(m.quantized(gate, "uint8"), real)
    program = ax.load_integer_onnx(model)
    result = ax.simulate(program, m.feeds)
    codes, values = by_onnxruntime(model, m.feeds)
    np.testing.assert_array_equal(result.outputs[program.outputs[0]], codes)
    # Float sums of products round; the accumulators do not. The difference is below the least bit of the largest term.
    np.testing.assert_allclose(result.outputs[program.outputs[1]], values, rtol=0, atol=np.abs(values).max() * 2.0**-20)
    assert [layer.op for layer in program.layers] == ["Conv", "DequantizeLinear", "Sigmoid", "Mul", "QuantizeLinear"]


def test_operands_may_all_be_inputs():
    m = Model(2)
    operands = [
        m.codes("uint8", 1, 2, 5, 5), np.float32(0.03), np.uint8(7), m.codes("int8", 4, 1, 3, 3, most=63),
        np.exp2(m.rng.uniform(-7, -4, 4)).astype(np.float32), np.zeros(4, np.int8), np.float32(0.04), np.uint8(130),
        m.rng.integers(-5000, 5000, 4).astype(np.int32),
    ]  # fmt: skip
    model = m.model(m.node("QLinearConv", [m.input(value) for value in operands], group=2))
    count, program = differing(model, m.feeds)
    assert count == 0
    record = ax.simulate(program, m.feeds).layers[0]
    assert record.macs == 2 * 2 * 9 * 9 == program.macs
    narrow = program.machine.replace(accumulator_bits=8, overflow="saturate", requantizer="tflite")
    assert ax.simulate(program, m.feeds, narrow).overflow_events > 0


def test_several_runs_of_a_model_of_fixed_size():
    m = Model(1)
    m.input(m.codes("uint8", 2, 3, 4))
    weights = m.constant(m.codes("uint8", 4, 5))
    operands = ["x0", *m.quantizer("uint8"), weights, *m.quantizer("uint8"), *m.quantizer("uint8", 8)]
    model = m.model(m.node("QLinearMatMul", operands))
    program = ax.load_integer_onnx(model)
    many = m.codes("uint8", 6, 3, 4)
    result = ax.simulate(program, many)
    parts = [by_onnxruntime(model, {"x0": many[start : start + 2]})[0] for start in (0, 2, 4)]
    np.testing.assert_array_equal(result.outputs["y0"], np.concatenate(parts))
    assert result.num_samples == 3
    with pytest.raises(ax.DataError, match="a multiple of 2"):
        ax.simulate(program, many[:3])


def test_an_open_batch_runs_sample_by_sample_where_samples_do_not_meet():
    m = Model(1)
    m.input(m.codes("uint8", 7, 5), batch="N")
    operands = ["x0", *m.quantizer("uint8"), m.constant(m.codes("uint8", 5, 3)), *m.quantizer("uint8")]
    product = m.node("QLinearMatMul", [*operands, *m.quantizer("uint8", 8)])
    count, program = differing(m.model(product), m.feeds)
    assert (count, program.coupled) == (0, False)
    assert ax.simulate(program, m.feeds).num_samples == 7
    count, program = differing(m.model(m.node("Transpose", [product], perm=[1, 0])), m.feeds)
    assert (count, program.coupled) == (0, True)


def test_an_open_batch_with_one_scale_for_all_samples():
    m = Model(4)
    codes, scale, zero_point = m.node(
        "DynamicQuantizeLinear", [m.input(m.rng.normal(size=(6, 5)).astype(np.float32), batch="N")], outputs=3
    )
    product = m.node("MatMulInteger", [codes, m.constant(m.codes("int8", 5, 3, most=63)), zero_point])
    count, program = differing(m.model(m.node("Mul", [m.node("Cast", [product], to=1), scale])), m.feeds)
    assert (count, program.coupled) == (0, True)
    machine = program.machine.replace(zero_point="at_input")
    again = ax.simulate(program, m.feeds, machine).outputs
    np.testing.assert_array_equal(
        *(next(iter(outputs.values())) for outputs in (again, ax.simulate(program, m.feeds).outputs))
    )


@pytest.mark.parametrize("requantizer", ["tflite", "ruy_x86", "float64_half_away"])
def test_other_machines_have_layers_of_their_own(requantizer):
    m = Model(9)
    x = m.input(m.codes("uint8", 2, 3, 6, 6))
    grid = m.quantizer("uint8")
    pooled = m.contrib("QLinearAveragePool", [x, *grid, *m.quantizer("uint8")], kernel_shape=[2, 2])
    added = m.contrib("QLinearAdd", [x, *grid, x, *m.quantizer("uint8"), *m.quantizer("uint8")])
    scaled = m.contrib("QLinearMul", [x, *grid, m.input(m.codes("uint8", 3, 1, 1)), *m.quantizer("uint8"), *grid])
    joined = m.contrib("QLinearConcat", [*grid, x, *m.quantizer("uint8"), added, *m.quantizer("uint8")], axis=1)
    output = m.quantized(qdq_convolution(m), "uint8")
    program = ax.load_integer_onnx(m.model(pooled, added, scaled, joined, output))
    machine = ax.Machine(rows=3, columns=4, requantizer=requantizer, accumulator_bits=16, overflow="saturate")
    fast, stepped = (ax.simulate(program, m.feeds, machine, engine=engine) for engine in ("fast", "stepped"))
    native = ax.simulate(program, m.feeds)
    for name, codes in fast.outputs.items():
        np.testing.assert_array_equal(codes, stepped.outputs[name])
        assert codes.dtype == native.outputs[name].dtype
    assert fast.overflow_events == stepped.overflow_events
    for name in (pooled, added, scaled, joined):  # another rounding is off by little
        assert np.abs(fast.outputs[name].astype(int) - native.outputs[name]).max() <= 2


def test_stored_inputs_are_checked_and_real_ones_quantized():
    m = Model(7)
    m.input(m.codes("uint8", 2, 5))
    operands = ["x0", m.constant(np.float32(0.5)), m.constant(np.uint8(10)), m.constant(m.codes("uint8", 5, 3))]
    program = ax.load_integer_onnx(
        m.model(m.node("QLinearMatMul", [*operands, *m.quantizer("uint8"), *m.quantizer("uint8")]))
    )
    codes = m.feeds["x0"]
    stored = ax.simulate(program, codes.astype(np.int64))
    real = ax.simulate(program, (codes.astype(np.float32) - 10) * np.float32(0.5))
    np.testing.assert_array_equal(stored.outputs["y0"], real.outputs["y0"])
    with pytest.raises(ax.DataError, match=r"input 'x0' is stored as uint8 \(0\.\.255\), got 0\.\.256"):
        ax.simulate(program, np.array([[0, 256, 0, 0, 0]] * 2))
    m = Model()
    accumulators = ax.load_integer_onnx(m.model(m.node("MatMulInteger", [m.input(codes), m.constant(codes.T)])))
    with pytest.raises(ax.DataError, match="stored as uint8 without a scale"):
        ax.simulate(accumulators, codes.astype(np.float32))


def test_a_machine_with_narrow_operands_refuses_wide_ones():
    m = Model()
    program = ax.load_integer_onnx(m.model(m.quantized(qdq_convolution(m), "uint8")))
    with pytest.raises(ax.LoweringError, match="weights are int8, the machine's PEs take 4-bit weights"):
        ax.simulate(program, m.feeds, program.machine.replace(weight_bits=4))


def broken(change):
    """A model of two layers with something changed."""
    m = Model()
    x = m.input(m.codes("uint8", 1, 3, 4, 4))
    pooled = m.contrib("QLinearAveragePool", [x, *m.quantizer("uint8"), *m.quantizer("uint8")], kernel_shape=[2, 2])
    model = m.model(m.dequantized(pooled, "uint8"))
    change(model.graph)
    return model


def set_attribute(graph, attribute):
    del graph.node[0].attribute[:]
    graph.node[0].attribute.append(attribute)


REFUSED = {
    "an input is missing": (lambda g: g.node[0].input.__setitem__(1, ""), "its input 1 is missing"),
    "an attribute of the wrong type": (
        lambda g: set_attribute(g, helper.make_attribute("kernel_shape", 2)), "of the wrong type"
    ),
    "an unknown attribute": (lambda g: set_attribute(g, helper.make_attribute("size", [2, 2])), "is unknown"),
    "an operator that is not known": (lambda g: setattr(g.node[0], "op_type", "QAttention"), "is not supported"),
    "a float zero point": (
        lambda g: g.initializer[1].CopyFrom(helper.make_tensor("c1", 1, [], [float("nan")])), "must be an integer"
    ),
    "a scale of zero": (lambda g: g.initializer[0].CopyFrom(helper.make_tensor("c0", 1, [], [0.0])), "above 0"),
    "a zero point of another shape": (
        lambda g: g.initializer[5].CopyFrom(helper.make_tensor("c5", 2, [3], [0, 1, 2])), "one shape"
    ),
    "a string": (lambda g: setattr(g.input[0].type.tensor_type, "elem_type", TensorProto.STRING), "data type string"),
    "an output that is a constant": (
        lambda g: (
            g.node.append(helper.make_node("DequantizeLinear", ["c1", "c0"], ["k"])),
            g.output.append(helper.make_empty_tensor_value_info("k")),
        ),
        "is a constant",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_broken_models_are_refused_in_one_line(name):
    change, words = REFUSED[name]
    with pytest.raises(ax.AccelsimError, match=words) as caught:
        ax.load_integer_onnx(broken(change))
    assert "\n" not in str(caught.value)


def test_external_integers_are_read_from_the_models_folder(tmp_path):
    m = Model(3)
    x = m.input(m.codes("uint8", 4, 40))
    operands = [x, *m.quantizer("uint8"), m.constant(m.codes("uint8", 40, 30)), *m.quantizer("uint8")]
    model = m.model(m.node("QLinearMatMul", [*operands, *m.quantizer("uint8", 8)]))
    wanted = by_onnxruntime(model, m.feeds)[0]
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=256)
    assert (tmp_path / "weights.bin").stat().st_size >= 1200
    result = ax.simulate(ax.load_integer_onnx(path), m.feeds)
    np.testing.assert_array_equal(result.outputs["y0"], wanted)
