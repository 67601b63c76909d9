"""Sweeps that are interrupted, killed, run twice at once, lose a worker: nothing is lost, nothing is run twice."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import accelsim as ax
from accelsim.explore import pool

pytestmark = pytest.mark.slow

SETTINGS = {"accumulator_bits": list(range(11, 17)), "dataflow": ["output_stationary", "broadcast"]}
NUM_POINTS = 24
PATIENCE = 120
COMMAND = [sys.executable, "-c", "from accelsim.cli import main; main()", "sweep"]


@pytest.fixture(scope="module")
def files(digits, tmp_path_factory):
    """A network, images and the options of a sweep whose every point has a simulation of its own."""
    folder = tmp_path_factory.mktemp("killed")
    digits.quantized.save(folder / "net.npz")
    np.savez(folder / "data.npz", x=digits.images[:8], y=digits.labels[:8])
    data = folder / "data.npz"
    arguments = [folder / "net.npz", "--images", f"{data}:x", "--labels", f"{data}:y", "--json"]
    for field, values in {**SETTINGS, "overflow": ["wrap", "saturate"]}.items():
        arguments += ["--set", f"{field}={','.join(map(str, values))}"]
    return SimpleNamespace(folder=folder, arguments=[str(argument) for argument in arguments])


@contextlib.contextmanager
def started(*command, **options):
    """Run a command in a process group of its own; nothing of it is left in the end."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([str(part) for part in command], start_new_session=True, **pipes, **options)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def sweep(files, store, *options):
    return started(*COMMAND, *files.arguments, "--store", store, *options)


def rows(store, query):
    """Ask the file, which may not be there yet."""
    try:
        connection = sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=30)
    except sqlite3.OperationalError:
        return []
    try:
        return connection.execute(query).fetchall()
    except sqlite3.OperationalError:
        return []
    finally:
        connection.close()


def wait_for_points(store, count, *processes):
    """Wait until a sweep has that many points, and return how many it has."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = len(rows(store, "SELECT key FROM points"))
        if found >= count:
            return found
        assert all(process.poll() is None for process in processes), [p.communicate() for p in processes]
        time.sleep(0.005)
    raise AssertionError(f"no {count} points after {PATIENCE} s")


def finished(store):
    """When every finished unit was finished, and how often it was begun."""
    query = "SELECT key, attempts, seconds, finished FROM units WHERE status = 'done'"
    return {key: (attempts, seconds, at) for key, attempts, seconds, at in rows(store, query)}


def points(process):
    """The points that a sweep prints."""
    output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    return {point["key"]: point["metrics"] for point in json.loads(output)["points"]}


def swept_here(digits, **options):
    """The points of the same sweep in this process."""
    settings = {**SETTINGS, "overflow": ["wrap", "saturate"]}
    result = ax.sweep(digits.quantized, digits.images[:8], digits.labels[:8], settings, workers=1, **options)
    assert len(result.done) == NUM_POINTS
    return {point.key: point.metrics for point in result.points}


@pytest.fixture(scope="module")
def undisturbed(digits):
    """The points of a sweep that nothing happens to."""
    return swept_here(digits)


def test_an_interrupted_and_a_killed_sweep_go_on_where_they_were(files, digits, undisturbed, tmp_path):
    store, counts = tmp_path / "s.sqlite", []
    for blow, expected in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        with sweep(files, store, "--workers", "1") as process:
            wait_for_points(store, (counts or [0])[-1] + 4, process)
            os.kill(process.pid, blow)
            process.communicate(timeout=PATIENCE)
            assert process.returncode == expected
        counts.append(len(rows(store, "SELECT key FROM points")))
        before = finished(store)
    print(f"points when interrupted, when killed, in the end: {counts}, {NUM_POINTS}")
    assert 4 <= counts[0] < counts[1] < NUM_POINTS  # it was hit in the middle, twice
    assert len(rows(store, "SELECT key FROM units WHERE status = 'running'")) <= 1  # what the killed one was at
    assert swept_here(digits, store=store) == undisturbed
    after = finished(store)
    assert len(rows(store, "SELECT key FROM points")) == NUM_POINTS
    assert before.items() <= after.items()  # nothing that was finished was begun again
    assert all(attempts == 1 for key, (attempts, *_) in before.items())
    assert len(after) == NUM_POINTS + 3  # a simulation for each point, two exact runs, the float network
    assert rows(store, "PRAGMA integrity_check") == [("ok",)]


def test_two_processes_on_one_file_share_its_points(files, undisturbed, tmp_path):
    store = tmp_path / "s.sqlite"
    with sweep(files, store, "--workers", "1") as one, sweep(files, store, "--workers", "1") as other:
        assert points(one) == points(other) == undisturbed
    assert {attempts for attempts, *_ in finished(store).values()} == {1}
    assert len(finished(store)) == NUM_POINTS + 3
    owners = dict(rows(store, "SELECT owner, COUNT(*) FROM units GROUP BY owner"))
    assert len(owners) == 2, owners  # both did some
    assert rows(store, "PRAGMA integrity_check") == [("ok",)]


def test_a_killed_local_worker_costs_no_point(files, undisturbed, tmp_path):
    store = tmp_path / "s.sqlite"
    with sweep(files, store, "--workers", "2") as process:
        wait_for_points(store, 3, process)
        before = len(rows(store, "SELECT key FROM points"))
        os.kill(workers_of(process.pid)[0], signal.SIGKILL)
        assert points(process) == undisturbed
    print(f"points when a local worker was killed, in the end: {before}, {len(rows(store, 'SELECT key FROM points'))}")
    assert before < NUM_POINTS
    assert len(finished(store)) == NUM_POINTS + 3


def workers_of(pid):
    """The loky workers that a process has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"LokyProcess" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


def test_a_cluster_that_loses_a_worker_in_the_middle_gives_every_point(files, undisturbed, tmp_path):
    pytest.importorskip("distributed")
    store, address_file = tmp_path / "s.sqlite", tmp_path / "scheduler.json"
    quiet = {**os.environ, "DASK_DISTRIBUTED__WORKER__PROFILE__INTERVAL": "10s"}
    scheduler = ["-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    worker = ["-m", "distributed.cli.dask_worker", "--scheduler-file", address_file, "--nthreads", "1", "--no-nanny"]
    worker += ["--no-dashboard", "--local-directory", tmp_path]
    with (
        started(sys.executable, *scheduler, "--scheduler-file", address_file, env=quiet),
        started(sys.executable, *worker, env=quiet) as victim,
        started(sys.executable, *worker, env=quiet),
    ):
        end = time.monotonic() + PATIENCE
        while not address_file.exists() or not address_file.read_text():
            assert time.monotonic() < end
            time.sleep(0.02)
        address = json.loads(address_file.read_text())["address"]
        assert address.startswith("tcp://127.0.0.1:")
        with sweep(files, store, "--scheduler", address) as process:
            before = wait_for_points(store, 4, process)
            victim.kill()
            assert points(process) == undisturbed
    print(f"points when a worker of the cluster was killed, in the end: {before}, {NUM_POINTS}")
    assert 4 <= before < NUM_POINTS
    assert len(rows(store, "SELECT key FROM points")) == NUM_POINTS
    assert len(finished(store)) == NUM_POINTS + 3


def test_a_scheduler_that_does_not_answer_is_refused_in_a_line(digits, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(pool, "CONNECT_SECONDS", 0.5)
    with pytest.raises(ax.AccelsimError, match="does not answer"):
        ax.sweep(digits.quantized, digits.images[:2], None, {"rows": [4]}, scheduler="tcp://127.0.0.1:9")
