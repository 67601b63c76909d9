"""Zero operands of stored images, counted by place, against those of the operands, counted tap by tap."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsim.program.geometry import Geometry
from accelsim.simulator.engine.nonzero_weights import NonzeroWeights
from accelsim.simulator.engine.zeros import ZeroCounter, count_by_place


def geometry_of(rng, pointwise):
    groups, per_group = (int(n) for n in rng.integers(1, 4, 2))
    image = rng.integers(1, 9, 2)
    if pointwise:
        kernel, strides, dilations, pads = (np.ones(2, dtype=int),) * 3 + (np.zeros(4, dtype=int),)
    else:
        kernel, strides, dilations = (rng.integers(1, most, 2) for most in (4, 4, 3))
        pads = rng.integers(0, 3, 4)
    reach = dilations * (kernel - 1) + 1
    image = np.maximum(image, reach)
    output = (image + pads[:2] + pads[2:] - reach) // strides + 1
    shapes = ((groups * per_group, *image), kernel, strides, pads, dilations, output)
    return Geometry.of(*(tuple(int(n) for n in shape) for shape in shapes), groups)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16])
@pytest.mark.parametrize("pointwise", [False, True])
@given(seed=st.integers(0, 2**32 - 1), spatial_first=st.booleans())
def test_places_of_images_meet_what_taps_meet(dtype, pointwise, seed, spatial_first):
    rng = np.random.default_rng(seed)
    geometry = geometry_of(rng, pointwise)
    channels, height, width = geometry.input_shape
    weights = NonzeroWeights.of(
        rng.integers(-1, 2, (geometry.groups * 3, geometry.reduction), dtype=np.int32), geometry.groups
    )
    zero, pad = int(rng.integers(0, 3)), int(rng.integers(-1, 2))
    by_place, elsewhere, by_tap = (ZeroCounter(weights, spatial_first) for _ in range(3))
    for counter, images in ((by_place, 2), (by_place, 1), (elsewhere, 3)):
        codes = rng.integers(0, 3, (images, height, width, channels)).astype(dtype)
        count_by_place(codes, zero, counter.by_place(images, geometry, pad))
        operands = np.ascontiguousarray(codes.transpose(0, 3, 1, 2)).astype(np.int32) - zero
        by_tap.add_images(operands, geometry, pad)
    by_place.absorb(elsewhere)
    assert by_place.zero_operands() == by_tap.zero_operands()


@given(seed=st.integers(0, 2**32 - 1))
def test_elements_of_vectors_meet_their_weights(seed):
    rng = np.random.default_rng(seed)
    k, zero = int(rng.integers(1, 3000)), int(rng.integers(0, 3))
    W = rng.integers(-1, 2, (int(rng.integers(1, 4)), k), dtype=np.int32)
    counter, X = ZeroCounter(NonzeroWeights.of(W, 1)), rng.integers(0, 3, (5, k)).astype(np.uint8)
    for vectors in (X[:3], X[3:]):
        count_by_place(vectors, zero, counter.by_place(len(vectors), None, 0))
    no_w, no_x = W[:, None] == 0, X[None] == zero
    zeros = counter.zero_operands()
    assert zeros.weight == 5 * no_w.sum()
    assert zeros.activation == len(W) * no_x.sum()
    assert zeros.either == (no_w | no_x).sum()
