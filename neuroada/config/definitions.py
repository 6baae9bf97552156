"""Read the definition of a class or function from its source, without importing it.

Importing torch, Lightning or transformers takes seconds. Their source says at once which keywords a class takes, so
that a mistake in a configuration is reported before anything is imported. Where the source does not tell, the answer
is ``UNDECIDED``, and the caller imports.
"""

import ast
import enum
import functools
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


class Verdict(enum.Enum):
    """What the source says about a name that has no definition to show."""

    ABSENT = "absent"
    UNDECIDED = "undecided"


ABSENT, UNDECIDED = Verdict.ABSENT, Verdict.UNDECIDED

_MAX_HOPS = 12
"""Re-exports followed before giving up."""
# A module with one of these may have names that are not in its source.
_ADDS_NAMES = re.compile(r"__getattr__|import \*|globals\(\)|setattr\(|sys\.modules|__path__|__class__ =")
# Decorators that keep the signature they wrap.
_TRANSPARENT = {"_defaults_from_env_vars"}


@dataclass(frozen=True)
class Module:
    """A module found on disk.

    Attributes:
        name: Its full name.
        file: Its source.
    """

    name: str
    file: Path

    @property
    def package(self) -> str:
        """What relative imports in it are relative to."""
        return self.name if self.file.name == "__init__.py" else self.name.rpartition(".")[0]

    @property
    def text(self) -> str:
        """Its source text."""
        return _text(self.file)

    def statements(self) -> Iterator[ast.stmt]:
        """Its statements, including those inside ``if`` and ``try``."""
        yield from _flat(_parsed(self.file).body)


@dataclass(frozen=True)
class Definition:
    """A class or function, and the module that defines it."""

    node: ast.ClassDef | ast.FunctionDef
    module: Module


def find(name: str) -> Definition | Verdict:
    """The definition with a full dotted name, such as ``lightning.Trainer``."""
    module, rest = _module_of(name)
    if module is None or len(rest) != 1:
        return UNDECIDED
    found = _in_module(module, rest[0], _MAX_HOPS)
    if found is ABSENT and hasattr(sys.modules.get(name.rpartition(".")[0]), rest[0]):
        return UNDECIDED  # given to the module since it was imported
    return found


def names_in(name: str) -> list[str]:
    """The public names of the module that should define a dotted name; empty if it cannot be read."""
    module, _ = _module_of(name)
    if module is None:
        return []
    return sorted({bound for statement in module.statements() for bound in _bound(statement) if bound[:1] != "_"})


