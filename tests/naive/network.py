"""A whole quantized network, node by node: docs/numerics.md from the stored inputs to the stored outputs.

Reads the fields of a quantized graph, of its quantizers and of the machine, and calls none of their methods.
"""

import math
from dataclasses import dataclass
from itertools import product

from tests.naive import conv, gemm, vector
from tests.naive.quantizer import Fused, quantize
from tests.naive.requantize import requantize

LINEAR = ("Conv", "Gemm", "MatMul")
FUSED = ("Relu", "Clip", "ChannelClip")
RESHAPES = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")
AVERAGES = ("AveragePool", "GlobalAveragePool", "ReduceMean")


@dataclass(frozen=True)
class Codes:
    """A tensor of Python integers, the last axis fastest, the batch as axis 0."""

    shape: tuple
    flat: list

    def at(self, index):
        position = 0
        for place, length in zip(index, self.shape, strict=True):
            position = position * length + place
        return self.flat[position]

    def nested(self):
        """As nested lists."""

        def cut(flat, shape):
            if len(shape) <= 1:
                return flat
            step = len(flat) // shape[0]
            return [cut(flat[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]

        return cut(self.flat, self.shape)


@dataclass(frozen=True)
class Gemms:
    """What one layer on the grid went through: a GEMM for each group, and the Output of every accumulator."""

    num_outputs: int
    reduction: int
    num_positions: int
    groups: int
    outputs: list


def indices(shape):
    return product(*(range(length) for length in shape))


def flatten(nested):
    return [nested] if not isinstance(nested, list) else [leaf for part in nested for leaf in flatten(part)]


def triple(parameters):
    """(scale, zero point, (least code, greatest code)) of a per-tensor quantizer."""
    bits, signed = parameters.format.bits, parameters.format.signed
    limits = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return float(parameters.scale), int(parameters.zero_point), limits


def code_of(bound, quantizer):
    """(1) of a bound, which may be infinite."""
    scale, zero_point, (low, high) = quantizer
    if math.isinf(bound):
        return high if bound > 0 else low
    return quantize(bound, scale, zero_point, low, high)


class Network:
    """The network of a quantized graph on a machine.

    After `run`, ``tensors`` holds the codes of every stored tensor, ``gemms`` the Gemms of every layer on the grid by
    the name of its Conv, Gemm or MatMul, and ``element_operations`` those of every other layer, timing.md (25) to (29).
    """

    def __init__(self, quantized, machine):
        self.graph, self.machine = quantized.graph, machine
        self.quantizers = {name: triple(parameters) for name, parameters in quantized.activations.items()}
        self.weights, self.biases = quantized.weights, quantized.biases
        self.tensors, self.gemms, self.element_operations = {}, {}, {}

    def run(self, inputs):
        """Run stored inputs {name: Codes}."""
        self.tensors = dict(inputs)
        done = set()
        for node in self.graph.nodes:
            if node.name in done:
                continue
            output, fused = node.output, []
            while output not in self.quantizers:
                (follower,) = [other for other in self.graph.nodes if output in other.inputs]
                assert follower.op in FUSED
                output = follower.output
                fused.append(follower)
                done.add(follower.name)
            batch = next(iter(inputs.values())).shape[0]
            shape = (batch, *self.graph.shapes[output][1:])
            codes = self.layer(node, fused, output, shape)
            assert len(codes) == math.prod(shape)
            self.tensors[output] = Codes(shape, codes)
        return self.tensors

    def layer(self, node, fused, output, shape):
        """Return the codes of one stored tensor as a flat list."""
        target = self.quantizers[output]
        if node.op in LINEAR:
            return self.linear(node, fused, target, shape)
        self.element_operations[node.name] = self.count_operations(node, target, shape)
        if node.op in ("Add", "Sub", "Mul"):
            return self.elementwise(node, fused, target, shape)
        x = self.tensors[node.inputs[0]]
        match node.op:
            case "Concat":
                return self.concat(node, target, shape)
            case "MaxPool":
                return [vector.max_pool(taps) for taps in self.pool_windows(node, x, shape)]
            case op if op in AVERAGES and self.quantizers[node.inputs[0]] != target:
                source, requantizer = self.quantizers[node.inputs[0]], self.machine.requantizer
                windows = list(self.pool_windows(node, x, shape))
                assert all(len(taps) == math.prod(x.shape[2:]) and None not in taps for taps in windows)
                return [vector.mean(taps, source, target, requantizer) for taps in windows]
            case op if op in AVERAGES:
                padded = op == "AveragePool" and bool(node.attributes["count_include_pad"])
                return [
                    vector.average_pool(taps, target[1], self.machine.requantizer, padded)
                    for taps in self.pool_windows(node, x, shape)
                ]
            case "Softmax":
                return self.softmax(node, x, target)
            case op if op in RESHAPES:
                return list(x.flat)
            case "Transpose":
                perm = node.attributes["perm"]
                # Axis i of the output is axis perm[i] of the input.
                return [x.at([index[perm.index(axis)] for axis in range(len(perm))]) for index in indices(shape)]
            case "Pad":
                return self.pad(node, x, target, shape)
            case _:
                return self.activation(node, x, target)

    def count_operations(self, node, target, shape):
        """timing.md (25) to (29)."""
        outputs = math.prod(shape)
        match node.op:
            case "Add" | "Sub":
                return 2 * outputs
            case "Concat":
                return sum(len(self.tensors[name].flat) for name in node.inputs if self.quantizers[name] != target)
            case "MaxPool" | "AveragePool":
                return outputs * math.prod(node.attributes["kernel_shape"])
            case "GlobalAveragePool" | "ReduceMean":
                return len(self.tensors[node.inputs[0]].flat)
            case op if op in (*RESHAPES, "Transpose", "Pad"):
                return 0
            case _:  # multiplications, tables, Softmax
                return outputs

    def bounds_of(self, node, channel):
        """What a clamping function clamps a channel to."""
        if node.op == "ChannelClip":
            return tuple(float(self.graph.constants[name][channel]) for name in node.inputs[1:])
        return (0.0, math.inf) if node.op == "Relu" else (node.attributes["min"], node.attributes["max"])

    def narrowed(self, fused, target, channel):
        """The quantizer with its code limits narrowed to the codes of the bounds of fused functions: section 5."""
        scale, zero_point, (low, high) = target
        for node in fused:
            bounds = self.bounds_of(node, channel)
            least, most = (code_of(bound, target) for bound in bounds)
            low, high = (min(max(code, least), most) for code in (low, high))
        return Fused(scale, zero_point, (low, high), target[2])

    def linear(self, node, fused, target, shape):
        """Conv, Gemm and MatMul: sections 2, 3 and 5."""
        x = self.tensors[node.inputs[0]]
        s_x, z_x, _ = self.quantizers[node.inputs[0]]
        stored = self.weights[node.inputs[1]]
        array, parameters = stored.integers, stored.parameters
        num_outputs = array.shape[1] if node.op == "MatMul" else array.shape[0]
        s_w, z_w = (
            [kind(value) for value in (values.tolist() if parameters.per_channel else [values] * num_outputs)]
            for values, kind in ((parameters.scale, float), (parameters.zero_point, int))
        )
        bias = [0] * num_outputs
        real = None
        if len(node.inputs) == 3:  # (6); Python's float is float64 and its round takes ties to even
            real = self.graph.constants[node.inputs[2]].tolist()
        if node.name in self.biases:
            real = self.biases[node.name].tolist()
        if real is not None:
            bias = [round(b / (s_x * scale)) for b, scale in zip(real, s_w, strict=True)]
        if node.op == "Conv":
            outputs = self.convolution(node, x, array.tolist(), bias, z_w, z_x)
        else:
            outputs = self.matrix_product(node, x, array.tolist(), bias, z_w, z_x)
        s_y, z_y, _ = target
        channel_axis = 1 if node.op == "Conv" else len(shape) - 1
        limits = [self.narrowed(fused, target, channel)[2] for channel in range(num_outputs)]
        units = [scale * 2**self.machine.product_shift_bits for scale in s_w]  # (13a)
        return [
            requantize(out.accumulator, s_x, units[n], s_y, z_y, *limits[n], self.machine.requantizer, target[2])
            for n, out in zip((index[channel_axis] for index in indices(shape)), outputs, strict=True)
        ]

    def convolution(self, node, x, weights, bias, z_w, z_x):
        attributes, images = dict(node.attributes), x.nested()
        strides, pads, dilations = attributes["strides"], attributes["pads"], attributes["dilations"]
        if len(x.shape) == 3:  # a 1-D convolution is a 2-D one of height 1
            images = [[[row] for row in image] for image in images]
            weights = [[[row] for row in kernel] for kernel in weights]
            strides, dilations, pads = (1, *strides), (1, *dilations), (0, pads[0], 0, pads[1])
        groups = attributes["group"]
        outputs = flatten(conv.conv2d(images, weights, self.machine, bias, z_w, z_x, strides, pads, dilations, groups))
        reduction = len(weights[0]) * len(weights[0][0]) * len(weights[0][0][0])
        positions = len(outputs) // len(weights)
        self.gemms[node.name] = Gemms(len(weights) // groups, reduction, positions, groups, outputs)
        return outputs

    def matrix_product(self, node, x, weights, bias, z_w, z_x):
        """Over the last axis; the other axes are positions."""
        if node.op == "MatMul":  # (K, N)
            weights = [list(column) for column in zip(*weights, strict=True)]
        reduction = len(weights[0])
        outputs = []
        for begin in range(0, len(x.flat), reduction):
            row = x.flat[begin : begin + reduction]
            for kernel, b, z in zip(weights, bias, z_w, strict=True):
                values = gemm.terms(kernel, row, b, z, z_x, self.machine.zero_point)
                outputs.append(gemm.accumulate(*values, self.machine))
        self.gemms[node.name] = Gemms(len(weights), reduction, len(outputs) // len(weights), 1, outputs)
        return outputs

    def elementwise(self, node, fused, target, shape):
        """(25) to (28), the shapes broadcast as numpy's."""
        operands, widths = [], []
        for name in node.inputs:
            if name in self.weights:
                stored = self.weights[name]
                flat = [int(code) for code in stored.integers.reshape(-1)]
                operands.append((Codes(stored.integers.shape, flat), triple(stored.parameters)))
            else:
                operands.append((self.tensors[name], self.quantizers[name]))
            low, high = operands[-1][1][2]
            widths.append((high - low).bit_length())
        (a, quantizer_a), (b, quantizer_b) = operands
        requantizer, left_shift = self.machine.requantizer, 20 if max(widths) <= 8 else 15

        def stretched(codes, index):
            places = index[len(index) - len(codes.shape) :]
            return codes.at([0 if length == 1 else i for i, length in zip(places, codes.shape, strict=True)])

        result = []
        narrowed = [self.narrowed(fused, target, channel) for channel in range(shape[1] if len(shape) > 1 else 1)]
        for index in indices(shape):
            target = narrowed[index[1] if len(shape) > 1 else 0]
            p, q = stretched(a, index), stretched(b, index)
            if node.op == "Mul":
                result.append(vector.multiply(p, q, quantizer_a, quantizer_b, target, requantizer))
            else:
                sign = 1 if node.op == "Add" else -1
                result.append(vector.add(p, q, quantizer_a, quantizer_b, target, requantizer, sign, left_shift))
        return result

    def concat(self, node, target, shape):
        """(29)."""
        axis = node.attributes["axis"]
        result = []
        for index in indices(shape):
            place = index[axis]
            for name in node.inputs:
                length = self.tensors[name].shape[axis]
                if place < length:
                    break
                place -= length
            q = self.tensors[name].at((*index[:axis], place, *index[axis + 1 :]))
            source = self.quantizers[name]
            result.append(q if source == target else vector.rescale(q, source, target, self.machine.requantizer))
        return result

    def pool_windows(self, node, x, shape):
        """Yield the taps of every window, channel by channel of image by image."""
        space, output = x.shape[2:], shape[2:]
        if node.op in ("GlobalAveragePool", "ReduceMean"):
            kernel, strides, pads, dilations, output = space, (1, 1), (0, 0, 0, 0), (1, 1), (1,) * len(space)
        else:
            kernel, strides, pads, dilations = (
                node.attributes[name] for name in ("kernel_shape", "strides", "pads", "dilations")
            )
        if len(space) == 1:
            kernel, strides, dilations, output = ((1, values[0]) for values in (kernel, strides, dilations, output))
            pads = (0, pads[0], 0, pads[1])
        for image in x.nested():
            for plane in image:
                rows = [plane] if len(space) == 1 else plane
                yield from vector.windows(rows, kernel, strides, pads, dilations, output)

    def softmax(self, node, x, target):
        """(33)."""
        axis, result = node.attributes["axis"], [None] * len(x.flat)
        scale = self.quantizers[node.inputs[0]][0]
        bits = target[2][1].bit_length()
        assert target == (2.0**-bits, 0, (0, 2**bits - 1))
        numbered = Codes(x.shape, list(range(len(x.flat))))
        for index in indices((*x.shape[:axis], 1, *x.shape[axis + 1 :])):
            line = [numbered.at((*index[:axis], i, *index[axis + 1 :])) for i in range(x.shape[axis])]
            for position, code in zip(line, vector.softmax([x.flat[i] for i in line], scale, bits), strict=True):
                result[position] = code
        return result

    def pad(self, node, x, target, shape):
        before = node.attributes["pads"][: len(shape)]
        border = code_of(node.attributes["value"], target)
        result = []
        for index in indices(shape):
            inner = [i - width for i, width in zip(index, before, strict=True)]
            inside = all(0 <= i < length for i, length in zip(inner, x.shape, strict=True))
            result.append(x.at(inner) if inside else border)
        return result

    def activation(self, node, x, target):
        """(32); of a table only the entries that are asked for."""
        (scale, zero_point, _), entries = self.quantizers[node.inputs[0]], {}
        slopes = self.graph.constants[node.inputs[1]].reshape(-1).tolist() if node.op == "PRelu" else [None]
        if node.op == "ChannelClip":
            slopes = [self.bounds_of(node, channel) for channel in range(x.shape[1])]
        result = []
        for index, q in zip(indices(x.shape), x.flat, strict=True):
            slope = slopes[index[1] if len(slopes) > 1 else 0]
            if (slope, q) not in entries:
                (entries[slope, q],) = vector.table(function_of(node, slope), (scale, zero_point, (q, q)), target)
            result.append(entries[slope, q])
        return result


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def function_of(node, slope):
    """The activation function of a Python float; ``slope`` is a PRelu's, or the pair of bounds of a ChannelClip."""
    known = dict(node.attributes)
    alpha, beta = known.get("alpha"), known.get("beta")
    return {
        "Relu": lambda x: max(x, 0.0),
        "Clip": lambda x: min(max(x, known["min"]), known["max"]),
        "ChannelClip": lambda x: min(max(x, slope[0]), slope[1]),
        "LeakyRelu": lambda x: alpha * x if x < 0 else x,
        "PRelu": lambda x: slope * x if x < 0 else x,
        "Sigmoid": sigmoid,
        "Tanh": math.tanh,
        "HardSigmoid": lambda x: min(max(alpha * x + beta, 0.0), 1.0),
        "HardSwish": lambda x: x * min(max(x / 6 + 0.5, 0.0), 1.0),
        "Swish": lambda x: x * sigmoid(alpha * x),
    }[node.op]


def quantized_inputs(arrays, quantized):
    """Real inputs {name: array of float32} as Codes, (1)."""
    quantizers = {name: triple(quantized.activations[name]) for name in arrays}
    return {
        name: Codes(array.shape, [code_of(value, quantizers[name]) for value in array.reshape(-1).tolist()])
        for name, array in arrays.items()
    }
