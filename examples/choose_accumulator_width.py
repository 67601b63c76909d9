"""How wide must the accumulators of my network be?

Three answers: the width that no input can overflow, the width that these images needed, and the narrowest width at
which the accuracy still holds. Each is then run, and so is the width one bit below it, so that the step can be seen.

    python examples/choose_accumulator_width.py                        # the network that ships with accelsim
    python examples/choose_accumulator_width.py --weight-bits 4 --dataflow weight_stationary
    python examples/choose_accumulator_width.py --model net.onnx --calibration a.npy --images b.npy --labels c.npy
"""

from __future__ import annotations

import argparse

import numpy as np

import accelsim as ax
from accelsim.arrays import read_array
from accelsim.data import digits_model_path, load_digits
from accelsim.tables import text_table


def main() -> None:
    options = arguments()
    calibration, images, labels = samples(options)
    graph = ax.load_onnx(options.model or digits_model_path())
    config = ax.PTQConfig(weight_bits=options.weight_bits, per_channel=True)
    quantized = ax.quantize(graph, calibration=calibration, config=config)
    machine = ax.Machine(rows=16, columns=16, dataflow=options.dataflow)

    report = ax.accumulator_widths(quantized, images, machine, labels, max_loss=options.max_loss / 100)
    print(f"{report}\n")
    whole = report.register("accumulator")

    rows = []
    for why, overflow, bits in [
        ("proven: no input overflows", "wrap", whole.proven_bits),
        ("needed: these images do not overflow", "wrap", whole.needed_bits),
        ("accuracy holds under wrap", "wrap", whole.holds_wrap_bits),
        ("accuracy holds under saturate", "saturate", whole.holds_saturate_bits),
    ]:
        for width, reason in ((bits, why), (bits - 1, "  one bit less")):
            result = ax.simulate(quantized, images, machine.replace(accumulator_bits=width, overflow=overflow))
            right = np.mean(result.real_outputs[quantized.graph.outputs[0]].argmax(axis=1) == labels)
            rows.append([reason, overflow, str(width), f"{result.overflow_events:,}", f"{100 * right:.2f} %"])
    print(text_table(["accumulators of all layers", "overflow", "bits", "overflow events", "accuracy"], rows))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a float ONNX model; the shipped one if left out")
    parser.add_argument("--calibration", metavar="FILE[:ARRAY]", help="images that the ranges are set on")
    parser.add_argument("--images", metavar="FILE[:ARRAY]", help="images to run")
    parser.add_argument("--labels", metavar="FILE[:ARRAY]", help="the class of each of them")
    parser.add_argument("--limit", type=int, default=200, help="run the first so many images (default 200)")
    parser.add_argument("--weight-bits", type=int, default=8)
    parser.add_argument("--dataflow", default="output_stationary")
    parser.add_argument("--max-loss", type=float, default=1.0, help="accuracy that may be lost, in points (default 1)")
    options = parser.parse_args()
    if options.model and not (options.calibration and options.images and options.labels):
        parser.error("--model needs --calibration, --images and --labels, too")
    return options


def samples(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if options.model:
        images, labels = read_array(options.images), read_array(options.labels)
        return read_array(options.calibration), images[: options.limit], labels[: options.limit]
    digits = load_digits()
    return digits.x_calibration, digits.x_test[: options.limit], digits.y_test[: options.limit]


if __name__ == "__main__":
    main()
