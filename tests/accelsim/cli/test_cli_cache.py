"""``accelsim cache``: what is on disk, and being rid of it."""

import json
import os
import subprocess
import sys

from accelsim.simulator.engine import kernel_cache
from tests.accelsim.cli.conftest import assert_refused


def in_folder(folder, *arguments):
    """Run the command line in a process of its own, whose kernels are kept in a folder."""
    program = "from accelsim.cli import main; main()"
    environment = {**os.environ, "ACCELSIM_CACHE_DIR": str(folder)}
    command = [sys.executable, "-c", program, "cache", *arguments, "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    return json.loads(done.stdout)


def test_clear_deletes_every_version_and_nothing_else(tmp_path):
    stale, other = tmp_path / ("kernels-" + "0" * 32), tmp_path / "kernels-of-somebody-else"
    for folder in (stale, other):
        folder.mkdir()
        (folder / "file").write_bytes(b"12345")
    found = in_folder(tmp_path, "info")
    assert found["folder"].startswith(str(tmp_path))
    assert found["stale_folders"] == [str(stale)]
    assert found["stale_bytes"] == 5
    assert in_folder(tmp_path, "clear")["freed_bytes"] >= 5
    assert not stale.exists()
    assert (other / "file").read_bytes() == b"12345"


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert in_folder(blocked / "cache", "info")["folder"] is None


def test_info_is_readable_and_is_the_default(accelsim, monkeypatch, tmp_path):
    """In a folder of its own: to that of this run other tests may add meanwhile."""
    monkeypatch.setattr(kernel_cache, "FOLDER", tmp_path)
    monkeypatch.setenv("ACCELSIM_CACHE_DIR", str(tmp_path))
    (tmp_path / "one.nbc").write_bytes(b"12345")
    result = accelsim("cache")
    assert result.exit_code == 0
    assert result.stdout == accelsim("cache", "info").stdout
    assert "kernels  1 compiled variants" in result.stdout


def test_warm_runs_every_dataflow(accelsim):
    result = accelsim("cache", "warm", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["seconds"] > 0


def test_an_unknown_action_is_refused(accelsim):
    assert_refused(accelsim("cache", "burn"), "info, clear, warm", "'burn'")
