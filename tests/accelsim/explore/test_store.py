"""The file of a sweep: claims, and what becomes of them when a process dies."""

import sqlite3
import subprocess
import sys
import threading
import time

import pytest

import accelsim as ax
from accelsim.explore.store import LEASE_SECONDS, MAX_ATTEMPTS, PointRow, Store


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sweep.sqlite"


def row(key, status="done", **metrics):
    return PointRow(key, {"rows": 4}, {"rows": 4}, None, status, None if status == "done" else "no", metrics)


def test_a_unit_is_claimed_once_and_finished_once(path):
    with Store(path) as one, Store(path) as other:
        assert one.claim("a", "simulate")
        assert not other.claim("a", "simulate")
        assert not other.finish("a", 1.0, b"wrong", None)
        assert one.finish("a", 1.0, b"right", None)
        assert not one.finish("a", 1.0, b"again", None)
        assert not other.claim("a", "simulate")
        assert other.unit("a").result == b"right"
        assert other.statuses(["a", "b"]) == {"a": "done"}


def test_a_file_that_another_process_is_just_making_is_waited_for(path):
    maker = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    maker.execute("BEGIN IMMEDIATE")
    maker.execute("CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
    release = threading.Timer(0.3, maker.execute, ["COMMIT"])
    release.start()
    with Store(path) as store:
        assert store.claim("a", "simulate")
    release.join()
    maker.close()


def test_what_is_not_finished_is_given_back_at_the_end(path):
    with Store(path) as one:
        assert one.claim("a", "simulate")
    with Store(path) as other:
        assert other.claim("a", "simulate")


def forge(path, **owner):
    """Make a claim of somebody else."""
    connection = sqlite3.connect(path)
    columns = {"owner": "them", "host": "elsewhere", "pid": 1, "started": "0", "seen": time.time(), **owner}
    connection.execute("INSERT INTO owners VALUES (:owner, :host, :pid, :started, :seen)", columns)
    connection.execute("INSERT INTO units (key, kind, status, owner, attempts) VALUES ('a', 'x', 'running', 'them', 1)")
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("owner", "free"),
    [({}, False), ({"seen": time.time() - 2 * LEASE_SECONDS}, True)],
    ids=["heard of a moment ago", "not heard of for long"],
)
def test_a_claim_from_another_computer_ends_with_its_lease(path, owner, free):
    with Store(path) as store:
        forge(path, **owner)
        assert store.claim("a", "x") == free


def test_a_claim_of_a_dead_process_of_this_computer_is_free_at_once(path):
    import socket

    from accelsim.explore.store import _started

    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with Store(path) as store:
        forge(path, host=socket.gethostname(), pid=child.pid, started=_started(child.pid))
        assert not store.claim("a", "x")
        child.communicate(b"\n")
        assert store.claim("a", "x")


def test_a_process_of_the_same_number_is_another_one(path):
    import os
    import socket

    with Store(path) as store:
        forge(path, host=socket.gethostname(), pid=os.getpid(), started="long ago")
        assert store.claim("a", "x")


def test_a_unit_whose_worker_dies_again_and_again_is_given_up(path):
    with Store(path) as store:
        for _ in range(MAX_ATTEMPTS):
            assert store.claim("a", "x")
        assert not store.claim("a", "x")
        assert store.unit("a").status == "failed"
        assert "memory" in store.unit("a").error
        store.forget_failures()
        assert store.claim("a", "x")


def test_points_keep_their_first_numbers_and_the_order_of_arrival(path):
    with Store(path) as store:
        store.add_points([row("b", cycles=1), row("a", cycles=2)])
        store.add_points([row("b", cycles=3), row("c", "failed")])
        assert [(point.key, point.metrics) for point in store.points()] == [
            ("b", {"cycles": 1}), ("a", {"cycles": 2}), ("c", {}),
        ]  # fmt: skip
        store.forget_failures()
        assert [point.key for point in store.points()] == ["b", "a"]


def test_foreign_files_are_refused_and_left_alone(tmp_path):
    words = tmp_path / "words.sqlite"
    words.write_text("not a database, but long enough to look like one to nobody " * 20)
    other = tmp_path / "other.sqlite"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE mine (x)")
    connection.commit()
    connection.close()
    for file in (words, other, tmp_path):
        with pytest.raises(ax.DataError, match="sweep file"):
            Store(file)
    with pytest.raises(ax.DataError, match="must exist"):
        Store(tmp_path / "none.sqlite", read_only=True)
    assert words.read_text().startswith("not a database")
