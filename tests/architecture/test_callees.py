"""Callees neither print nor raise: they have no environment, as no machine code of their own is made."""

import ast
from pathlib import Path

import accelsim_kernels

SOURCES = sorted(Path(accelsim_kernels.__file__).parent.rglob("*.py"))


def _callees(source):
    """Return the functions of a source that are decorated as callees."""
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    return [node for node in functions if any(ast.unparse(mark).endswith("callee") for mark in node.decorator_list)]


def _forbidden(function):
    """Return the lines of a function that print or raise."""
    return [
        node.lineno
        for node in ast.walk(function)
        if isinstance(node, ast.Raise) or (isinstance(node, ast.Call) and ast.unparse(node.func) == "print")
    ]


def test_what_callees_must_not_do_is_found():
    source = (
        "@callee\ndef f(x):\n    print(x)\n    if x < 0:\n        raise ValueError(x)\n\n\n"
        "@kernel\ndef g(x):\n    raise ValueError\n"
    )
    assert [_forbidden(function) for function in _callees(source)] == [[3, 5]]


def test_no_callee_prints_or_raises():
    callees = [(path, function) for path in SOURCES for function in _callees(path.read_text(encoding="utf-8"))]
    assert len(callees) > 50
    assert [(path.name, found) for path, function in callees if (found := _forbidden(function))] == []
