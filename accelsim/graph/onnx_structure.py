"""The skeleton of an ONNX model: opset, inputs, outputs, and its nodes in an order in which they can be evaluated.

What is checked here does not depend on what an operator means: known operators of the standard domain, no sub-graphs,
every tensor made exactly once, no cycles.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, checker

from accelsim.errors import ModelError
from accelsim.graph.graph import Shape, Tensor
from accelsim.graph.limits import num_elements
from accelsim.graph.onnx_tensors import type_name
from accelsim.graph.operators import OPERATORS

OLDEST_OPSET = 11
_OLDEST_IR_VERSION = 3  # the first with opset imports

READABLE = frozenset(OPERATORS) | {"Identity", "Dropout", "Constant"}
"""Operators that may stand in a model; the last three dissolve."""

STANDARD_DOMAINS = ("", "ai.onnx")
_REMEDIES = {
    "QuantizeLinear": "this reader takes float models; use the model from before its quantization",
    "DequantizeLinear": "this reader takes float models; use the model from before its quantization",
    "Shape": "fix the input shape and simplify the model, so that shapes become constants",
    "Gather": "fix the input shape and simplify the model, so that shapes become constants",
    "Cast": "simplify the model, so that casts of constants disappear",
    "ConstantOfShape": "simplify the model, so that it becomes a constant",
    "Div": "write a division by a constant as Mul with its reciprocal",
}


@dataclass(frozen=True)
class Skeleton:
    """A model whose structure is sound.

    Parameters
    ----------
    opset : int
        Version of the standard operator set.
    inputs : tuple of Tensor
        Graph inputs with None for the batch.
    batch_size : int or None
        The batch that the inputs are fixed to, None where any goes.
    outputs : tuple of str
        Names of the graph outputs.
    nodes : tuple of NodeProto
        Those nodes that an output needs, in topological order.
    initializers : dict of str to TensorProto
        Stored constants.
    """

    opset: int
    inputs: tuple[Tensor, ...]
    batch_size: int | None
    outputs: tuple[str, ...]
    nodes: tuple[NodeProto, ...]
    initializers: dict[str, TensorProto]


def describe(node: NodeProto, opset: int) -> str:
    """Return how messages call a node: its name, operator and opset."""
    name = node.name or next((output for output in node.output if output), "")
    return f"node {name!r} ({node.op_type}, opset {opset})"


def read_skeleton(model: ModelProto) -> Skeleton:
    """Check the structure of a model.

    Parameters
    ----------
    model : ModelProto
        A parsed model without external data.

    Returns
    -------
    Skeleton
        Its parts, in evaluation order.

    Raises
    ------
    ModelError
        Naming the first thing that is wrong.
    """
    check_texts(model)
    opset = opset_of(model)
    graph = model.graph
    if model.functions:
        raise ModelError(
            f"the model defines its own function {model.functions[0].name!r} (opset {opset}); "
            "inline it with onnx.inliner.inline_local_functions"
        )
    if graph.sparse_initializer:
        name = graph.sparse_initializer[0].values.name
        raise ModelError(f"constant {name!r} is a sparse initializer; store it as a dense tensor")
    initializers: dict[str, TensorProto] = {}
    for tensor in graph.initializer:
        if tensor.name in initializers:
            raise ModelError(f"constant {tensor.name!r} is stored twice")
        initializers[tensor.name] = tensor
    # Up to IR version 3 every initializer is listed as an input as well.
    fed = [value for value in graph.input if value.name not in initializers]
    inputs, batch_size = _inputs(fed)
    outputs = tuple(value.name for value in graph.output)
    if not outputs:
        raise ModelError("the model has no output")
    if len(set(outputs)) != len(outputs):
        raise ModelError(f"the model lists an output twice: {', '.join(outputs)}")
    nodes = order_nodes(list(graph.node), {tensor.name for tensor in inputs} | set(initializers), opset)
    needed = needed_nodes(nodes, outputs)
    context = checker_context(model, opset)
    for node in needed:
        _check_node(node, opset, context)
    return Skeleton(opset, inputs, batch_size, outputs, needed, initializers)


def check_texts(model: ModelProto) -> None:
    """Refuse names that are not UTF-8: protobuf does not check them, and hands them out as bytes or fails late."""
    graph = model.graph
    texts: list[object] = [graph.name]
    for tensor in graph.initializer:
        texts.append(tensor.name)
    for value in (*graph.input, *graph.output):
        texts += [value.name, *(dim.dim_param for dim in value.type.tensor_type.shape.dim)]
    for node in graph.node:
        texts += [node.name, node.op_type, node.domain, *node.input, *node.output]
        texts += [attribute.name for attribute in node.attribute]
    for text in texts:
        if not isinstance(text, str):
            raise ModelError(f"the model holds a name that is not valid UTF-8: {text!r}")


def opset_of(model: ModelProto, oldest: int = OLDEST_OPSET) -> int:
    """Return the version of the standard operator set; raise ModelError where it is older than the oldest."""
    newest = onnx.defs.onnx_opset_version()
    if not _OLDEST_IR_VERSION <= model.ir_version <= onnx.IR_VERSION:
        raise ModelError(
            f"the model has IR version {model.ir_version}; versions {_OLDEST_IR_VERSION} to {onnx.IR_VERSION} are "
            "supported"
        )
    versions = [entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS]
    if len(versions) != 1:
        raise ModelError(f"the model must import exactly one version of the standard operator set, got {len(versions)}")
    if versions[0] < oldest:
        raise ModelError(
            f"the model uses opset {versions[0]}; opsets {oldest} to {newest} are supported, "
            "convert it with onnx.version_converter"
        )
    if versions[0] > newest:
        raise ModelError(
            f"the model uses opset {versions[0]}, but the installed onnx knows opsets up to {newest}; "
            "install a newer onnx or export for an older opset"
        )
    return int(versions[0])


def _inputs(values: list[ValueInfoProto]) -> tuple[tuple[Tensor, ...], int | None]:
    """Return the graph inputs and the batch they are fixed to."""
    if not values:
        raise ModelError("the model has no input")
    tensors: list[Tensor] = []
    batch_size: int | None = None
    for value in values:
        shape, batch = _input_shape(value)
        if batch is not None:
            if batch_size not in (None, batch):
                raise ModelError(f"input {value.name!r} is fixed to a batch of {batch}, another input to {batch_size}")
            batch_size = batch
        if any(value.name == tensor.name for tensor in tensors):
            raise ModelError(f"the model has two inputs named {value.name!r}")
        tensors.append(Tensor(value.name, shape))
    return tuple(tensors), batch_size


def _input_shape(value: ValueInfoProto) -> tuple[Shape, int | None]:
    """Return the shape of one input with None for the batch, and the batch where it is fixed."""
    what = f"input {value.name!r}"
    if not value.type.HasField("tensor_type"):
        raise ModelError(f"{what} is not a tensor")
    declared = value.type.tensor_type
    if declared.elem_type != TensorProto.FLOAT:
        raise ModelError(
            f"{what} has the data type {type_name(declared.elem_type)}; only float32 inputs are supported, "
            "export the model in float32 and convert the data instead"
        )
    if not declared.HasField("shape"):
        raise ModelError(f"{what} declares no shape; give it one, with a symbolic length on axis 0 only")
    dims = declared.shape.dim
    if len(dims) < 2:
        raise ModelError(f"{what} has {len(dims)} axes; axis 0 is the batch, and at least one more is needed")
    lengths = []
    for axis, dim in enumerate(dims):
        if axis == 0:
            continue
        if not dim.HasField("dim_value"):
            symbol = f" {dim.dim_param!r}" if dim.dim_param else ""
            raise ModelError(
                f"{what} has the dynamic length{symbol} on axis {axis}; only axis 0, the batch, may be dynamic: "
                "export the model with a fixed length there"
            )
        if dim.dim_value < 1:
            raise ModelError(f"{what} has length {dim.dim_value} on axis {axis}; lengths must be at least 1")
        lengths.append(dim.dim_value)
    num_elements(what, lengths)
    batch = dims[0].dim_value if dims[0].HasField("dim_value") else None
    if batch is not None and batch < 1:
        raise ModelError(f"{what} has a batch of {batch}; it must be at least 1 or symbolic")
    return (None, *lengths), batch


def order_nodes(nodes: list[NodeProto], known: set[str], opset: int) -> list[NodeProto]:
    """Sort nodes topologically, keeping the file's order where it is one."""
    makers: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in filter(None, node.output):
            if name in makers or name in known:
                raise ModelError(f"tensor {name!r} is made twice, the second time by {describe(node, opset)}")
            makers[name] = index
    waiting: list[int] = []
    users: dict[int, list[int]] = {}
    for index, node in enumerate(nodes):
        sources = set()
        for name in filter(None, node.input):
            if name in makers:
                sources.add(makers[name])
            elif name not in known:
                raise ModelError(
                    f"{describe(node, opset)} uses tensor {name!r}, which is no input, no constant and made by no node"
                )
        waiting.append(len(sources))
        for source in sources:
            users.setdefault(source, []).append(index)
    ready = deque(index for index, count in enumerate(waiting) if count == 0)
    order: list[int] = []
    while ready:
        index = ready.popleft()
        order.append(index)
        for user in users.get(index, ()):
            waiting[user] -= 1
            if waiting[user] == 0:
                ready.append(user)
    if len(order) < len(nodes):
        stuck = next(node for node, count in zip(nodes, waiting, strict=True) if count > 0)
        raise ModelError(f"{describe(stuck, opset)} depends on its own output: the graph has a cycle")
    in_file_order = all(
        makers.get(name, -1) < index for index, node in enumerate(nodes) for name in filter(None, node.input)
    )
    return nodes if in_file_order else [nodes[index] for index in order]


