"""The fast engine against numpy's float32 matmul and ONNX Runtime's float32 run, on one core, in one process.

    OPENBLAS_NUM_THREADS=1 python benchmarks/speed.py gemm
    OPENBLAS_NUM_THREADS=1 python benchmarks/speed.py gemm-threads
    OPENBLAS_NUM_THREADS=1 python benchmarks/speed.py convolutions
    OPENBLAS_NUM_THREADS=1 python benchmarks/speed.py risk
    OPENBLAS_NUM_THREADS=1 python benchmarks/speed.py widths [MODEL.onnx ...]
    OPENBLAS_NUM_THREADS=1 python benchmarks/speed.py ranges [MODEL.onnx[:IMAGES] ...]
    OPENBLAS_NUM_THREADS=1 python benchmarks/speed.py forms [MODEL.onnx[:IMAGES] ...]
    OPENBLAS_NUM_THREADS=1 python benchmarks/speed.py networks [MODEL.onnx[:IMAGES] ...]
    OPENBLAS_NUM_THREADS=1 python benchmarks/speed.py threads [MODEL.onnx[:IMAGES] ...]

Both sides are run in turn, and the best of many short runs counts. Times are processor time, which other work on the
machine disturbs least; those of threads are wall time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import accelsim as ax
from accelsim.data import digits_model_path
from accelsim.program.lowering import lower
from accelsim.simulator.engine.bounds import ChannelBounds
from accelsim.simulator.engine.dots import PackedWeights
from accelsim.simulator.engine.exact import exact_sums, in_large_pages
from accelsim.tables import text_table

try:
    from benchmarks.mobilenet_v2 import mobilenet_v2
except ImportError:  # run as a script
    from mobilenet_v2 import mobilenet_v2

ROUNDS = 12
SUM_BYTES = 512 << 10
"""Sums of a layer that are made at a time before they are requantized, so that they stay in a cache."""
SHAPES = {
    "64x576x4096": (64, 576, 4096),
    "ResNet8 16x144, 8 images": (16, 144, 8192),
    "ResNet8 32x288, 8 images": (32, 288, 2048),
    "ResNet8 64x576, 8 images": (64, 576, 512),
    "MobileNetV1-0.25 pointwise 32x16": (32, 16, 3136),
    "MobileNetV1-0.25 pointwise 128x128": (128, 128, 196),
    "MobileNetV2 pointwise 96x16": (96, 16, 12544),
    "MobileNetV2 pointwise 64x384": (64, 384, 196),
    "MobileNetV2 pointwise 320x960": (320, 960, 49),
    "MobileNetV2 head 1280x320": (1280, 320, 49),
}


def in_turn(
    ours: Callable[[], object], peer: Callable[[], object], clock: Callable[[], float] = time.process_time
) -> tuple[float, float]:
    """Return the best time of both, run in turn, after one run of each that is not counted."""
    best = [float("inf"), float("inf")]
    ours(), peer()
    for _ in range(ROUNDS):
        for i, run in enumerate((ours, peer)):
            best[i] = min(best[i], _seconds(run, clock))
    return best[0], best[1]


def _seconds(run: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Return how long a run takes."""
    began = clock()
    run()
    return clock() - began


