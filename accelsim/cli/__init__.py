"""The command line: ``accelsim demo | quantize | run | compare | trace | report | machines``.

Modules here import typer and the standard library at their top; what a command needs is imported when it runs, so that
``accelsim --help`` loads neither numba nor onnx.
"""

from accelsim.cli.application import app, main

__all__ = ["app", "main"]
