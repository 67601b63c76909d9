"""Registers: docs/numerics.md (9) to (12); and norms of (108), (118)."""

from math import inf, isqrt


def limits(bits):
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def fits(value, bits):
    """(9)."""
    low, high = limits(bits)
    return low <= value <= high


def wrap(value, bits):
    """(10)."""
    low, _ = limits(bits)
    return (value - low) % 2**bits + low


def saturate(value, bits):
    """(11)."""
    low, high = limits(bits)
    return min(max(value, low), high)


class Register:
    """A register that counts what did not fit; ``bits=None`` is wide enough for everything."""

    def __init__(self, bits, overflow):
        self.bits = bits
        self.low, self.high = (-inf, inf) if bits is None else limits(bits)
        self.overflow = overflow
        self.events = 0

    def ov(self, value):
        if self.low <= value <= self.high:  # (9)
            return value
        self.events += 1
        return saturate(value, self.bits) if self.overflow == "saturate" else wrap(value, self.bits)


def root_rounded_up(square):
    """The square root of a sum of squares, rounded up: norms of (108), (118)."""
    return isqrt(square - 1) + 1 if square else 0
