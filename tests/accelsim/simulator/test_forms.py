"""Layers in forms of their own run without columns and as the stepped engine runs them, which makes columns.

Asymmetric weights, several kernels per channel, sums beyond 32 bits, a third spatial axis; 1x1 kernels among them.
"""

import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import accelsim as ax
from accelsim.simulator.layers import grid
from tests.accelsim.onnx.models import Model
from tests.accelsim.simulator.gemm_cases import DATAFLOWS
from tests.accelsim.simulator.test_safe_layers import PATHS, path


def network(rng, kind, weights, kernel, shape, groups, per_group, zero_point, padded):
    """A program of one convolution, on int16 where its sums are to be wide, and images of codes."""
    m = Model(int(rng.integers(1 << 30)))
    outputs, dilations = groups * per_group, [int(rng.integers(1, 3)) for _ in kernel]
    full = (outputs, shape[0] // groups, *kernel)
    attributes = {
        "group": groups, "kernel_shape": list(kernel), "pads": [int(padded)] * (2 * len(kernel)),
        "dilations": dilations, "strides": [int(rng.integers(1, 3)) for _ in kernel],
    }  # fmt: skip
    codes = m.input(m.codes(kind, 2, *shape))
    real = m.node("DequantizeLinear", [codes, *quantizer(m, kind, 3)])
    own = [m.constant(m.codes(weights, *full)), m.constant(np.full(outputs, 0.01, np.float32))]
    zeros = np.zeros(outputs, dtype=weights)
    zeros[1:] = zero_point
    kept = m.node("DequantizeLinear", [*own, m.constant(zeros)], axis=0)
    result = m.node("Conv", [real, kept], **attributes)
    scale = 300 if weights == "int16" else 0.5
    stored = m.node("QuantizeLinear", [result, *quantizer(m, kind, 5, scale * (300 if kind == "int16" else 1))])
    return ax.load_integer_onnx(m.model(m.node("DequantizeLinear", [stored, *quantizer(m, kind, 5, 0.5)]))), m.feeds


def quantizer(m, kind, zero_point, scale=0.25):
    return [m.constant(np.float32(scale)), m.constant(np.asarray(zero_point, dtype=kind))]


def seen(result):
    """All that a result says but how it was made."""
    return {name: values.tolist() for name, values in result.outputs.items()}, json.loads(result.to_json())["layers"]


@pytest.mark.parametrize("way", PATHS)
@given(
    operands=st.sampled_from([("uint8", "uint8"), ("int8", "int8"), ("int16", "int16"), ("int16", "int8")]),
    axes=st.sampled_from([2, 3]), pointwise=st.booleans(), groups=st.sampled_from([1, 2, 3]),
    channels=st.integers(1, 3), per_group=st.integers(1, 3), zero_point=st.sampled_from([0, 7, 100]),
    padded=st.booleans(), dataflow=st.sampled_from(DATAFLOWS), bits=st.sampled_from([12, 20, 48, 64]),
    track=st.sampled_from(["overflow", "range"]), order=st.sampled_from(["channel_first", "spatial_first"]),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
@example(
    operands=("uint8", "uint8"), axes=3, pointwise=False, groups=2, channels=1, per_group=2, zero_point=100,
    padded=True, dataflow="output_stationary", bits=48, track="range", order="spatial_first", seed=0,
)  # fmt: skip
@example(
    operands=("int8", "int8"), axes=3, pointwise=False, groups=1, channels=3, per_group=3, zero_point=0, padded=True,
    dataflow="weight_stationary", bits=12, track="overflow", order="channel_first", seed=1,
)  # fmt: skip
def test_other_forms_are_what_the_stepped_engine_makes_of_their_columns(
    way, operands, axes, pointwise, groups, channels, per_group, zero_point, padded, dataflow, bits, track, order, seed
):
    rng = np.random.default_rng(seed)
    kernel = [1 if pointwise else int(rng.integers(1, 3)) for _ in range(axes)]
    shape = (groups * channels, *(int(rng.integers(3, 5)) for _ in range(axes)))
    program, images = network(rng, *operands, kernel, shape, groups, per_group, zero_point, padded)
    machine = ax.Machine(rows=4, columns=4, dataflow=dataflow, accumulator_bits=bits, reduction_order=order)
    expected = seen(ax.simulate(program, images, machine, track=track, engine="stepped"))
    with path(way), pytest.MonkeyPatch.context() as patch:
        columns = []
        make = grid.run_convolution
        patch.setattr(grid, "run_convolution", lambda *arguments: columns.append(1) or make(*arguments))
        assert seen(ax.simulate(program, images, machine, track=track)) == expected
    if bits >= 48 and not (operands[1] == "int16" and (track == "range" or zero_point)):  # 17 bits
        assert not columns
