"""Random TFLite models of one operator that both LiteRT and TFLite Micro accept, for benchmarks/litert.py."""

import math

import numpy as np

from tests.accelsim.program.tflite_models import T, indices, one_op

LIMITS = {"INT4": (-7, 8), "INT8": (-127, 128), "INT16": (-32767, 32768)}


class Models:
    """Models drawn from a seed, one operator after the other."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.makers = [
            self.convolution, self.depthwise, self.fully_connected, self.elementwise, self.pooling, self.mean,
            self.unary, self.softmax, self.moving,
        ]  # fmt: skip

    def draw(self, number):
        """Return (operator, model, number of outputs)."""
        op, tensors, inputs, outputs, options = self.makers[number % len(self.makers)]()
        return op, one_op(op, tensors, inputs, outputs, options), len(outputs)

    def length(self, low=1, high=6):
        return int(self.random.integers(low, high))

    def one_in(self, count):
        return self.random.integers(count) == 0

    def scale(self, low=-6, high=1):
        power = self.random.integers(low, high) if self.one_in(3) else self.random.uniform(low, high)
        return float(np.float32(2.0**power))

    def dtype(self):
        return "INT16" if self.one_in(3) else "INT8"

    def grid(self, dtype):
        return self.scale(), int(self.random.integers(-128, 128)) if dtype == "INT8" else 0

    def output_grid(self, dtype, source_scale, weight_scales, reduction):
        """A grid on which not everything clamps; a power of two at times, for ties."""
        scale = source_scale * np.mean(weight_scales) * math.sqrt(reduction) * self.random.uniform(30, 90)
        scale = 2.0 ** round(math.log2(scale)) if self.one_in(3) else float(np.float32(scale))
        return scale, self.grid(dtype)[1]

    def weights(self, shape, dtype, count):
        scales = [float(np.float32(self.random.uniform(1e-3, 2e-2))) for _ in range(count)]
        return self.random.integers(*LIMITS[dtype], shape), scales

    def bias(self, count, source_scale, scales, dtype):
        made = [float(np.float32(source_scale) * np.float32(scale)) for scale in scales]
        return T("b", (count,), dtype, made, [0] * len(made), 0, self.random.integers(-2000, 2000, count))

    def window(self):
        """Image, kernel, strides, dilations, padding and output of a convolution."""
        kernel, strides, dilations = ([self.length(1, 4) for _ in range(2)] for _ in range(3))
        if self.one_in(2):
            dilations = [1, 1]
        else:
            strides = [1, 1]
        image, kernel, options, places = self.slid(kernel, strides, dilations)
        return image, kernel, {**options, "DilationHFactor": dilations[0], "DilationWFactor": dilations[1]}, places

    def slid(self, kernel, strides, dilations):
        same = self.one_in(2)
        image, places = [], []
        for size, stride, dilation in zip(kernel, strides, dilations, strict=True):
            reach = (size - 1) * dilation + 1
            length = self.length(1 if same else reach, reach + 6)
            image.append(length)
            places.append(-(-length // stride) if same else -(-(length - reach + 1) // stride))
        options = {"Padding": 0 if same else 1, "StrideH": strides[0], "StrideW": strides[1]}
        return image, kernel, {**options, "FusedActivationFunction": self.length(0, 4)}, places

    def convolution(self):
        image, kernel, options, places = self.window()
        dtype = self.dtype()
        groups = 1 if dtype == "INT16" else self.length(1, 3)
        depth, count = self.length(), groups * self.length(1, 4)
        shape = (count, *kernel, depth)
        return self.linear("CONV_2D", dtype, image, groups * depth, shape, 0, options, places, count)

    def depthwise(self):
        image, kernel, options, places = self.window()
        channels, multiplier = self.length(), self.length(1, 4)
        count = channels * multiplier
        options["DepthMultiplier"] = multiplier
        return self.linear(
            "DEPTHWISE_CONV_2D", self.dtype(), image, channels, (1, *kernel, count), 3, options, places, count
        )

    def linear(self, op, dtype, image, channels, shape, axis, options, places, count):
        weight_type = "INT4" if dtype == "INT8" and self.one_in(5) else "INT8"
        values, scales = self.weights(shape, weight_type, count)
        batch, (scale, zero) = self.length(1, 3), self.grid(dtype)
        target = self.output_grid(dtype, scale, scales, values.size // count)
        wide = dtype == "INT16" and (op != "CONV_2D" or self.one_in(2))
        if op == "CONV_2D":
            options["QuantizedBiasType"] = (4 if wide else 2) if dtype == "INT16" else 0
        tensors = [
            T("x", (batch, *image, channels), dtype, scale, zero),
            T("w", shape, weight_type, scales, [0] * count, axis, values),
            self.bias(count, scale, scales, "INT64" if wide else "INT32"),
            T("y", (batch, *places, count), dtype, *target),
        ]
        return op, tensors, ["x", "w", "b"], ["y"], options

    def fully_connected(self):
        dtype, reduction, count, keep = self.dtype(), self.length(1, 40), self.length(1, 12), self.one_in(2)
        lead = [self.length(1, 4) for _ in range(self.length(1, 4))]
        weight_type = "INT4" if dtype == "INT8" and self.one_in(5) else "INT8"
        per_channel = weight_type == "INT8" and self.one_in(2)
        values, scales = self.weights((count, reduction), weight_type, count if per_channel else 1)
        wide, (scale, zero) = dtype == "INT16" and self.one_in(2), self.grid(dtype)
        tensors = [
            T("x", (*lead, reduction), dtype, scale, zero),
            T("w", (count, reduction), weight_type, scales, [0] * len(scales), 0, values),
            self.bias(count, scale, scales, "INT64" if wide else "INT32"),
            T("y", (*lead, count) if keep else (math.prod(lead), count), dtype,
              *self.output_grid(dtype, scale, scales, reduction)),
        ]  # fmt: skip
        options = {
            "FusedActivationFunction": self.length(0, 4), "KeepNumDims": bool(keep),
            "QuantizedBiasType": (4 if wide else 2) if dtype == "INT16" else 0,
        }  # fmt: skip
        return "FULLY_CONNECTED", tensors, ["x", "w", "b"], ["y"], options

    def elementwise(self):
        op, dtype = ("ADD", "SUB", "MUL")[self.length(0, 3)], self.dtype()
        shape = [self.length() for _ in range(4)]
        pair = [[1 if self.one_in(6) else length for length in shape] for _ in range(2)]
        shape = np.broadcast_shapes(*map(tuple, pair))
        scale, zero = self.grid(dtype)
        larger = 4 if op != "MUL" else 16 if dtype == "INT8" else 1024
        tensors = [T(name, tuple(own), dtype, *self.grid(dtype)) for name, own in zip("ab", pair, strict=True)]
        options = {"FusedActivationFunction": self.length(0, 4)}
        if op != "MUL":
            options["PotScaleInt16"] = False
        return op, [*tensors, T("y", shape, dtype, scale * larger, zero)], ["a", "b"], ["y"], options

    def pooling(self):
        dtype = self.dtype()
        image, kernel, options, places = self.slid(
            [self.length(1, 5) for _ in range(2)], [self.length(1, 4) for _ in range(2)], (1, 1)
        )
        batch, channels, grid = self.length(1, 3), self.length(), self.grid(dtype)
        options |= {"FilterHeight": kernel[0], "FilterWidth": kernel[1]}
        tensors = [T("x", (batch, *image, channels), dtype, *grid), T("y", (batch, *places, channels), dtype, *grid)]
        return ("AVERAGE_POOL_2D", "MAX_POOL_2D")[self.length(0, 2)], tensors, ["x"], ["y"], options

    def mean(self):
        dtype, keep = self.dtype(), bool(self.one_in(2))
        shape = tuple(self.length(1, 9) for _ in range(4))
        kept = [length for axis, length in enumerate(shape) if axis not in (1, 2)]
        y = (shape[0], 1, 1, shape[3]) if keep else tuple(kept)
        tensors = [
            T("x", shape, dtype, *self.grid(dtype)),
            indices("axes", [1, 2]),
            T("y", y, dtype, *self.grid(dtype)),
        ]
        return "MEAN", tensors, ["x", "axes"], ["y"], {"KeepDims": keep}

    def unary(self):
        dtype, shape = self.dtype(), tuple(self.length(1, 8) for _ in range(3))
        source, target = (T(name, shape, dtype, *self.grid(dtype)) for name in "xy")
        if self.one_in(2):
            return "LEAKY_RELU", [source, target], ["x"], ["y"], {"Alpha": float(np.float32(self.random.uniform(0, 1)))}
        return ("QUANTIZE", "RELU")[self.length(0, 2)], [source, target], ["x"], ["y"], {}

    def softmax(self):
        shape = (self.length(), self.length(1, 40))
        if self.one_in(2):
            tensors = [T("x", shape, "INT16", self.scale(-15, -5), 0), T("y", shape, "INT16", 2.0**-15, 0)]
            return "SOFTMAX", tensors, ["x"], ["y"], {"Beta": float(self.random.choice([0.5, 1.0, 1.75]))}
        tensors = [T("x", shape, "INT8", *self.grid("INT8")), T("y", shape, "INT8", 2.0**-8, -128)]
        return "SOFTMAX", tensors, ["x"], ["y"], {"Beta": float(self.random.choice([0.5, 1.0, 1.75]))}

    def moving(self):
        dtype, shape = self.dtype(), tuple(self.length() for _ in range(4))
        grid = self.grid(dtype)
        source = T("x", shape, dtype, *grid)
        if self.one_in(2):
            axes = self.random.permutation(4)
            target = T("y", tuple(shape[axis] for axis in axes), dtype, *grid)
            return "TRANSPOSE", [source, indices("p", axes), target], ["x", "p"], ["y"], {}
        widths = self.random.integers(0, 3, (4, 2))
        padded = tuple(int(length + before + after) for length, (before, after) in zip(shape, widths, strict=True))
        return "PAD", [source, indices("p", widths), T("y", padded, dtype, *grid)], ["x", "p"], ["y"], {}
