"""Which function executes a kind of layer, and which counts its operations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from accelsim.errors import LoweringError
from accelsim.program.layers import Layer
from accelsim.simulator.counts import Operation
from accelsim.simulator.engine.steps import Bound

Codes = npt.NDArray[Any]
"""What a layer reads or stores, samples along axis 0: codes in any integer type that holds them and in any memory
layout, or float32 where the model computes in float."""

VectorCount = tuple[int, Counter[Operation], int]
"""Vector operations; the elementary operations of an element; how many elements there are."""

Execute = Callable[[Any, Sequence[Codes]], Codes]
Count = Callable[[Any, int, int, Sequence[int]], VectorCount]
Bind = Callable[[Any, Sequence[Codes]], Bound | None]
_ExecuteT = TypeVar("_ExecuteT", bound=Execute)
_BindT = TypeVar("_BindT", bound=Bind)
_CountT = TypeVar("_CountT", bound=Count)

_EXECUTE: dict[type[Layer], Execute] = {}
_AS_STORED: set[type[Layer]] = set()
_EXECUTIONS: dict[type[Layer], tuple[Execute | None, bool]] = {}
_COUNT: dict[type[Layer], Count] = {}
_BIND: dict[type[Layer], Bind] = {}


def executes(kind: type[Layer], as_stored: bool = False) -> Callable[[_ExecuteT], _ExecuteT]:
    """Register ``function(layer, inputs) -> codes`` as the execution of a kind of layer.

    The inputs arrive as contiguous int32 arrays, channels first; float32 as they are. A function that is registered
    with ``as_stored`` gets them as they lie in memory, see `Codes`.
    """

    def register(function: _ExecuteT) -> _ExecuteT:
        _EXECUTE[kind] = function
        if as_stored:
            _AS_STORED.add(kind)
        return function

    return register


def binds(kind: type[Layer]) -> Callable[[_BindT], _BindT]:
    """Register ``function(layer, inputs) -> bound`` as what binds a kind of layer to arrays, see `bind_layer`."""

    def register(function: _BindT) -> _BindT:
        _BIND[kind] = function
        return function

    return register


def counts(kind: type[Layer]) -> Callable[[_CountT], _CountT]:
    """Register ``function(layer, outputs, num_samples, bits)`` as the count of a kind of layer.

    ``outputs`` are the elements that the layer stores over all samples, ``bits`` the widths of its inputs, then of its
    output; it returns a `VectorCount`. A kind without a count only moves codes.
    """

    def register(function: _CountT) -> _CountT:
        _COUNT[kind] = function
        return function

    return register


def execute_layer(layer: Layer, inputs: Sequence[Codes]) -> Codes:
    """Compute what a layer that does not run on the grid stores.

    Parameters
    ----------
    layer : Layer
        Of a registered kind.
    inputs : sequence of integer or float32 array
        What it reads, samples along axis 0; constants as they are.

    Returns
    -------
    integer or float32 array, shape (samples, *layer.output_shape)
        What it stores.

    Raises
    ------
    LoweringError
        When nothing executes the kind.
    """
    function, as_stored = _execution_of(type(layer))
    if function is None:
        raise LoweringError(f"layer {layer.name!r} ({layer.op}): nothing executes a {type(layer).__name__}")
    if not as_stored:
        inputs = [wide(codes) for codes in inputs]
    codes: Codes = function(layer, inputs)
    return codes


def bind_layer(layer: Layer, inputs: Sequence[Codes]) -> Bound | None:
    """Return steps that execute a layer on what the same inputs hold later, and the codes that they leave.

    Parameters
    ----------
    layer : Layer
        Of any kind that does not run on the grid.
    inputs : sequence of array
        As in `execute_layer`.

    Returns
    -------
    tuple or None
        None where the layer is more than kernel calls, or copies its inputs first.
    """
    bind = _BIND.get(type(layer))
    return None if bind is None else bind(layer, inputs)


def _execution_of(kind: type[Layer]) -> tuple[Execute | None, bool]:
    """Return what executes a kind of layer, and whether it takes codes as they are stored; kept."""
    if kind not in _EXECUTIONS:
        _EXECUTIONS[kind] = _of_kind(_EXECUTE, kind), any(above in _AS_STORED for above in kind.__mro__)
    return _EXECUTIONS[kind]


def wide(codes: Codes) -> Codes:
    """Return codes as a contiguous array of int32, or wider where they are; float32 as it is."""
    if codes.dtype.kind not in "iu":
        return codes
    return np.ascontiguousarray(codes, dtype=np.int32 if codes.itemsize < 4 else codes.dtype)


def count_layer(layer: Layer, outputs: int, num_samples: int, bits: Sequence[int]) -> VectorCount:
    """Return the operations of a layer that does not run on the grid; parameters as in `counts`."""
    function = _of_kind(_COUNT, type(layer))
    return (0, Counter(), 0) if function is None else function(layer, outputs, num_samples, bits)


def _of_kind(table: dict[type[Layer], Any], kind: type[Layer]) -> Any:
    """Return the function of a class of layers or of the nearest class above it."""
    return next((table[above] for above in kind.__mro__ if above in table), None)


def output_shape(layer: Layer, first: Codes) -> tuple[int, ...]:
    """Return the shape of what a layer stores, samples first."""
    return (first.shape[0], *layer.output_shape)


def planes(codes: Codes, shape: tuple[int, int, int], channels_last: bool = False) -> npt.NDArray[np.int32]:
    """Return codes as (images, channels, height, width); images are samples, times a leading axis of the model."""
    if channels_last:
        channels, *space = shape
        return np.ascontiguousarray(np.moveaxis(codes.reshape(-1, *space, channels), -1, 1))
    return np.ascontiguousarray(codes).reshape(-1, *shape)


def from_planes(images: Codes, shape: tuple[int, ...], channels_last: bool = False) -> Codes:
    """Return (images, channels, ...) in the shape and order of axes in which a layer stores them."""
    return (np.moveaxis(images, 1, -1) if channels_last else images).reshape(shape)
