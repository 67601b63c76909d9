"""Which dataflow for a network with depthwise layers?

A depthwise convolution has one channel a group: a grid whose columns hold channels uses one column of it. The same grid
is tried under all four dataflows: cycles and PEs in use layer by layer, then memory and energy of the whole network.

    python examples/compare_dataflows.py                               # the network that ships with accelsim
    python examples/compare_dataflows.py --rows 8 --columns 32 --bandwidth 16
"""

from __future__ import annotations

import argparse

import accelsim as ax
from accelsim.data import digits_model_path, load_digits
from accelsim.simulator.results import LayerRecord
from accelsim.tables import text_table

DATAFLOWS = ("broadcast", "output_stationary", "weight_stationary", "input_stationary")


def main() -> None:
    options = arguments()
    digits = load_digits()
    graph = ax.load_onnx(digits_model_path())
    quantized = ax.quantize(graph, calibration=digits.x_calibration, config=ax.PTQConfig(per_channel=True))
    results = {}
    for dataflow in DATAFLOWS:
        machine = ax.Machine(
            rows=options.rows,
            columns=options.columns,
            dataflow=dataflow,
            double_buffered=True,
            memory=ax.Memory(dram_bytes_per_cycle=options.bandwidth),
        )
        results[dataflow] = ax.simulate(quantized, digits.x_test[: options.images], machine)

    # The dataflow decides the order of additions, not the sums: without an overflow the answers are the same.
    first, *others = results.values()
    assert all((other.outputs["logits"] == first.outputs["logits"]).all() for other in others)

    print(
        f"{options.rows}x{options.columns} PEs, {options.images} images; cycles a sample (PEs in use), * the fewest\n"
    )
    rows = []
    for layers in zip(*(result.layers for result in results.values()), strict=True):
        if layers[0].macs:
            fewest = min(layer.cycles.total for layer in layers)
            rows.append([layers[0].name, *(cell(layer, fewest, options.images) for layer in layers)])
    print(text_table(["layer", *DATAFLOWS], rows))

    print()
    rows = [
        [
            dataflow,
            f"{result.cycles.total / options.images:,.0f}",
            f"{sum(layer.macs for layer in result.layers) / result.cycles.total / machine.num_pes:.1%}",
            f"{result.cycles.stall / options.images:,.0f}",
            f"{result.accesses.accesses('sram') / options.images:,.0f}",
            f"{result.memory.dram_bytes / options.images:,.0f}",
            f"{result.energy_pj / options.images / 1e3:,.0f}",
        ]
        for dataflow, result in results.items()
    ]
    print(text_table(["a sample", "cycles", "PEs in use", "stalls", "SRAM accesses", "DRAM bytes", "energy nJ"], rows))
    best = min(results, key=lambda dataflow: results[dataflow].cycles.total)
    slowest = max(results[best].layers, key=lambda layer: layer.cycles.total)
    share = slowest.cycles.total / results[best].cycles.total
    print(f"\nfewest cycles: {best}; there {slowest.name} takes {share:.0%} of them")


def cell(layer: LayerRecord, fewest: int, images: int) -> str:
    mark = "*" if layer.cycles.total == fewest else " "
    return f"{layer.cycles.total / images:>8,.0f} ({layer.utilisation:6.1%}){mark}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--columns", type=int, default=16)
    parser.add_argument("--images", type=int, default=8, help="run so many images (default 8)")
    parser.add_argument("--bandwidth", type=float, help="bytes a cycle from and to DRAM; unlimited if left out")
    return parser.parse_args()


if __name__ == "__main__":
    main()
