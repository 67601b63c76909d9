"""The worked examples of requantization, computed by compiled gemmlowp, TFLite, CMSIS-NN, ruy, LiteRT and ONNX Runtime.

Column by column: which composition of ours is which stack's arithmetic. In every row ``scale`` is the real multiplier;
the row's own mantissa and shift say which integer multiplier the stacks made of it.
"""

import json

import numpy as np
import pytest

import accelsim as ax
from tests.accelsim.program.tflite_models import T, indices, one_op
from tests.naive import requantize as naive
from tests.naive import vector
from tests.naive.rounding import rnd

COLUMNS = [
    ("tflite", "gemmlowp_double"),
    ("tflite", "tflite_double"),
    ("tflite", "cmsis_default"),
    ("tflite", "run_litert_ref_conv"),
    ("tflite_int16", "int16_path"),
    ("tosa_scale32_double", "tflite_double"),
    ("tosa_scale32", "tflite_single"),
    ("gemmini", "fp32_half_even"),
    ("tflite_single_rounding", "tflite_single"),
    ("tflite_single_rounding", "cmsis_single"),
    ("tflite_single_rounding", "ruy_reference"),
    ("ruy_x86", "ruy_x86"),
    ("ruy_x86", "run_litert_opt_conv"),
    ("ruy_x86", "run_litert_opt_fc"),
    ("float64_half_away", "f64_half_away"),
    ("float64_half_away", "run_litert_ref_fc"),
    ("onnxruntime", "fp32_half_even"),
    ("onnx_reference", "run_onnx_reference"),
    ("xnnpack", "run_xnnpack_conv"),
    ("onnxruntime", "run_ort_qlinearconv"),
    ("onnxruntime", "run_xnnpack_conv"),
    ("onnxruntime", "run_xnnpack_fc"),
]
# The exact product has at most 24 + 26 bits, so a float64 multiplier rounds nothing before the rule does.
EXACT_COLUMNS = [("floor", "floor"), ("toward_zero", "trunc"), ("half_up", "half_up"), ("half_even", "half_even")]
CASES = [(ax.Requantizer.preset(name), column) for name, column in COLUMNS] + [
    (ax.Requantizer(multiplier="float64", rounding=rule), column) for rule, column in EXACT_COLUMNS
]
WIDE = ax.QuantizationParameters(np.float32(1), np.int64(0), ax.IntegerFormat(16, True))


@pytest.fixture(scope="module")
def rows(shared):
    with (shared / "suites" / "requantization" / "worked_examples_requant.json").open() as file:
        loaded = json.load(file)
    assert len(loaded) == 35
    return loaded


@pytest.fixture(scope="module")
def operators(shared):
    with (shared / "suites" / "requantization" / "worked_examples_ops.json").open() as file:
        return json.load(file)


@pytest.mark.parametrize(("requantizer", "column"), CASES, ids=[f"{case[0].name}-{case[1]}" for case in CASES])
def test_every_row_is_reproduced(rows, requantizer, column):
    scales = np.array([row["scale"] for row in rows], dtype=np.float32)
    assert scales.tolist() == [row["scale"] for row in rows]  # they are float32 numbers
    values = np.array([[row["acc"]] for row in rows])
    expected = [row[column] for row in rows]
    codes = ax.requantize(values, requantizer, input_scale=1.0, weight_scale=scales, output=WIDE)
    assert codes[:, 0].tolist() == expected
    by_oracle = [
        naive.requantize(row["acc"], 1.0, row["scale"], 1.0, 0, -(2**15), 2**15 - 1, requantizer) for row in rows
    ]
    assert by_oracle == expected


def test_integer_multipliers_are_those_of_the_stacks(rows):
    assert [naive.integer_multiplier(row["scale"], 32) for row in rows] == [
        (row["mantissa"], row["shift"]) for row in rows
    ]


