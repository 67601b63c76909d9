"""Accuracy of the quantization pipeline on real networks, integers on the simulator, over several calibration sets.

Run ``python benchmarks/ptq.py mobilenet`` or ``resnet8``, beside a checkout with the shared models and images;
``--steps`` prints what each step of the pipeline contributes, in simulated quantization.
"""

from __future__ import annotations

import argparse
import io
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import accelsim as ax
from accelsim.graph.graph import Graph
from accelsim.graph.quantized import QuantizedGraph
from accelsim.reference import OnnxRunner
from accelsim.tables import text_table

SHARED = Path(__file__).resolve().parents[2] / "shared"
PLAIN: dict[str, Any] = {
    "prune_constants": False, "equalize": False, "bias_correction": "none", "rounding": "nearest",
    "weight_range": "min_max", "activation_range": "min_max", "average_quantizer": "shared",
}  # fmt: skip
STEPS: dict[str, dict[str, Any]] = {
    "min-max": {},
    "+ pruned constants": {"prune_constants": True},
    "+ CLE, 1 sweep": {"prune_constants": True, "equalize": True, "equalization": "cross_layer",
                       "equalization_sweeps": 1, "absorb_biases": "never"},
    "+ CLE, 3 sweeps": {"prune_constants": True, "equalize": True, "equalization": "cross_layer",
                        "absorb_biases": "never"},
    "+ CLE, 20 sweeps": {"prune_constants": True, "equalize": True, "equalization": "cross_layer",
                         "equalization_sweeps": 20, "absorb_biases": "never"},
    "+ CLE, 3 sweeps, absorption": {"prune_constants": True, "equalize": True, "equalization": "cross_layer",
                                    "absorb_biases": "always"},
    "+ least noise": {"prune_constants": True, "equalize": True, "absorb_biases": "never"},
    "+ bias correction alone": {"prune_constants": True, "bias_correction": "empirical"},
    "+ CLE, 1 sweep, bias correction": {"prune_constants": True, "equalize": True, "equalization": "cross_layer",
                                        "equalization_sweeps": 1, "bias_correction": "empirical"},
    "+ CLE, 3 sweeps, bias correction": {"prune_constants": True, "equalize": True, "equalization": "cross_layer",
                                         "bias_correction": "empirical"},
    "+ CLE, 20 sweeps, bias correction": {"prune_constants": True, "equalize": True, "equalization": "cross_layer",
                                          "equalization_sweeps": 20, "bias_correction": "empirical"},
    "+ least noise, bias correction": {"prune_constants": True, "equalize": True, "bias_correction": "empirical"},
    "+ MSE ranges of weights": {"prune_constants": True, "equalize": True, "bias_correction": "empirical",
                                "weight_range": "mse"},
    "+ MSE ranges of activations": {"prune_constants": True, "equalize": True, "bias_correction": "empirical",
                                    "weight_range": "auto", "activation_range": "mse"},
    "+ rounding (qubo)": {"prune_constants": True, "equalize": True, "bias_correction": "empirical",
                          "weight_range": "auto", "rounding": "qubo"},
    "+ own quantizer of the last average": {"prune_constants": True, "equalize": True, "bias_correction": "empirical",
                                            "weight_range": "auto", "rounding": "qubo", "average_quantizer": "auto"},
    "the defaults": {"prune_constants": True, "equalize": True, "bias_correction": "auto", "weight_range": "auto",
                     "activation_range": "auto", "rounding": "auto", "average_quantizer": "auto"},
}  # fmt: skip
"""What each row changes of plain min-max quantization."""

WIDTHS = ((8, False), (8, True), (4, False), (4, True))
"""Bits of weights, and whether they have a scale per channel; activations have 8 bits."""


@dataclass(frozen=True)
class Case:
    """A network with its images."""

    graph: Graph
    calibration: npt.NDArray[np.float32]
    images: npt.NDArray[np.float32]
    labels: npt.NDArray[Any]
    subset: int

    def seeds(self, count: int) -> Iterator[npt.NDArray[np.float32]]:
        """Yield calibration sets: random halves of the calibration images, each of a seed of its own."""
        for seed in range(count):
            chosen = np.random.default_rng(seed).permutation(len(self.calibration))[: self.subset]
            yield self.calibration[np.sort(chosen)]


