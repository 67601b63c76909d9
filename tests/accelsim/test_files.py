"""Files written whole: what is replaced, and what is left alone."""

import os
import socket
import stat

import pytest

import accelsim as ax
from accelsim.cli.inputs import check_outputs
from accelsim.files import write_whole

REFUSED = r"cannot be written: (it is not a regular file; name another file|it is a folder|Too many levels of symbolic)"


@pytest.fixture
def special(tmp_path):
    """A pipe, a link to it, a folder and a link that leads to itself."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to_pipe").symlink_to("pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


@pytest.mark.parametrize("name", ["pipe", "to_pipe", "folder", "loop"])
def test_only_a_regular_file_is_replaced(special, name):
    before = sorted((entry.name, entry.lstat().st_mode, entry.lstat().st_ino) for entry in special.iterdir())
    with pytest.raises(ax.DataError, match=REFUSED):
        write_whole(special / name, b"new")
    with pytest.raises(ax.DataError, match=REFUSED):
        check_outputs([special / name], None, [])
    assert sorted((entry.name, entry.lstat().st_mode, entry.lstat().st_ino) for entry in special.iterdir()) == before


def test_a_socket_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket")
        with pytest.raises(ax.DataError, match="not a regular file"):
            write_whole("socket", b"new")
    assert stat.S_ISSOCK(os.lstat("socket").st_mode)


@pytest.mark.parametrize("exists", [True, False], ids=["a file", "nothing yet"])
def test_what_a_link_points_to_is_replaced_and_the_link_stays(tmp_path, exists):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (tmp_path / "link").symlink_to("elsewhere/file")
    (tmp_path / "link to link").symlink_to(tmp_path / "link")
    if exists:
        (folder / "file").write_bytes(b"old")
    check_outputs([tmp_path / "link to link"], None, [])
    write_whole(tmp_path / "link to link", b"new")
    assert (folder / "file").read_bytes() == b"new"
    assert not (folder / "file").is_symlink()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "link to link").is_symlink()
    assert [entry.name for entry in folder.iterdir()] == ["file"]


def test_a_name_that_no_file_can_have_is_refused(tmp_path):
    for name in ("a\0b", "n" * 300):
        with pytest.raises(ax.DataError, match="cannot be written"):
            write_whole(tmp_path / name, b"new")
    assert list(tmp_path.iterdir()) == []
