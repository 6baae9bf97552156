"""What the source of a class says about it is what the class says once it is imported."""

import inspect
from pathlib import Path

import pytest
import yaml

from neuroada.config.definitions import (
    ABSENT,
    UNDECIDED,
    Definition,
    class_constant,
    documentation,
    find,
    names_in,
    parameters,
)
from neuroada.config.signatures import _located

from ..quick_compose import CONF


def targets(node: object) -> set[str]:
    if isinstance(node, dict):
        own = {str(node["_target_"])} if "_target_" in node else set()
        return own.union(*(targets(value) for value in node.values()))
    return set()


SHIPPED = sorted(
    set().union(*(targets(yaml.safe_load(path.read_text())) for path in Path(CONF).rglob("*.yaml")))
    - {name for name in () if name}
)


@pytest.mark.parametrize("name", [name for name in SHIPPED if name.startswith(("torch.", "lightning.", "neuroada."))])
def test_every_shipped_class_is_read_as_it_is(name: str) -> None:
    found = find(name)
    assert isinstance(found, Definition)
    read = parameters(found)
    assert not isinstance(read, type(UNDECIDED))
    imported = inspect.signature(_located(name)).parameters
    assert list(read) == list(imported)
    required = [key for key, one in imported.items() if one.default is inspect.Parameter.empty]
    assert [key for key, one in read.items() if one.default is inspect.Parameter.empty] == required


@pytest.mark.parametrize(
    "name", ["torch.optim.AdmW", "lightning.pytorch.callbacks.Nope", "neuroada.jobs.finetune.fine"]
)
def test_what_a_module_does_not_have_is_absent(name: str) -> None:
    assert find(name) is ABSENT


@pytest.mark.parametrize("name", ["nowhere.X", "os.path.join", "torch.nn.functional.relu", "math.floor", "torch"])
def test_where_the_source_does_not_tell_it_is_undecided(name: str) -> None:
    assert find(name) is UNDECIDED or isinstance(find(name), Definition)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An importable package with names of all kinds."""
    folder = tmp_path / "made_up_package"
    folder.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    (folder / "__init__.py").write_text(
        "from made_up_package.inner import Base, Child as Renamed, twice\ndef __getattr__(name): ...\n"
    )
    (folder / "inner.py").write_text(
        "import functools\n"
        "class Base:\n"
        "    colour = 'red'\n"
        "    def __init__(self, a, b=1, *, c, d=2, **rest):\n"
        "        'Made.\\n\\nArgs:\\n    a: First.\\n    b: Second,\\n        at length.\\n'\n"
        "class Child(Base): ...\n"
        "class Made(metaclass=type): ...\n"
        "if len('x'):\n    def twice(): ...\nelse:\n    def twice(x): ...\n"
        "@functools.cache\ndef wrapped(x): ...\n"
    )
    return folder


@pytest.mark.usefixtures("package")
def test_constructors_are_inherited_and_followed_through_other_modules() -> None:
    child = find("made_up_package.Renamed")
    assert isinstance(child, Definition)
    assert child.module.name == "made_up_package.inner"
    read = parameters(child)
    assert isinstance(read, dict)
    assert list(read) == ["a", "b", "c", "d", "rest"]
    assert [key for key, one in read.items() if one.default is inspect.Parameter.empty] == ["a", "c", "rest"]


@pytest.mark.usefixtures("package")
def test_texts_and_constants_are_found() -> None:
    base = find("made_up_package.inner.Base")
    assert isinstance(base, Definition)
    assert documentation(base) == {"a": "First.", "b": "Second, at length."}
    assert (class_constant(base, "colour"), class_constant(base, "shape")) == ("red", None)
    child = find("made_up_package.inner.Child")
    assert isinstance(child, Definition)
    assert class_constant(child, "colour") == "red", "its base's"
    assert names_in("made_up_package.inner.Bse") == ["Base", "Child", "Made", "functools", "twice", "wrapped"]


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    "name", ["made_up_package.twice", "made_up_package.made_by_getattr", "made_up_package.inner.twice"]
)
def test_names_that_depend_on_what_runs_are_undecided(name: str) -> None:
    assert find(name) is UNDECIDED


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("name", ["made_up_package.inner.wrapped", "made_up_package.inner.Made"])
def test_signatures_that_depend_on_what_runs_are_undecided(name: str) -> None:
    found = find(name)
    assert isinstance(found, Definition)
    assert parameters(found) is UNDECIDED
