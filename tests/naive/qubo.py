"""Rounding as a binary quadratic problem, in fractions, from docs/ptq.md (95) to (97): every rounding is tried."""

from fractions import Fraction
from itertools import combinations, product


def objective(gram, linear, codes):
    """Return ``cᵀ G c − 2 tᵀ c``."""
    size = range(len(codes))
    square = sum((Fraction(gram[i][j]) * codes[i] * codes[j] for i in size for j in size), Fraction(0))
    return square - 2 * sum((Fraction(linear[i]) * codes[i] for i in size), Fraction(0))


def least(gram, linear, low, high):
    """Return the least objective over all roundings."""
    return min(objective(gram, linear, codes) for codes in product(*({a, b} for a, b in zip(low, high, strict=True))))


def greatest_gain(gram, linear, low, high, codes, flips):
    """Return how much the best change of so many weights to their other integer lowers the objective."""
    now = objective(gram, linear, codes)
    gains = [Fraction(0)]
    for changed in combinations(range(len(codes)), flips):
        other = [low[k] + high[k] - codes[k] if k in changed else codes[k] for k in range(len(codes))]
        gains.append(now - objective(gram, linear, other))
    return max(gains)


def sequential(gram, linear, low, high, order):
    """Round one weight after the other to the integer nearest to its best value given those before it."""
    codes = {}
    for place, k in enumerate(order):
        still_open = order[place:]
        right = [Fraction(linear[i]) - sum(Fraction(gram[i][j]) * codes[j] for j in codes) for i in still_open]
        value = _solve([[Fraction(gram[i][j]) for j in still_open] for i in still_open], right)[0]
        codes[k] = high[k] if value - low[k] > high[k] - value else low[k]
    return [codes[k] for k in range(len(order))]


def _solve(matrix, right):
    """Solve a linear system by elimination."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for i in range(len(rows)):
        pivot = next(j for j in range(i, len(rows)) if rows[j][i] != 0)
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [value / rows[i][i] for value in rows[i]]
        for j in range(len(rows)):
            if j != i:
                rows[j] = [a - rows[j][i] * b for a, b in zip(rows[j], rows[i], strict=True)]
    return [row[-1] for row in rows]
