"""A convolution by its definition: docs/numerics.md section 2."""

from itertools import product

from tests.naive.gemm import accumulate, terms


def output_size(length, kernel, stride, pad_before, pad_after, dilation):
    return (length + pad_before + pad_after - dilation * (kernel - 1) - 1) // stride + 1


def taps(channels, kernel_rows, kernel_columns, reduction_order):
    """Return (channel, kernel row, kernel column) in the order of the reduction."""
    if reduction_order == "channel_first":
        return list(product(range(channels), range(kernel_rows), range(kernel_columns)))
    return [(c, u, v) for u, v, c in product(range(kernel_rows), range(kernel_columns), range(channels))]


def conv2d(
    activations,
    weights,
    machine,
    bias=None,
    weight_zero_points=None,
    activation_zero_point=0,
    strides=(1, 1),
    pads=(0, 0, 0, 0),
    dilations=(1, 1),
    groups=1,
):
    """Return the Outputs [image][n][row][column] of lists X[image][channel][row][column] and W[n][channel][u][v]."""
    num_outputs, channels = len(weights), len(weights[0])
    kernel_rows, kernel_columns = len(weights[0][0]), len(weights[0][0][0])
    height, width = len(activations[0][0]), len(activations[0][0][0])
    out_rows = output_size(height, kernel_rows, strides[0], pads[0], pads[2], dilations[0])
    out_columns = output_size(width, kernel_columns, strides[1], pads[1], pads[3], dilations[1])
    bias = bias or [0] * num_outputs
    weight_zero_points = weight_zero_points or [0] * num_outputs
    order = taps(channels, kernel_rows, kernel_columns, machine.reduction_order)

    def stored(image, channel, row, column):
        inside = 0 <= row < height and 0 <= column < width
        return activations[image][channel][row][column] if inside else activation_zero_point

    def output(image, n, row, column):
        first_channel = n // (num_outputs // groups) * channels
        window = [
            stored(
                image,
                first_channel + c,
                row * strides[0] - pads[0] + u * dilations[0],
                column * strides[1] - pads[1] + v * dilations[1],
            )
            for c, u, v in order
        ]
        kernel = [weights[n][c][u][v] for c, u, v in order]
        values = terms(kernel, window, bias[n], weight_zero_points[n], activation_zero_point, machine.zero_point)
        return accumulate(*values, machine)

    return [
        [[[output(b, n, i, j) for j in range(out_columns)] for i in range(out_rows)] for n in range(num_outputs)]
        for b in range(len(activations))
    ]
