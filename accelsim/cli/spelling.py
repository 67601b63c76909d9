"""Errors of the library that name its parameters, in the words of the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from accelsim.errors import DataError, OperandError

_RULES = (
    (r"\btrace_(cycles|rows|columns)=\((\d+), (\d+)\)(?:,(?= trace_))?", r"--\1 \2:\3"),
    (r"\btrace_(cycles|rows|columns)\b", r"--\1"),
    (r"\braise the limit\b", "raise the limit with --memory"),
    (r"\boverwrite=True\b", "--overwrite"),
)
"""What is looked for, and what stands instead."""


@contextmanager
def spelled_as_options() -> Iterator[None]:
    """Let errors advise options, ``--cycles 0:163``, where the library's parameters are meant.

    Raises
    ------
    OperandError, DataError
        What was raised inside, in other words.
    """
    try:
        yield
    except (OperandError, DataError) as error:
        text = str(error)
        for parameter, option in _RULES:
            text = re.sub(parameter, option, text)
        raise type(error)(text) from None
