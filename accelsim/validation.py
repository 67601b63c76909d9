"""Base of the configuration objects: frozen, valid from birth, unknown keys refused with their path."""

from __future__ import annotations

import ast
import inspect
import os
import textwrap
import tomllib
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from accelsim.errors import AccelsimError
from accelsim.tables import html_table
from accelsim.toml import TomlLimitError, read_toml


class Configuration(BaseModel):
    """A frozen, validated description.

    Subclasses set ``thing``, the word that error messages start with, ``file_kind``, what messages call a file of it,
    and ``error``, the class of error that is raised.

    Raises
    ------
    AccelsimError
        The subclass's ``error``, one line that names each field, its rule and the value that was given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    thing: ClassVar[str] = "configuration"
    file_kind: ClassVar[str] = "configuration file"
    error: ClassVar[type[AccelsimError]] = AccelsimError

    @field_validator("*", mode="before")
    @classmethod
    def _no_text_for_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what would be turned into a number silently: true is no 1, "16" no 16."""
        annotation = cls.model_fields[info.field_name or ""].annotation
        kinds = {annotation, *get_args(annotation)} if get_origin(annotation) in (None, UnionType, Union) else set()
        kinds |= {get_args(kind)[0] for kind in kinds if get_origin(kind) is Annotated}
        if kinds & {int, float} and bool not in kinds and isinstance(value, bool | str):
            raise ValueError(f"a number is needed, got {value!r}")
        return value

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as invalid:
            raise self.error("; ".join(_sentence(self.thing, problem) for problem in invalid.errors())) from None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a TOML file.

        Parameters
        ----------
        path : path
            The file; its keys are the fields of this class, its tables those that have fields themselves. What it
            leaves out has its default.

        Raises
        ------
        AccelsimError
            The class's ``error``, when the file cannot be read, is not TOML, or holds a wrong key or value.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as failure:
            raise cls.error(f"{cls.file_kind} {os.fspath(path)} cannot be read: {failure}") from None
        return cls.from_toml(text, os.fspath(path))

    @classmethod
    def from_toml(cls, text: str, origin: str = "text") -> Self:
        """Make one from TOML text; ``origin`` names it in error messages."""
        try:
            return cls(**read_toml(text))
        except tomllib.TOMLDecodeError as failure:
            raise cls.error(f"{origin} is not TOML: {failure}") from None
        except TomlLimitError as failure:
            raise cls.error(f"{origin} cannot be read: {failure}") from None
        except cls.error as failure:
            raise cls.error(f"{origin}: {failure}") from None

    def _repr_html_(self) -> str:
        return html_table(["field", "value", "meaning"], self._rows())

    def _rows(self, prefix: str = "") -> list[tuple[str, str, str]]:
        """Return name, value and meaning of every field, those of a field that has fields itself after a dot."""
        rows, meanings = [], _meanings(type(self))
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, Configuration):
                rows += value._rows(f"{prefix}{name}.")
            else:
                rows.append((f"{prefix}{name}", _spelled(value), meanings.get(name, "")))
        return rows


@cache
def _meanings(kind: type[Configuration]) -> dict[str, str]:
    """Return the text below each field of a class, {} where its source is not at hand.

    It is read when it is shown: finding it takes longer than making the class, which every command waits for.
    """
    try:
        (defined,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    except (OSError, TypeError):  # no file, or a class of no module that has one
        return {}
    assert isinstance(defined, ast.ClassDef)
    meanings = {}
    for field, text in pairwise(defined.body):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(meaning))):
                meanings[name] = " ".join(meaning.split())
    return meanings


def _spelled(value: Any) -> str:
    """Return a field's value in words."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(map(_spelled, value))
    return "not given" if value is None else str(value)


def _sentence(thing: str, problem: Any) -> str:
    """Say one validation problem as ``path rule, got value``."""
    path = ".".join([thing, *(str(part) for part in problem["loc"])])
    value, context = problem["input"], problem.get("ctx", {})
    match problem["type"]:
        case "extra_forbidden":
            return f"{path} is not a known key; remove it or correct its spelling"
        case "greater_than_equal":
            return f"{path} must be at least {context['ge']}, got {value!r}"
        case "less_than_equal":
            return f"{path} must be at most {context['le']}, got {value!r}"
        case "greater_than":
            return f"{path} must be above {context['gt']}, got {value!r}"
        case "literal_error":
            return f"{path} must be one of {context['expected']}, got {value!r}"
        case "value_error":
            cause = context["error"]
            return str(cause) if isinstance(cause, AccelsimError) else f"{path}: {cause}"
        case _:
            return f"{path}: {problem['msg'][0].lower()}{problem['msg'][1:]}, got {value!r}"
