"""Every kernel is compiled once: the layers above fix types, layouts and scalars before they call it.

numba makes another specialisation for each new combination of argument types, and a read-only or strided array is a
type of its own. A second one costs seconds of compilation at a user's first call.
"""

import importlib
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from accelsim_kernels.processor import has_dot_instructions, takes_bytes

ROOT = Path(__file__).resolve().parents[2]
# Called from Python. All others are callees of kernels, which compile them for whatever types they need.
ENTRANCES = {
    "accumulate.accumulate_products",
    "accumulate.accumulate_tiles",
    "accumulate.add_last",
    "accumulate.running_range",
    "accumulate.to_accumulator_units",
    "activity.count_nonzero_columns",
    "activity.kept_toggles",
    "activity.met_at_places",
    "activity.passing_toggles",
    "activity.resident_toggles",
    "activity.successive_toggles",
    "binary_quadratic.descend",
    "binary_quadratic.round_sequentially",
    "block_steps.range_blocks",
    "block_steps.step_blocks",
    "depthwise.depthwise_ranges",
    "exact.dot_rows",
    "exact.ends_of",
    "exact.to_next_line",
    "extremes.bound_layer",
    "grid.broadcast.greatest_magnitude",
    "grid.lanes.int32_suffices",
    "layer_rows.add_row_sums",
    "layer_rows.depthwise_layer",
    "layer_rows.depthwise_layer_dots",
    "marks.count_marked",
    "marks.keep_marked",
    "marks.list_marked",
    "marks.mark_at_risk",
    "term_layout.lay_numbers",
    "pooling.average_pool",
    "pooling.max_pool",
    "requantize.requantize",
    "parts.unmark_by_parts",
    "softmax.fixed_point_softmax",
    "softmax.softmax",
    "softmax.table_softmax",
    "vector.add_codes",
    "vector.add_codes_float",
    "vector.look_up",
    "vector.multiply_codes",
    "vector.rescale_codes",
}
# Once for codes of 8 bits and once for codes of 16, or for lanes of 32 and of 64.
IN_TWO_WIDTHS = {
    "exact.dot_columns",
    "grid.broadcast.step_broadcast",
    "grid.output_stationary.step_output_stationary",
    "grid.stationary_operand.step_stationary_operand",
    "activity.count_nonzero_rows",
    "activity.count_nonzero_taps",
    "activity.count_unequal_rows",
    "depthwise.depthwise_rows",
    "inputs.quantize_float32",
    "layer_rows.dot_layer",
    "layer_rows.pad_rows",
    "layer_rows.requantize_lanes",
    "vector.look_pairs_up",
    "scattered.step_channels",
    "column_risk.limit_channels",
    "column_risk.sum_and_step",
}


# As well for weights that were widened to 32 bits; for activations of 8 and 16 bits by pairs of 16, and of 32 bits;
# for sums of 64 bits.
IN_THREE_WIDTHS = {
    "exact.sums_by_sign",
    "lowering.columns_of",
    "ordered_columns.range_columns",
    "ordered_columns.step_columns",
    "requantize_rows.requantize_rows",
}


def frozen(values, dtype=np.int64, order="C"):
    array = np.array(values, dtype=dtype, order=order)
    array.setflags(write=False)
    return array


