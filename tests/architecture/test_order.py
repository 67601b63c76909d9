"""The order of the test files: what the first ones are called."""

from tests.conftest import FIRST, TESTS


def test_files_that_workers_begin_with_are_there():
    assert [name for name in FIRST if not (TESTS / name).exists()] == []
