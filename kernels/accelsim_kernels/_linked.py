"""Functions that kernels are linked with: compiled as far as that needs, which is less than numba does.

numba optimises every function by itself, makes machine code of it, even of one that Python never calls, and links the
optimised function into each caller. Of a callee no machine code is made here. Its own optimisation stays: without it,
64-bit lanes of the stepped grid were not vectorised, and took ten times as long.
So a callee must neither print nor raise: both need an environment, which numba keeps beside machine code.
"""

from __future__ import annotations

from typing import Any

from numba.core import codegen, compiler

_codegen: Any = codegen
_compiler: Any = compiler


class LinkedLibrary(_codegen.JITCodeLibrary):  # type: ignore[misc]
    """What is compiled of a callee: code to be linked, without machine code of its own."""

    @property
    def codegen(self) -> Any:
        """What the callee's environment is handed to: itself, as there is no machine code to keep it beside."""
        return self

    def set_env(self, env_name: str, env: object) -> None:
        """Drop an environment: nothing that a callee may do asks for it."""

    def get_pointer_to_function(self, name: str) -> int:
        """Return 0, which says that there is no machine code."""
        return 0

    def serialize_using_object_code(self) -> Any:
        """Return what the cache keeps: no machine code here either."""
        return self.serialize_using_bitcode()

    def _finalize_final_module(self) -> None:
        """Check what was linked, and make it ready to be linked in turn."""
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True


class LinkedCompiler(_compiler.CompilerBase):  # type: ignore[misc]
    """numba's usual passes, into a `LinkedLibrary`."""

    def define_pipelines(self) -> list[Any]:
        """Return the passes."""
        state = self.state
        if state.library is None:
            state.library = LinkedLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        return [_compiler.DefaultPassBuilder.define_nopython_pipeline(state)]
