"""Random models run by ONNX Runtime 1.32 with nothing optimized: every element, no exception.

The suite allows a QDQ convolution to differ at exact ties, where ONNX Runtime sums in float32; in these cases none
does: 0 of all elements.
"""

import json

import numpy as np
import pytest

import accelsim as ax

NUM_CASES = 87


@pytest.fixture(scope="module")
def suite(shared):
    folder = shared / "suites" / "onnxruntime"
    with (folder / "manifest.json").open() as file:
        cases = json.load(file)["cases"]
    assert len(cases) == NUM_CASES
    return folder, cases


@pytest.mark.parametrize("number", range(NUM_CASES))
def test_a_case_is_reproduced(suite, number):
    folder, cases = suite
    case = folder / cases[number]["path"]
    with np.load(case / "data.npz", allow_pickle=False) as file:
        data = {name: file[name] for name in file}
    program = ax.load_integer_onnx(case / "model.onnx")
    result = ax.simulate(program, {name.removeprefix("in."): data[name] for name in data if name.startswith("in.")})
    wanted = [data[f"noopt.{index}"] for index in range(len(result.outputs))]
    for codes, expected in zip(result.outputs.values(), wanted, strict=True):
        assert (codes.dtype, codes.shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(codes, expected)


@pytest.mark.parametrize("dataflow", ["weight_stationary", "input_stationary", "broadcast"])
def test_wide_enough_accumulators_give_the_same_on_every_grid(suite, dataflow):
    folder, cases = suite
    for entry in cases[:: 6 if dataflow == "broadcast" else 4]:
        with np.load(folder / entry["path"] / "data.npz", allow_pickle=False) as data:
            feeds = {name.removeprefix("in."): data[name] for name in data if name.startswith("in.")}
            expected = data["noopt.0"]
        program = ax.load_integer_onnx(folder / entry["path"] / "model.onnx")
        machine = program.machine.replace(
            dataflow=dataflow, rows=3, columns=5, zero_point="at_input", reduction_order="spatial_first"
        )
        codes = next(iter(ax.simulate(program, feeds, machine).outputs.values()))
        np.testing.assert_array_equal(codes, expected, err_msg=entry["name"])
