"""Layers on the grid, made at random, and their outputs by the oracle."""

from dataclasses import dataclass
from itertools import product

import numpy as np
from hypothesis import strategies as st

from accelsim.formats import IntegerFormat
from accelsim.machine import Machine
from accelsim.program.geometry import Geometry
from accelsim.program.layers import MacLayer
from accelsim.program.rescale import Rescale
from tests.accelsim.simulator.gemm_cases import lists, machines
from tests.naive.conv import taps
from tests.naive.gemm import terms


@dataclass(frozen=True)
class Case:
    """A convolution in the oracle's form: W[n][channel][u][v], and the layer that it is on a machine."""

    weights: list
    bias: list
    weight_zero_points: list
    zero_point: int
    geometry: Geometry
    format: IntegerFormat
    machine: Machine

    @property
    def layer(self):
        """The layer with the start values of docs/numerics.md (7), computed in Python integers."""
        rows, starts = [], []
        at_input = self.machine.zero_point == "at_input"
        for kernel, bias, z_w in zip(self.weights, self.bias, self.weight_zero_points, strict=True):
            row = [kernel[c][u][v] for c, u, v in self.order]
            rows.append([w - z_w for w in row] if at_input else row)
            zeros = terms(row, row, bias, z_w, self.zero_point, self.machine.zero_point)
            starts.append(zeros[1])
        last = [0] * len(rows) if at_input else self.weight_zero_points
        return MacLayer(
            name="conv",
            op="Conv",
            inputs=("x",),
            output="y",
            output_shape=(len(rows), *self.geometry.output_shape),
            weights=np.array(rows, dtype=np.int32),
            start=np.array(starts, dtype=np.int64),
            weight_zero_points=np.array(last, dtype=np.int64),
            input_offset=self.zero_point if at_input else 0,
            pad_value=0 if at_input else self.zero_point,
            geometry=self.geometry,
            weight_format=IntegerFormat(8, signed=True),
            input_format=self.format,
            rescale=Rescale.of(self.machine.requantizer, [np.float32(0.01)], np.float32(1), "conv"),
            zero_point=0,
            output_format=IntegerFormat(8, signed=False),
            clamp=(0, 255),
        )

    @property
    def order(self):
        return taps(self.geometry.group_channels, *self.geometry.kernel_shape, self.machine.reduction_order)

    def outputs(self, image):
        """Yield (channel, products, start, last) of every output of an image [channel][row][column]."""
        g = self.geometry
        _, height, width = g.input_shape
        for n, kernel in enumerate(self.weights):
            first = n // (len(self.weights) // g.groups) * g.group_channels
            row = [kernel[c][u][v] for c, u, v in self.order]
            for y, x in product(*(range(length) for length in g.output_shape)):
                window = []
                for c, u, v in self.order:
                    at = (y * g.strides[0] - g.pads[0] + u * g.dilations[0],
                          x * g.strides[1] - g.pads[1] + v * g.dilations[1])  # fmt: skip
                    inside = 0 <= at[0] < height and 0 <= at[1] < width
                    window.append(image[first + c][at[0]][at[1]] if inside else self.zero_point)
                z_w, mode = self.weight_zero_points[n], self.machine.zero_point
                yield n, *terms(row, window, self.bias[n], z_w, self.zero_point, mode)

    def arguments(self):
        """Arguments of `accelsim.conv2d` without activations and machine."""
        g = self.geometry
        return {
            "weights": np.array(self.weights),
            "bias": np.array(self.bias),
            "weight_zero_point": np.array(self.weight_zero_points),
            "activation_zero_point": self.zero_point,
            "strides": g.strides,
            "pads": g.pads,
            "dilations": g.dilations,
            "groups": g.groups,
        }


@st.composite
def cases(draw, largest=3, most_bits=8, weight_bits=5, **fixed):
    """Draw a convolution of ``largest`` pixels a side with all registers of the machine wide enough."""
    groups, channels, outputs = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    kernel = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    image = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    pads = tuple(draw(st.integers(0, 2)) for _ in range(4))
    strides, dilations = (draw(st.integers(1, 2)), 1), (1, draw(st.integers(1, 2)))
    size = [
        Geometry.convolved(image[i], kernel[i], strides[i], pads[i], pads[i + 2], dilations[i]) for i in (0, 1)
    ]  # fmt: skip
    if min(size) < 1:
        pads = tuple(length * 2 for length in (*kernel, *kernel))
        size = [Geometry.convolved(image[i], kernel[i], strides[i], pads[i], pads[i + 2], dilations[i]) for i in (0, 1)]
    geometry = Geometry((groups * channels, *image), kernel, strides, pads, dilations, tuple(size), groups)
    stored = IntegerFormat(draw(st.integers(1, most_bits)), signed=draw(st.booleans()))
    weight = st.integers(-(2 ** (weight_bits - 1)), 2 ** (weight_bits - 1) - 1)
    symmetric = draw(st.booleans())
    num_outputs = groups * outputs
    return Case(
        draw(lists(weight, num_outputs, channels, *kernel)),
        draw(lists(st.integers(-100, 100), num_outputs)),
        [0] * num_outputs if symmetric else draw(lists(weight, num_outputs)),
        draw(st.integers(stored.minimum, stored.maximum)),
        geometry,
        stored,
        draw(machines(accumulator_bits=64, partial_sum_bits=None, adder_tree_bits=None, overflow="wrap", **fixed)),
    )
