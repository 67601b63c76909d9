"""Fuzz the reader of quantized ONNX models: changed models must give an AccelsimError, in seconds and bounded memory.

    python tools/fuzz_onnx.py [FOLDER_OF_ONNX_FILES] --minutes 10 [--seed 0] [--findings DIR]

Takes the files of the folder and the small models of the tests as seeds. Most changes keep a model that parses: other
operators, attributes, types, lengths, names and values, nodes and inputs that are gone or there twice; the rest damages
bytes. What loads is run once. Prints what came out, how long the slowest took and the peak of memory; exits with status
1 where something else than an AccelsimError was raised, a model took more than 20 seconds, or memory passed 1 GiB. Its
findings become tests in tests/accelsim/onnx/test_malformed.py.
"""

from __future__ import annotations

import argparse
import random
import resource
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
from google.protobuf.message import EncodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import accelsim as ax  # noqa: E402
from accelsim.program.onnx.reader import HANDLERS  # noqa: E402
from tests.accelsim.onnx.seeds import seed_models  # noqa: E402

OTHER_OPERATORS = (
    "BatchNormalization", "Cast", "ConstantOfShape", "ConvTranspose", "CumSum", "Div", "If", "LSTM", "Loop", "NonZero",
    "OneHot", "Pow", "Range", "ReduceMax", "ReduceMean", "Resize", "Shape", "Softmax", "Split", "TopK", "Where",
)  # fmt: skip
NUMBERS = (
    0,
    1,
    -1,
    2,
    3,
    5,
    -2,
    7,
    127,
    255,
    -128,
    65536,
    10**6,
    2**31 - 1,
    2**31,
    -(2**31),
    2**40,
    2**63 - 1,
    -(2**63),
)
REALS = (0.0, -1.0, float("nan"), float("inf"), 1e38, 1e-38, 1e-45, 3.0, 255.0)
NAMES = (
    "alpha", "auto_pad", "axis", "block_size", "ceil_mode", "channels_last", "count_include_pad", "dilations", "group",
    "kernel_shape", "output_dtype", "pads", "perm", "saturate", "strides", "to", "transA", "transB",
)  # fmt: skip
SECONDS, GIBIBYTE = 20, 1 << 30
ADDRESS_SPACE = 6 * GIBIBYTE  # far above what is resident: compiled code and thread stacks reserve addresses


def changed(data: bytes, source: random.Random) -> bytes:
    """Return a model with a few things changed."""
    if source.random() < 0.2:
        return damaged(data, source)
    model = ModelProto.FromString(data)
    for _ in range(source.choice((1, 1, 2, 3))):
        change = source.choice(CHANGES)
        with suppress(ValueError, TypeError, OverflowError, IndexError, KeyError):  # some changes do not go
            change(model.graph, source)
    if source.random() < 0.05:
        model.opset_import[0].version = source.choice((1, 9, 10, 11, 13, 17, 19, 20, 21, 22, 23, 25, 99))
    try:
        return model.SerializeToString()
    except (ValueError, EncodeError):
        return data


def damaged(data: bytes, source: random.Random) -> bytes:
    """Return a model with other bytes, or cut off."""
    blob = bytearray(data)
    for _ in range(source.choice((1, 2, 8))):
        blob[source.randrange(len(blob))] = source.randrange(256)
    return bytes(blob[: source.randrange(len(blob))] if source.random() < 0.3 else blob)


def change_operator(graph: GraphProto, source: random.Random) -> None:
    """Let a node be another operator."""
    source.choice(graph.node).op_type = source.choice((*HANDLERS, *OTHER_OPERATORS))


def change_attribute(graph: GraphProto, source: random.Random) -> None:
    """Give an attribute another value."""
    attribute = source.choice(source.choice(graph.node).attribute)
    match attribute.type:
        case AttributeProto.INT:
            attribute.i = source.choice(NUMBERS)
        case AttributeProto.INTS:
            attribute.ints[source.randrange(len(attribute.ints))] = source.choice(NUMBERS)
        case AttributeProto.FLOAT:
            attribute.f = source.choice(REALS)
        case AttributeProto.STRING:
            attribute.s = source.choice((b"SAME_UPPER", b"SAME_LOWER", b"VALID", b"x", b"\xff"))


def add_attribute(graph: GraphProto, source: random.Random) -> None:
    """Give a node one more attribute."""
    value = source.choice(NUMBERS) if source.random() < 0.5 else [source.choice(NUMBERS) for _ in range(4)]
    source.choice(graph.node).attribute.append(helper.make_attribute(source.choice(NAMES), value))


def change_shape(graph: GraphProto, source: random.Random) -> None:
    """Give a constant other lengths."""
    dims = source.choice(graph.initializer).dims
    if dims:
        dims[source.randrange(len(dims))] = source.choice(NUMBERS)
    else:
        dims.append(source.choice(NUMBERS))


def change_type(graph: GraphProto, source: random.Random) -> None:
    """Give a constant another type."""
    source.choice(graph.initializer).data_type = source.randrange(30)