def call_gemms():
    """All paths of `matmul` and `conv2d`, on arrays of several types, layouts and permissions."""
    import accelsim as ax
    from tests.accelsim.simulator.gemm_cases import DATAFLOWS

    operands = [
        (frozen(np.arange(12).reshape(3, 4), dtype, order), frozen(np.arange(20).reshape(4, 5), dtype, order))
        for dtype, order in ((np.int8, "C"), (np.uint16, "F"), (np.int64, "C"))
    ]
    images, kernels = np.ones((2, 4, 5, 5), np.int8)[::-1], frozen(np.ones((4, 2, 3, 3)), np.int32)
    for dataflow in DATAFLOWS:
        for zero_point in ("folded", "at_input"):
            for bits, inner in ((64, None), (4, 4)):
                machine = ax.Machine(
                    rows=2, columns=2, dataflow=dataflow, zero_point=zero_point, accumulator_bits=bits,
                    partial_sum_bits=inner, adder_tree_bits=inner,
                )  # fmt: skip
                for engine in ("stepped", "fast"):
                    for track in ("none", "overflow", "range"):
                        options = {"engine": engine, "track": track}
                        for weights, activations in operands:
                            named = {"bias": frozen([1, 2, 3]), "weight_zero_point": frozen([1, 0, 2])}
                            ax.matmul(weights, activations, machine, **named, activation_zero_point=3, **options)
                            ax.matmul(weights, activations, machine, **options)
                        windows = {"groups": 2, "pads": (1, 1, 1, 1)}
                        ax.conv2d(images, kernels, machine, **windows, weight_zero_point=1, **options)
                        ax.conv2d(images.astype(np.int16), kernels, machine, **windows, **options)
                ax.matmul(*operands[0], machine, engine="stepped", trace=True)
        ax.matmul(np.ones((1, 4), np.int8), np.ones((4, 1 << 13), np.uint8))
        few = np.zeros((4, 40), np.uint8)
        few[:, 7] = 200
        for activations in (few, few.astype(np.int16), frozen(few, np.int32)):
            ax.matmul(np.full((3, 4), 3, np.int8), activations, ax.Machine(dataflow=dataflow, accumulator_bits=8))
        small, large = ax.Machine(rows=2, columns=2, dataflow=dataflow), np.full((4, 4), 60000)
        ax.matmul(large, large, small, engine="stepped")  # sums beyond 32 bits
        # Lanes of 32 bits for operands that no 16 signed bits hold, 64 bits for truncated products.
        for more in ({}, {"product_shift_bits": 1}):
            narrow = ax.Machine(rows=2, columns=2, dataflow=dataflow, accumulator_bits=20, **more)
            for activations in (np.arange(12).reshape(4, 3) + 60000, np.arange(12).reshape(4, 3) * 2000):
                ax.matmul(np.full((3, 4), 6), activations, narrow, track="range")
                ax.matmul(np.full((3, 4), 6), activations, narrow.replace(accumulator_bits=32))
                ax.matmul(np.full((3, 4), 600), activations, narrow)
                for shift in (0, 2):
                    counted = machine.replace(product_shift_bits=shift)
                    ax.matmul(*operands[2], counted, bias=frozen([1, 2, 3]), activity=True)
                    ax.conv2d(images, kernels, counted, groups=2, strides=(2, 1), activity=True)


def call_requantizations():
    import accelsim as ax

    output = ax.QuantizationParameters(1.0, 0, ax.IntegerFormat(8, True))
    for name in ax.Requantizer.preset_names():
        for weight_scale in (0.5, frozen([0.5, 0.25, 1.0], np.float32)):
            for values in (frozen([[1, 2], [3, 4], [5, 6]]), np.ones((3, 2), np.int8), np.ones((2, 3), int).T):
                ax.requantize(values, name, input_scale=0.5, weight_scale=weight_scale, output=output)


