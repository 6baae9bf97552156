"""Nothing outside ``neuroada.methods`` asks which method runs: no code compares anything with a method's name."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMES = {path.stem for path in (ROOT / "conf" / "method").glob("*.yaml")} | {"peft-", "NEUROADA"}
SOURCES = [
    path
    for path in [ROOT / "run.py", *sorted((ROOT / "neuroada").rglob("*.py"))]
    if "methods" not in path.relative_to(ROOT).parts
]
COMPARED = (ast.Eq, ast.NotEq, ast.In, ast.NotIn)
AFFIXES = {"startswith", "endswith", "removeprefix", "removesuffix"}


def violations(source: str) -> list[str]:
    """Where a source text tells methods apart by name."""
    return [f"line {node.lineno}: {name}" for node in ast.walk(ast.parse(source)) for name in _names_asked_for(node)]


def _names_asked_for(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Compare) and any(isinstance(operator, COMPARED) for operator in node.ops):
        for operand in (node.left, *node.comparators):
            yield from _names_in(operand)
    elif isinstance(node, ast.MatchValue):
        yield from _names_in(node.value)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in AFFIXES:
        for argument in node.args:
            yield from _names_in(argument)


def _names_in(node: ast.expr) -> Iterator[str]:
    """Names that stand there as literals, alone or in a tuple, list, set or dictionary."""
    if isinstance(node, ast.Constant) and node.value in NAMES:
        yield str(node.value)
    elif isinstance(node, ast.Tuple | ast.List | ast.Set):
        for element in node.elts:
            yield from _names_in(element)
    elif isinstance(node, ast.Dict):
        for key in node.keys:
            if key is not None:
                yield from _names_in(key)


def test_the_names_are_those_of_the_configuration() -> None:
    assert {"neuroada", "lora", "full", "none"} <= NAMES


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_asks_which_method_runs(path: Path) -> None:
    assert violations(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        'if run.method["name"] == "lora": pass',
        'if "masked" != method.name: pass',
        'if name in ("bundled", "full"): pass',
        'if name not in ["oft"]: pass',
        'if name in {"head": 1}: pass',
        'is_ours = kind == "NEUROADA"',
        'if name.startswith("peft-"): pass',
        'if name.startswith(("peft-", "own-")): pass',
        'if label.endswith("dora"): pass',
        'rank = label.removeprefix("shira")',
        'match name:\n    case "none":\n        pass',
        'match name:\n    case "ia3" | "other":\n        pass',
        'match run:\n    case {"method": "vera"}:\n        pass',
    ],
)
def test_a_planted_violation_is_found(line: str) -> None:
    assert len(violations(line)) == 1


@pytest.mark.parametrize(
    "line",
    [
        'MATCHES = ("neuroada", "masked")',
        'logger.info("lora")',
        'if name == "loras": pass',
        'if name.startswith("neuroada."): pass',
        "if method.can_shard: pass",
    ],
)
def test_what_asks_for_no_method_is_left_alone(line: str) -> None:
    assert violations(line) == []
