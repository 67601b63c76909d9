"""TFLite's operators that move codes, against index by index copies; and whole models at their edges."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import accelsim as ax
from tests.accelsim.program.tflite_cases import IMAGE, SEEDS, moved
from tests.accelsim.program.tflite_models import T, indices, one_op
from tests.naive import tflite as naive
from tests.naive.network import Codes

shapes = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


def numbered(shape):
    """Codes that are all different (up to 256 of them)."""
    return (np.arange(np.prod(shape)) % 256 - 128).astype(np.int8).reshape(shape)


def run(model, *feeds):
    """Return the outputs of a model whose inputs are given in order."""
    program = ax.load_tflite(model)
    names = [tensor.name for tensor in program.inputs]
    return list(ax.simulate(program, dict(zip(names, feeds, strict=True))).outputs.values())


def copied(shape, x, source_index):
    """Return an array whose element at each index is x at ``source_index(index)``."""
    made = np.empty(shape, dtype=x.dtype)
    for index in itertools.product(*map(range, shape)):
        made[index] = x[tuple(source_index(index))]
    return made


@given(shapes, st.randoms(use_true_random=False))
def test_transpose(shape, random):
    axes = random.sample(range(len(shape)), len(shape))
    target = tuple(shape[axis] for axis in axes)
    (y,) = run(moved("TRANSPOSE", target, [indices("p", axes)], source=shape), x := numbered(shape))
    assert np.array_equal(y, copied(target, x, lambda index: [index[axes.index(axis)] for axis in range(len(shape))]))


@given(shapes, st.data())
def test_pad_with_the_zero_point_or_a_code(shape, data):
    widths = [data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2))) for _ in shape]
    padded = tuple(before + length + after for (before, after), length in zip(widths, shape, strict=True))
    x = numbered(shape)
    code = data.draw(st.none() | st.integers(-128, 127))
    tensors = [T("x", shape, zero=7), indices("p", widths), T("y", padded, zero=7)]
    constants = [] if code is None else [T("c", (), zero=7, data=code)]
    op = "PAD" if code is None else "PADV2"
    (y,) = run(one_op(op, [*tensors, *constants], ["x", "p", *(t.name for t in constants)], ["y"]), x)
    expected = np.full(padded, 7 if code is None else code, dtype=np.int8)
    expected[tuple(slice(before, before + n) for (before, _), n in zip(widths, shape, strict=True))] = x
    assert np.array_equal(y, expected)


@given(shapes, st.data())
def test_slices(shape, data):
    x = numbered(shape)
    begin = [data.draw(st.integers(0, length - 1)) for length in shape]
    size = [data.draw(st.integers(1, length - start)) for length, start in zip(shape, begin, strict=True)]
    # -1 takes what is left
    given_size = [
        -1 if start + count == length and data.draw(st.booleans()) else count
        for start, count, length in zip(begin, size, shape, strict=True)
    ]
    (y,) = run(moved("SLICE", tuple(size), [indices("b", begin), indices("z", given_size)], source=shape), x)
    assert np.array_equal(y, copied(size, x, lambda index: [a + b for a, b in zip(index, begin, strict=True)]))


@given(shapes, st.data())
def test_strided_slices(shape, data):
    x = numbered(shape)
    begin, end, strides, target, picked = [], [], [], [], []
    masks = dict.fromkeys(("BeginMask", "EndMask", "ShrinkAxisMask"), 0)
    for axis, length in enumerate(shape):
        step = data.draw(st.sampled_from([1, 1, 2, -1, -2]))
        start = data.draw(st.integers(0, length - 1))
        if data.draw(st.integers(0, 3)) == 0:
            masks["ShrinkAxisMask"] |= 1 << axis
            picked.append([start])
            begin.append(start - length if data.draw(st.booleans()) else start)
            end.append(start + 1)
            strides.append(1)
            continue
        stop = data.draw(st.integers(start + 1, length)) if step > 0 else data.draw(st.integers(-1, start - 1))
        taken = list(range(start, stop, step))
        if start == (0 if step > 0 else length - 1) and data.draw(st.booleans()):
            masks["BeginMask"] |= 1 << axis
        if stop == (length if step > 0 else -1):
            masks["EndMask"] |= 1 << axis
        begin.append(start)
        end.append(stop)
        strides.append(step)
        picked.append(taken)
        target.append(len(taken))
    constants = [indices("b", begin), indices("e", end), indices("s", strides)]
    (y,) = run(moved("STRIDED_SLICE", tuple(target), constants, masks, source=shape), x)
    assert np.array_equal(y, np.array([x[index] for index in itertools.product(*picked)]).reshape(target))


def test_an_axis_that_goes_away_begins_where_its_mask_says():
    # Found against LiteRT: with both masks set the begin that the file gives is not looked at.
    constants = [indices("b", [3]), indices("e", [4]), indices("s", [1])]
    model = moved("STRIDED_SLICE", (), constants, {"BeginMask": 1, "ShrinkAxisMask": 1}, source=(5,))
    assert run(model, np.array([5, 6, 7, 8, 9], dtype=np.int8))[0].tolist() == 5


@given(st.integers(1, 3), st.integers(0, 3), st.data())
def test_split_and_concatenation_undo_each_other(parts, axis, data):
    shape = [data.draw(st.integers(1, 3)) for _ in range(4)]
    whole = [length * parts if at == axis else length for at, length in enumerate(shape)]
    x, names = numbered(whole), [f"part {index}" for index in range(parts)]
    pieces = [T(name, tuple(shape)) for name in names]
    tensors = [T("axis", (), "INT32", None, data=axis - 4), T("x", tuple(whole)), *pieces]
    split = run(one_op("SPLIT", tensors, ["axis", "x"], names, {"NumSplits": parts}), x)
    for index, part in enumerate(split):
        first = index * shape[axis]
        assert np.array_equal(
            part, copied(shape, x, lambda at, first=first: [*at[:axis], at[axis] + first, *at[axis + 1 :]])
        )
    options = {"Axis": axis, "FusedActivationFunction": 0}
    (y,) = run(one_op("CONCATENATION", [*pieces, T("y", tuple(whole))], names, ["y"], options), *split)
    assert np.array_equal(y, x)


@given(shapes.filter(lambda shape: len(shape) < 4), st.data())
def test_pack(shape, data):
    axis = data.draw(st.integers(-len(shape) - 1, len(shape)))
    place = axis % (len(shape) + 1)
    target = (*shape[:place], 2, *shape[place:])
    tensors = [T("a", shape), T("b", shape), T("y", target)]
    a, b = numbered(shape), -1 - numbered(shape)
    (y,) = run(one_op("PACK", tensors, ["a", "b"], ["y"], {"Axis": axis, "ValuesCount": 2}), a, b)
    for index in itertools.product(*map(range, target)):
        source = (a, b)[index[place]]
        assert y[index] == source[(*index[:place], *index[place + 1 :])]


@pytest.mark.parametrize("op", ["RESHAPE", "SQUEEZE", "EXPAND_DIMS"])
def test_reshape_takes_the_shape_that_the_output_has(op):
    x = numbered(IMAGE)
    (y,) = run(moved(op, (4, 1, 8)), x)
    assert np.array_equal(y, x.reshape(4, 1, 8))


def test_concatenation_brings_inputs_onto_the_outputs_grid():
    a, b = np.array([[-128, -3, 5, 127]], np.int8), np.array([[1, 2, 3]], np.int8)
    tensors = [T("a", (1, 4), scale=0.5, zero=1), T("b", (1, 3)), T("y", (1, 7))]
    model = one_op("CONCATENATION", tensors, ["a", "b"], ["y"], {"Axis": 1, "FusedActivationFunction": 0})
    limits = (-128, 127)
    expected = naive.rescaled(Codes((4,), a[0].tolist()), (0.5, 1, limits), (1.0, 0, limits), False, None)
    assert run(model, a, b)[0].tolist() == [[*expected, 1, 2, 3]]


@pytest.mark.parametrize("op", ["LOGISTIC", "TANH"])
def test_tables_are_the_function_of_every_code(op):
    grid = (2.0**-8, -128) if op == "LOGISTIC" else (2.0**-7, 0)
    model = one_op(op, [T("x", (256,), scale=0.05, zero=-9), T("y", (256,), "INT8", *grid)], ["x"], ["y"])
    codes = np.arange(-128, 128)
    real = np.float32(0.05) * (codes + 9).astype(np.float32)
    exact = 1 / (1 + np.exp(-real.astype(float))) if op == "LOGISTIC" else np.tanh(real.astype(float))
    (y,) = run(model, codes.astype(np.int8))
    expected = naive.quantize([naive.Fraction(value) for value in exact.tolist()], (*grid, (-128, 127)))
    assert y.tolist() == expected


def test_a_whole_model_from_real_numbers_to_real_numbers():
    program = ax.load_tflite(SEEDS["network"])
    images = np.random.default_rng(2).normal(size=(3, *IMAGE[1:])).astype(np.float32)
    result = ax.simulate(program, images, keep_intermediates=True)
    assert [layer.op for layer in program.layers] == [
        "QUANTIZE", "CONV_2D", "AVERAGE_POOL_2D", "RESHAPE", "FULLY_CONNECTED", "SOFTMAX", "DEQUANTIZE",
    ]  # fmt: skip
    assert list(result.outputs) == ["probabilities", "scores"]
    probabilities = result.outputs["probabilities"]
    assert probabilities.dtype == np.float32
    assert np.array_equal(probabilities, (result.tensors["soft"].astype(np.float32) + 128) / 256)
    assert np.array_equal(result.real_outputs["probabilities"], probabilities)
    assert result.outputs["scores"].shape == (3, 4)
    one_by_one = [ax.simulate(program, images[index : index + 1]).outputs["scores"] for index in range(3)]
    assert np.array_equal(np.concatenate(one_by_one), result.outputs["scores"])
    stepped = ax.simulate(program, images, engine="stepped")
    assert np.array_equal(stepped.outputs["scores"], result.outputs["scores"])
    assert stepped.cycles == result.cycles