def call_layers():
    """Every layer of a network, with every kind of requantizer, for one sample and for several."""
    import accelsim as ax
    from tests.accelsim.simulator.layer_cases import one_layer, quantized_weights, run

    x, y = (ax.QuantizationParameters(scale, 0, ax.IntegerFormat(8, True)) for scale in (0.5, 1.0))
    per_channel = ax.QuantizationParameters([0.5, 0.25], [0, 0], ax.IntegerFormat(8, True), axis=0)
    softmax = ax.QuantizationParameters(2.0**-8, 0, ax.IntegerFormat(8, False))
    pool = {
        "kernel_shape": (2, 2), "strides": (1, 1), "pads": (0, 1, 0, 0), "dilations": (1, 1), "ceil_mode": 0,
        "count_include_pad": 0,
    }  # fmt: skip
    conv = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1), "group": 2}
    shape, both = (2, 3, 3), {"a": ((2, 3, 3), x), "b": ((2, 3, 3), x)}
    networks = [one_layer([(op, ("a", "b"), "y", {})], both, ("y", shape, y)) for op in ("Add", "Sub", "Mul")]
    networks += [
        one_layer([("Concat", ("a", "b"), "y", {"axis": 1})], {**both, "b": (shape, y)}, ("y", (4, 3, 3), y)),
        one_layer([("MaxPool", ("a",), "y", pool)], {"a": (shape, x)}, ("y", (2, 2, 3), x)),
        one_layer([("AveragePool", ("a",), "y", pool)], {"a": (shape, x)}, ("y", (2, 2, 3), x)),
        one_layer([("GlobalAveragePool", ("a",), "y", {})], {"a": (shape, x)}, ("y", (2, 1, 1), x)),
        one_layer([("Tanh", ("a",), "y", {})], {"a": (shape, x)}, ("y", shape, y)),
        one_layer(
            [("PRelu", ("a", "s"), "y", {})],
            {"a": (shape, x)},
            ("y", shape, y),
            constants={"s": np.ones(2, np.float32)},
        ),
        one_layer([("Softmax", ("a",), "y", {"axis": 1})], {"a": ((5,), x)}, ("y", (5,), softmax)),
        one_layer([("Softmax", ("a",), "y", {"axis": 1})], {"a": (shape, x)}, ("y", shape, softmax)),
        one_layer(
            [("Add", ("a", "c"), "y", {})],
            {"a": (shape, x)},
            ("y", shape, y),
            weights={"c": quantized_weights(np.ones((2, 1, 1)), x)},
        ),
    ]
    words = {"a": (shape, ax.QuantizationParameters(0.5, 0, ax.IntegerFormat(16, True)))}
    wide = ax.QuantizationParameters(1.0, 0, ax.IntegerFormat(16, False))
    for attributes, integers in ((conv, np.full((2, 1, 2, 2), 3)), ({**conv, "group": 1}, np.ones((2, 2, 2, 2)))):
        weights = {"w": quantized_weights(integers, x)}
        networks.append(
            one_layer([("Conv", ("a", "w"), "y", attributes)], words, ("y", (2, 2, 2), wide), None, weights)
        )
    both_wide = quantized_weights(np.full((2, 2, 2, 2), 30000), words["a"][1])
    networks.append(
        one_layer(
            [("Conv", ("a", "w"), "y", {**conv, "group": 1})], words, ("y", (2, 2, 2), wide), None, {"w": both_wide}
        )
    )
    unsigned = {"a": (shape, ax.QuantizationParameters(0.5, 0, ax.IntegerFormat(8, False)))}
    for attributes, integers in ((conv, np.full((2, 1, 2, 2), 3)), ({**conv, "group": 1}, np.ones((2, 2, 2, 2)))):
        weights = {"w": quantized_weights(integers, x)}
        networks.append(
            one_layer([("Conv", ("a", "w"), "y", attributes)], unsigned, ("y", (2, 2, 2), y), None, weights)
        )
    asymmetric = ax.QuantizationParameters(0.5, -100, ax.IntegerFormat(8, True))
    weights = {"w": quantized_weights(np.full((2, 2, 2, 2), 100), asymmetric)}
    networks.append(
        one_layer(
            [("Conv", ("a", "w"), "y", {**conv, "group": 1})], {"a": (shape, x)}, ("y", (2, 2, 2), y), None, weights
        )
    )
    for parameters in (x, per_channel):
        for attributes, integers in ((conv, np.ones((2, 1, 2, 2))), ({**conv, "group": 1}, np.ones((2, 2, 2, 2)))):
            weights = {"w": quantized_weights(integers, parameters)}
            networks.append(
                one_layer(
                    [("Conv", ("a", "w"), "y", attributes)], {"a": (shape, x)}, ("y", (2, 2, 2), y), None, weights
                )
            )
        weights = {"w": quantized_weights(np.ones((2, 5)), parameters)}
        networks.append(one_layer([("Gemm", ("a", "w"), "y", {})], {"a": ((5,), x)}, ("y", (2,), y), None, weights))
    many = {"a": ((256,), x), "b": ((256,), x)}
    for target in (y, wide):  # so many additions that they go by a table
        network = one_layer([("Add", ("a", "b"), "y", {})], many, ("y", (256,), target))
        run(network, {name: np.ones((256, 256), int) for name in many}, ax.Machine())
    kinds = set()
    for name in ax.Requantizer.preset_names():
        preset = ax.Requantizer.preset(name)
        kind = preset.model_dump() | {"rounding": len(preset.rounding)}
        met = tuple(kind.values()) in kinds
        kinds.add(tuple(kind.values()))
        for network in networks:
            for samples in (1, 3):
                codes = {tensor.name: np.ones((samples, *tensor.shape[1:]), int) for tensor in network.graph.inputs}
                machine = ax.Machine(rows=2, columns=2, requantizer=name)
                if met:  # with other rules for ties alone
                    run(network, codes, machine, engine="fast")
                    continue
                narrow = machine.replace(accumulator_bits=4)
                for track in ("overflow", "range"):
                    run(network, codes, narrow, engine="fast", track=track)
                for options in ({"engine": "stepped"}, {"engine": "fast"}, {"activity": True, "activity_folds": 1}):
                    run(network, codes, machine, **options)


