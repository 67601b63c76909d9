"""Cycles and SRAM reads against SCALE-Sim 3.0.0, and the speed of both, in one run.

    python -m venv peer && peer/bin/pip install 'scalesim==3.0.0' 'numpy<2.3'
    python benchmarks/scalesim.py peer/bin/python

SCALE-Sim moves addresses and no values. accelsim's machine takes the same conventions: full ragged folds, no double
buffering; load + multiply must be one more than its total cycles (docs/timing.md (13a)), the operand reads equal.
The exit status is 1 where a figure differs.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from stepped import step_rate

import accelsim as ax
from accelsim.simulator.memory import GemmShape, gemm_traffic
from accelsim.tables import text_table

DATAFLOWS = {"os": "output_stationary", "ws": "weight_stationary", "is": "input_stationary"}

# (rows, columns, N, K, P): whole folds, ragged ones, single elements, layers of small networks.
SHAPES = (
    (4, 4, 4, 4, 4),
    (8, 4, 18, 33, 18),
    (8, 8, 3, 5, 2),
    (5, 7, 1, 1, 1),
    (1, 1, 3, 4, 5),
    (16, 16, 16, 27, 1024),
    (16, 16, 32, 144, 256),
    (16, 16, 10, 64, 1),
    (32, 8, 40, 100, 70),
)
TIMED = (16, 16, 64, 288, 256)


def peer_figures(python: str, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run cases on the peer, in its own environment."""
    script = str(Path(__file__).with_name("scalesim_peer.py"))
    finished = subprocess.run([python, script], input=json.dumps(cases), capture_output=True, text=True, check=True)
    figures: list[dict[str, Any]] = json.loads(finished.stdout)
    return figures


def case(dataflow: str, rows: int, columns: int, n: int, k: int, p: int) -> dict[str, Any]:
    """Describe a case; the peer's M are our positions, its N our channels."""
    return {"name": "gemm", "dataflow": dataflow, "rows": rows, "columns": columns, "m": p, "n": n, "k": k}


def compare(python: str) -> bool:
    """Print cycles and reads side by side; return whether all agree."""
    chosen = [(name, shape) for shape in SHAPES for name in DATAFLOWS]
    figures = peer_figures(python, [case(name, *shape) for name, shape in chosen])
    rows, agreed = [], True
    for (name, (height, width, n, k, p)), peer in zip(chosen, figures, strict=True):
        machine = ax.Machine(rows=height, columns=width, dataflow=DATAFLOWS[name], ragged_folds="full")
        cycles = ax.gemm_cycles(num_outputs=n, reduction=k, num_positions=p, machine=machine)
        traffic = gemm_traffic(GemmShape(n, k, p), machine)
        ours = (cycles.load + cycles.multiply, traffic.weight_reads, traffic.activation_reads)
        theirs = (peer["cycles"] + 1, peer["weight_reads"], peer["activation_reads"])
        agreed &= ours == theirs
        rows.append(
            [f"{height}x{width}", DATAFLOWS[name], f"{n}x{k}x{p}", f"{ours[0]:,}", f"{peer['cycles']:,}",
             f"{ours[1]:,} / {ours[2]:,}", f"{theirs[1]:,} / {theirs[2]:,}", "yes" if ours == theirs else "NO"]
        )  # fmt: skip
    print(f"SCALE-Sim {figures[0]['version']}; agreement: cycles one more than the peer's, reads equal")
    header = ["grid", "dataflow", "N x K x P", "load + multiply", "peer", "weight / input reads", "peer", "agree"]
    print(text_table(header, rows))
    return agreed


def race(python: str) -> None:
    """Print the speed of the stepped engine beside the peer's."""
    height, width, n, k, p = TIMED
    figures = peer_figures(python, [case(name, *TIMED) for name in DATAFLOWS for _ in range(2)])
    rows = []
    for index, dataflow in enumerate(DATAFLOWS.values()):
        machine = ax.Machine(rows=height, columns=width, dataflow=dataflow, ragged_folds="full")
        rate = step_rate(machine, n, k, p, "overflow")
        peer_rate = n * k * p / min(run["seconds"] for run in figures[2 * index : 2 * index + 2])
        rows.append(
            [dataflow, f"{rate.pe_cycles / 1e6:,.0f}", f"{rate.macs / 1e6:,.1f}", f"{peer_rate / 1e6:,.2f}",
             f"{rate.macs / peer_rate:,.0f}"]
        )  # fmt: skip
    print(f"\n{platform.machine()}, {height}x{width} PEs, {n}x{k}x{p}; per CPU second, both without a trace")
    print(text_table(["dataflow", "MPE-cycles/s", "stepped MMAC/s", "SCALE-Sim MMAC/s", "ratio"], rows))


def main() -> int:
    """Compare, then race."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    agreed = compare(sys.argv[1])
    race(sys.argv[1])
    return 0 if agreed else 1


if __name__ == "__main__":
    sys.exit(main())
