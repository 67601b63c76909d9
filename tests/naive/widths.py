"""Every value that a register is given while one output is computed, and the width that holds them: docs/widths.md."""

from tests.naive.gemm import tiles, truncated


def register_values(products, start, last, machine):
    """Return {register: values before ov} of one output whose registers are all wide enough."""
    products, start = [truncated(m, machine) for m in products], truncated(start, machine)
    size = {"output_stationary": 1, "broadcast": machine.columns}.get(machine.dataflow, machine.rows)
    running, partials, trees = [start], [], []
    for tile in tiles(products, size):
        c = 0
        for m in tile:
            c += m
            partials.append(c)
        trees.append(c)
        running.append(running[-1] + c)
    if last is not None:
        running.append(running[-1] + truncated(last, machine))
    inner = {"output_stationary": {}, "broadcast": {"adder_tree": trees}}
    return {"accumulator": running, **inner.get(machine.dataflow, {"partial_sum": partials})}


def width(values):
    """Return the narrowest register, of at least 4 bits, that holds some values, by trying."""
    bits = 4
    while not all(-(2 ** (bits - 1)) <= value < 2 ** (bits - 1) for value in values):
        bits += 1
    return bits
