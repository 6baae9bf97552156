"""``docs/layout.md`` names what exists, and every part of the package."""

import re

from .documented import ROOT

PAGE = (ROOT / "docs" / "layout.md").read_text(encoding="utf-8")


def described() -> list[str]:
    """The paths of the listing, relative to the repository."""
    block = re.search(r"```text\n(.*?)```", PAGE, flags=re.DOTALL)
    assert block is not None
    paths, package = [], ""
    for line in block[1].splitlines():
        name = line.split()[0]
        paths.append(package + name if line.startswith("  ") else name)
        package = name if not line.startswith("  ") and name.endswith("/") else package
    return paths


def test_what_is_described_exists() -> None:
    assert [path for path in described() if not (ROOT / path).exists()] == []


def test_every_part_of_the_package_is_described() -> None:
    parts = {f"neuroada/{path.parent.name}/" for path in (ROOT / "neuroada").glob("*/__init__.py")}
    assert parts <= set(described())


def test_files_that_the_text_names_exist() -> None:
    named = re.findall(r"`((?:runs|config|jobs|report|training)/[\w/]+\.py)`", PAGE)
    assert named
    assert [name for name in named if not (ROOT / "neuroada" / name).exists()] == []


def test_every_sweep_is_in_the_list_of_sweeps() -> None:
    listed = re.findall(
        r"^\| \[(\w+)\]\(\1/README\.md\)", (ROOT / "sweeps" / "README.md").read_text(), flags=re.MULTILINE
    )
    assert sorted(listed) == sorted(path.parent.name for path in (ROOT / "sweeps").glob("*/README.md"))
