"""Widths of a network at W8A8 and W4A8 with the figure of accuracy against width, and a sweep of 184 points, timed.

    python benchmarks/explore.py [MODEL.onnx DATA.npz] [--figure FILE.svg] [--sweep]

DATA.npz has the arrays x_test, y_test and x_calibration, images channels first or last. Without a model it is the
shipped network. Seconds are wall-clock, on all processors; the first run compiles the kernels first.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

import accelsim as ax
from accelsim.data import digits_data_path, digits_model_path
from accelsim.report.plots import save_figure, width_curves

DATAFLOWS = ("output_stationary", "weight_stationary", "input_stationary", "broadcast")


def main() -> None:
    """Measure what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=digits_model_path())
    parser.add_argument("data", nargs="?", default=digits_data_path())
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--sweep", action="store_true")
    arguments = parser.parse_args()
    graph = ax.load_onnx(arguments.model)
    with np.load(arguments.data, allow_pickle=False) as archive:
        images, calibration = (_channels_first(archive[name], graph) for name in ("x_test", "x_calibration"))
        labels = archive["y_test"].astype(np.int64)
    machine = ax.Machine.preset("edge_16x16")
    networks = {
        f"W{bits}A8": ax.quantize(graph, calibration, ax.PTQConfig(weight_bits=bits, per_channel=True))
        for bits in (8, 4)
    }
    ax.accumulator_widths(networks["W8A8"], images[:4], machine, labels[:4])  # compiles
    reports = {}
    for name, network in networks.items():
        begin = time.perf_counter()
        reports[f"{graph.name}, {name}"] = ax.accumulator_widths(network, images, machine, labels)
        seconds = time.perf_counter() - begin
        print(f"{name}\n{reports[f'{graph.name}, {name}']}\n{seconds:.1f} s\n")
    if arguments.figure is not None:
        save_figure(width_curves(reports), arguments.figure)
    if arguments.sweep:
        _sweep(networks["W8A8"], images, labels, machine)


def _sweep(network: ax.QuantizedGraph, images: np.ndarray, labels: np.ndarray, machine: ax.Machine) -> None:
    """Time accumulators of 10 to 32 bits that wrap and saturate, in every dataflow."""
    settings = {"accumulator_bits": range(10, 33), "overflow": ["wrap", "saturate"], "dataflow": DATAFLOWS}
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        result = ax.sweep(network, images, labels, settings, machine=machine, store=Path(folder) / "sweep.sqlite")
    seconds = time.perf_counter() - begin
    shared = sum(point.metrics["num_simulated"] == 0 for point in result.done)
    print(f"{len(result.done)} points of {len(images)} images, {shared} of them the exact run's: {seconds:.0f} s")


def _channels_first(images: np.ndarray, graph: ax.Graph) -> np.ndarray:
    """Return images as the network takes them."""
    if images.shape[1:] == graph.inputs[0].shape[1:]:
        return images
    return np.ascontiguousarray(np.moveaxis(images, -1, 1))


if __name__ == "__main__":
    main()
