"""Files that services read: the citation, the workflows, the issue forms, the oldest versions."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
GITHUB = ROOT / ".github"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
_LEAST = re.compile(r"([\w.-]+)(?:\[\w+\])?>=([\d.]+)")
SUPPORTED_EXTRAS = ("gguf", "tensorboard", "peft", "plots", "lm_eval", "launchers", "optuna", "serve", "triton")
"""Extras whose packages the test environment has."""


def loaded(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_the_paper_is_the_preferred_citation() -> None:
    citation = loaded(ROOT / "CITATION.cff")
    paper = citation["preferred-citation"]
    bibtex = (ROOT / "README.md").read_text(encoding="utf-8")
    assert paper["url"] in bibtex
    assert f'pages = "{paper["start"]}--{paper["end"]}"' in bibtex
    names = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in paper["authors"])
    assert f'author = "{names}"' in bibtex


@pytest.mark.parametrize("path", sorted(GITHUB.glob("workflows/*.yml")), ids=lambda path: path.name)
def test_a_workflow_runs_targets_and_files_that_exist(path: Path) -> None:
    jobs = loaded(path)["jobs"].values()
    commands = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    assert commands
    for command in commands:
        for target in re.findall(r"^make ([\w-]+)", command, re.MULTILINE):
            assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target
        for name in re.findall(r"(?:docs|\.github)/[\w./-]+", command):
            assert (ROOT / name).exists(), name


def test_the_tests_run_with_pinned_oldest_and_newest_versions() -> None:
    matrix = loaded(GITHUB / "workflows" / "tests.yml")["jobs"]["test"]["strategy"]["matrix"]["include"]
    constraints = {entry["versions"]: entry["constraints"] for entry in matrix}
    assert constraints == {"pinned": "constraints.txt", "oldest": ".github/oldest.txt", "newest": "/dev/null"}
    assert PROJECT["requires-python"] == f">={min(entry['python'] for entry in matrix)}"


def test_the_oldest_versions_are_the_lower_bounds() -> None:
    lines = (GITHUB / "oldest.txt").read_text(encoding="utf-8").splitlines()
    oldest = dict(line.split("==") for line in lines if "==" in line)
    extras = [line for name in SUPPORTED_EXTRAS for line in PROJECT["optional-dependencies"][name]]
    bounds = dict(_LEAST.findall("\n".join([*PROJECT["dependencies"], *extras])))
    assert {name: shortened(version) for name, version in oldest.items()} == {
        name: shortened(version) for name, version in bounds.items()
    }


def shortened(version: str) -> str:
    """A version without the zeros at its end: 5.17 for 5.17.0."""
    return re.sub(r"(\.0)+$", "", version)


@pytest.mark.parametrize("name", ["bug.yml", "feature.yml"])
def test_an_issue_form_asks_for_something(name: str) -> None:
    form = loaded(GITHUB / "ISSUE_TEMPLATE" / name)
    assert {"name", "description", "body"} <= form.keys()
    assert any(field.get("validations", {}).get("required") for field in form["body"])
    fields = [field["id"] for field in form["body"]]
    assert len(fields) == len(set(fields))
