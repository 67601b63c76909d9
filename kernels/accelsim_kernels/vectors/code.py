"""The few steps that plain loops do not bring to the vector registers, as LLVM vectors.

Each is written twice: as a scalar loop, which says what it computes and is its oracle in tests, and below it as the
LLVM code that numba puts in its place. With ``NUMBA_DISABLE_JIT=1`` the scalar loop runs.

Dot products use instructions that only some processors have (`accelsim_kernels.processor`), and a kernel that calls
them must not be called elsewhere. The other steps are generic vectors, which LLVM brings to any processor.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils as _cgutils
from numba.extending import intrinsic

from accelsim_kernels.processor import settings

cgutils: Any = _cgutils
"""numba's generators of code, which have no types."""

Bytes = npt.NDArray[np.uint8]
Activations = npt.NDArray[np.uint8] | npt.NDArray[np.int16]
Scalar = TypeVar("Scalar", bound=Callable[..., Any])

LANES = 16
"""Channels of a vector."""

GROUP_BYTES = 4
"""Bytes of the reduction that one instruction takes per lane: four of 8 bits or two of 16."""

INT1, INT8, INT16, INT32, INT64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
VECTOR = ir.VectorType(INT32, LANES)


def index(value: int) -> ir.Constant:
    """Return a constant int64."""
    return ir.Constant(INT64, value)


def spread(builder: Any, scalar: Any) -> Any:
    """Return a vector whose lanes all hold a scalar."""
    first = builder.insert_element(ir.Constant(VECTOR, ir.Undefined), scalar, ir.Constant(INT32, 0))
    zeros = ir.Constant(ir.VectorType(INT32, LANES), [0] * LANES)
    return builder.shuffle_vector(first, ir.Constant(VECTOR, ir.Undefined), zeros)


class Arrays:
    """Addresses of array elements in generated code.

    Parameters
    ----------
    context, builder
        numba's.
    kinds, values
        Types and values of the step's arguments.
    """

    def __init__(self, context: Any, builder: Any, kinds: Any, values: Any) -> None:
        self.context, self.builder, self.kinds, self.values = context, builder, kinds, values

    def array(self, argument: int) -> Any:
        """Return an array argument with its data, shape and number of items."""
        return self.context.make_array(self.kinds[argument])(self.context, self.builder, self.values[argument])

    def pointer(self, argument: int, element: Any, kind: Any) -> Any:
        """Return where the element of an array argument begins, as a pointer to a type."""
        return self.builder.bitcast(self.builder.gep(self.array(argument).data, [element]), kind.as_pointer())

    def load(self, argument: int, element: Any, kind: Any, align: int = 1) -> Any:
        """Load a value of a type from an element of an array argument, aligned or not."""
        loaded = self.builder.load(self.pointer(argument, element, kind))
        loaded.align = align
        return loaded

    def gather(self, argument: int, element: Any, places: Any) -> Any:
        """Load `GROUP_BYTES` from each of sixteen places of an array argument, which are counted from an element on.

        The places are a vector of int32; what is loaded is one of as many 32 bits.
        """
        builder, lanes = self.builder, ir.VectorType(INT1, LANES)
        kind = ir.IntType(self.kinds[argument].dtype.bitwidth)
        base = self.builder.gep(self.array(argument).data, [element])
        pointers = ir.GEPInstr(builder.block, base, [places], False, "", source_etype=kind)
        pointers.type = ir.VectorType(ir.PointerType(), LANES)  # llvmlite knows no addresses by vector
        builder._insert(pointers)
        signature = ir.FunctionType(VECTOR, [pointers.type, INT32, lanes, VECTOR])
        name = f"llvm.masked.gather.v{LANES}i32.v{LANES}p0"
        load = cgutils.get_or_insert_function(builder.module, signature, name)
        everywhere = ir.Constant(lanes, [1] * LANES)
        return builder.call(load, [pointers, ir.Constant(INT32, 1), everywhere, ir.Constant(VECTOR, ir.Undefined)])

    def store(self, value: Any, argument: int, element: Any, align: int) -> None:
        """Store a value at an element of an array argument."""
        self.builder.store(value, self.pointer(argument, element, value.type)).align = align


def vectorised(scalar: Scalar, generate: Callable[[Any, Arrays], None]) -> Scalar:
    """Return a step for kernels: the generated code where kernels are compiled, else the scalar loop.

    The generated step has its scalar loop as the attribute ``scalar``.
    """
    if settings.DISABLE_JIT:
        return scalar

    def step(typing_context: Any, *arguments: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            generate(builder, Arrays(context, builder, signature.args, values))
            return context.get_dummy_value()

        return types.void(*arguments), code

    parameters = [inspect.Parameter("typing_context", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    parameters += inspect.signature(scalar).parameters.values()
    cast(Any, step).__signature__ = inspect.Signature(parameters)  # numba folds a call's arguments by it
    made: Any = intrinsic(step)
    made.scalar = scalar
    return cast(Scalar, made)


def _prefer_wide_vectors() -> None:
    """Do nothing: the loops of the kernel that calls this use the widest vectors that there are.

    Notes
    -----
    For some processors LLVM holds back, as their first models slowed down with 512-bit vectors. Loops over 64-bit lanes
    gain 30 to 40 %.
    """


def _ask_for_wide_vectors(builder: Any, arrays: Arrays) -> None:
    # llvmlite checks names of attributes against a list of its own, which lacks this one
    set.add(builder.function.attributes, '"prefer-vector-width"="512"')


prefer_wide_vectors = vectorised(_prefer_wide_vectors, _ask_for_wide_vectors)
