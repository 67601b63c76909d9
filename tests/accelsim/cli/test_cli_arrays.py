import io
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsim.arrays import count_right, first_samples, num_samples, read_array, read_images, read_labels
from accelsim.errors import DataError

A = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
B = np.array([1, 0])


@pytest.fixture
def files(tmp_path):
    np.save(tmp_path / "one.npy", A)
    np.savez(tmp_path / "one.npz", a=A)
    np.savez_compressed(tmp_path / "two.npz", **{"a": A, "b": B, "deep/name:0": A + 1})
    return tmp_path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("one.npy", A),
        ("one.npz", A),
        ("one.npz:a", A),
        ("two.npz:a", A),
        ("two.npz:b", B),
        ("two.npz:deep/name:0", A + 1),
    ],
)
def test_an_array_is_read_by_file_and_name(files, name, expected):
    array = read_array(str(files / name))
    np.testing.assert_array_equal(array, expected)
    assert array.dtype == expected.dtype


def test_a_colon_in_the_file_name_is_part_of_it(files):
    (files / "one.npy").rename(files / "one:a.npy")
    np.testing.assert_array_equal(read_array(str(files / "one:a.npy")), A)
    np.savez(files / "t:2.npz", a=A, b=B)
    np.testing.assert_array_equal(read_array(str(files / "t:2.npz:b")), B)


@pytest.mark.parametrize(
    ("name", "fragments"),
    [
        ("missing.npy", ["missing.npy", "No such file"]),
        ("missing.npz:a", ["missing.npz'", "No such file"]),
        (".", ["Is a directory"]),
        ("one.npy:a", ["leave out", ":a"]),
        ("two.npz", ["3 arrays", "a (2, 3, 4)", "b (2,)", "FILE:ARRAY"]),
        ("two.npz:c", ["no array 'c'", "a (2, 3, 4)", "b (2,)"]),
    ],
)
def test_what_cannot_be_found_is_refused_with_what_there_is(files, name, fragments):
    with pytest.raises(DataError) as refusal:
        read_array(str(files / name))
    for fragment in fragments:
        assert fragment in str(refusal.value)


def test_a_listing_of_many_arrays_is_cut(tmp_path):
    np.savez(tmp_path / "many.npz", **{f"array{i}": B for i in range(100)})
    with pytest.raises(DataError, match=r"100 arrays.*array19 \(2,\), \.\.\.$"):
        read_array(str(tmp_path / "many.npz"))


def _npy(array, **options):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, **options)
    return stream.getvalue()


def _zip(members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


GOOD = _npy(A)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        GOOD[:6],
        GOOD[:40],
        GOOD[:-1],
        GOOD.replace(b"(2, 3, 4)", b"(9999999999999, 3, 4)"),
        GOOD.replace(b"'fortran", b"(fortran"),
        _npy(np.array([{}], dtype=object)),
        _zip({"a.npy": _npy(np.array([{}], dtype=object))}),
        _zip({"a.npy": GOOD[:-1]}),
        _zip({"a.npy": GOOD})[:-30],
        _zip({"a.npy": GOOD}).replace(GOOD[-8:], b"........"),
        _zip({"a.txt": b"text"}),
        _zip({}),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "file.npz"
    path.write_bytes(content)
    with pytest.raises(DataError) as refusal:
        read_array(str(path))
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@given(st.data())
def test_a_changed_byte_never_escapes_as_another_error(tmp_path_factory, data):
    original = data.draw(st.sampled_from([GOOD, _zip({"a.npy": GOOD, "b.npy": _npy(B)})]))
    position = data.draw(st.integers(0, len(original) - 1))
    content = original[:position] + bytes([data.draw(st.integers(0, 255))]) + original[position + 1 :]
    path = tmp_path_factory.mktemp("changed") / "file"
    path.write_bytes(content)
    with suppress(DataError):
        assert isinstance(read_array(f"{path}:a" if original[:2] == b"PK" else str(path)), np.ndarray)


def test_channels_last_is_brought_to_channels_first(files):
    images = read_images(str(files / "one.npy"), ["x"], channels_last=True)
    np.testing.assert_array_equal(images, A.transpose(0, 2, 1))
    with pytest.raises(DataError, match=r"samples, \.\.\., channels.*\(2,\)"):
        read_images(f"{files / 'two.npz'}:b", ["x"], channels_last=True)


def test_images_have_samples(tmp_path):
    np.save(tmp_path / "number.npy", np.float32(1))
    with pytest.raises(DataError, match="samples along axis 0"):
        read_images(str(tmp_path / "number.npy"), ["x"])


def test_a_network_with_several_inputs_takes_a_file_with_all_of_them(files):
    images = read_images(str(files / "two.npz"), ["a", "deep/name:0"])
    assert list(images) == ["a", "deep/name:0"]
    assert num_samples(images) == 2
    np.testing.assert_array_equal(first_samples(images, 1)["deep/name:0"], A[:1] + 1)
    with pytest.raises(DataError, match="no array 'z'"):
        read_images(str(files / "two.npz"), ["a", "z"])
    with pytest.raises(DataError, match=r"inputs a, b: give an \.npz file that holds them all"):
        read_images(f"{files / 'two.npz'}:a", ["a", "b"])


@pytest.mark.parametrize("shape", [(4,), (4, 1), (2, 2)])
@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_labels_come_flat_and_wide(tmp_path, shape, dtype):
    np.save(tmp_path / "labels.npy", np.arange(4, dtype=dtype).reshape(shape))
    labels = read_labels(str(tmp_path / "labels.npy"), 4)
    assert labels.dtype == np.int64
    assert labels.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.arange(3), r"one per sample, 4, got 3 in shape \(3,\)"),
        (np.eye(4, dtype=int), r"one per sample, 4, got 16 in shape \(4, 4\)"),
        (np.arange(4.0), "whole numbers.*float64"),
    ],
)
def test_wrong_labels_are_refused(tmp_path, array, message):
    np.save(tmp_path / "labels.npy", array)
    with pytest.raises(DataError, match=message):
        read_labels(str(tmp_path / "labels.npy"), 4)


def test_right_answers_are_counted_with_the_first_of_equals():
    answers = np.array([[3, 1, 2], [0, 5, 5], [7, 7, 7], [1, 2, 9]])
    assert count_right(answers, np.array([0, 1, 0, 2])) == 4
    assert count_right(answers, np.array([0, 2, 1, 2])) == 2
    assert count_right(answers.reshape(4, 3, 1, 1), np.array([0, 1, 0, 1])) == 3


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_no_class_is_refused(label):
    with pytest.raises(DataError, match=r"classes 0\.\.2 of the first output"):
        count_right(np.zeros((1, 3)), np.array([label]))
