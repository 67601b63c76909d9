"""How large a model may be: checked before anything is allocated, so that a hostile file is refused, not obeyed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from accelsim.errors import ModelError

MAX_FILE_BYTES = (1 << 31) - 1
"""Protobuf's own limit for one message, and so for a model with its weights."""

MAX_ELEMENTS = 1 << 28
"""Elements of one tensor, of one sample where the tensor has a batch: 1 GiB of float32."""

MAX_FOLDED_ELEMENTS = 1 << 24
"""Elements of a constant that broadcasting makes out of smaller ones."""

MAX_WINDOW_STEP = 1 << 24
"""Of a window's strides and dilations: more is beyond any image, and distances stay in 64 bits."""

MAX_RANK = 8
"""Number of axes of a tensor."""


def num_elements(what: str, shape: Sequence[int], limit: int = MAX_ELEMENTS) -> int:
    """Return the product of the lengths after checking each of them.

    Parameters
    ----------
    what : str
        What has the shape, the start of the error message.
    shape : sequence of int
        Lengths of the axes, without the batch.
    limit : int
        Most elements allowed.

    Returns
    -------
    int
        Number of elements; 0 where a length is 0.

    Raises
    ------
    ModelError
        When there are too many axes or elements, or a length is negative.
    """
    if len(shape) > MAX_RANK:
        raise ModelError(f"{what} has {len(shape)} axes; at most {MAX_RANK} are supported")
    if any(length < 0 for length in shape):
        raise ModelError(f"{what} has a negative length in its shape {tuple(shape)}")
    count = math.prod(shape)
    # One length of 0 hides however large the others are.
    if count > limit or max(shape, default=0) > limit:
        raise ModelError(f"{what} has shape {tuple(shape)}, more than the {limit} elements that are supported")
    return count
