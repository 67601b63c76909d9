"""One ONNX operator at a time into its normal form: attributes resolved, shapes computed, the rest refused."""

from __future__ import annotations

from collections.abc import Callable

from accelsim.graph.normalise.call import Alias, Call, Folded, Layer, Result
from accelsim.graph.normalise.constants import fold
from accelsim.graph.normalise.elementwise import (
    batch_normalization,
    binary,
    clip,
    hard_sigmoid,
    leaky_relu,
    prelu,
    softmax,
    swish,
    unary,
)
from accelsim.graph.normalise.layout import concat, flatten, pad, reshape, squeeze, transpose, unsqueeze
from accelsim.graph.normalise.linear import conv, gemm, matmul
from accelsim.graph.normalise.passthrough import dropout, identity
from accelsim.graph.normalise.pooling import average_pool, global_average_pool, max_pool, reduce_mean

__all__ = ["Alias", "Call", "Folded", "Layer", "Result", "normalise"]

_NORMALISERS: dict[str, Callable[[Call], Result]] = {
    "Conv": conv,
    "Gemm": gemm,
    "MatMul": matmul,
    "BatchNormalization": batch_normalization,
    "Relu": unary,
    "Sigmoid": unary,
    "Tanh": unary,
    "HardSwish": unary,
    "Clip": clip,
    "LeakyRelu": leaky_relu,
    "HardSigmoid": hard_sigmoid,
    "PRelu": prelu,
    "Swish": swish,
    "Add": binary,
    "Sub": binary,
    "Mul": binary,
    "Concat": concat,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": global_average_pool,
    "ReduceMean": reduce_mean,
    "Flatten": flatten,
    "Reshape": reshape,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Transpose": transpose,
    "Pad": pad,
    "Softmax": softmax,
    "Identity": identity,
    "Dropout": dropout,
}


def normalise(call: Call) -> Result:
    """Bring one node into normal form.

    Parameters
    ----------
    call : Call
        The node, with shapes and constants of its inputs.

    Returns
    -------
    Layer, Alias or Folded
        A node of the graph; or another name of a tensor; or a constant.

    Raises
    ------
    ModelError
        When the operator is used in a way that is not supported.
    """
    folded = fold(call)
    return folded if folded is not None else _NORMALISERS[call.op](call)
