"""Operators that do nothing at inference: they become another name of their input."""

from __future__ import annotations

from accelsim.graph.normalise.call import Alias, Call


def identity(call: Call) -> Alias:
    """Dissolve Identity."""
    return Alias(call.inputs[0])


def dropout(call: Call) -> Alias:
    """Dissolve Dropout in inference mode."""
    if call.num_used_outputs > 1:
        raise call.refuse("the mask, output 1, is used; only dropout in inference mode is supported")
    if call.has(2) and call.constant(2, "training_mode").any():
        raise call.refuse("training_mode is true; export the model for inference")
    return Alias(call.inputs[0])