def needed_nodes(nodes: list[NodeProto], outputs: tuple[str, ...]) -> tuple[NodeProto, ...]:
    """Return those nodes that contribute to an output."""
    wanted = set(outputs)
    kept = []
    for node in reversed(nodes):
        if wanted.intersection(filter(None, node.output)):
            kept.append(node)
            wanted.update(node.input)
    return tuple(reversed(kept))


def checker_context(model: ModelProto, opset: int) -> checker.C.CheckerContext:
    """Return what ONNX's checker has to know to check single nodes."""
    context = checker.C.CheckerContext()
    context.ir_version = model.ir_version
    context.opset_imports = {"": opset}
    return context


def _check_node(node: NodeProto, opset: int, context: checker.C.CheckerContext) -> None:
    """Refuse unknown operators, sub-graphs, and whatever ONNX's own schema of the operator forbids."""
    what = describe(node, opset)
    if node.domain not in STANDARD_DOMAINS:
        raise ModelError(f"{what} is an operator of the domain {node.domain!r}; only standard operators are supported")
    if node.op_type not in READABLE:
        remedy = f"; {_REMEDIES[node.op_type]}" if node.op_type in _REMEDIES else ""
        raise ModelError(f"{what}: the operator {node.op_type} is not supported{remedy}")
    check_schema(node, what, context)


def check_schema(node: NodeProto, what: str, context: checker.C.CheckerContext) -> None:
    """Refuse sub-graphs, and whatever ONNX's own schema of the operator forbids."""
    names = [attribute.name for attribute in node.attribute]
    if len(set(names)) != len(names):
        raise ModelError(f"{what} has an attribute twice: {', '.join(names)}")
    for attribute in node.attribute:
        if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) or attribute.ref_attr_name:
            raise ModelError(
                f"{what}: attribute {attribute.name!r} is a sub-graph or reference, which is not supported"
            )
    try:
        checker.check_node(node, context)
    except checker.ValidationError as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "it does not fit its schema")
        raise ModelError(f"{what} is malformed: {reason}") from None