def call_tflite_models():
    """Layers of TFLite models: channels last, several multipliers, softmax in fixed point."""
    import accelsim as ax
    from tests.accelsim.program.tflite_models import T, indices, one_op, write

    window = {"Padding": 0, "StrideH": 1, "StrideW": 1, "FusedActivationFunction": 1}
    pool = {**window, "FilterHeight": 2, "FilterWidth": 2}
    shape, ones = (1, 4, 4, 2), np.ones((2, 3, 3, 2))
    tensors = [
        T("x", shape, scale=0.5), T("w", (2, 3, 3, 2), scale=[0.5, 0.25], zero=[0, 0], data=ones),
        T("conv", shape), T("dw", (1, 3, 3, 2), scale=0.5, data=ones[:1]), T("depthwise", shape), T("max", shape),
        T("avg", shape), T("leaky", shape, scale=0.75), T("sum", shape), T("product", shape), T("mean", (1, 2)),
        indices("axes", [1, 2]), T("soft", (1, 2), scale=2.0**-8, zero=-128),
        T("soft2", shape, scale=2.0**-8, zero=-128),
        T("fw", (3, 2), data=np.ones((3, 2))), T("dense", (1, 3)), T("quantized", (1, 3), zero=3),
    ]  # fmt: skip
    operators = [
        ("CONV_2D", ["x", "w"], ["conv"], {**window, "DilationHFactor": 1, "DilationWFactor": 1}),
        ("DEPTHWISE_CONV_2D", ["conv", "dw"], ["depthwise"], {**window, "DilationHFactor": 1, "DilationWFactor": 1}),
        ("MAX_POOL_2D", ["depthwise"], ["max"], pool), ("AVERAGE_POOL_2D", ["max"], ["avg"], pool),
        ("LEAKY_RELU", ["avg"], ["leaky"], {"Alpha": 0.1}),
        ("ADD", ["avg", "leaky"], ["sum"], {"FusedActivationFunction": 0}),
        ("MUL", ["avg", "leaky"], ["product"], {"FusedActivationFunction": 0}),
        ("MEAN", ["product", "axes"], ["mean"], {"KeepDims": False}), ("SOFTMAX", ["mean"], ["soft"], {"Beta": 1.0}),
        ("SOFTMAX", ["sum"], ["soft2"], {"Beta": 1.0}),
        ("FULLY_CONNECTED", ["mean", "fw"], ["dense"], {"FusedActivationFunction": 0}),
        ("QUANTIZE", ["dense"], ["quantized"], {}),
    ]  # fmt: skip
    wide = [T("x", (1, 3), "INT16", 0.001), T("y", (1, 3), "INT16", 2.0**-15)]
    ax.simulate(ax.load_tflite(one_op("SOFTMAX", wide, ["x"], ["y"], {"Beta": 1.0})), np.ones((2, 3), np.int16))
    program = ax.load_tflite(write(tensors, operators, ["x"], ["soft", "soft2", "quantized"]))
    for name in ("tflite", "onnxruntime"):
        for samples in (1, 3):
            for engine in ("fast", "stepped"):
                machine = ax.Machine(rows=2, columns=2, requantizer=name)
                ax.simulate(program, np.ones((samples, *shape[1:]), np.int8), machine, engine=engine)


def call_rounding():
    """The search for a rounding of weights: dense and in groups, per channel and per tensor, from Python's side."""
    from accelsim.ptq.rounding import round_weights
    from tests.accelsim.ptq.layer_cases import KINDS, data_of, grid_of, one_layer

    for kind in KINDS:
        for per_channel in (False, True):
            rng = np.random.default_rng(0)
            graph, node = one_layer(kind, rng)
            round_weights(graph, node, grid_of(graph, node, 3, per_channel), data_of(graph, node, rng, 4), "qubo")


def signatures():
    """Return {kernel: its argument types} of all kernels, and of the callees that Python has called none the less."""
    import accelsim_kernels

    found = {}
    for module in pkgutil.walk_packages(accelsim_kernels.__path__, "accelsim_kernels."):
        for name, value in vars(importlib.import_module(module.name)).items():
            entrance = getattr(value, "entrance", value)
            if hasattr(entrance, "signatures") and value.__module__ == module.name:
                place = f"{module.name.removeprefix('accelsim_kernels.')}.{name}"
                found[place] = [str(signature) for signature in entrance.signatures]
    return found


@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="nothing is compiled with the JIT off")
def test_every_kernel_has_exactly_one_specialisation():
    program = (
        "import gc, json; from tests.kernels import test_specialisations as calls;"
        "gc.set_threshold(20_000, 20, 100);"  # a tenth of the time of compiling is the collector's
        # what other tests need soonest comes first, see tests/conftest.py
        "calls.call_tflite_models(); calls.call_rounding();"
        "calls.call_layers(); calls.call_gemms(); calls.call_requantizations();"
        "print(json.dumps(calls.signatures()))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    meant = {**dict.fromkeys(ENTRANCES, 1), **dict.fromkeys(IN_TWO_WIDTHS, 2), **dict.fromkeys(IN_THREE_WIDTHS, 3)}
    if not takes_bytes():  # weights of 8 bits are made wider
        meant["column_risk.limit_channels"] = meant["column_risk.sum_and_step"] = 1
    if not has_dot_instructions():
        meant["exact.dot_rows"] = meant["layer_rows.dot_layer"] = meant["parts.unmark_by_parts"] = 0
        meant.update(dict.fromkeys((name for name in meant if name.startswith("column_risk.")), 0))
        meant["ordered_columns.range_columns"] = meant["ordered_columns.step_columns"] = 1
    counts = {name: len(types) for name, types in found.items()}
    assert counts == meant, {name: found.get(name) for name in {*meant, *counts} if counts.get(name) != meant.get(name)}
