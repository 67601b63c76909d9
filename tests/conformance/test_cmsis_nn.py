"""Unit-test vectors of Arm's CMSIS-NN, each as an integer program of one layer built from the case's own numbers.

The vectors hold multipliers as integers (mantissa and shift), not scales; int16 activations with a 64-bit bias take the
16-bit multiplier of docs/numerics.md (40).
"""

import json
from math import prod

import numpy as np
import pytest

import accelsim as ax
from accelsim.graph.graph import Tensor
from accelsim.program import layers
from accelsim.program.geometry import Geometry
from accelsim.program.rescale import Rescale
from accelsim.program.storage import PlainFormat, PlainTensor

NUM_CASES = 73


def stored_as(array):
    """A tensor of a program that has the array's type and no scale."""
    return PlainTensor(PlainFormat(array.dtype, 8 * array.dtype.itemsize))


def one_layer(layer, feeds, expected, accumulator_bits):
    """Return a program of one layer."""
    return ax.IntegerProgram(
        name=layer.op,
        inputs=tuple(Tensor(name, (None, *array.shape[1:]), stored=True) for name, array in feeds.items()),
        outputs=("y",),
        layers=(layer,),
        tensors={**{name: stored_as(array) for name, array in feeds.items()}, "y": stored_as(expected)},
        constants={},
        machine=ax.Machine(accumulator_bits=accumulator_bits, overflow="error"),
    )


