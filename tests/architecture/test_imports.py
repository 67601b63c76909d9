"""What is light stays light: the heavy libraries are loaded when they are needed, and not before."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("numba", "onnx", "onnxruntime", "matplotlib", "scipy")
RUN = (
    "from accelsim.cli import main\nimport sys\nsys.argv = ['accelsim', {}]\ntry:\n    main()\nexcept SystemExit: pass"
)


def _loaded(code):
    """Return the modules that are loaded after running some code in a fresh interpreter."""
    report = "\nimport json, sys\nprint('\\n' + json.dumps(sorted(sys.modules)))"
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    result = subprocess.run(
        [sys.executable, "-c", code + report],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(json.loads(result.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import accelsim",
        "import accelsim; accelsim.Machine.preset('edge_16x16').to_toml()",
        "import accelsim; accelsim.PTQConfig(weight_bits=4)",
        "import accelsim.cli",
        RUN.format("'--help'"),
        RUN.format("'--version'"),
        RUN.format("'run', '--help'"),
        RUN.format("'demo', '--help'"),
        RUN.format("'machines'"),
        RUN.format("'machines', 'edge_16x16', '--set', 'rows=4'"),
    ],
)
def test_light_things_load_no_heavy_library(code):
    loaded = _loaded(code)
    assert "accelsim" in loaded
    assert not loaded.intersection(HEAVY)


def test_help_loads_no_pydantic():
    """It would take as long as the rest of the help."""
    assert "pydantic" not in _loaded(RUN.format("'--help'"))


def test_a_run_loads_what_it_needs():
    """The test above would pass for ever if modules were loaded under other names."""
    assert {"numba", "onnx", "pydantic"} <= _loaded("import accelsim; accelsim.simulate, accelsim.load_onnx")
