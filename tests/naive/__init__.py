"""Slow, obvious twins of the contracts docs/numerics.md and docs/timing.md, in Python ``int`` and ``Fraction``.

They are written from the documents alone. Where a function takes a ``machine`` or a ``requantizer`` it reads plain
fields from it (widths, names of modes) and calls nothing.
"""