def window(config, kernel, image, output, groups=1):
    """Return the geometry of a case; CMSIS-NN names only the padding before."""
    x, y = ("STRIDE_X", "STRIDE_Y") if "STRIDE_X" in config else ("STRIDE_W", "STRIDE_H")
    strides = config[y], config[x]
    before = (config["PAD_Y"], config["PAD_X"]) if "PAD_Y" in config else (config["PADDING_H"], config["PADDING_W"])
    dilations = config.get("DILATION_Y", 1), config.get("DILATION_X", 1)
    _, height, width, channels = image
    after = [
        max(
            0, (output[1 + axis] - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1 - length - before[axis]
        )
        for axis, length in enumerate((height, width))
    ]
    return Geometry.of((channels, height, width), kernel, strides, (*before, *after), dilations, output[1:3], groups)


def linear_layer(case, arrays):
    """A convolution, depthwise convolution or fully connected layer, and the width of its accumulators."""
    config, kind, x, weights = case["config"], case["kind"], arrays["input"], arrays["weights"]
    output = arrays["expected"].shape
    geometry = None
    if kind == "CONV_2D":
        groups = x.shape[-1] // weights.shape[-1]
        geometry = window(config, weights.shape[1:3], x.shape, output, groups)
        weights = np.moveaxis(weights, -1, 1)
    elif kind == "DEPTHWISE_CONV_2D":
        geometry = window(config, weights.shape[1:3], x.shape, output, x.shape[-1])
        weights = weights[0].transpose(2, 0, 1)
    rows = np.ascontiguousarray(weights.reshape(len(weights), -1), dtype=np.int32)
    bias = arrays["biases"].astype(np.int64) if "biases" in arrays else np.zeros(len(rows), dtype=np.int64)
    z_x, z_w = -config["INPUT_OFFSET"], -config.get("FILTER_OFFSET", 0)
    wide = case["input_dtype"] == "int16" and "double" not in case["exact_variants"]
    requantizer = ax.Requantizer.preset("tflite_int16" if wide else "tflite")
    layer = layers.MacLayer(
        name=case["name"],
        op=kind,
        inputs=("x",),
        output="y",
        output_shape=output[1:],
        weights=rows,
        start=bias - z_x * rows.sum(axis=1, dtype=np.int64) + rows.shape[1] * z_x * z_w,
        weight_zero_points=np.full(len(rows), z_w, dtype=np.int64),
        input_offset=0,
        pad_value=z_x,
        geometry=geometry,
        weight_format=ax.IntegerFormat(case["weight_bits"], True),
        input_format=ax.IntegerFormat(8 * x.dtype.itemsize, True),
        rescale=Rescale.of_parts(requantizer, arrays["output_mult"], arrays["output_shift"], case["name"]),
        zero_point=config["OUTPUT_OFFSET"],
        output_format=ax.IntegerFormat(8 * arrays["expected"].dtype.itemsize, True),
        clamp=(config["OUT_ACTIVATION_MIN"], config["OUT_ACTIVATION_MAX"]),
        channels_last=True,
    )
    return layer, {"x": x}, 64 if case["bias_dtype"] == "int64" else 32


def pooling_layer(case, arrays):
    """A pooling layer."""
    config, x, output = case["config"], arrays["input"], arrays["expected"].shape
    common = {
        "name": case["name"], "op": case["kind"], "inputs": ("x",), "output": "y", "output_shape": output[1:],
        "geometry": window(config, (config["FILTER_H"], config["FILTER_W"]), x.shape, output), "channels_last": True,
        "clamp": (config["ACTIVATION_MIN"], config["ACTIVATION_MAX"]),
    }  # fmt: skip
    if case["kind"] == "MAX_POOL_2D":
        return layers.MaxPoolLayer(**common), {"x": x}, 32
    averaging = {"count_padding": False, "zero_point": 0, "requantizer": ax.Requantizer.preset("tflite")}
    return layers.AveragePoolLayer(**common, **averaging), {"x": x}, 32


def elementwise_layer(case, arrays):
    """An addition or multiplication; its vectors have no axes, so they are one sample."""
    config, tflite = case["config"], ax.Requantizer.preset("tflite")
    stored = ax.IntegerFormat(8 * arrays["expected"].dtype.itemsize, True)

    def multiplier(prefix):
        return Rescale.of_parts(tflite, config[f"{prefix}_MULT"], config[f"{prefix}_SHIFT"], case["name"])

    feeds = {name: arrays[key][np.newaxis] for name, key in (("a", "input1"), ("b", "input2"))}
    common = {
        "name": case["name"], "op": case["kind"], "inputs": ("a", "b"), "output": "y",
        "output_shape": arrays["expected"].shape, "output_format": stored, "zero_point": config["OUTPUT_OFFSET"],
        "zero_points": (-config["INPUT1_OFFSET"], -config["INPUT2_OFFSET"]), "rescale": multiplier("OUTPUT"),
        "clamp": (config["OUT_ACTIVATION_MIN"], config["OUT_ACTIVATION_MAX"]),
    }  # fmt: skip
    if case["kind"] == "MUL":
        return layers.MultiplyLayer(**common), feeds, 32
    both = (multiplier("INPUT1"), multiplier("INPUT2"))
    return layers.AddLayer(**common, sign=1, rescales=both, left_shift=config["LEFT_SHIFT"]), feeds, 32


KINDS = {
    "CONV_2D": linear_layer,
    "DEPTHWISE_CONV_2D": linear_layer,
    "FULLY_CONNECTED": linear_layer,
    "AVERAGE_POOL_2D": pooling_layer,
    "MAX_POOL_2D": pooling_layer,
    "ADD": elementwise_layer,
    "MUL": elementwise_layer,
}


@pytest.fixture(scope="module")
def cases(shared):
    folder = shared / "suites" / "cmsis_nn"
    loaded = []
    for case in json.loads((folder / "manifest.json").read_text())["cases"]:
        with np.load(folder / case["path"], allow_pickle=False) as archive:
            loaded.append((case, dict(archive)))
    return loaded


@pytest.mark.slow
def test_every_vector_is_reproduced(cases):
    assert len(cases) == NUM_CASES
    assert {case["kind"] for case, _ in cases} == set(KINDS)
    different, compared = {}, 0
    for case, arrays in cases:
        layer, feeds, accumulator_bits = KINDS[case["kind"]](case, arrays)
        expected = arrays["expected"]
        result = ax.simulate(one_layer(layer, feeds, expected, accumulator_bits), feeds)
        stored = result.outputs["y"]
        assert stored.dtype == expected.dtype
        compared += 1
        wrong = np.count_nonzero(stored.reshape(expected.shape) != expected)
        if wrong:
            different[case["name"]] = f"{wrong} of {prod(expected.shape)}"
    assert different == {}
    assert compared == NUM_CASES


@pytest.mark.slow
def test_accumulators_and_requantization_one_by_one(cases):
    # The same through the functions for a single product: `matmul`, then `requantize` with integer multipliers.
    compared = 0
    for case, arrays in cases:
        if case["kind"] != "FULLY_CONNECTED":
            continue
        config, weights, x = case["config"], arrays["weights"], arrays["input"]
        gemm = ax.matmul(
            weights, x.T, ax.Machine(accumulator_bits=64), bias=arrays.get("biases"),
            activation_zero_point=-config["INPUT_OFFSET"], weight_zero_point=-config.get("FILTER_OFFSET", 0),
        )  # fmt: skip
        wide = case["input_dtype"] == "int16"
        codes = ax.requantize(
            gemm.accumulators, "tflite_int16" if wide else "tflite", mantissas=arrays["output_mult"],
            exponents=arrays["output_shift"], output=ax.IntegerFormat(16 if wide else 8, True),
            zero_point=config["OUTPUT_OFFSET"], minimum=config["OUT_ACTIVATION_MIN"],
            maximum=config["OUT_ACTIVATION_MAX"],
        )  # fmt: skip
        assert np.array_equal(codes.T, arrays["expected"]), case["name"]
        compared += 1
    assert compared == 8


@pytest.mark.slow
def test_single_rounding_is_the_other_build_of_cmsis_nn(cases):
    for case, arrays in cases:
        if "single" in case["mismatches"] and case["kind"].endswith("CONV_2D"):
            layer, feeds, accumulator_bits = linear_layer(case, arrays)
            single = ax.Requantizer.preset("tflite_single_rounding")
            rescale = Rescale.of_parts(single, arrays["output_mult"], arrays["output_shift"], case["name"])
            replaced = layers.MacLayer(**{**vars(layer), "rescale": rescale})
            expected = arrays["expected"]
            result = ax.simulate(one_layer(replaced, feeds, expected, accumulator_bits), feeds)
            wrong = np.count_nonzero(result.outputs["y"].reshape(expected.shape) != expected)
            assert wrong == case["mismatches"]["single"], case["name"]
