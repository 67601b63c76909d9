"""The file of a sweep: claims, and what becomes of them when a process dies."""

import sqlite3
import subprocess
import sys
import threading
import time

import pytest

import accelsim as ax
from accelsim.explore.store import LEASE_SECONDS, MAX_ATTEMPTS, PointRow, Store
from accelsim.explore.store_file import Reading


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


@pytest.fixture
def foreign(tmp_path):
    """Files that are no sweep's: by name."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    (folder / "words").write_text("not a database, but long enough to look like one to nobody " * 20)
    (folder / "empty").touch()
    for name, table in {"other": "mine (x)", "like": "about (x)", "unknown": "about (name, value)"}.items():
        connection = sqlite3.connect(folder / name)
        connection.execute(f"CREATE TABLE {table}")
        if name == "unknown":
            connection.execute("INSERT INTO about VALUES ('format', 'accelsim sweep 0')")
        connection.commit()
        connection.close()
    return folder


def contents(folder):
    return {entry.name: entry.read_bytes() for entry in folder.iterdir()}


@pytest.mark.parametrize("name", ["words", "other", "like", "unknown"])
def test_foreign_files_are_refused_and_left_alone(foreign, name):
    before = contents(foreign)
    for opening in (Store, ax.SweepResult.load):
        with pytest.raises(ax.DataError, match=rf"sweep file '.*{name}' [^\n]*$"):
            opening(foreign / name)
    assert contents(foreign) == before


def test_a_file_without_a_sweep_cannot_be_read(foreign, tmp_path):
    before = contents(foreign)
    with pytest.raises(ax.DataError, match="holds no sweep"):
        ax.SweepResult.load(foreign / "empty")
    assert contents(foreign) == before
    with pytest.raises(ax.DataError, match="must exist"):
        ax.SweepResult.load(tmp_path / "none.sqlite")
    with pytest.raises(ax.DataError, match="sweep file"):
        Store(tmp_path)


@pytest.mark.parametrize("name", ["sweep.sqlite", "50% #1?.sqlite"])
def test_reading_leaves_the_file_and_its_folder_as_they_are(tmp_path, name):
    with Store(tmp_path / name) as store:
        store.add_points([row("a", cycles=1)])
        store.note({"network": "net"})
    (tmp_path / name).chmod(0o400)
    before = contents(tmp_path)
    assert list(before) == [name]
    found = ax.SweepResult.load(tmp_path / name)
    assert (found.network, [point.key for point in found.points]) == ("net", ["a"])
    assert contents(tmp_path) == before


def test_what_a_living_process_has_just_written_is_read(path):
    with Store(path) as store:
        for key in "ab":
            before = path.read_bytes()
            store.add_points([row(key)])
            assert path.read_bytes() == before  # the points are in the log beside it
            assert [point.key for point in ax.SweepResult.load(path).points] == ["a", "b"][: "ab".index(key) + 1]


def test_a_process_that_writes_meanwhile_is_noticed(path, monkeypatch):
    with Store(path) as store:
        store.add_points([row("a")])
    once, writers = Reading._ask_once, []

    def late(self, question, written):
        if not writers:
            writers.append(Store(path))
            answer = once(self, question, written)
            writers[0].add_points([row("b")])
            return answer
        return once(self, question, written)

    monkeypatch.setattr(Reading, "_ask_once", late)
    assert [point.key for point in ax.SweepResult.load(path).points] == ["a", "b"]
    writers[0].close()


@pytest.mark.parametrize("code", [sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY], ids=["no place", "read only"])
def test_a_log_that_cannot_be_read_is_said(path, monkeypatch, code):
    def refuse(*_, **__):
        failure = sqlite3.OperationalError("unable")
        failure.sqlite_errorcode = code
        raise failure

    with Store(path) as store:
        store.add_points([row("a")])
        monkeypatch.setattr(Reading, "_ask_once", refuse)
        with pytest.raises(ax.DataError, match=r"sweep.sqlite-wal beside it holds writes .*; copy both files"):
            ax.SweepResult.load(path)
