"""Functions that kernels are linked with: compiled as far as that needs, which is less than numba does.

numba optimises every function by itself and makes machine code of it, even of one that Python never calls; then it
links the function into each caller, and optimises it there once more. Of a callee all but the last is left out here,
but those of the stepped grid are optimised by themselves, too. Nor is machine code made of a callee that the cache has
kept: callers that do not inline it would run that, instead of what they were linked with and have optimised.
So a callee must neither print nor raise: both need an environment, which numba keeps beside machine code.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding
from numba.core import codegen, compiler

_codegen: Any = codegen
_compiler: Any = compiler
_llvm: Any = binding


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


class UnoptimisedLibrary(LinkedLibrary):
    """The same, and optimised by its callers alone."""

    def _optimize_final_module(self) -> None:
        """Leave the optimisation to the callers."""


class LinkedCompiler(_compiler.CompilerBase):  # type: ignore[misc]
    """numba's usual passes, into a library without machine code."""

    library: type[LinkedLibrary] = UnoptimisedLibrary

    def define_pipelines(self) -> list[Any]:
        """Return the passes."""
        state = self.state
        if state.library is None:
            state.library = self.library(state.targetctx.codegen(), state.func_id.func_qualname)
        return [_compiler.DefaultPassBuilder.define_nopython_pipeline(state)]


class OptimisingCompiler(LinkedCompiler):
    """The same, optimised by itself."""

    library = LinkedLibrary


def from_cache(context: Any, kept: Any) -> Any:
    """Return a callee that the cache has kept, as it was compiled; numba would make machine code of it.

    Parameters
    ----------
    context : numba.core.cpu.CPUContext
        What is compiled for.
    kept : tuple
        What numba keeps of a compiled function: first its name, the word "bitcode" and its code, then what describes
        it, its environment and its signature.
    """
    (name, _, code), descriptor, environment, signature, *_ = kept
    library = LinkedLibrary(context.codegen(), name)
    library._final_module = _llvm.parse_bitcode(code)
    library._finalize_final_module()
    return _compiler.compile_result(
        target_context=context,
        typing_context=context.typing_context,
        library=library,
        entry_point=context.get_executable(library, descriptor, environment),
        environment=environment,
        fndesc=descriptor,
        signature=signature,
        objectmode=False,
        lifted=(),
    )
