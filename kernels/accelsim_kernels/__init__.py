"""Integer kernels: arrays and scalars in, arrays out.

Nothing here validates; `accelsim.simulator.engine` fixes types, layouts and ranges before it calls. Every function is
the program text of an equation in docs/numerics.md or docs/timing.md.
"""
