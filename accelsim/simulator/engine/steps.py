"""Calls that read and write the same arrays each time they are made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy.typing as npt

Step = Callable[[], object]


class Bound(NamedTuple):
    """What computes something of arrays that stay where they are.

    Parameters
    ----------
    steps : list of callable
        In their order.
    codes : array
        What the steps leave.
    num_bytes : int
        Of the arrays that they write.
    """

    steps: list[Step]
    codes: npt.NDArray[Any]
    num_bytes: int
