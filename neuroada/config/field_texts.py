"""What the configuration schema says about its own keys: texts, types and choices, read from its source."""

import ast
import dataclasses
import inspect
import itertools
import sys
import textwrap
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any

from neuroada.config.schema import RunConfig


@dataclass(frozen=True)
class FieldText:
    """One key of the schema.

    Attributes:
        type: As annotated, such as ``int | None``.
        text: What the schema says about it; may be empty.
        choices: The values it takes, where they are listed.
    """

    type: str
    text: str
    choices: tuple[str, ...] = ()


def field_texts(schema: type = RunConfig, prefix: str = "") -> dict[str, FieldText]:
    """Dotted key -> what the schema says, for every key and every group with a schema."""
    found: dict[str, FieldText] = {}
    texts, choices, hints = _texts(schema), _choices(schema), typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        key, hint = f"{prefix}{field.name}", hints[field.name]
        if is_dataclass(hint):
            section = typing.cast(type, hint)
            found[key] = FieldText("group", inspect.getdoc(section) or "")
            found |= field_texts(section, f"{key}.")
        else:
            found[key] = FieldText(_shown(hint), texts.get(field.name, ""), choices.get(key, ()))
    return found


def _shown(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")


def _body(schema: type) -> ast.ClassDef:
    [node] = ast.parse(textwrap.dedent(inspect.getsource(schema))).body
    assert isinstance(node, ast.ClassDef)
    return node


def _texts(schema: type) -> dict[str, str]:
    """Field -> the string literal below it."""
    body = _body(schema).body
    return {
        field.target.id: " ".join(str(text.value.value).split())
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }


def _choices(schema: type) -> Mapping[str, tuple[str, ...]]:
    """Dotted key -> what ``require_choice`` accepts for it."""
    names = vars(sys.modules[schema.__module__])
    return {key: tuple(str(one) for one in _value(node, names)) for key, node in _required(_body(schema))}


def _required(body: ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    for node in ast.walk(body):
        is_check = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "require_choice"
        if not is_check or not isinstance(node.args[0], ast.Constant):  # type: ignore[attr-defined]  # a call, as tested
            continue
        # Choices that depend on another key, such as METRICS[self.objective], are not listed.
        if isinstance(node.args[2], ast.Name | ast.Tuple):  # type: ignore[attr-defined]
            yield str(node.args[0].value), node.args[2]  # type: ignore[attr-defined]


def _value(node: ast.expr, names: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(names[node.id]) if isinstance(node, ast.Name) else tuple(ast.literal_eval(node))
