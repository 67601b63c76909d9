"""Run SCALE-Sim on GEMMs, for `scalesim.py`; needs its environment's Python, and nothing of accelsim.

Reads a JSON list of cases ``{"name", "dataflow", "rows", "columns", "m", "n", "k"}`` from standard input and writes one
of ``{"cycles", "seconds", "activation_reads", "weight_reads", "version"}`` in the same order: total cycles of its
compute report, CPU seconds of its run without start-up and without writing traces, reads of the operands from SRAM.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

CONFIGURATION = """[general]
run_name = run
[run_presets]
InterfaceBandwidth = CALC
UseRamulatorTrace = False
[architecture_presets]
ArrayHeight = {rows}
ArrayWidth = {columns}
ifmapsramszkB = 65536
filtersramszkB = 65536
ofmapsramszkB = 65536
IfmapOffset = 0
FilterOffset = 100000000
OfmapOffset = 200000000
Dataflow = {dataflow}
ReadRequestBuffer = 32
WriteRequestBuffer = 32
[layout]
IfmapCustomLayout = False
IfmapSRAMBankBandwidth = 10
IfmapSRAMBankNum = 10
IfmapSRAMBankPort = 2
FilterCustomLayout = False
FilterSRAMBankBandwidth = 10
FilterSRAMBankNum = 10
FilterSRAMBankPort = 2
[sparsity]
SparsitySupport = false
"""


def run(case: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run one GEMM and return its figures."""
    from scalesim.scale_sim import scalesim

    configuration, topology, layout = folder / "machine.cfg", folder / "gemm.csv", folder / "layout.csv"
    configuration.write_text(CONFIGURATION.format(**case))
    topology.write_text("Layer, M, N, K,\n{name}, {m}, {n}, {k},\n".format(**case))
    layout.write_text("Layer name,\n{name}, {ones},\n".format(ones=", ".join("1" * 20), **case))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        peer = scalesim(
            save_disk_space=True,
            verbose=False,
            config=str(configuration),
            topology=str(topology),
            layout=str(layout),
            input_type_gemm=True,
        )
        start = time.process_time()
        peer.run_scale(top_path=str(folder))
        seconds = time.process_time() - start
    (layer,) = peer.runner.single_layer_sim_object_list
    accesses = layer.get_detail_report_items()  # first cycle, last cycle, count of: inputs, filters, outputs
    return {
        "cycles": int(layer.get_compute_report_items()[1]),
        "seconds": seconds,
        "activation_reads": int(accesses[2]),
        "weight_reads": int(accesses[5]),
        "version": version("scalesim"),
    }


def main() -> None:
    """Run all cases."""
    sys.path.pop(0)  # this folder: its scalesim.py is not the peer
    results = []
    for case in json.load(sys.stdin):
        with tempfile.TemporaryDirectory() as folder:
            results.append(run(case, Path(folder)))
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
