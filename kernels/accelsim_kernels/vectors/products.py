"""Products of operands of 8 and 16 bits, added up in the lanes of a vector, as the processor does it best: (100).

Some processors have instructions that multiply four pairs of bytes per lane and add them, or two pairs of 16 bits. Of
the others many multiply two pairs of 16 bits and add these, but not to a total, and bytes become 16 bits first: the
first and the third of a lane, then the second and the fourth. All of that is modulo 2**32, so the bits are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import llvmlite.binding
from llvmlite import ir

from accelsim_kernels.processor import Instructions, instructions
from accelsim_kernels.vectors.code import INT8, INT16, INT32, INT64, LANES, VECTOR, cgutils

llvmlite.binding.initialize_native_asmparser()  # for `plus_pairs`, `even_products`

Block = tuple[range, range]
"""Rows and vectors of a tile."""

_HALF = LANES // 2
_QUARTER_OF_PAIRS = ir.VectorType(INT64, _HALF // 2)
_HALF_VECTOR, _HALF_WORDS, _WORDS = (ir.VectorType(kind, n) for kind, n in ((INT32, 8), (INT16, 16), (INT16, 32)))

SIGNS = ir.VectorType(INT8, 2 * LANES)
"""Bytes of two vectors' lanes."""


def blocks_of(rows: int, vectors: int, registers: int = 1) -> list[Block]:
    """Cut a tile into blocks of which the processor's registers hold everything over the whole reduction.

    Parameters
    ----------
    rows, vectors : int
        The tile's, which AVX-512's registers hold.
    registers : int
        Vectors that are held for each sum.
    """
    if instructions() is Instructions.VNNI:
        return [(range(rows), range(vectors))]
    high, wide = (2 if registers > 1 else 6), 1
    return [
        (range(row, min(row + high, rows)), range(vector, min(vector + wide, vectors)))
        for vector in range(0, vectors, wide)
        for row in range(0, rows, high)
    ]


def each_block(builder: Any, rows: int, vectors: int) -> Iterator[tuple[Any, Any, Block]]:
    """Loop over the blocks of a tile, whose code is made once: their first row and vector, and what they have of each.

    Parameters
    ----------
    builder
        numba's.
    rows, vectors : int
        The tile's, in whole blocks.
    """
    blocks = blocks_of(rows, vectors)
    high, wide = (len(some) for some in blocks[0])
    with (
        cgutils.for_range_slice(builder, INT64(0), INT64(vectors), INT64(wide), intp=INT64) as (vector, _),
        cgutils.for_range_slice(builder, INT64(0), INT64(rows), INT64(high), intp=INT64) as (row, _),
    ):
        yield row, vector, blocks[0]


def plus_bytes(builder: Any, total: Any, unsigned: Any, signed: Any) -> Any:
    """Return ``total + Σ products`` modulo 2**32 of the four bytes of every lane, unsigned ones and signed ones."""
    if instructions() is Instructions.VNNI:
        return _call(builder, "llvm.x86.avx512.vpdpbusd.512", total, unsigned, signed)
    for left, right in zip(_unsigned_words(builder, unsigned), _signed_words(builder, signed), strict=True):
        total = builder.add(total, _pairs(builder, left, right))
    return total


def plus_words(builder: Any, total: Any, left: Any, right: Any) -> Any:
    """Return ``total + Σ products`` modulo 2**32 of the two numbers of 16 bits of every lane."""
    if instructions() is Instructions.VNNI:
        return _call(builder, "llvm.x86.avx512.vpdpwssd.512", total, left, right)
    return builder.add(total, _pairs(builder, left, right))


def plus_squares(builder: Any, total: Any, terms: Any, words: bool) -> Any:
    """Return ``total + Σ squares`` modulo 2**32 of the two numbers of 16 bits of every lane, or its four bytes."""
    for some in [terms] if words else [builder.bitcast(half, VECTOR) for half in _unsigned_words(builder, terms)]:
        total = plus_words(builder, total, some, some)
    return total


def plus_pairs(builder: Any, total: Any, left: Any, right: Any) -> Any:
    """Do what `plus_words` does, where the total is needed again or nothing has been added yet.

    The instruction is written as such: LLVM would multiply and add in two for a shorter wait, though nothing waits.
    """
    if instructions() is not Instructions.VNNI:
        return plus_words(builder, total, left, right)
    signature = ir.FunctionType(VECTOR, [VECTOR] * 3)
    return builder.asm(signature, "vpdpwssd $3, $2, $0", "=v,0,v,v", [total, left, right], False)