def gemm() -> None:
    """Print MAC rates of exact and tracked GEMMs."""
    rng, rows = np.random.default_rng(0), []
    for name, (n, k, p) in SHAPES.items():
        weights = rng.integers(-127, 128, (n, k), dtype=np.int8)
        activations = rng.integers(0, 256, (k, p), dtype=np.uint8)
        real = weights.astype(np.float32), activations.astype(np.float32)
        bounds = ChannelBounds(weights.astype(np.int32), np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64))
        room, channels = in_large_pages((n, p)), np.arange(n)
        packed = PackedWeights(weights.reshape(n, 1, k), words=False)
        last = np.concatenate([activations.T.reshape(-1), np.zeros(64, dtype=np.uint8)])
        bases, segments = np.arange(p) * k, np.zeros(1, dtype=np.int64)
        sums = packed.room_for(packed.positions_at_a_time(SUM_BYTES))
        cases: dict[str, Callable[[], object]] = {
            "sums of a layer": lambda w=packed, a=last, b=bases, s=segments, r=sums: [
                w.sums(a, b[i : i + len(r)], s, r) for i in range(0, len(b), len(r))
            ],
            "exact sums": lambda b=bounds, a=activations, c=channels, r=room: exact_sums(b, a, 0, 255, c, r),
            "ax.matmul, 32 bits": lambda w=weights, a=activations: ax.matmul(w, a),
            "ax.matmul, its counts read": lambda w=weights, a=activations: _counts(ax.matmul(w, a)),
            "64-bit results filled, no more": lambda n=n, p=p: in_large_pages((n, p)).view(np.uint8).fill(7),
        }
        inside = {"accumulator_bits": 24, "partial_sum_bits": 17, "adder_tree_bits": 17}
        if n * k * p > 10**8:
            for what, settings, track in (
                ("saturate, 18 bits", {"accumulator_bits": 18, "overflow": "saturate"}, "overflow"),
                ("wrap, 18 bits", {"accumulator_bits": 18}, "overflow"),
                ("running range", {}, "range"),
                ("saturate, 24 bits, 17 inside tiles", {**inside, "overflow": "saturate"}, "overflow"),
                ("wrap, 24 bits, 17 inside tiles", inside, "overflow"),
            ):
                for dataflow in ("output_stationary", "broadcast", "weight_stationary"):
                    if "inside" in what and dataflow == "output_stationary":
                        continue
                    machine = ax.Machine(dataflow=dataflow, **settings)
                    cases[f"ax.matmul, {what}, {dataflow}"] = lambda w=weights, a=activations, m=machine, t=track: (
                        ax.matmul(w, a, m, track=t)
                    )
        for what, run in cases.items():
            repeats = max(1, 10**7 // (n * k * p))
            ours, peer = in_turn(_repeated(run, repeats), _repeated(lambda r=real: r[0] @ r[1], repeats))
            macs = n * k * p * repeats / 1e9
            rows.append([name, what, f"{macs / ours:.1f}", f"{macs / peer:.1f}", f"{peer / ours:.2f}"])
    print(text_table(["shape N x K x P", "what", "GMAC/s", "numpy float32", "ratio"], rows))


def two_threads() -> None:
    """Print MAC rates of two products on two threads, each of one half of the positions, next to numpy's likewise."""
    rng, rows = np.random.default_rng(0), []
    for name, (n, k, p) in SHAPES.items():
        weights = rng.integers(-127, 128, (n, k), dtype=np.int8)
        halves = [rng.integers(0, 256, (k, p // 2), dtype=np.uint8) for _ in range(2)]
        real = weights.astype(np.float32), [half.astype(np.float32) for half in halves]
        repeats = max(1, 2 * 10**8 // (n * k * p))
        with ThreadPoolExecutor(2) as pool:
            ours, peer = in_turn(
                lambda w=weights, h=halves, t=repeats: list(pool.map(_repeated_on(lambda x: ax.matmul(w, x), t), h)),
                lambda r=real, t=repeats: list(pool.map(_repeated_on(lambda x: r[0] @ x, t), r[1])),
                time.perf_counter,
            )
        macs = n * k * (p // 2) * 2 * repeats / 1e9
        rows.append([name, f"{macs / ours:.1f}", f"{macs / peer:.1f}", f"{peer / ours:.2f}"])
    print(text_table(["shape N x K x P", "ax.matmul, GMAC/s", "numpy float32", "ratio"], rows))


def convolutions() -> None:
    """Print times of single convolutions, next to numpy's float32 product of the same size, which has its columns."""
    rng, rows = np.random.default_rng(0), []
    for images, channels, size, outputs, kernel, groups in (
        (8, 64, 8, 64, 3, 1), (8, 16, 32, 16, 3, 1), (4, 128, 14, 128, 1, 1), (1, 16, 56, 32, 1, 1),
        (4, 64, 28, 64, 3, 64),
    ):  # fmt: skip
        activations = rng.integers(0, 256, (images, channels, size, size), dtype=np.uint8)
        weights = rng.integers(-127, 128, (outputs, channels // groups, kernel, kernel), dtype=np.int8)
        pads = (kernel // 2,) * 4
        left = rng.random((groups, outputs // groups, channels // groups * kernel**2), np.float32)
        right = rng.random((groups, left.shape[2], images * size**2), np.float32)
        row = [f"{images}x{channels}x{size}x{size}, {outputs} of {kernel}x{kernel}, {groups} groups"]
        for machine in (ax.Machine(), ax.Machine(dataflow="output_stationary", accumulator_bits=18)):
            ours, peer = in_turn(
                lambda a=activations, w=weights, m=machine, p=pads, g=groups: ax.conv2d(a, w, m, pads=p, groups=g),
                lambda a=left, b=right: a @ b,
            )
            row.append(f"{ours * 1e3:.2f}")
        rows.append([*row, f"{peer * 1e3:.2f}"])
    print(text_table(["convolution", "ms, 32 bits", "ms, 18 bits stepped", "numpy's product, ms"], rows))


def _counts(result: ax.GemmResult) -> object:
    """Read what a result works out when it is asked for."""
    return result.cycles, result.operations, result.zero_operands


def risk() -> None:
    """Print the times of a GEMM with few outputs at risk as ratios to that of one whose registers cannot overflow.

    The limit is a power of two, so the operands are scaled to it. "At few positions": 60 of 4096 have activations up to
    255, all others up to 7. "Everywhere": what all products of an output reach differs by a few percent from output to
    output, and the weights are such that the largest exceed the limit. "At single outputs": 1 % of all outputs, here
    and there, are not proven safe by parts. "All": every output could overflow in some order of additions, which is not
    the machine's. "As in a network": normal weights and rectified normal activations; with 18 bits the first overflow.
    Last, what stepping everything costs.
    """
    rng, rows = np.random.default_rng(0), []
    n, k, p = 64, 576, 4096
    weights = rng.integers(-127, 128, (n, k), dtype=np.int8)
    activations = rng.integers(0, 256, (k, p), dtype=np.uint8)
    few = (activations // 32).astype(np.uint8)
    large = rng.choice(p, 60, replace=False)
    few[:, large] = activations[:, large]
    cases = {"at few positions": (weights, few, 20)}
    positive = np.maximum(weights, 0).astype(np.float32) @ activations.astype(np.float32)
    smaller = activations * np.float32(2**21 / np.quantile(positive, 0.985))
    cases["everywhere"] = (weights, smaller.astype(np.uint8), 22)
    cases["at single outputs"] = (weights, (activations * np.float32(0.6)).astype(np.uint8), 21)
    cases["all"] = (weights, activations, 22)
    usual = np.clip(np.round(rng.normal(0, 30, (n, k))), -127, 127).astype(np.int8)
    rectified = np.clip(rng.normal(0, 60, (k, p)), 0, 255).astype(np.uint8)
    cases |= {f"as in a network, {bits} bits": (usual, rectified, bits) for bits in (21, 20, 19, 18)}
    cases["all, most of them overflow"] = (weights, activations, 17)
    ways = [("output_stationary", "wrap"), ("output_stationary", "saturate"), ("broadcast", "wrap")]
    ways.append(("weight_stationary", "wrap"))
    for name, (left, right, bits) in cases.items():
        reach = np.maximum(left, 0).astype(np.int64) @ right.astype(np.int64)
        below = np.minimum(left, 0).astype(np.int64) @ right.astype(np.int64)
        share = np.mean((reach >= 1 << (bits - 1)) | (below < -(1 << (bits - 1))))
        for dataflow, overflow in ways:
            machines = [
                ax.Machine(dataflow=dataflow, accumulator_bits=width, overflow=overflow) for width in (bits, 32)
            ]
            ours, exact = in_turn(*(lambda m=m, a=left, b=right: ax.matmul(a, b, m) for m in machines))
            times = [f"{seconds * 1e3:.2f}" for seconds in (ours, exact)]
            rows.append([name, f"{share:.1%}", f"{dataflow}, {overflow}", *times, f"{ours / exact:.2f}"])
    print(text_table(["outputs at risk", "share", "dataflow, overflow", "ms", "ms, 32 bits", "ratio"], rows))


def widths(paths: list[str]) -> None:
    """Print times of networks on narrow accumulators as ratios to those with 32 bits, where nothing is at risk."""
    rows = []
    for path in paths or [digits_model_path()]:
        graph = ax.load_onnx(path)
        shape = tuple(length or 1 for length in graph.inputs[0].shape[1:])
        images = np.random.default_rng(0).normal(size=(64, *shape)).astype(np.float32)
        program = lower(ax.quantize(graph, calibration=images[:8]), ax.Machine())
        for dataflow in ("output_stationary", "weight_stationary"):
            for overflow in ("wrap", "saturate"):
                for bits in (21, 20, 19, 18, 17, 16):
                    machines = [
                        ax.Machine(dataflow=dataflow, accumulator_bits=width, overflow=overflow) for width in (bits, 32)
                    ]
                    events = ax.simulate(program, images, machines[0], track="overflow").overflow_events
                    ours, exact = in_turn(
                        *(lambda m=m, p=program, i=images: ax.simulate(p, i, m, track="overflow") for m in machines)
                    )
                    times = [f"{seconds / 64 * 1e3:.3f}" for seconds in (ours, exact)]
                    rows.append(
                        [Path(path).stem, dataflow, overflow, str(bits), str(events), *times, f"{ours / exact:.2f}"]
                    )
    head = ["network", "dataflow", "overflow", "bits", "events", "ms an image", "ms, 32 bits", "ratio"]
    print(text_table(head, rows))


def ranges(paths: list[str]) -> None:
    """Print times of networks with the running range of every layer as ratios to those with overflow events alone.

    Images are 64 unless the path ends with their number: ``model.onnx:8``.
    """
    rows = []
    for path in paths or [str(digits_model_path())]:
        file, _, count = path.partition(".onnx:")
        graph = ax.load_onnx(f"{file}.onnx" if count else file)
        shape, batch = tuple(length or 1 for length in graph.inputs[0].shape[1:]), int(count or 64)
        images = np.random.default_rng(0).normal(size=(batch, *shape)).astype(np.float32)
        program = lower(ax.quantize(graph, calibration=images[:8]), ax.Machine())
        for dataflow in ("output_stationary", "weight_stationary"):
            machine = ax.Machine(dataflow=dataflow)
            ours, peer = in_turn(
                *(
                    lambda t=track, p=program, i=images, m=machine: ax.simulate(p, i, m, track=t)
                    for track in ("range", "overflow")
                )
            )
            times = [f"{seconds / batch * 1e3:.3f}" for seconds in (ours, peer)]
            rows.append([Path(file).stem, str(batch), dataflow, *times, f"{ours / peer:.1f}"])
    head = ["network", "images", "dataflow", "ranges, ms an image", "overflow, ms an image", "ratio"]
    print(text_table(head, rows))


FORMS: dict[str, dict[str, object]] = {
    "asymmetric weights": {"weight_scheme": "affine"},
    "asymmetric weights per channel": {"weight_scheme": "affine", "per_channel": True},
    "activations of 16 bits": {"activation_bits": 16},
    "16 x 16 bits": {"weight_bits": 16, "activation_bits": 16},
}


def forms(paths: list[str]) -> None:
    """Print times of networks in other forms as ratios to those with symmetric weights of 8 bits and 8-bit activations.

    Images are 64 unless the path ends with their number: ``model.onnx:8``. Then, of one layer, a depthwise convolution
    with two or four kernels per channel next to one of as many channels with one each, and a convolution over three
    axes next to one of its planes, whose channels are all taps along the depth.
    """
    rows = []
    for path in paths or [str(digits_model_path())]:
        file, _, count = path.partition(".onnx:")
        graph = ax.load_onnx(f"{file}.onnx" if count else file)
        shape, batch = tuple(length or 1 for length in graph.inputs[0].shape[1:]), int(count or 64)
        images = np.random.default_rng(0).normal(size=(batch, *shape)).astype(np.float32)
        plain = _network(graph, images, {})
        for name, config in FORMS.items():
            rows.append([Path(file).stem, str(batch), name, *_times(_network(graph, images, config), plain, batch)])
        tracked = (_network(graph, images, config, "range") for config in (FORMS["asymmetric weights"], {}))
        rows.append([Path(file).stem, str(batch), "asymmetric weights, running ranges", *_times(*tracked, batch)])
    for channels, size, stride in ((64, 28, 1), (128, 14, 2)):
        image = np.random.default_rng(0).normal(size=(32, channels, size, size)).astype(np.float32)
        for times in (2, 4):
            wider = np.repeat(image, times, axis=1)
            runs = (
                _network(ax.load_onnx(depthwise(len(x[0]), size, stride, n)), x, {})
                for x, n in ((image, times), (wider, 1))
            )
            name = f"depthwise {channels}x{size}x{size}, stride {stride}"
            rows.append([name, "32", f"{times} kernels per channel", *_times(*runs, 32)])
    volumes, planes = integer_convolution((4, 16, 16, 16, 16), 16), integer_convolution((64, 48, 16, 16), 48)
    rows.append(["16 to 32 channels, 16x16x16", "4", "kernels of 3x3x3", *_times(volumes, planes, 4)])
    print(text_table(["network", "images", "form", "ms an image", "plain, ms an image", "ratio"], rows))


def depthwise(channels: int, size: int, stride: int, times: int) -> bytes:
    """Return an ONNX model of a depthwise 3x3 convolution with so many kernels per channel."""
    weights = np.random.default_rng(1).normal(size=(channels * times, 1, 3, 3)).astype(np.float32)
    out = [None, channels * times, -(-size // stride), -(-size // stride)]
    model = helper.make_graph(
        [
            helper.make_node(
                "Conv", ["x", "w"], ["y"], group=channels, pads=[1] * 4, strides=[stride] * 2, kernel_shape=[3, 3]
            )
        ],
        "depthwise",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, channels, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        [numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(model, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


def integer_convolution(shape: tuple[int, ...], channels: int) -> Callable[[], object]:
    """Return a run of a quantized convolution to 32 channels with kernels of length 3 along all axes."""
    rng, axes = np.random.default_rng(0), len(shape) - 2
    codes = rng.integers(0, 256, shape, dtype=np.uint8)
    constants = {
        "scale": np.float32(0.25), "zero": np.uint8(3), "w_zero": np.int8(0), "y_scale": np.float32(8),
        "w": rng.integers(-63, 64, (32, channels, *[3] * axes), dtype=np.int8), "w_scale": np.float32(0.01),
    }  # fmt: skip
    inputs = ["x", "scale", "zero", "w", "w_scale", "w_zero", "y_scale", "zero"]
    graph = helper.make_graph(
        [helper.make_node("QLinearConv", inputs, ["y"], pads=[1] * (2 * axes))],
        "convolution",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, shape)],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    program, machine = ax.load_integer_onnx(model), ax.Machine()
    return lambda: ax.simulate(program, {"x": codes}, machine, track="overflow")


def _network(
    graph: ax.Graph, images: np.ndarray, config: dict[str, object], track: str = "overflow"
) -> Callable[[], object]:
    """Return a run of a quantized network whose accumulators hold everything."""
    machine = ax.Machine(accumulator_bits=64)
    program = lower(ax.quantize(graph, calibration=images[:8], config=ax.PTQConfig(**config)), machine)
    return lambda: ax.simulate(program, images, machine, track=track)


def _times(ours: Callable[[], object], peer: Callable[[], object], batch: int) -> list[str]:
    first, second = in_turn(ours, peer)
    return [f"{first / batch * 1e3:.3f}", f"{second / batch * 1e3:.3f}", f"{first / second:.2f}"]


def _repeated(run: Callable[[], object], times: int) -> Callable[[], None]:
    def several() -> None:
        for _ in range(times):
            run()

    return several


def _repeated_on(run: Callable[[np.ndarray], object], times: int) -> Callable[[np.ndarray], None]:
    def several(operand: np.ndarray) -> None:
        for _ in range(times):
            run(operand)

    return several


def _cases(paths: list[str]) -> list[tuple[str, bytes | str, int | None]]:
    """Return name, model and number of images of what the command line names, of the shipped network by default."""
    found: list[tuple[str, bytes | str, int | None]] = []
    for path in paths or [str(digits_model_path())]:
        file, _, images = path.partition(".onnx:")
        model = f"{file}.onnx" if images else file
        found.append((Path(model).stem, model, int(images) if images else None))
    return found


def _on_the_grid(model: bytes | str, count: int | None) -> tuple[np.ndarray, Callable[[int], object]]:
    """Return images of a network, 8 to 256 unless their number is given, and a run of them in some threads."""
    graph = ax.load_onnx(model)
    shape = tuple(length or 1 for length in graph.inputs[0].shape[1:])
    batch = count or int(np.clip(10**6 // np.prod(shape), 8, 256))
    several = np.random.default_rng(0).normal(size=(max(batch, 2), *shape)).astype(np.float32)
    images, machine = several[:batch], ax.Machine()
    program = lower(ax.quantize(graph, calibration=several[:2]), machine)  # of one image every average is constant
    return images, lambda threads: ax.simulate(program, images, machine, track="overflow", threads=threads)


def _in_float(model: bytes | str, images: np.ndarray, threads: int, spin: bool = True) -> Callable[[], object]:
    """Return ONNX Runtime's float32 run of the same images; threads that do not spin give way to other work."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    session = onnxruntime.InferenceSession(model, options)
    feed = {session.get_inputs()[0].name: images}
    return lambda: session.run(None, feed)


def networks(paths: list[str]) -> None:
    """Print times of whole networks, overflow tracked, next to ONNX Runtime's float32 run of the same batch.

    Images are 8 to 256, about a million numbers, unless the path ends with their number: ``model.onnx:32``.
    """
    rows = []
    for name, model, count in [*_cases(paths), ("MobileNetV2-1.0, random weights", mobilenet_v2(), None)]:
        images, ours = _on_the_grid(model, count)
        times = _times(lambda run=ours: run(1), _in_float(model, images, 1), len(images))
        rows.append([name, str(len(images)), *times])
    header = ["network", "images", "accelsim ms/image", "ONNX Runtime float32 ms/image", "times its time"]
    print(text_table(header, rows))


def threads(paths: list[str]) -> None:
    """Print how much faster whole networks are in two threads than in one, and ONNX Runtime's float32 run likewise.

    The four runs are taken in turn, and medians over the rounds are printed: two processors of a virtual machine are
    seldom at their fastest at the same time. The peer says how much two threads are worth there at the moment.
    """
    rows = []
    for name, model, count in _cases(paths):
        images, ours = _on_the_grid(model, count)
        runs = [
            lambda run=ours: run(1),
            lambda run=ours: run(2),
            _in_float(model, images, 1),
            _in_float(model, images, 2, spin=False),
        ]
        taken = np.median([[_seconds(run) for run in runs] for _ in range(5 * ROUNDS)][ROUNDS:], axis=0)
        one, two, peer_one, peer_two = taken / len(images) * 1e3
        times = f"{one:.3f}", f"{two:.3f}", f"{one / two:.2f}", f"{peer_one / peer_two:.2f}"
        rows.append([name, str(len(images)), *times])
    header = ["network", "images", "1 thread ms/image", "2 threads ms/image", "times as fast", "ONNX Runtime"]
    print(text_table(header, rows))


if __name__ == "__main__":
    what = sys.argv[1] if len(sys.argv) > 1 else ""
    if what == "gemm":
        gemm()
    elif what == "gemm-threads":
        two_threads()
    elif what == "convolutions":
        convolutions()
    elif what == "risk":
        risk()
    elif what == "widths":
        widths(sys.argv[2:])
    elif what == "ranges":
        ranges(sys.argv[2:])
    elif what == "forms":
        forms(sys.argv[2:])
    elif what == "networks":
        networks(sys.argv[2:])
    elif what == "threads":
        threads(sys.argv[2:])
    else:
        sys.exit(__doc__)
