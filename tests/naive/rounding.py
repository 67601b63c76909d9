"""The tie rules of docs/numerics.md section 4, on exact fractions."""

from fractions import Fraction
from math import floor

HALF = Fraction(1, 2)

# Whether v = q + rest becomes q + 1, for rest in [0, 1).
ROUNDS_UP = {
    "floor": lambda q, rest: False,
    "toward_zero": lambda q, rest: rest > 0 and q < 0,
    "half_up": lambda q, rest: rest >= HALF,
    "half_down": lambda q, rest: rest > HALF,
    "half_away": lambda q, rest: rest > HALF or (rest == HALF and q >= 0),
    "half_toward_zero": lambda q, rest: rest > HALF or (rest == HALF and q < 0),
    "half_even": lambda q, rest: rest > HALF or (rest == HALF and q % 2 == 1),
    "to_odd": lambda q, rest: rest > 0 and q % 2 == 0,
}


def rnd(value, rule):
    value = Fraction(value)
    q = floor(value)
    return q + 1 if ROUNDS_UP[rule](q, value - q) else q
