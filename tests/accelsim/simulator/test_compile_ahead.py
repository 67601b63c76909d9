"""The second process that compiles: it runs while the block runs, where it is of use, and whatever happens to it."""

import os
import signal
import sys
from types import SimpleNamespace

import pytest

from accelsim.simulator.engine import compile_ahead
from accelsim.simulator.engine.compile_ahead import compiled_ahead


@pytest.fixture(autouse=True)
def _two_processors_and_an_empty_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(compile_ahead, "FOLDER", tmp_path)
    monkeypatch.setattr(compile_ahead, "settings", SimpleNamespace(DISABLE_JIT=0))
    monkeypatch.setattr(compile_ahead, "cpu_count", lambda: 2)


def has_ended(process):
    """Whether nothing is left of a process, not even what its parent has not asked for yet."""
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
    return True


def test_it_runs_as_long_as_the_block_and_once():
    with compiled_ahead(signal.pause) as process:
        assert process.poll() is None
    assert has_ended(process)
    with compiled_ahead(signal.pause) as process:
        assert process is None  # the block has run to its end, so all kernels are there


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_it_ends_with_a_block_that_fails(failure):
    for _ in range(2):  # the second time as well: not all kernels are there
        with pytest.raises(failure), compiled_ahead(signal.pause) as process:
            raise failure
        assert has_ended(process)


def test_its_failure_does_not_matter(capfd):
    with compiled_ahead(os.abort) as process:
        assert process.wait(timeout=60) != 0
    assert capfd.readouterr() == ("", "")


def test_that_it_cannot_be_started_does_not_matter(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))
    with compiled_ahead(signal.pause) as process:
        assert process is None


@pytest.mark.parametrize("of", ["one processor", "no cache", "nothing that is compiled"])
def test_it_is_not_started_for_nothing(monkeypatch, of):
    if of == "one processor":
        monkeypatch.setattr(compile_ahead, "cpu_count", lambda: 1)
    elif of == "no cache":
        monkeypatch.setattr(compile_ahead, "FOLDER", None)
    else:
        compile_ahead.settings.DISABLE_JIT = 1
    with compiled_ahead(signal.pause) as process:
        assert process is None
