"""The ONNX project's own node tests of the quantizing operators, with every operand an input as they have it.

Their expected values come with the installed onnx. Known bad ones, by onnx's own later correction: up to 1.19 the int8
tests of QLinearMatMul expect a wrapped 20 where the standard says saturated -128.
"""

import contextlib
import importlib
import io

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import accelsim as ax

OPERATORS = {
    "ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul",
    "QuantizeLinear",
}  # fmt: skip
NO_INTEGERS = ("e4m3fn", "e5m2", "float4e2m1")
"""Floating-point formats of 4 and 8 bits: refused, as they are no integers."""

KNOWN_BAD = {"test_qlinearmatmul_2D_int8_float32", "test_qlinearmatmul_3D_int8_float32"} | {
    "test_qlinearmatmul_2D_int8_float16", "test_qlinearmatmul_3D_int8_float16"
}  # fmt: skip


def node_tests():
    """Import the modules of these operators alone: each makes its cases when it is imported."""
    from onnx.backend.test.case import node

    with contextlib.redirect_stdout(io.StringIO()):
        for operator in OPERATORS:
            importlib.import_module(f"{node.__name__}.{operator.lower()}")
    return {case.name: case for case in node._NodeTestCases if case.model.graph.node[0].op_type in OPERATORS}


@pytest.fixture(scope="module")
def cases():
    return node_tests()


def as_array(value):
    array = numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)
    return array.astype(np.int8) if array.dtype.name in ("int4", "uint4", "int2", "uint2") else array


def test_every_case_is_reproduced(cases):
    old = tuple(map(int, onnx.__version__.split(".")[:2])) < (1, 20)
    reproduced = refused = 0
    for name, case in cases.items():
        if any(part in name for part in NO_INTEGERS):
            with pytest.raises(ax.ModelError, match="integers of 2 to 16 bits"):
                ax.load_integer_onnx(case.model)
            refused += 1
            continue
        program = ax.load_integer_onnx(case.model)
        for inputs, expected in case.data_sets:
            names = [tensor.name for tensor in program.inputs]
            feeds = dict(zip(names, map(as_array, inputs), strict=True))
            for codes, wanted in zip(
                ax.simulate(program, feeds).outputs.values(), map(as_array, expected), strict=True
            ):
                same = np.array_equal(codes, wanted)
                assert same or (old and name in KNOWN_BAD), name
        reproduced += 1
    assert reproduced >= 30
    assert refused >= 6