def change_values(graph: GraphProto, source: random.Random) -> None:
    """Fill a constant with one number."""
    tensor = source.choice(graph.initializer)
    array = numpy_helper.to_array(tensor)
    with np.errstate(all="ignore"):
        filled = np.full(array.shape, source.choice(REALS)).astype(array.dtype)
    tensor.CopyFrom(numpy_helper.from_array(filled, tensor.name))


def change_source(graph: GraphProto, source: random.Random) -> None:
    """Let a node read another tensor, or none."""
    names = [name for node in graph.node for name in (*node.input, *node.output)]
    node = source.choice(graph.node)
    node.input[source.randrange(len(node.input))] = source.choice([*names, *(t.name for t in graph.initializer), ""])


def change_fed(graph: GraphProto, source: random.Random) -> None:
    """Give an input another type or length."""
    tensor = source.choice(graph.input).type.tensor_type
    dim = source.choice(tensor.shape.dim)
    match source.randrange(3):
        case 0:
            tensor.elem_type = source.randrange(30)
        case 1:
            dim.dim_param = "N"
        case _:
            dim.dim_value = source.choice(NUMBERS)


def feed_constant(graph: GraphProto, source: random.Random) -> None:
    """Let a constant be an input."""
    index = source.randrange(len(graph.initializer))
    tensor = graph.initializer[index]
    graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    del graph.initializer[index]


def drop_or_repeat(graph: GraphProto, source: random.Random) -> None:
    """Take a node or an input of one away, repeat a node, or return an inner tensor."""
    index = source.randrange(len(graph.node))
    node = graph.node[index]
    match source.randrange(4):
        case 0:
            del graph.node[index]
        case 1:
            del node.input[source.randrange(len(node.input))]
        case 2:
            again = NodeProto()
            again.CopyFrom(node)
            graph.node.append(again)
        case _:
            graph.output.append(helper.make_empty_tensor_value_info(source.choice(list(node.output))))


CHANGES = (
    change_operator, change_attribute, add_attribute, change_shape, change_type, change_values, change_source,
    change_fed, feed_constant, drop_or_repeat,
)  # fmt: skip


def attempt(blob: bytes, seed: int = 0) -> str:
    """Load and run a model; return what happened."""
    try:
        program = ax.load_integer_onnx(blob)
    except ax.AccelsimError as refusal:
        if "\n" in str(refusal):
            raise AssertionError(f"a message of several lines: {refusal}") from None
        return f"refused: {type(refusal).__name__}"
    elements = sum(int(np.prod(layer.output_shape)) for layer in program.layers)
    elements += sum(int(np.prod([length or 1 for length in tensor.shape])) for tensor in program.inputs)
    if program.macs > 10**7 or elements > 10**6:
        return "loaded, too large to run"
    program.summary()
    rng = np.random.default_rng(seed)
    feeds = {}
    for tensor in program.inputs:
        shape = tuple(length or 2 for length in tensor.shape)
        stored = program.tensors[tensor.name].format
        if not tensor.stored or stored.dtype.kind in "fb":
            feeds[tensor.name] = (rng.normal(size=shape) * 3).astype(np.float32)
        else:
            feeds[tensor.name] = rng.integers(stored.minimum, min(stored.maximum, 2**31) + 1, shape).astype(
                stored.dtype
            )
    try:
        ax.simulate(program, feeds)
    except ax.AccelsimError as refusal:
        return f"loaded, run refused: {type(refusal).__name__}"
    return "loaded and run"


def main() -> int:
    """Fuzz until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--findings", type=Path)
    options = parser.parse_args()
    seeds = list(seed_models().values())
    if options.folder is not None:
        files = [path.read_bytes() for path in sorted(options.folder.rglob("*.onnx"))]
        seeds += [data for data in files if len(data) < 1 << 16]
    source = random.Random(options.seed)
    # What would take the machine's memory fails instead, and is a finding like any other.
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    warnings.simplefilter("error")
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError("too slow")))
    outcomes: Counter[str] = Counter()
    slowest, failures, end = 0.0, 0, time.monotonic() + 60 * options.minutes
    while time.monotonic() < end:
        blob = changed(source.choice(seeds), source)
        if options.findings is not None:
            (options.findings / "tried.onnx").write_bytes(blob)  # what is left there when the process dies
        signal.alarm(SECONDS)
        begin = time.monotonic()
        try:
            outcomes[attempt(blob)] += 1
        except BaseException as problem:  # everything that is no AccelsimError is a finding
            if isinstance(problem, KeyboardInterrupt):
                raise
            failures += 1
            outcomes[f"FAILED: {type(problem).__name__}"] += 1
            print(traceback.format_exc(limit=-4), flush=True)
            if options.findings is not None and failures <= 50:
                (options.findings / f"{failures}.onnx").write_bytes(blob)
        signal.alarm(0)
        slowest = max(slowest, time.monotonic() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    for outcome, count in outcomes.most_common():
        print(f"{count:>9,}  {outcome}")
    print(f"{sum(outcomes.values()):,} models, slowest {slowest:.2f} s, peak {peak / 2**20:.0f} MiB")
    return int(failures > 0 or peak > GIBIBYTE)


if __name__ == "__main__":
    sys.exit(main())