def plus_words_clamped(builder: Any, total: Any, left: Any, right: Any) -> Any:
    """Return ``total + Σ products`` clamped to 32 bits, which takes VNNI."""
    return _call(builder, "llvm.x86.avx512.vpdpwssds.512", total, left, right)


def signs(builder: Any, first: Any, second: Any) -> Any:
    """Return bytes that have the signs of two vectors' lanes, in the order of `places_of_signs`."""
    if instructions() is not Instructions.AVX2:
        own, sources = ir.VectorType(INT8, 4 * LANES), [0] * SIGNS.count
        for row in range(2):
            for lane, place in enumerate(places_of_signs(row)):
                sources[place] = row * own.count + lane * 4 + 3  # the highest byte
        places = ir.Constant(ir.VectorType(INT32, SIGNS.count), sources)
        return builder.shuffle_vector(builder.bitcast(first, own), builder.bitcast(second, own), places)
    words = []
    for lanes in (first, second):
        places = (ir.Constant(_HALF_VECTOR, list(range(begin, begin + _HALF))) for begin in (0, _HALF))
        halves = (builder.shuffle_vector(lanes, lanes, half) for half in places)
        words.append(_narrowed(builder, "packssdw", _HALF_WORDS, *halves))
    return _narrowed(builder, "packsswb", SIGNS, *words)


def places_of_signs(row: int) -> list[int]:
    """Return where the lanes of the first or second vector are: narrowing takes four of a vector by turns."""
    return [lane % 8 // 4 * 16 + row * 8 + lane // 8 * 4 + lane % 4 for lane in range(LANES)]


def _narrowed(builder: Any, name: str, kind: Any, left: Any, right: Any) -> Any:
    """Clamp the elements of two vectors to half of their bits, which keeps their sign."""
    signature = ir.FunctionType(kind, [left.type, right.type])
    narrow = cgutils.get_or_insert_function(builder.module, signature, f"llvm.x86.avx2.{name}")
    return builder.call(narrow, [left, right])


def even_products(builder: Any, left: Any, right: Any) -> Any:
    """Return the products of the even lanes, of 64 bits, where a processor has AVX2.

    The instruction is written as such: out of a loop LLVM takes what tells that an operand has 32 bits, and then
    multiplies 64.
    """
    halves = []
    for half in range(2):
        places = ir.Constant(_HALF_VECTOR, list(range(half * _HALF, (half + 1) * _HALF)))
        operands = [builder.shuffle_vector(some, some, places) for some in (left, right)]
        signature = ir.FunctionType(_QUARTER_OF_PAIRS, [_HALF_VECTOR] * 2)
        halves.append(builder.asm(signature, "vpmuldq $2, $1, $0", "=x,x,x", operands, False))
    return builder.shuffle_vector(*halves, ir.Constant(_HALF_VECTOR, list(range(_HALF))))


def _call(builder: Any, name: str, *operands: Any) -> Any:
    signature = ir.FunctionType(VECTOR, [VECTOR] * len(operands))
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), operands)


def _unsigned_words(builder: Any, lanes: Any) -> tuple[Any, Any]:
    """Return a vector's even bytes and its odd ones as numbers of 16 bits."""
    words = builder.bitcast(lanes, _WORDS)
    even = builder.and_(words, ir.Constant(_WORDS, [0xFF] * _WORDS.count))
    return even, builder.lshr(words, ir.Constant(_WORDS, [8] * _WORDS.count))


def _signed_words(builder: Any, lanes: Any) -> tuple[Any, Any]:
    """Do what `_unsigned_words` does with bytes that have a sign."""
    words, eight = builder.bitcast(lanes, _WORDS), ir.Constant(_WORDS, [8] * _WORDS.count)
    return builder.ashr(builder.shl(words, eight), eight), builder.ashr(words, eight)


def _pairs(builder: Any, left: Any, right: Any) -> Any:
    """Multiply the two numbers of 16 bits of every lane and add them, half a vector at a time."""
    signature = ir.FunctionType(_HALF_VECTOR, [_HALF_WORDS] * 2)
    multiply = cgutils.get_or_insert_function(builder.module, signature, "llvm.x86.avx2.pmadd.wd")
    halves = []
    for half in range(2):
        places = ir.Constant(ir.VectorType(INT32, LANES), list(range(half * LANES, (half + 1) * LANES)))
        operands = (builder.bitcast(operand, _WORDS) for operand in (left, right))
        halves.append(builder.call(multiply, [builder.shuffle_vector(some, some, places) for some in operands]))
    return builder.shuffle_vector(*halves, ir.Constant(ir.VectorType(INT32, LANES), list(range(LANES))))