def load(name: str) -> Case:
    """Read one of the shared networks and its images."""
    if name == "resnet8":
        with np.load(SHARED / "data" / "cifar10_500.npz", allow_pickle=False) as arrays:
            calibration, images = (
                arrays[key].transpose(0, 3, 1, 2).astype(np.float32) for key in ("x_calibration", "x_test")
            )
            labels = arrays["y_test"].ravel()
        return Case(ax.load_onnx(SHARED / "models" / "resnet8_cifar10.onnx"), calibration, images, labels, 256)
    from PIL import Image

    with np.load(SHARED / "data" / "imagenet_264_jpeg.npz", allow_pickle=False) as arrays:
        pixels = {}
        for kind in ("test", "calibration"):
            files, offsets = arrays[f"{kind}_jpeg"].tobytes(), arrays[f"{kind}_offset"]
            decoded = [
                np.asarray(Image.open(io.BytesIO(files[start:stop])).convert("RGB"))
                for start, stop in itertools.pairwise(offsets)
            ]
            pixels[kind] = np.stack(decoded).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(127.5) - 1
        labels = arrays["test_label"]
    graph = ax.load_onnx(SHARED / "models" / "mobilenetv1_025_imagenet.onnx")
    return Case(graph, pixels["calibration"], pixels["test"], labels, 48)


def logits(runner: OnnxRunner, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Run a model in batches."""
    parts = [runner.run({runner.inputs[0]: images[i : i + 20]})[runner.outputs[0]] for i in range(0, len(images), 20)]
    return np.concatenate(parts).reshape(len(images), -1)


def scores(found: npt.NDArray[Any], real: npt.NDArray[Any], labels: npt.NDArray[Any]) -> tuple[float, float, float]:
    """Return top-1 and agreement with the float network in per cent, and the SQNR of the logits in dB."""
    answers = found.argmax(axis=1)
    noise = float(np.square(real.astype(np.float64) - found).sum())
    decibel = 10 * np.log10(float(np.square(real.astype(np.float64)).sum()) / noise)
    return 100 * float((answers == labels).mean()), 100 * float((answers == real.argmax(axis=1)).mean()), decibel


def integers(quantized: QuantizedGraph, images: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """Run the integers on the simulator."""
    result = ax.simulate(quantized, images, track="none")
    return result.real_outputs[quantized.graph.outputs[0]].reshape(len(images), -1)


def spread(values: list[float]) -> str:
    """Write mean and standard deviation."""
    return f"{np.mean(values):.1f} ± {np.std(values):.1f}"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", choices=("mobilenet", "resnet8"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", action="store_true")
    parser.add_argument("--weight-bits", type=int, choices=(4, 8))
    parser.add_argument("--granularity", choices=("per-tensor", "per-channel"))
    options = parser.parse_args()
    case = load(options.network)
    real = logits(OnnxRunner.of_original(case.graph), case.images)
    print(f"{options.network}, {len(case.images)} images, FP32 {scores(real + 1e-9, real, case.labels)[0]:.1f} %")
    rows = []
    recipes = STEPS if options.steps else {name: STEPS[name] for name in ("min-max", "the defaults")}
    recipes = recipes if options.steps else {**recipes, "the defaults, without data": STEPS["the defaults"]}
    for (bits, per_channel), (name, changes) in itertools.product(WIDTHS, recipes.items()):
        granularity = "per-channel" if per_channel else "per-tensor"
        if options.weight_bits not in (None, bits) or options.granularity not in (None, granularity):
            continue
        config = ax.PTQConfig(**{**PLAIN, **changes}, weight_bits=bits, per_channel=per_channel)
        found: list[tuple[float, float, float]] = []
        seconds = 0.0
        without = "without data" in name
        for calibration in case.seeds(1 if without else options.seeds):
            start = time.process_time()
            quantized = ax.quantize(case.graph, None if without else calibration, config)
            seconds += time.process_time() - start
            simulated = options.steps
            answers = logits(OnnxRunner.of_simulated(quantized), case.images) if simulated else None
            found.append(scores(integers(quantized, case.images) if answers is None else answers, real, case.labels))
        columns = [spread([row[i] for row in found]) for i in range(3)]
        rows.append([f"W{bits}A8 {granularity}", name, *columns, f"{seconds / len(found):.1f}"])
        print("  ".join(rows[-1]), flush=True)
    print(text_table(["bits", "recipe", "top-1 %", "agreement %", "SQNR dB", "CPU s"], rows))


if __name__ == "__main__":
    main()
