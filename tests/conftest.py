"""Settings of all tests: hypothesis profiles and the folder of shared inputs."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Before numpy is loaded: small products in several threads wait for each other as soon as another process runs (tests
# of quantization then take six times as long), and their sums depend on how many threads there are.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# No deadline in any profile: the first call of a kernel compiles it. The generators build whole machines and GEMMs; on
# a loaded computer hypothesis takes that for slow data generation.
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "print_blob": True}
settings.register_profile("default", max_examples=16, derandomize=True, database=None, **_COMMON)
settings.register_profile("jit_off", max_examples=8, derandomize=True, database=None, **_COMMON)
settings.register_profile("long", max_examples=1000, **_COMMON)
settings.load_profile(os.environ.get("ACCELSIM_HYPOTHESIS_PROFILE", "default"))

# A shell without job control starts its background jobs with SIGINT ignored; the processes that tests interrupt would
# inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


MOST_WORKERS = 4  # each compiles what the others have not left on disk yet

# Files in which workers begin: the one that compiles nearly all kernels, meanwhile those that need none or compile what
# they alone call, then those that need what is compiled first. Else two workers meet the same kernels at the same time,
# and both compile them.
FIRST = (
    "kernels/test_specialisations.py",
    "accelsim/graph",
    "accelsim/machine",
    "accelsim/cli/test_cli_machines.py",
    "accelsim/cli/test_cli_program.py",
    "accelsim/cli/test_cli_quantize.py",
    "accelsim/data",
    "accelsim/test_formats.py",
    "architecture",
    "naive",
    "kernels/test_jit.py",
    "kernels/test_vectors.py",
    "accelsim/ptq",
    "accelsim/cli/test_cli_debug.py",
    "accelsim/program/test_lowering.py",
    "accelsim/onnx",
    "accelsim/reference",
    "accelsim/test_demo.py",
)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Share a run of all tests between processors, file by file in their order; other runs stay in one process.

    Kernels are compiled in one thread, and nearly everything else runs in one. ``-n 0`` keeps all tests in one process,
    and so do a debugger, ``-s``, and pytest without pytest-xdist.
    """
    from joblib import cpu_count  # it knows what a container may use

    options = config.option
    if hasattr(config, "workerinput"):
        return  # a worker has no workers of its own
    if options.collectonly or options.usepdb or options.capture == "no":
        return
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if whole and getattr(options, "numprocesses", 0) is None and cpu_count() > 1:
        options.numprocesses = min(cpu_count(), MOST_WORKERS)
        options.dist, options.loadscopereorder = "loadfile", False


def pytest_collection_modifyitems(config, items):
    """Let workers begin with the files of `FIRST`, in that order; all others follow in theirs."""

    def place(item):
        name = item.path.as_posix().removeprefix(f"{TESTS.as_posix()}/")
        return next((at for at, first in enumerate(FIRST) if f"{name}/".startswith(f"{first}/")), len(FIRST))

    if hasattr(config, "workerinput"):
        items.sort(key=place)


TESTS = Path(__file__).resolve().parent
SHARED = TESTS.parents[1] / "shared"


@pytest.fixture(scope="session")
def shared():
    """Folder with the inputs that are not part of the project; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"the shared inputs are not at {SHARED}")
    return SHARED