def missing_packages(found: Definition) -> list[str]:
    """The packages that the definition's module imports whenever it is imported, but that are not installed."""
    imported: list[str] = []
    for statement in _parsed(found.module.file).body:
        if isinstance(statement, ast.Import):
            imported += [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
            imported.append(statement.module)
    packages = dict.fromkeys(name.partition(".")[0] for name in imported)
    return [name for name in packages if name not in sys.modules and importlib.util.find_spec(name) is None]


def parameters(found: Definition) -> Mapping[str, inspect.Parameter] | Verdict:
    """The keywords that a function, or the constructor of a class, takes."""
    return _parameters(found, _MAX_HOPS)


def documentation(found: Definition, hops: int = _MAX_HOPS) -> Mapping[str, str]:
    """Parameter -> its text, from the ``Args`` section of the docstrings, its first base's included."""
    base = _first_base(found, hops) if hops else None
    texts: dict[str, str] = dict(documentation(base, hops - 1)) if isinstance(base, Definition) else {}
    nodes: list[ast.ClassDef | ast.FunctionDef] = [found.node]
    if isinstance(found.node, ast.ClassDef):
        nodes += [item for item in found.node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
    for node in nodes:
        texts |= _arguments(ast.get_docstring(node) or "")
    return texts


def class_constant(found: Definition, name: str, hops: int = _MAX_HOPS) -> object:
    """The constant that the body of a class, else that of its first base, gives a name; None if none does."""
    constants = [
        statement.value.value
        for statement in found.node.body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant) and name in _bound(statement)
    ]
    if constants:
        return constants[-1]
    base = _first_base(found, hops) if hops else None
    return class_constant(base, name, hops - 1) if isinstance(base, Definition) else None


def _module_of(name: str) -> tuple[Module | None, list[str]]:
    """The module on the way to a name, and the parts of the name behind it."""
    parts = name.split(".")
    try:
        spec = importlib.util.find_spec(parts[0])
    except (ImportError, ValueError):
        return None, parts
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None, parts
    module = Module(parts[0], Path(spec.origin))
    for place, part in enumerate(parts[1:], start=1):
        inner = _inside(module, part)
        if inner is None:
            return module, parts[place:]
        module = inner
    return module, []


def _inside(module: Module, part: str) -> Module | None:
    if module.file.name != "__init__.py":
        return None
    folder = module.file.parent
    for file in (folder / part / "__init__.py", folder / f"{part}.py"):
        if file.is_file():
            return Module(f"{module.name}.{part}", file)
    return None


def _in_module(module: Module, name: str, hops: int) -> Definition | Verdict:
    if hops == 0:
        return UNDECIDED
    found: Definition | Verdict | None = None
    for statement in module.statements():
        if name not in _bound(statement):
            continue
        if found is not None:  # bound twice: which one holds depends on what runs
            return UNDECIDED
        if isinstance(statement, ast.ClassDef | ast.FunctionDef):
            found = Definition(statement, module)
        elif isinstance(statement, ast.ImportFrom):
            found = _followed(statement, module, name, hops)
        else:
            return UNDECIDED
    if found is not None:
        return found
    return UNDECIDED if _ADDS_NAMES.search(module.text) or _inside(module, name) else ABSENT


def _followed(statement: ast.ImportFrom, module: Module, name: str, hops: int) -> Definition | Verdict:
    base = module.package.split(".")
    base = base[: len(base) - statement.level + 1] if statement.level else []
    source = ".".join([*base, *([statement.module] if statement.module else [])])
    original = next(alias.name for alias in statement.names if (alias.asname or alias.name) == name)
    origin, rest = _module_of(source)
    found = UNDECIDED if origin is None or rest else _in_module(origin, original, hops - 1)
    return UNDECIDED if found is ABSENT else found


def _bound(statement: ast.stmt) -> set[str]:
    """The names that a statement binds."""
    if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return {statement.name}
    if isinstance(statement, ast.ImportFrom | ast.Import):
        return {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    names = [name for target in targets for name in getattr(target, "elts", [target])]
    return {name.id for name in names if isinstance(name, ast.Name)}


def _flat(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        if isinstance(statement, ast.If | ast.Try):
            handlers = [line for handler in getattr(statement, "handlers", []) for line in handler.body]
            yield from _flat([*statement.body, *handlers, *statement.orelse, *getattr(statement, "finalbody", [])])
        else:
            yield statement


def _parameters(found: Definition, hops: int) -> Mapping[str, inspect.Parameter] | Verdict:
    node = found.node
    if isinstance(node, ast.FunctionDef):
        return UNDECIDED if _is_wrapped(node) else _of_function(node)
    names = {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)}
    is_record = [ast.unparse(one).partition("(")[0] for one in node.decorator_list] == ["dataclass"]
    if node.keywords or "__new__" in names or hops == 0 or (node.decorator_list and not is_record):
        return UNDECIDED
    if "__init__" in names:
        method = names["__init__"]
        return UNDECIDED if _is_wrapped(method) else dict(list(_of_function(method).items())[1:])
    inherited = _inherited(found, hops)
    if not is_record or isinstance(inherited, Verdict):
        return inherited
    return {**inherited, **_fields(node)}


def _inherited(found: Definition, hops: int) -> Mapping[str, inspect.Parameter] | Verdict:
    """What the constructor of the first base takes."""
    base = _first_base(found, hops)
    if base is None:
        return {}
    return _parameters(base, hops - 1) if isinstance(base, Definition) else UNDECIDED


def _first_base(found: Definition, hops: int) -> Definition | Verdict | None:
    """The definition of a class's first base; None without one."""
    if not isinstance(found.node, ast.ClassDef) or not found.node.bases:
        return None
    first = found.node.bases[0]
    return _in_module(found.module, first.id, hops - 1) if isinstance(first, ast.Name) else UNDECIDED


def _fields(node: ast.ClassDef) -> dict[str, inspect.Parameter]:
    """What the constructor of a dataclass takes for its own fields."""
    lines = [line for line in node.body if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)]
    texts = {line.target.id: (ast.unparse(line.annotation), line.value) for line in lines}  # type: ignore[union-attr]
    return {
        name: _parameter(name, inspect.Parameter.KEYWORD_ONLY, has_default=value is not None)
        for name, (annotation, value) in texts.items()
        if "ClassVar" not in annotation and not (value is not None and "init=False" in ast.unparse(value))
    }


def _is_wrapped(node: ast.FunctionDef) -> bool:
    return any(not (isinstance(one, ast.Name) and one.id in _TRANSPARENT) for one in node.decorator_list)


def _of_function(node: ast.FunctionDef) -> dict[str, inspect.Parameter]:
    positional = [*node.args.posonlyargs, *node.args.args]
    num_required = len(positional) - len(node.args.defaults)
    kind = inspect.Parameter
    taken = {
        argument.arg: _parameter(argument.arg, kind.POSITIONAL_OR_KEYWORD, has_default=place >= num_required)
        for place, argument in enumerate(positional)
    }
    for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        taken[argument.arg] = _parameter(argument.arg, kind.KEYWORD_ONLY, has_default=default is not None)
    if node.args.kwarg is not None:
        taken[node.args.kwarg.arg] = _parameter(node.args.kwarg.arg, kind.VAR_KEYWORD, has_default=False)
    return taken


def _parameter(name: str, kind: inspect._ParameterKind, *, has_default: bool) -> inspect.Parameter:
    return inspect.Parameter(name, kind, default=None if has_default else inspect.Parameter.empty)


def _arguments(docstring: str) -> dict[str, str]:
    """Name -> text of the lines below ``Args:``, as in Google's style."""
    match = re.search(r"^(?:Args|Arguments|Attributes):[ ]*\n((?:[ ]+.*\n?|\n)+)", docstring, flags=re.MULTILINE)
    if match is None:
        return {}
    lines = inspect.cleandoc("\n" + match[1])
    entries = re.split(r"^(\w+)(?: ?\([^\n]*?\))?: ?", lines, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in zip(entries[1::2], entries[2::2], strict=True)}


@functools.cache
def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


@functools.cache
def _parsed(file: Path) -> ast.Module:
    return ast.parse(_text(file))
