"""The stepped grid: one file per dataflow, each the cycle loop of docs/timing.md section 2.

Every cycle is evaluated from the registers as the last clock edge left them, then committed. Bubbles, cycles in which
a PE has no term of the current fold, carry zero operands: a zero product changes no register and cannot overflow.
"""