@pytest.mark.parametrize("zero_point", [0, 1])
def test_zero_points_and_ties_of_onnx_runtime(operators, zero_point):
    examples = operators["zero point and ties"]
    values = np.array([[round(2 * value) for value in examples["values"]]])
    output = ax.QuantizationParameters(np.float32(1), np.int64(zero_point), ax.IntegerFormat(8, True))
    outside = ax.requantize(values, "onnxruntime", input_scale=0.5, weight_scale=1.0, output=output)
    assert outside[0].tolist() == examples[f"QLinearConv acc*0.5 zp={zero_point}: ort"]
    # ONNX's reference evaluator and ONNX Runtime's QLinearMul add the zero point before they round.
    inside = ax.Requantizer(multiplier="float32", rounding="half_even", zero_point="inside")
    codes = ax.requantize(values, inside, input_scale=0.5, weight_scale=1.0, output=output)
    assert codes[0].tolist() == examples[f"QLinearMul a*0.5 zp={zero_point}: ort"]
    assert codes[0].tolist() == examples[f"QLinearConv acc*0.5 zp={zero_point}: onnx.reference"]
    quantized = output.quantize(np.array(examples["values"], dtype=np.float32))
    assert quantized.tolist() == examples[f"QuantizeLinear zp={zero_point}: ort"]


def test_the_oracle_of_average_pooling_is_tflites(operators):
    name = "AVERAGE over 4 int8 values, same scale in and out, zero point 0 (TFLite) / 0 and 1 (ORT)"
    windows = operators[name]["windows"]
    requantizer = ax.Requantizer.preset("tflite")
    pooled = [vector.average_pool(window, 0, requantizer) for window in windows]
    assert pooled == operators[name]["litert_ref_AVERAGE_POOL_2D"]
    by_half_even = [vector.average_pool(window, 0, ax.Requantizer.preset("onnxruntime")) for window in windows]
    assert by_half_even == operators[name]["ort_QLinearGlobalAveragePool_zp0"]
    assert by_half_even == [rnd(mean, "half_even") for mean in operators[name]["exact_mean"]]


def test_the_oracle_of_addition_is_litert_references(operators):
    requantizer = ax.Requantizer.preset("tflite")
    for case in operators["ADD int8"]:
        scales = np.array(case["scales"], dtype=np.float32).tolist()
        a, b, y = ((scale, z, (-128, 127)) for scale, z in zip(scales, case["zero_points"], strict=True))
        codes = [vector.add(p, q, a, b, y, requantizer) for p, q in zip(case["a"], case["b"], strict=True)]
        assert codes == case["litert_ref"]


def test_addition_of_tflite_models(operators):
    for case in operators["ADD int8"]:
        codes = {name: np.array([case[name]], dtype=np.int8) for name in ("a", "b")}
        shape = codes["a"].shape
        tensors = [
            T(name, shape, scale=scale, zero=zero)
            for name, scale, zero in zip("aby", case["scales"], case["zero_points"], strict=True)
        ]
        program = ax.load_tflite(one_op("ADD", tensors, ["a", "b"], ["y"], {"FusedActivationFunction": 0}))
        result = ax.simulate(program, codes)
        assert result.outputs["y"].tolist() == [case["litert_ref"]]
        assert result.outputs["y"].dtype == np.int8


def test_averages_of_tflite_models(operators):
    examples = operators["AVERAGE over 4 int8 values, same scale in and out, zero point 0 (TFLite) / 0 and 1 (ORT)"]
    windows = np.array(examples["windows"], dtype=np.int8).reshape(-1, 2, 2, 1)
    x, pool = T("x", (1, 2, 2, 1)), {"Padding": 1, "StrideH": 1, "StrideW": 1, "FusedActivationFunction": 0}
    pooling = one_op(
        "AVERAGE_POOL_2D", [x, T("y", (1, 1, 1, 1))], ["x"], ["y"], {**pool, "FilterHeight": 2, "FilterWidth": 2}
    )
    mean = one_op("MEAN", [x, T("y", (1, 1)), indices("axes", [1, 2])], ["x", "axes"], ["y"], {"KeepDims": False})
    for model, requantizer, column in (
        (pooling, "tflite", "litert_ref_AVERAGE_POOL_2D"),
        (mean, "tflite", "litert_ref_MEAN"),
        (mean, "onnxruntime", "xnnpack_MEAN"),
    ):
        program = ax.load_tflite(model)
        result = ax.simulate(program, windows, program.machine.replace(requantizer=requantizer))
        assert result.outputs["y"].reshape(-1).tolist() == examples[column]
