"""TFLite models as LiteRT's reference kernels compute them, every layer: docs/numerics.md section 7.

Recorded from LiteRT 2.3.0 with `OpResolverType.BUILTIN_REF`: one-op models built so that exact ties occur, and the
whole ResNet8 of MLPerf Tiny.
"""

import json

import numpy as np
import pytest

import accelsim as ax

NUM_CASES = 104


@pytest.fixture(scope="module")
def suite(shared):
    return shared / "suites" / "tflite"


def read(path):
    """Return the arrays and the description of a recorded case."""
    with np.load(path, allow_pickle=False) as archive:
        arrays = dict(archive)
    return arrays, json.loads(arrays["meta"].tobytes())


def model_of(recorded):
    return recorded.parent / "models" / f"{recorded.stem.removeprefix('synth_')}.tflite"


def differences(program, arrays, meta, machine=None):
    """Run every input set; return {(set, operator): differing elements} and the number of layers compared."""
    tensors = {tensor["index"]: tensor["name"] for tensor in meta["tensors"]}
    found, compared = {}, 0
    for name in meta["input_sets"]:
        feeds = {tensors[index]: arrays[f"{name}.in.{index}"] for index in meta["inputs"]}
        result = ax.simulate(program, feeds, machine, keep_intermediates=True)
        for operator in meta["ops"]:
            (index,) = operator["outputs"]
            expected, stored = arrays[f"{name}.ref.{index}"], result.tensors[tensors[index]]
            assert (stored.dtype, stored.shape) == (expected.dtype, expected.shape)
            compared += 1
            if not np.array_equal(stored, expected):
                found[name, operator["op"]] = int(np.count_nonzero(stored != expected))
        for index in meta["outputs"]:
            assert np.array_equal(result.outputs[tensors[index]], result.tensors[tensors[index]])
    return found, compared


@pytest.mark.slow
def test_every_layer_of_every_model_is_litert_references(suite):
    cases = sorted(suite.glob("*.npz"))
    assert len(cases) == NUM_CASES
    different, compared = {}, 0
    for recorded in cases:
        arrays, meta = read(recorded)
        program = ax.load_tflite(model_of(recorded))
        assert [layer.op.partition("+")[0] for layer in program.layers] == [operator["op"] for operator in meta["ops"]]
        found, count = differences(program, arrays, meta)
        compared += count
        if found:
            different[recorded.stem] = found
    assert different == {}
    assert compared == 103 * 3 + 5 * 16


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet8_cifar10_int8", "synth_conv_i16_odd_b64", "synth_fc_pt_odd_NONE_0_0"])
@pytest.mark.parametrize("dataflow", ["broadcast", "weight_stationary", "input_stationary"])
def test_other_grids_give_the_same_where_nothing_overflows(suite, name, dataflow):
    arrays, meta = read(suite / f"{name}.npz")
    program = ax.load_tflite(model_of(suite / f"{name}.npz"))
    machine = program.machine.replace(
        rows=5, columns=7, dataflow=dataflow, zero_point="at_input", reduction_order="spatial_first"
    )
    meta["input_sets"] = meta["input_sets"][:1]
    assert differences(program, arrays, meta, machine)[0] == {}


@pytest.mark.slow
def test_narrow_accumulators_and_another_rounding_change_the_outputs(suite):
    arrays, meta = read(suite / "resnet8_cifar10_int8.npz")
    program = ax.load_tflite(model_of(suite / "resnet8_cifar10_int8.npz"))
    meta["input_sets"] = ["real0"]
    for changes in ({"accumulator_bits": 14, "overflow": "saturate"}, {"requantizer": "onnxruntime"}):
        assert differences(program, arrays, meta, program.machine.replace(**changes))[0]


def test_tflite_micro_differs_in_fully_connected(suite):
    name = "synth_fc_pt_pot3_NONE_-7_3"
    arrays, meta = read(suite / f"{name}.npz")
    program = ax.load_tflite(model_of(suite / f"{name}.npz"), kernels="tflite_micro")
    assert {op for _, op in differences(program, arrays, meta)[0]} == {"FULLY_CONNECTED"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("requantizer", "recorded_as", "ops", "compared"),
    [
        # Grouped convolutions run the reference kernels in LiteRT's optimised build: not among these.
        ("ruy_x86", "opt", ("CONV_2D", "FULLY_CONNECTED"), 87),
        ("xnnpack", "xnn", ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "MUL", "MEAN"), 171),
    ],
)
def test_other_back_ends_are_other_requantizers(suite, requantizer, recorded_as, ops, compared):
    count = 0
    for recorded in sorted(suite.glob("synth_*.npz")):
        arrays, meta = read(recorded)
        (operator,) = meta["ops"]
        tensors = {tensor["index"]: tensor for tensor in meta["tensors"]}
        x, w = (
            (tensors[index]["shape"] for index in operator["inputs"][:2]) if len(operator["inputs"]) > 1 else ([], [])
        )
        grouped = operator["op"] == "CONV_2D" and x[-1] != w[-1]
        if operator["op"] not in ops or "i16" in recorded.stem or (grouped and recorded_as == "opt"):
            continue
        program = ax.load_tflite(model_of(recorded))
        (index,) = meta["outputs"]
        for name in meta["input_sets"]:
            feeds = {tensors[i]["name"]: arrays[f"{name}.in.{i}"] for i in meta["inputs"]}
            result = ax.simulate(program, feeds, program.machine.replace(requantizer=requantizer))
            # Recorded only where it differs from the reference.
            expected = arrays.get(f"{name}.{recorded_as}.{index}", arrays[f"{name}.ref.{index}"])
            assert np.array_equal(result.outputs[tensors[index]["name"]], expected), (recorded.stem, name)
            count += 1
    assert count == compared
